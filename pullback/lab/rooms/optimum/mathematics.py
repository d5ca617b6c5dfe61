"""Which optimum? A noisy inner solver on a loss with several, and what its gradients know of that.

The loss and the solver are those of the study (docs/study.md, :mod:`pullback.study.wells`).
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pullback.algorithms import imaml, maml
from pullback.core.problem import InnerProblem
from pullback.linear import CG
from pullback.study.noise import QUERY, SUPPORT
from pullback.study.parts import handed_over, mean_interval
from pullback.study.wells import NoisyDescent, loss, polish
from pullback.tasks import Task

RUNS = 200
"""Descents that are shown."""

MANY = 10_000
"""Descents of the derivative of the expected loss, which two hundred would drown in chance."""

DIFFERENCE = 0.05
"""h of the central difference (J(θ + h) − J(θ − h)) / 2h."""

STEPS = (5, 10, 20, 40, 80)
RATE, DECAY = 0.05, 20.0
TASK = Task(SUPPORT, QUERY)
_SETTLED = 1e-6


class Scene(NamedTuple):
    """What the visitor has set.

    Args:
        theta: θ.
        strength: λ.
        noise: standard deviation of a gradient's noise; positive.
        steps: noisy steps, one of :data:`STEPS`.
        seed: of the noise.
    """

    theta: float
    strength: float
    noise: float
    steps: int
    seed: int


class Well(NamedTuple):
    """One optimum that runs ended in.

    Args:
        phi: φ*.
        runs: how many ended here.
        outer: the query loss there.
        gradient: the implicit gradient there.
    """

    phi: float
    runs: int
    outer: float
    gradient: float


class Landings(NamedTuple):
    """Where the runs ended, and what gradients make of it.

    Args:
        scene: what was set.
        raw: where the noisy steps stopped, one for each run.
        well: the number in ``wells`` of each run; −1 for those in none, at a saddle.
        wells: the optima, from left to right.
        implicit: mean and interval of the implicit gradient over the runs.
        unrolled: the same through the noisy steps, as MAML does.
        largest: the largest of those in size.
        true: the derivative of the expected query loss, by finite differences.
    """

    scene: Scene
    raw: Float[np.ndarray, " runs"]
    well: Int[np.ndarray, " runs"]
    wells: tuple[Well, ...]
    implicit: dict[str, float]
    unrolled: dict[str, float]
    largest: float
    true: dict[str, float]


def problem(theta: Any, strength: Any) -> InnerProblem:
    """The inner problem: wells, and the pull toward θ."""
    return InnerProblem(loss, SUPPORT, jnp.asarray(theta), jnp.asarray(strength))


def _end(
    solver: NoisyDescent, theta: Array, strength: Array, key: PRNGKeyArray
) -> tuple[Array, Array]:
    given = problem(theta, strength)
    raw = solver.solve(given, theta, key).phi
    return raw, polish(given, raw, RATE)


@eqx.filter_jit
def _shown(
    solver: NoisyDescent, theta: Array, strength: Array, keys: PRNGKeyArray
) -> dict[str, Array]:
    given = problem(theta, strength)
    raw, polished = jax.vmap(lambda key: _end(solver, theta, strength, key))(keys)

    def implicit(phi: Array) -> Array:
        algorithm = imaml(
            loss,
            strength=strength,
            solver=handed_over(phi),
            linear_solver=CG(1, rtol=0.0),
            certify=None,
        )
        return algorithm.meta_gradient(theta, TASK, keys[0])[1]

    unrolling = maml(loss, solver=solver, strength=strength)
    return {
        "raw": raw,
        "polished": polished,
        "slope": jax.vmap(given.gradient)(polished),
        "outer": jax.vmap(lambda phi: loss(phi, QUERY))(polished),
        "implicit": jax.vmap(implicit)(polished),
        "unrolled": jax.vmap(lambda key: unrolling.meta_gradient(theta, TASK, key)[1])(keys),
    }


@eqx.filter_jit
def _expected(
    solver: NoisyDescent, theta: Array, strength: Array, keys: PRNGKeyArray
) -> Float[Array, " runs"]:
    """One central difference a run, with the same noise on both sides."""

    def outer(at: Array, key: PRNGKeyArray) -> Array:
        return loss(_end(solver, at, strength, key)[1], QUERY)

    above, below = (jax.vmap(functools.partial(outer, theta + h))(keys) for h in _SIDES)
    return (above - below) / (2 * DIFFERENCE)


_SIDES = (DIFFERENCE, -DIFFERENCE)


def land(scene: Scene) -> Landings:
    """Run the noisy solver many times, and differentiate.

    Args:
        scene: what is set.

    Returns:
        Where the runs ended and what the gradients are; numbers that are not finite, as where an
        optimum is born, are left out of the means.
    """
    with jax.enable_x64(True):
        key = jax.random.key(scene.seed)
        solver = NoisyDescent(scene.steps, RATE, DECAY, scene.noise)
        # As arrays, so that a slider compiles nothing anew.
        solver = jax.tree.map(jnp.asarray, solver)
        theta, strength = jnp.asarray(scene.theta), jnp.asarray(scene.strength)
        keys = jax.random.split(key, MANY)
        found = jax.device_get(_shown(solver, theta, strength, keys[:RUNS]))
        true = np.asarray(_expected(solver, theta, strength, keys))
    settled = np.isfinite(found["polished"]) & (np.abs(found["slope"]) < _SETTLED)
    well, wells = _wells(found, settled)
    unrolled = found["unrolled"][np.isfinite(found["unrolled"])]
    return Landings(
        scene,
        found["raw"],
        well,
        wells,
        _mean(found["implicit"][settled]),
        _mean(unrolled),
        float(np.max(np.abs(unrolled), initial=0.0)),
        _mean(true),
    )


def _mean(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    kept = values[np.isfinite(values)]
    if len(kept) < 2:
        return {"mean": float("nan"), "interval": float("nan")}
    return mean_interval(kept)


def _wells(
    found: dict[str, np.ndarray], settled: Bool[np.ndarray, " runs"]
) -> tuple[Int[np.ndarray, " runs"], tuple[Well, ...]]:
    """Runs sorted by the optimum they ended in: those closer than any two optima can be."""
    well = np.full(len(settled), -1)
    wells: list[Well] = []
    order = np.argsort(np.where(settled, found["polished"], np.inf))[: settled.sum()]
    for run in order:
        phi = float(found["polished"][run])
        if not wells or phi - wells[-1].phi > 1e-3:
            wells.append(Well(phi, 0, float(found["outer"][run]), float(found["implicit"][run])))
        wells[-1] = wells[-1]._replace(runs=wells[-1].runs + 1)
        well[run] = len(wells) - 1
    return well, tuple(wells)


def curves(
    scene: Scene, phi: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The support loss, that with the pull, and the query loss, over φ."""
    support, query = (np.asarray(loss(jnp.asarray(phi), batch)) for batch in TASK_BATCHES)
    return support, support + 0.5 * scene.strength * (phi - scene.theta) ** 2, query


TASK_BATCHES = (SUPPORT, QUERY)
