"""Groups held back: how well a method predicts a group of which it has seen the first few rows.

Groups are dealt into folds. A method is fitted to the groups of all folds but one; each group of
that one shows its first k rows, and the others are predicted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm

SHOTS = (0, 1, 2, 3, 5)
"""How many of its first rows a held-back group shows."""

FOLDS = 5

COVERAGE = 0.9
"""Of the intervals that are scored."""

Predict = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From the numbers of the rows that are seen, and of those asked for, to a prediction of each of
the latter; both of any number of groups, each of which may learn from its own rows alone."""

Fit = Callable[[np.ndarray], Predict]
"""From one truth value for each row, whether it may be fitted to, to the fitted method."""

Measure = Callable[[np.ndarray, np.ndarray], Mapping[str, float]]
"""From targets and their predictions to scores by name."""


def deal(groups: int, seed: int, folds: int = FOLDS) -> Int[np.ndarray, " groups"]:
    """The fold of each group, at random and of nearly equal numbers."""
    fold = np.empty(groups, int)
    fold[np.random.default_rng(seed).permutation(groups)] = np.arange(groups) % folds
    return fold


def place_in_group(group: Int[np.ndarray, " rows"]) -> Int[np.ndarray, " rows"]:
    """Of each row, how many rows of its group stand before it."""
    order = np.argsort(group, kind="stable")
    _, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    place = np.empty(len(group), int)
    place[order] = np.arange(len(group)) - np.repeat(first, counts)
    return place


def score(
    fit: Fit,
    measure: Measure,
    y: np.ndarray,
    group: Int[np.ndarray, " rows"],
    place: Int[np.ndarray, " rows"],
    fold: Int[np.ndarray, " groups"],
    shots: Sequence[int] = SHOTS,
) -> dict[int, dict[str, float]]:
    """Score a method on each fold's groups.

    Args:
        fit: the method.
        measure: is given all targets and predictions of one number of rows seen.
        y: the target of each row.
        group: the number of each row's group.
        place: how many rows of its group stand before it.
        fold: of each group.
        shots: numbers of rows seen.

    Returns:
        By the number of rows seen, the measured scores and how many rows were predicted; without
        those numbers that leave no row of any group to predict.
    """
    found: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {k: [] for k in shots}
    for number in np.unique(fold):
        held = fold[group] == number
        predict = fit(~held)
        for k in shots:
            seen, asked = np.flatnonzero(held & (place < k)), np.flatnonzero(held & (place >= k))
            if len(asked):
                found[k].append((y[asked], predict(seen, asked)))
    scores = {}
    for k, parts in found.items():
        if parts:
            targets, predicted = (np.concatenate(each) for each in zip(*parts, strict=True))
            scores[k] = {**measure(targets, predicted), "rows": len(targets)}
    return scores


def group_by_group(
    predict: Callable[[np.ndarray, np.ndarray], np.ndarray], group: Int[np.ndarray, " rows"]
) -> Predict:
    """A method that predicts one group at a time, as one that predicts any number.

    Args:
        predict: is given rows of one group.
        group: the number of each row's group.

    Returns:
        The same for rows of several groups.
    """

    def predict_all(seen: np.ndarray, asked: np.ndarray) -> np.ndarray:
        parts = {}
        for one in np.unique(group[asked]):
            own = np.flatnonzero(group[asked] == one)
            parts.update(zip(own, predict(seen[group[seen] == one], asked[own]), strict=True))
        return np.array([parts[i] for i in range(len(asked))])

    return predict_all


def regression(
    y: Float[np.ndarray, " rows"], predicted: Float[np.ndarray, "rows 2"]
) -> dict[str, float]:
    """Scores of a mean and a standard deviation for each target.

    Args:
        y: the targets.
        predicted: both, for each.

    Returns:
        The root mean square error, the share of targets within intervals of 90 %, their mean
        width, and the mean negative logarithm of the predictive density.
    """
    mean, deviation = predicted.T
    reach = norm.ppf(0.5 + COVERAGE / 2) * deviation
    error = y - mean
    return {
        "error": float(np.sqrt(np.mean(error**2))),
        "coverage": float(np.mean(np.abs(error) <= reach)),
        "width": float(np.mean(2 * reach)),
        "nll": float(-np.mean(norm.logpdf(y, mean, deviation))),
    }


def classification(
    y: Int[np.ndarray, " rows"], predicted: Float[np.ndarray, "rows classes"]
) -> dict[str, float]:
    """Scores of a probability for each class.

    Args:
        y: the number of each row's class.
        predicted: probabilities.

    Returns:
        The log loss, the accuracy, and the expected calibration error over ten bins of the
        predicted class's probability (Guo et al. 2017, eq. 3).
    """
    chosen = predicted.argmax(1)
    sure = predicted.max(1)
    right = chosen == y
    bins = np.minimum((10 * sure).astype(int), 9)
    apart = np.bincount(bins, sure - right, minlength=10)
    own = np.take_along_axis(predicted, y[:, None], 1)
    return {
        "log_loss": float(-np.mean(np.log(np.maximum(own, 1e-15)))),
        "accuracy": float(np.mean(right)),
        "calibration_error": float(np.abs(apart).sum() / len(y)),
    }


def sample(
    group: Int[np.ndarray, " rows"], groups: int, most: int, random: Any
) -> Bool[np.ndarray, " rows"]:
    """Whole groups, drawn at random, of at most so many rows; rows where that were few groups.

    Args:
        group: the number of each row's group.
        groups: how many there are.
        most: rows.
        random: draws them.

    Returns:
        One truth value for each row.
    """
    if len(group) <= most:
        return np.ones(len(group), bool)
    order = random.permutation(groups)
    sizes = np.bincount(group, minlength=groups)[order]
    fitting = order[: np.searchsorted(np.cumsum(sizes), most, side="right")]
    if len(fitting) >= 100:
        return np.isin(group, fitting)
    chosen = np.zeros(len(group), bool)
    chosen[random.permutation(len(group))[:most]] = True
    return chosen
