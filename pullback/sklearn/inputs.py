"""What an estimator is given: X as columns by name, y as numbers, and what looks like a mistake."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, validate_data

from pullback.core.errors import InputError, check_number
from pullback.grouped.pooled import FEWEST_GROUPS
from pullback.grouped.table import LARGEST, columns_of

Columns = Sequence[tuple[str, np.ndarray]]
"""The columns of a table by name."""

MANY_GROUPS = 20
"""Of so many groups, whole numbers that were measured are seldom all different."""


def read_columns(estimator: Any, X: Any, *, reset: bool, may_be_empty: bool = False) -> Columns:
    """X as columns.

    Args:
        estimator: is told of the columns by ``reset``, and holds them against those it knows.
        X: an array of numbers, or a data frame.
        reset: whether this is a fit.
        may_be_empty: whether it may have no rows.

    Returns:
        An array for each column, with its name.

    Raises:
        InputError: if there is no column, no row, or two columns of one name.
        ValueError: for what scikit-learn refuses.
    """
    if hasattr(X, "columns") and hasattr(X, "__getitem__"):
        validate_data(estimator, X, reset=reset, skip_check_array=True)
        columns = list(columns_of(X).items())
        if not columns or (not len(columns[0][1]) and not may_be_empty):
            raise InputError(f"X has {len(X)} rows and {len(columns)} columns")
        return columns
    fewest = 0 if may_be_empty else 1
    X = validate_data(estimator, X, reset=reset, dtype=np.float64, ensure_min_samples=fewest)
    return [(f"x{j}", X[:, j]) for j in range(X.shape[1])]


def read_target(y: Any, columns: Columns, kind: str) -> Float[np.ndarray, " rows"]:
    """y as numbers.

    Args:
        y: one number for each row.
        columns: of the same rows.
        kind: the name of the estimator.

    Returns:
        An array of doubles.

    Raises:
        InputError: if it is None, or not of numbers.
        ValueError: for what scikit-learn refuses.
    """
    if y is None:
        raise InputError(f"{kind} requires y to be passed, but the target y is None")
    target = column_or_1d(y, warn=True)
    try:
        target = target.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"y is of type {target.dtype}", allowed="one number for each row"
        ) from error
    assert_all_finite(target, input_name="y")
    if len(target) and np.abs(target).max() > LARGEST:
        raise InputError(
            f"y has numbers up to {np.abs(target).max():.3g}",
            allowed=f"numbers up to {LARGEST:g}",
            remedy="Take a larger unit",
        )
    check_consistent_length(columns[0][1], target)
    return target


def read_weight(
    sample_weight: Any, target: np.ndarray, *, may_be_empty: bool = False
) -> Float[np.ndarray, " rows"]:
    """What each row counts for; 1 where that is not given."""
    if sample_weight is None and may_be_empty:
        return np.ones(len(target))
    return _check_sample_weight(sample_weight, target, dtype=np.float64, ensure_non_negative=True)


def interval(
    coverage: float, mean: Float[np.ndarray, " rows"], deviation: Float[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """The bounds between which a normal variable lies so often.

    Raises:
        InputError: if the coverage is no share.
    """
    check_number("predict_interval", "0 < coverage < 1", lambda x: 0 < x < 1, coverage=coverage)
    reach = norm.ppf(0.5 + coverage / 2) * deviation
    return mean - reach, mean + reach


def warn_about_groups(
    group: Int[np.ndarray, " rows"], count: int, columns: Columns, *, stacklevel: int
) -> None:
    """Say what cannot be learned from such groups.

    Args:
        group: the number of each row's group.
        count: how many there are; 0 where none were given.
        columns: of the same rows.
        stacklevel: of the warnings.
    """

    def warn(message: str) -> None:
        warnings.warn(message, UserWarning, stacklevel=stacklevel + 2)

    if count > 1 and count == len(group):
        warn(
            f"Each of the {count} groups has one row, so that what differs between groups "
            "cannot be told from noise. Is groups the number of a row?"
        )
    if count == 1:
        warn(
            "There is one group, so that nothing tells how groups differ: the prior is the "
            "one that a fit starts from"
        )
    if count < FEWEST_GROUPS or count == len(group):
        return
    for name, column in columns:
        if column.dtype.kind in "biuf":
            if _may_number_groups(column, group, count):
                warn(
                    f"The column {name!r} is a whole number that is the same within each group "
                    "and another one in each. If it is an identity number, leave it out of X"
                )
        elif column.dtype.kind != "M" and _tells_apart(column.astype(str), group, count):
            warn(
                f"The column {name!r} names the group, so that nothing is left to the "
                "groups' own models and a new group has no value of it. Leave it out of X"
            )


def _may_number_groups(column: np.ndarray, group: np.ndarray, count: int) -> bool:
    numbers = column.astype(float)
    if (numbers != np.rint(numbers)).any() or not _tells_apart(numbers, group, count):
        return False
    # Of few groups it takes 1, 2, 3, ... to look like more than chance.
    return count >= MANY_GROUPS or bool(numbers.max() - numbers.min() == count - 1)


def _tells_apart(column: np.ndarray, group: np.ndarray, count: int) -> bool:
    """Whether a column has one value in each group, and another one in each."""
    if len(np.unique(column)) != count:
        return False
    return len(set(zip(column.tolist(), group.tolist(), strict=True))) == count


def warn_about_categories(new: int, rows: int, *, stacklevel: int) -> None:
    """Say how many rows have a category that was not there in fit."""
    if new:
        warnings.warn(
            f"{new} of {rows} rows have a category that was not there in fit; it counts as the "
            "column's average",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
