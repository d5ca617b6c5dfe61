"""Which optimum? A stochastic inner solver on a loss with several minima, and its meta-gradients.

The loss and the solver are those of the study (docs/study.md, :mod:`pullback.study.wells`).
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pullback.algorithms import imaml, maml
from pullback.core.problem import InnerProblem
from pullback.linear import CG
from pullback.study.noise import QUERY, SUPPORT
from pullback.study.parts import handed_over, mean_interval
from pullback.study.wells import WAVE, NoisyDescent, loss
from pullback.tasks import Task

RUNS = 200
"""Descents that are shown."""

MANY = 10_000
"""Descents behind the derivative of the expected loss; with fewer it is too noisy."""

STEPS = (5, 10, 20, 40, 80)
DECAY = 20.0
TASK = Task(SUPPORT, QUERY)

STEEPEST = SUPPORT.curvature / WAVE + abs(SUPPORT.tilt)
"""The largest slope of the support loss: at an optimum φ* the pull λ|φ* − θ| is no larger."""

GRID = 20_001
ROOM_FOR = 80
"""Optima and ridges that are refined at once; at λ = 0.1, the least here, there are at most 65."""

FLAT = 1e-6
"""A curvature H + λ below this is none: there φ* has no derivative."""


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
        runs: how many of the shown descents ended here.
        outer: the query loss at φ*.
        gradient: the implicit gradient at φ*; NaN where φ* has no derivative.
    """

    phi: float
    runs: int
    outer: float
    gradient: float


class Landscape(NamedTuple):
    """The optima of the inner problem, and the ridges between them, from left to right.

    Steps no longer than 1/(10 + λ) take no φ past an optimum or a ridge. So following the gradient
    down from any point leads to the optimum between the same two ridges.

    Args:
        optima: φ* of each well.
        outer: the query loss at each.
        gradients: the implicit gradient at each; NaN where φ* has no derivative.
        ridges: one fewer.
        motions: the derivative of each ridge with respect to θ.
    """

    optima: Float[np.ndarray, " wells"]
    outer: Float[np.ndarray, " wells"]
    gradients: Float[np.ndarray, " wells"]
    ridges: Float[np.ndarray, " ridges"]
    motions: Float[np.ndarray, " ridges"]


class Descents(NamedTuple):
    """Where the descents ended, and their meta-gradients.

    Args:
        settings: what was set.
        raw: where the noisy steps of each descent stopped.
        well: the optimum of each descent as its index in ``wells``.
        wells: the optima that descents ended in, from left to right.
        implicit: mean and interval of the implicit gradient over the descents.
        unrolled: the same of the gradient through the noisy steps, as in MAML.
        largest: the largest absolute value of the unrolled gradients.
        true: the derivative of the expected query loss.
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


def first_rate(strength: float) -> float:
    """The size of the first step: 0.55/(10 + λ), where 10 + λ is the largest curvature."""
    return 0.55 / (SUPPORT.curvature + strength)


@jax.jit
def _slopes(theta: Array, strength: Array) -> tuple[Array, Array]:
    reach = 1.01 * STEEPEST / strength
    grid = theta + reach * jnp.linspace(-1.0, 1.0, GRID)
    return grid, jax.vmap(problem(theta, strength).gradient)(grid)


@jax.jit
def _refine(theta: Array, strength: Array, low: Array, high: Array) -> tuple[Array, ...]:
    """Where the gradient changes its sign, and the curvature, query loss and gradient there."""
    given = problem(theta, strength)

    def halve(_: Array, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = 0.5 * (low + high)
        same = (given.gradient(middle) < 0) == (given.gradient(low) < 0)
        return jnp.where(same, middle, low), jnp.where(same, high, middle)

    def at(low: Array, high: Array) -> tuple[Array, ...]:
        phi, _ = jax.lax.fori_loop(0, 60, halve, (low, high))
        algorithm = imaml(
            loss,
            strength=strength,
            solver=handed_over(phi),
            linear_solver=CG(1, rtol=0.0),
            certify=None,
        )
        outer, gradient, _ = algorithm.meta_gradient(theta, TASK, jax.random.key(0))
        return phi, jax.grad(given.gradient)(phi), outer, gradient

    return jax.vmap(at)(low, high)


def landscape(theta: float, strength: float) -> Landscape:
    """The optima and ridges of the inner problem, in 64 bits.

    Args:
        theta: θ.
        strength: λ, at least 0.1.

    Returns:
        All of them, to rounding.
    """
    with jax.enable_x64(True):
        where = jnp.asarray(theta, float), jnp.asarray(strength, float)
        grid, slopes = (np.asarray(part) for part in _slopes(*where))
        # From below zero at the left end to above it at the right: first comes an optimum, then
        # a ridge and an optimum in turn.
        changes = np.flatnonzero((slopes[:-1] < 0) != (slopes[1:] < 0))
        padded = np.pad(changes, (0, ROOM_FOR - len(changes)), mode="edge")
        found = jax.device_get(_refine(*where, grid[padded], grid[padded + 1]))
    phi, curvature, outer, gradient = (part[: len(changes)] for part in found)
    gradient = np.where(np.abs(curvature) < FLAT, np.nan, gradient)
    return Landscape(phi[::2], outer[::2], gradient[::2], phi[1::2], strength / curvature[1::2])


@eqx.filter_jit
def _ends(solver: NoisyDescent, thetas: Array, strength: Array, keys: PRNGKeyArray) -> Array:
    """Where the noisy steps stop, for each θ with the same noise."""

    def end(theta: Array, key: PRNGKeyArray) -> Array:
        return solver.solve(problem(theta, strength), theta, key).phi

    return jax.vmap(jax.vmap(end, (None, 0)), (0, None))(thetas, keys)


@eqx.filter_jit
def _unrolled(solver: NoisyDescent, theta: Array, strength: Array, keys: PRNGKeyArray) -> Array:
    unrolling = maml(loss, solver=solver, strength=strength)
    return jax.vmap(lambda key: unrolling.meta_gradient(theta, TASK, key)[1])(keys)


def _difference(settings: Settings, there: Landscape) -> float:
    """h of the central differences: small beside the noise of one step, and as ridges move."""
    noise = first_rate(settings.strength) * settings.noise
    return min(0.03, noise / 8) / np.max(np.abs(there.motions), initial=1.0)


def descend(settings: Settings) -> Descents:
    """Run the stochastic solver many times, and differentiate.

    The derivative of the expected loss J is that of ``Σ pₖ Lₖ``: the implicit gradient where each
    descent ends, and the central difference of the odds of ending beyond each ridge, times the
    step of the query loss there, with the same noise on both sides.

    Args:
        settings: what is set.

    Returns:
        Where the descents ended, and their meta-gradients; a mean is NaN where an optimum that
        descents end in has no derivative.
    """
    there = landscape(settings.theta, settings.strength)
    h = _difference(settings, there)
    with jax.enable_x64(True):
        solver = NoisyDescent(settings.steps, first_rate(settings.strength), DECAY, settings.noise)
        # As arrays, so that a slider compiles nothing anew.
        solver = jax.tree.map(jnp.asarray, solver)
        strength = jnp.asarray(settings.strength)
        thetas = settings.theta + h * jnp.array([0.0, 1.0, -1.0])
        keys = jax.random.split(jax.random.key(settings.seed), MANY)
        here, above, below = np.asarray(_ends(solver, thetas, strength, keys))
        unrolled = np.asarray(_unrolled(solver, thetas[0], strength, keys[:RUNS]))
    well = np.searchsorted(there.ridges, here)
    beyond = [
        ends[:, None] > there.ridges + change * there.motions
        for ends, change in ((above, h), (below, -h))
    ]
    moved = (beyond[0].astype(float) - beyond[1]) / (2 * h) @ np.diff(there.outer)
    kept, shown, runs = np.unique(well[:RUNS], return_inverse=True, return_counts=True)
    parts = there.optima[kept], runs, there.outer[kept], there.gradients[kept]
    return Descents(
        settings,
        here[:RUNS],
        shown,
        tuple(Well(*numbers) for numbers in zip(*(p.tolist() for p in parts), strict=True)),
        mean_interval(there.gradients[well[:RUNS]]),
        mean_interval(unrolled),
        float(np.abs(unrolled).max()),
        mean_interval(there.gradients[well] + moved),
    )


def curves(
    settings: Settings, phi: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The support loss, that with the pull, and the query loss, over φ."""
    support, query = (np.asarray(loss(jnp.asarray(phi), batch)) for batch in (SUPPORT, QUERY))
    return support, support + 0.5 * settings.strength * (phi - settings.theta) ** 2, query
