"""Which optimum? A stochastic inner solver on a loss with several minima, and its meta-gradients.

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

PAIRS = 10_000
"""Pairs of descents behind the derivative of the expected loss; with fewer it is too noisy."""

DIFFERENCE = 0.05
"""h of the central difference (J(θ + h) − J(θ − h)) / 2h."""

STEPS = (5, 10, 20, 40, 80)
RATE, DECAY = 0.05, 20.0
TASK = Task(SUPPORT, QUERY)
_SETTLED = 1e-6


class Settings(NamedTuple):
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
    """An optimum that descents ended in.

    Args:
        phi: φ*.
        runs: how many descents ended here.
        outer: the query loss at φ*.
        gradient: the implicit gradient at φ*.
    """

    phi: float
    runs: int
    outer: float
    gradient: float


class Descents(NamedTuple):
    """Where the descents ended, and their meta-gradients.

    Args:
        settings: what was set.
        raw: where the noisy steps of each descent stopped.
        well: the optimum of each descent as its index in ``wells``; −1 if it settled in
            none.
        wells: the optima, from left to right.
        implicit: mean and interval of the implicit gradient over the descents.
        unrolled: the same of the gradient through the noisy steps, as in MAML.
        largest: the largest absolute value of the unrolled gradients.
        true: the derivative of the expected query loss, by finite differences.
    """

    settings: Settings
    raw: Float[np.ndarray, " runs"]
    well: Int[np.ndarray, " runs"]
    wells: tuple[Well, ...]
    implicit: dict[str, float]
    unrolled: dict[str, float]
    largest: float
    true: dict[str, float]


def problem(theta: Any, strength: Any) -> InnerProblem:
    """The inner problem: the loss with its wells, and the pull toward θ."""
    return InnerProblem(loss, SUPPORT, jnp.asarray(theta), jnp.asarray(strength))


def _descend(
    solver: NoisyDescent, theta: Array, strength: Array, key: PRNGKeyArray
) -> tuple[Array, Array]:
    given = problem(theta, strength)
    raw = solver.solve(given, theta, key).phi
    return raw, polish(given, raw, RATE)


@eqx.filter_jit
def _run(
    solver: NoisyDescent, theta: Array, strength: Array, keys: PRNGKeyArray
) -> dict[str, Array]:
    given = problem(theta, strength)
    raw, polished = jax.vmap(lambda key: _descend(solver, theta, strength, key))(keys)

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
    """A central difference for each key, with the same noise on both sides."""

    def outer(at: Array, key: PRNGKeyArray) -> Array:
        return loss(_descend(solver, at, strength, key)[1], QUERY)

    above, below = (
        jax.vmap(functools.partial(outer, theta + h))(keys) for h in (DIFFERENCE, -DIFFERENCE)
    )
    return (above - below) / (2 * DIFFERENCE)


def descend(settings: Settings) -> Descents:
    """Run the stochastic solver many times, and differentiate.

    Args:
        settings: what is set.

    Returns:
        Where the descents ended, and their meta-gradients. What is not finite, as where the
        curvature H + λ is zero, is left out of the means.
    """
    with jax.enable_x64(True):
        key = jax.random.key(settings.seed)
        solver = NoisyDescent(settings.steps, RATE, DECAY, settings.noise)
        # As arrays, so that a slider compiles nothing anew.
        solver = jax.tree.map(jnp.asarray, solver)
        theta, strength = jnp.asarray(settings.theta), jnp.asarray(settings.strength)
        keys = jax.random.split(key, PAIRS)
        found = jax.device_get(_run(solver, theta, strength, keys[:RUNS]))
        true = np.asarray(_expected(solver, theta, strength, keys))
    settled = np.isfinite(found["polished"]) & (np.abs(found["slope"]) < _SETTLED)
    well, wells = _wells(found, settled)
    unrolled = found["unrolled"][np.isfinite(found["unrolled"])]
    return Descents(
        settings,
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
    """Each descent's optimum: ends that are closer than two optima can be are the same one."""
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
    settings: Settings, phi: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The support loss, that with the pull, and the query loss, over φ."""
    support, query = (np.asarray(loss(jnp.asarray(phi), batch)) for batch in (SUPPORT, QUERY))
    return support, support + 0.5 * settings.strength * (phi - settings.theta) ** 2, query
