"""What the parts of the study have in common."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers import BlackBox

Tick = Callable[[int], None]
"""Told how many programs of a part are done."""

Result = dict[str, Any]
"""What a part measured, as JSON has it."""


def handed_over(phi: Params) -> BlackBox:
    """A black box that returns a solution found before: iMAML asks for no more than that."""

    def solver(problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Params:
        return phi

    return solver


def spread(values: np.ndarray, axis: int = -1) -> dict[str, list[float]]:
    """Median and quartiles over one axis, by name."""
    with np.errstate(invalid="ignore"):
        quartiles = np.quantile(values, (0.25, 0.5, 0.75), axis=axis)
    # Between two infinite values, which are no estimates, lies another one.
    unknown = np.isnan(quartiles) & ~np.isnan(values).any(axis)
    low, median, high = np.where(unknown, np.inf, quartiles)
    return {"median": median.tolist(), "low": low.tolist(), "high": high.tolist()}


def mean_interval(values: np.ndarray) -> dict[str, float]:
    """The mean of independent values, and half the width of its 95 % interval."""
    half = 1.96 * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return {"mean": float(np.mean(values)), "interval": half}


def keys_of(seed: int, number: int) -> PRNGKeyArray:
    """The key of one part: parts draw the same whether or not others are run."""
    return jax.random.fold_in(jax.random.key(seed), number)
