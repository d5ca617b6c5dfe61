"""Adapt to many new tasks, score each on its query set, and say how sure the mean is."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from pullback.algorithms.adapted import OfAdapted, check_outer
from pullback.algorithms.base import MetaAlgorithm, Theta, check_algorithm
from pullback.core import display, results
from pullback.core.checks import check_key, check_params, check_value
from pullback.core.errors import InputError, check_counts
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.meta import multihost, parallel
from pullback.tasks.base import TaskDistribution, check_tasks

Metric = Callable[[Params, PyTree[Any]], Float[Array, ""]] | OfAdapted
"""``metric(phi, query) -> scalar``, or of more than φ."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores over many tasks.

    Args:
        scores: one score per task.
        inner_residuals: relative stationarity residual per task, as in ``Report``.
        codes: the number of a :class:`~pullback.core.results.Verdict` per task.
    """

    scores: np.ndarray
    inner_residuals: np.ndarray
    codes: np.ndarray

    @property
    def mean(self) -> float:
        """The mean score."""
        return float(np.mean(self.scores))

    @property
    def interval(self) -> float:
        """Half the width of the 95 % confidence interval of the mean (normal, over tasks)."""
        if len(self.scores) < 2:
            return float("nan")
        with np.errstate(invalid="ignore"):
            return float(1.96 * np.std(self.scores, ddof=1) / len(self.scores) ** 0.5)

    @property
    def failed(self) -> int:
        """How many tasks ended with a number that is not finite."""
        return int(np.sum(self.codes == Verdict.NOT_FINITE))

    def __repr__(self) -> str:
        counts = display.count_codes(self.codes)
        fields = {
            "score": f"{self.mean:.4g} ± {self.interval:.2g} (95 % interval of the mean)",
            "inner_residual": display.range_text(self.inner_residuals),
            "verdicts": display.verdicts_text(counts),
        }
        messages = display.advice(counts, results.message)
        return display.summary(f"Evaluation: {len(self.scores)} tasks", fields, messages=messages)

    def records(self) -> list[dict[str, float | int]]:
        """One record per task."""
        rows = zip(self.scores, self.inner_residuals, self.codes, strict=True)
        return [
            {"task": i, "score": float(s), "inner_residual": float(r), "code": int(c)}
            for i, (s, r, c) in enumerate(rows)
        ]


def evaluate(
    algorithm: MetaAlgorithm,
    theta: Theta,
    tasks: TaskDistribution,
    *,
    metric: Metric,
    key: PRNGKeyArray,
    count: int = 600,
    block: int = 100,
    on_block: Callable[[int], None] | None = None,
    strategy: str = "auto",
    devices: int | None = None,
) -> Evaluation:
    """Adapt to ``count`` tasks on their support sets, and score each on its query set.

    Task ``i`` is drawn with ``fold_in(key, i)``: the same key gives the same tasks.

    Args:
        algorithm: whose ``adapt`` is used.
        theta: what was meta-learned.
        tasks: where tasks come from.
        metric: ``metric(phi, query) -> scalar``, or an :class:`~pullback.algorithms.OfAdapted`.
        key: for episodes and solvers.
        count: number of tasks.
        block: tasks per dispatch.
        on_block: called with the number of tasks done after each dispatch.
        strategy: a name in :data:`pullback.registries.STRATEGIES`.
        devices: the most devices of each process to spread tasks over; all if None.

    Returns:
        The scores, residuals and codes of all tasks.

    Raises:
        InputError: if a number is not positive, or the algorithm, θ, tasks, metric or key are
            none, or do not go together.
    """
    check_algorithm(algorithm)
    check_key("evaluate", key)
    check_tasks(tasks)
    check_outer("metric", metric)
    if isinstance(metric, OfAdapted) and algorithm.adapted is None:
        raise InputError(
            "The metric is an OfAdapted, and the algorithm has no inner problem to show it",
            allowed="an algorithm of pullback.imaml or pullback.learned_imaml",
            remedy="Give metric(phi, query)",
        )
    check_counts("evaluate", count=count, block=block)
    theta = check_params(theta)
    most = parallel.count_devices(devices) * multihost.count()
    # Every block has the same size, so that one program serves all; what exceeds is dropped.
    block = min(block, -(-count // most) * most)
    block = max(1, block // most) * most
    mesh = parallel.task_mesh(block, devices)
    theta, tasks, key = parallel.replicate((theta, tasks, key), mesh)
    strategy = parallel.find_strategy(strategy)
    parts = []
    for first in range(0, count, block):
        numbers = jnp.arange(first, first + block)
        part = _evaluate_block(
            theta,
            tasks,
            key,
            numbers,
            algorithm=algorithm,
            metric=metric,
            strategy=strategy,
            mesh=mesh,
        )
        parts.append(jax.tree.map(np.asarray, part))
        if on_block is not None:
            on_block(min(first + block, count))
    columns = (np.concatenate(column)[:count] for column in zip(*parts, strict=True))
    return Evaluation(*columns)


@functools.partial(jax.jit, static_argnames=("algorithm", "metric", "strategy", "mesh"))
def _evaluate_block(theta, tasks, key, numbers, *, algorithm, metric, strategy, mesh):
    # jit inside jit: traced once, however often XLA's loops ask for it; see ``training``.
    @jax.jit
    def one_task(shared, number):
        theta, tasks, key = shared
        episode_key, solver_key = jax.random.split(jax.random.fold_in(key, number))
        task = tasks.sample(episode_key)
        phi, report = algorithm.adapt(theta, task.support, solver_key)
        seen = phi
        if isinstance(metric, OfAdapted):
            assert algorithm.adapted is not None
            seen = algorithm.adapted(theta, task.support, phi, report)
        check_value(metric, seen, task.query, "metric")
        score = metric(seen, task.query)
        code = jnp.where(jnp.isfinite(score), report.code, Verdict.NOT_FINITE)
        return (), (score, report.inner_residual, code)

    _, stacked = parallel.over_tasks(one_task, (theta, tasks, key), numbers, strategy, mesh)
    return parallel.gathered(stacked, mesh)
