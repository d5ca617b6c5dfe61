"""Columns of a table as numbers: which kinds there are, and what becomes of each.

A column of numbers or truth values is taken as it is, one of texts or categories becomes an
indicator for each of its values but the first, one of times the days since the first. All are then
centred and scaled. A value that was not there before is that column's average, and is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from pullback.core.errors import InputError

MOST_VALUES = 100
"""More values than this in a column of texts are no categories."""

MOST_NUMBERS = 10
"""More texts than this that all read as numbers are numbers, and no categories."""

LARGEST = 1e150
"""The squares of larger numbers are no finite ones."""

FEW = 4
"""Up to so many values a column needs no quantiles."""

DAY = np.timedelta64(1, "D")


def columns_of(table: Any) -> dict[str, Shaped[np.ndarray, " rows"]]:
    """The columns of a data frame by name.

    Args:
        table: has ``columns`` and gives one by ``table[name]``, as pandas and polars do.

    Returns:
        An array for each.

    Raises:
        InputError: if two columns have one name.
    """
    names = [str(name) for name in table.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"Of the columns {', '.join(map(repr, twice))} there is more than one",
            allowed="columns of different names",
        )
    return {str(name): np.asarray(table[name]) for name in table.columns}


@dataclass(frozen=True)
class Column:
    """What becomes of one column.

    Args:
        name: its name.
        kind: ``"number"``, ``"category"`` or ``"time"``.
        values: of a category; of times the first.
    """

    name: str
    kind: str
    values: tuple[Any, ...] = ()

    @classmethod
    def of(cls, name: str, column: Shaped[np.ndarray, " rows"]) -> "Column":
        """Look at a column.

        Raises:
            InputError: for missing or infinite values, for other types, and for texts that are
                all different.
        """
        column = _check(name, column)
        if column.dtype.kind in "biuf":
            return cls(name, "number")
        if column.dtype.kind == "M":
            return cls(name, "time", (column.min(),))
        texts = np.unique(column.astype(str))
        if len(texts) > MOST_NUMBERS and all(map(_reads_as_number, texts)):
            raise InputError(
                f"The column {name!r} holds numbers written as text, such as {str(texts[-1])!r}",
                allowed="numbers, or texts that name categories",
                remedy="Read it with pandas.read_csv(..., decimal=',') where that is a decimal "
                "comma, or convert it by astype(float)",
            )
        if len(texts) > MOST_VALUES:
            raise InputError(
                f"The column {name!r} has {len(texts)} different texts",
                allowed=f"up to {MOST_VALUES}, each of which becomes a column",
                remedy="Is it a number written as text, or the name of a group? Convert it, leave "
                "it out, or give it as groups",
            )
        return cls(name, "category", tuple(texts))

    @property
    def names(self) -> list[str]:
        """Of the columns that it becomes."""
        if self.kind == "category":
            return [f"{self.name}={value}" for value in self.values[1:]]
        return [self.name]

    def numbers(self, column: Shaped[np.ndarray, " rows"]) -> Float[np.ndarray, "rows width"]:
        """The columns that it becomes; NaN where a category is a new one.

        Raises:
            InputError: for missing or infinite values, and for another kind of column.
        """
        column = _check(self.name, column)
        kind = "number" if column.dtype.kind in "biuf" else "category"
        kind = "time" if column.dtype.kind == "M" else kind
        if kind != self.kind:
            raise InputError(
                f"The column {self.name!r} is a {kind} here, and was a {self.kind} in fit"
            )
        if kind == "number":
            return column.astype(float)[:, None]
        if kind == "time":
            return ((column - self.values[0]) / DAY).astype(float)[:, None]
        texts = column.astype(str)
        known = np.isin(texts, self.values)
        indicators = texts[:, None] == np.array(self.values[1:])[None]
        return np.where(known[:, None], indicators, np.nan)


def _reads_as_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _check(name: str, column: Shaped[np.ndarray, " rows"]) -> Shaped[np.ndarray, " rows"]:
    if column.ndim != 1:
        raise InputError(f"The column {name!r} has the shape {list(column.shape)}")
    if column.dtype == object:
        missing = np.array([value is None or value != value for value in column], bool)
        # Truth values and numbers of several types that a frame keeps as objects.
        rest = column[~missing]
        if len(rest) and all(isinstance(v, int | float | np.number | np.bool_) for v in rest):
            column = np.where(missing, np.nan, column).astype(float)
        elif len(rest) and not all(isinstance(v, str) for v in rest):
            kinds = sorted({type(value).__name__ for value in rest})
            raise InputError(
                f"The column {name!r} holds {', '.join(kinds)}",
                allowed="numbers, texts, truth values, or times, one kind in a column",
            )
    else:
        missing = column != column
    if column.dtype.kind not in "biufMUSO" and column.dtype.kind != "T":
        raise InputError(
            f"The column {name!r} is of type {column.dtype}",
            allowed="numbers, texts, truth values, or times",
        )
    if missing.any():
        raise InputError(
            f"The column {name!r} misses {int(missing.sum())} of {len(column)} values",
            remedy="Leave those rows out, or fill them in beforehand, for instance by "
            "sklearn.impute.SimpleImputer",
        )
    if column.dtype.kind == "f" and np.isinf(column).any():
        raise InputError(
            f"The column {name!r} has {int(np.isinf(column).sum())} infinite values",
            allowed="finite numbers",
        )
    if column.dtype.kind == "f" and len(column) and np.abs(column).max() > LARGEST:
        raise InputError(
            f"The column {name!r} has numbers up to {np.abs(column).max():.3g}",
            allowed=f"numbers up to {LARGEST:g}",
            remedy="Take a larger unit",
        )
    return column


@dataclass(frozen=True)
class Encoder:
    """From columns to the inputs of a basis.

    Args:
        columns: what becomes of each.
        names: of the numbers, in the order of the inputs.
        varying: how many of them vary within groups; they come first.
        mean: of each number.
        deviation: of each; 1 for a constant.
        order: where each input stands among the numbers.
        grids: for quantiles, the values and the ranks of each input of more than a few values.
    """

    columns: tuple[Column, ...]
    names: tuple[str, ...]
    varying: int
    mean: Float[np.ndarray, " inputs"]
    deviation: Float[np.ndarray, " inputs"]
    order: tuple[int, ...]
    grids: tuple[tuple[int, np.ndarray, np.ndarray], ...]

    @classmethod
    def fit(
        cls,
        columns: Sequence[tuple[str, np.ndarray]],
        weight: Float[np.ndarray, " rows"],
        group: np.ndarray | None,
    ) -> "Encoder":
        """Look at a table.

        Args:
            columns: by name.
            weight: what each row counts for.
            group: the number of each row's group; None where there are none.

        Returns:
            What becomes of each column.

        Raises:
            InputError: as :meth:`Column.of` does.
        """
        known = tuple(Column.of(name, column) for name, column in columns)
        numbers = [c.numbers(column) for c, (_, column) in zip(known, columns, strict=True)]
        whole = np.concatenate([np.zeros((len(weight), 0)), *numbers], 1)
        names = [name for column in known for name in column.names]
        varies = [group is None or _varies(whole[:, j], group) for j in range(len(names))]
        order = sorted(range(len(names)), key=lambda j: not varies[j])
        whole = whole[:, order]
        share = weight / weight.sum()
        mean = share @ whole
        deviation = np.sqrt(share @ (whole - mean) ** 2)
        level = deviation > 1e-12 * np.maximum(np.abs(mean), 1e-300)
        deviation = np.where(level, deviation, 1.0)
        scaled = (whole - mean) / deviation
        grids = []
        for j in range(len(names)):
            values, where = np.unique(scaled[:, j], return_inverse=True)
            if len(values) > FEW:
                held = np.bincount(where, share)
                grids.append((j, values, np.cumsum(held) - held / 2))
        ordered = tuple(names[j] for j in order)
        return cls(known, ordered, sum(varies), mean, deviation, tuple(order), tuple(grids))

    def __call__(
        self, columns: Sequence[tuple[str, np.ndarray]]
    ) -> tuple[Float[np.ndarray, "rows inputs"], int]:
        """The inputs of a basis, quantiles last, and how many categories were new ones."""
        rows = len(columns[0][1]) if columns else 0
        numbers = [c.numbers(column) for c, (_, column) in zip(self.columns, columns, strict=True)]
        whole = np.concatenate([np.zeros((rows, 0)), *numbers], 1)
        return self.scale(whole), int(np.isnan(whole).any(1).sum())

    def scale(self, whole: Any, xp: ModuleType = np) -> Any:
        """The inputs of a basis from numbers.

        Args:
            whole: those that the columns become, one row a row; NaN for a new category.
            xp: the array library to work them out with.

        Returns:
            The inputs, quantiles last.
        """
        scaled = (whole[:, np.array(self.order, int)] - self.mean) / self.deviation
        scaled = xp.where(xp.isnan(scaled), 0.0, scaled)
        # Uniform ranks with variance 1.
        ranks = [
            12**0.5 * (xp.interp(scaled[:, j], values, ranks) - 0.5)
            for j, values, ranks in self.grids
        ]
        return xp.concatenate([scaled, *(r[:, None] for r in ranks)], 1)


def _varies(column: Float[np.ndarray, " rows"], group: np.ndarray) -> bool:
    """Whether a column varies within more than one group in fifty."""
    order = np.argsort(group, kind="stable")
    _, first = np.unique(group[order], return_index=True)
    most = np.maximum.reduceat(column[order], first)
    least = np.minimum.reduceat(column[order], first)
    return bool(np.mean(most - least > 1e-9 * np.abs(most)) > 0.02)
