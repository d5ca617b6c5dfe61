"""Sine waves from a few points: four meta-trained initialisations, and their adaptation."""

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pullback.algorithms import ALGORITHMS, MetaAlgorithm
from pullback.algorithms.base import Report, report
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.lab.background import Progress
from pullback.lab.result_cache import CachedResult, ResultCache
from pullback.meta import training
from pullback.models import MLP, mean_squared_error
from pullback.solvers import LBFGS, GradientDescent, InnerSolver, run
from pullback.tasks import Sinusoid, TaskDistribution

MODEL = MLP()
TASKS = Sinusoid(shots=5, queries=10)
SEED = 0
MAX_POINTS = 12
X_RANGE, Y_RANGE = (-5.0, 5.0), (-6.0, 6.0)
STEPS = (1, 2, 4, 8, 16, 32, 64)
"""The inner steps to choose from; L-BFGS is compiled for each number."""


@dataclass(frozen=True)
class Recipe:
    """How one initialisation is meta-trained.

    Args:
        name: a name in ``ALGORITHMS``.
        inner_steps: of the inner solver: L-BFGS for iMAML, gradient descent for the others.
        inner_rate: learning rate of gradient descent.
        strength: λ; 0 for no proximal term.
        steps: meta-steps.
        tasks_per_step: tasks of a meta-step.
        rate: the first learning rate of the outer Adam.
    """

    name: str
    inner_steps: int
    inner_rate: float
    strength: float
    steps: int
    tasks_per_step: int
    rate: float

    def solver(self, steps: int) -> InnerSolver:
        """Its inner solver with a number of steps."""
        if ALGORITHMS[self.name].implicit:
            return LBFGS(steps)
        return GradientDescent(steps, self.inner_rate)

    def algorithm(self) -> MetaAlgorithm:
        """The algorithm that it trains with."""
        loss = mean_squared_error(MODEL.apply)
        entry = ALGORITHMS[self.name]
        # The certificate is not shown here, and it doubles the time to compile.
        options: dict[str, Any] = {"certify": None} if entry.implicit else {}
        options |= {"solver": self.solver(self.inner_steps), "strength": self.strength or None}
        return entry.make(loss, **options)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("imaml", 16, 0.0, 2.0, 400, 16, 5e-3),
        Recipe("maml", 10, 0.002, 0.0, 1000, 16, 5e-3),
        Recipe("fomaml", 10, 0.002, 0.0, 1000, 16, 5e-3),
        Recipe("reptile", 10, 0.002, 0.0, 1000, 16, 5e-3),
    )
}


def untrained() -> Params:
    """The parameters that all four start from."""
    return MODEL.init(jax.random.key(SEED))


def result_cache(recipe: Recipe, cache_dir: Path | str | None = None) -> ResultCache:
    """Where a meta-trained initialisation is stored."""
    like = jax.eval_shape(untrained)
    return ResultCache(f"sine-{recipe.name}", (recipe, MODEL, TASKS, SEED), like, cache_dir)


def train(
    recipe: Recipe,
    progress: Progress,
    *,
    tasks: TaskDistribution = TASKS,
    cache_dir: Path | str | None = None,
) -> CachedResult:
    """Meta-train an initialisation, or read it from the cache.

    Args:
        recipe: how.
        progress: gets the meta-steps done and the seconds since the start, again and again; what
            it raises ends the training.
        tasks: what is trained on.
        cache_dir: folder of the cache; None for the user's.

    Returns:
        The parameters, and as facts ``seconds`` and ``steps``.

    Raises:
        NumericalError: if the training diverged.
    """
    cache = result_cache(recipe, cache_dir)
    cached = cache.get()
    if cached is not None:
        return cached
    began = time.perf_counter()
    progress(0, 0.0)
    result = training.train(
        recipe.algorithm(),
        untrained(),
        tasks,
        steps=recipe.steps,
        key=jax.random.key(SEED),
        tasks_per_step=recipe.tasks_per_step,
        optimizer=training.default_optimizer(recipe.steps, recipe.rate),
        on_block=lambda state, _: progress(int(state.step), time.perf_counter() - began),
        block_seconds=0.5,
    )
    seconds = time.perf_counter() - began
    return cache.put(result.theta, {"seconds": seconds, "steps": recipe.steps})


class Points(NamedTuple):
    """Support points, padded to one shape: those of weight 0 do not count."""

    x: Float[Array, "n 1"]
    y: Float[Array, "n 1"]
    weight: Float[Array, "n 1"]


def pad_points(points: Float[np.ndarray, "k 2"]) -> Points:
    """Up to :data:`MAX_POINTS` points as a batch of one shape, so that nothing compiles anew."""
    padded = np.zeros((MAX_POINTS, 3), np.float32)
    padded[: len(points), :2], padded[: len(points), 2] = points, 1.0
    return Points(*(jnp.asarray(padded[:, i : i + 1]) for i in range(3)))


def loss(params: Params, batch: Points) -> Float[Array, ""]:
    """The mean squared error over the points that are there."""
    errors = batch.weight * (MODEL.apply(params, batch.x) - batch.y) ** 2
    return jnp.sum(errors) / jnp.maximum(1.0, jnp.sum(batch.weight))


class Fit(NamedTuple):
    """One initialisation before and after adaptation to the points.

    Args:
        before: the curve of θ over :func:`grid`.
        after: the curve of the adapted φ.
        loss_before: the support loss of θ.
        loss_after: the support loss of φ.
        report: how the inner problem was solved.
    """

    before: Float[Array, " n"]
    after: Float[Array, " n"]
    loss_before: Float[Array, ""]
    loss_after: Float[Array, ""]
    report: Report


def grid(points: int = 161) -> Float[np.ndarray, " n"]:
    """Where curves are evaluated."""
    return np.linspace(*X_RANGE, points, dtype=np.float32)


@functools.partial(jax.jit, static_argnames=("recipe", "steps"))
def _fit(
    recipe: Recipe,
    steps: int,
    theta: Params,
    batch: Points,
    strength: Float[Array, ""],
    x: Float[Array, "n 1"],
) -> Fit:
    problem = InnerProblem(loss, batch, theta, strength if recipe.strength else None)
    solution = run(recipe.solver(steps), problem, theta, jax.random.key(0))
    before, after = (MODEL.apply(params, x)[:, 0] for params in (theta, solution.phi))
    losses = loss(theta, batch), loss(solution.phi, batch)
    return Fit(before, after, *losses, report(problem, solution))


def fit(
    name: str, theta: Params, points: Float[np.ndarray, "k 2"], strength: float, steps: int
) -> Fit:
    """Adapt an initialisation to some points.

    Args:
        name: the algorithm that trained it, a key of :data:`RECIPES`.
        theta: the initialisation.
        points: the support set; it may be empty.
        strength: λ, for iMAML.
        steps: inner steps, one of :data:`STEPS`.

    Returns:
        The curves and losses before and after, as NumPy arrays.
    """
    x = jnp.asarray(grid())[:, None]
    found = _fit(RECIPES[name], steps, theta, pad_points(points), jnp.float32(strength), x)
    return jax.device_get(found)
