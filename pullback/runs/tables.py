"""Tables from files: what stands in a column, and what it is taken for.

A file of texts (CSV) is read as it stands, without guesses; what a column holds is then decided by
all of its values. Parquet has types of its own.
"""

import csv
import datetime
import decimal
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from pullback.core.errors import InputError, shorten, unknown_name
from pullback.grouped.table import MOST_NUMBERS, MOST_VALUES

MISSING = ("", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null")
"""What a missing value is written as."""

PARQUET = (".parquet", ".pq")
SEPARATORS = {"\t": "tab", ";": "';'", "|": "'|'"}
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")
_NUMERIC = re.compile(r"[\s\d.,:/'’%€$£+-]*\d[\s\d.,:/'’%€$£+-]*")


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Args:
        path: the file.
        columns: by name: texts, or values of the types that the file has; None where missing.
        rows: how many.
        unnamed: columns without a name, which are left out.
        point: what stands before the decimals in texts.
    """

    path: Path
    columns: dict[str, Shaped[np.ndarray, " rows"]]
    rows: int
    unnamed: int = 0
    point: str = "."

    def check(self, what: str, *names: str) -> None:
        """Whether there are such columns.

        Raises:
            InputError: naming one that is not there, and those that are.
        """
        for name in names:
            if name not in self.columns:
                raise unknown_name(f"{what} in {str(self.path)!r},", name, self.columns)

    def missing(self, names: Iterable[str]) -> dict[str, Bool[np.ndarray, " rows"]]:
        """Of those columns that miss values, which."""
        masks = {name: _is_missing(self.columns[name]) for name in names}
        return {name: mask for name, mask in masks.items() if mask.any()}

    def take(self, chosen: np.ndarray) -> "Table":
        """The rows of a mask, or of numbers in that order."""
        columns = {name: column[chosen] for name, column in self.columns.items()}
        rows = len(np.arange(self.rows)[chosen])
        return Table(self.path, columns, rows, self.unnamed, self.point)


def read_table(path: Path | str, separator: str = ",", point: str = ".") -> Table:
    """Read CSV or, by the ending of the name, Parquet.

    Args:
        path: the file.
        separator: between the columns of a file of texts.
        point: what stands before the decimals in it.

    Returns:
        The table.

    Raises:
        InputError: saying what is wrong with the file, and where.
    """
    path = Path(path)
    separator = {"\\t": "\t", "tab": "\t"}.get(separator, separator)
    if len(separator) != 1 or separator in '"\n\r':
        raise InputError(f"--separator is {separator!r}", allowed="one character, or tab")
    if point not in (".", ",") or point == separator:
        raise InputError(
            f"--decimal is {point!r}, and --separator {separator!r}",
            allowed="a point or a comma before the decimals, and another separator",
        )
    if not path.is_file():
        what = "is no file" if path.exists() else "does not exist"
        raise InputError(f"The table {shorten(str(path), 200)} {what}")
    table = _read_parquet(path) if path.suffix in PARQUET else _read_texts(path, separator, point)
    if not table.rows:
        raise InputError(f"The table {str(path)!r} has no rows", allowed="one row at least")
    return table


def _read_texts(path: Path, separator: str, point: str) -> Table:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            lines = csv.reader(stream, delimiter=separator, strict=True)
            header = next((line for line in lines if line), None)
            if header is None:
                raise InputError(
                    f"The file {str(path)!r} is empty", allowed="a line of names, and rows"
                )
            names = [name.strip() for name in header]
            _check_header(path, names, separator)
            values = list(zip(*_checked(path, lines, len(names)), strict=True))
    except UnicodeDecodeError as error:
        raise InputError(
            f"The file {str(path)!r} is no UTF-8 ({error.reason} at byte {error.start})",
            remedy="Save it as CSV in UTF-8",
        ) from None
    except csv.Error as error:
        raise InputError(f"The file {str(path)!r} is no CSV: {error}") from None
    columns = {}
    for name, column in zip(names, values or [()] * len(names), strict=True):
        if name:
            columns[name] = np.array(column, object)
    rows = len(values[0]) if values else 0
    return Table(path, columns, rows, sum(not name for name in names), point)


def _check_header(path: Path, names: Sequence[str], separator: str) -> None:
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(
            f"In {str(path)!r} there is more than one column {', '.join(map(repr, twice))}",
            allowed="columns of different names",
        )
    other = next((mark for mark in (*SEPARATORS, ",") if mark in names[0]), None)
    if len(names) == 1 and other and other != separator:
        written = {"\t": "tab", ",": ","}.get(other, f"'{other}'")
        raise InputError(
            f"The first line of {str(path)!r} is one column, {names[0]!r:.60}",
            remedy=f"If another mark than {separator!r} stands between the columns, say so by: "
            f"--separator {written}",
        )


def _checked(path: Path, lines: Any, width: int) -> Iterator[list[str | None]]:
    """The rows, without empty lines; cells without the spaces around them."""
    for line in lines:
        if not line:
            continue
        if len(line) != width:
            raise InputError(
                f"Line {lines.line_num} of {str(path)!r} has {len(line)} columns, and the first "
                f"line {width}",
                remedy="Write texts that hold the separator in quotes",
            )
        yield [None if (cell := each.strip()) in MISSING else cell for each in line]


def _read_parquet(path: Path) -> Table:
    try:
        import pandas as pd
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise needs(error) from None
    try:
        found = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"The file {str(path)!r} is no Parquet: {error}") from None
    names = [name.strip() for name in found.column_names]
    # Where pandas keeps the row numbers that it writes.
    names = ["" if re.fullmatch(r"__index_level_\d+__", name) else name for name in names]
    _check_header(path, names, "")
    columns = {}
    for name, column in zip(names, found.columns, strict=True):
        if name:
            columns[name] = _plain(column.to_pandas(ignore_metadata=True), pd)
    return Table(path, columns, found.num_rows, sum(not name for name in names))


def needs(error: ModuleNotFoundError) -> InputError:
    """The error for a package that is not installed."""
    return InputError(
        f"Tables need the package {error.name!r}, which is not installed",
        remedy="pip install 'pullback[tables]'",
    )


def _plain(column: Any, pd: Any) -> np.ndarray:
    """A column of pandas as an array of numbers, times, or objects."""
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_convert(None)
    if column.dtype.kind in "biufM" and isinstance(column.dtype, np.dtype):
        return column.to_numpy()
    values = np.array(column, object)
    values[pd.isna(column)] = None
    kinds = {type(value) for value in values if value is not None}
    if kinds == {datetime.date}:
        return values.astype("datetime64[D]").astype("datetime64[us]")
    if kinds == {decimal.Decimal}:
        return np.array([np.nan if v is None else float(v) for v in values])
    return values


def _is_missing(column: Shaped[np.ndarray, " rows"]) -> Bool[np.ndarray, " rows"]:
    if column.dtype == object:
        return np.array([v is None or v != v for v in column], bool)
    return column != column


def as_names(column: Shaped[np.ndarray, " rows"]) -> Shaped[np.ndarray, " rows"]:
    """A column without missing values as texts, which are the names of groups.

    A text stays as it is, so that 001 and 1 are two names; a whole number has no decimals.
    """

    def name(value: Any) -> str:
        if isinstance(value, float | np.floating) and value == np.rint(value):
            value = int(value)
        return str(value)

    return np.array([name(value) for value in column.tolist()], object)


def interpret(table: Table, name: str, kind: str | None = None) -> Shaped[np.ndarray, " rows"]:
    """A column without missing values as what it is taken for.

    Args:
        table: the table.
        name: of the column.
        kind: ``"number"``, ``"time"`` or ``"category"``; None to find out.

    Returns:
        An array of numbers, of times, or of texts.

    Raises:
        InputError: if it is none of them, or of another kind than asked for.
    """
    column = table.columns[name]
    if kind == "category":
        return _category(name, as_names(column))
    if column.dtype.kind in "biuf":
        return _as_asked(name, column.astype(float), "number", kind)
    if column.dtype.kind == "M":
        return _as_asked(name, column, "time", kind)
    others = sorted({type(value).__name__ for value in column if not isinstance(value, str)})
    if others == ["bool"] and not any(isinstance(value, str) for value in column):
        return _as_asked(name, column.astype(float), "number", kind)
    if others:
        raise InputError(
            f"The column {name!r} holds {', '.join(others)}",
            allowed="numbers, texts, truth values, or times, one kind in a column",
        )
    # Each text is looked at once, however often it stands there.
    seen: dict[str, int] = {}
    place = np.array([seen.setdefault(text, len(seen)) for text in column], int)
    texts = list(seen)
    numbers = [_number(text, table.point) for text in texts]
    if all(number is not None for number in numbers):
        return _as_asked(name, np.array(numbers, float)[place], "number", kind)
    if all(_ISO.fullmatch(text) for text in texts):
        times = [_time(name, text) for text in texts]
        return _as_asked(name, np.array(times, "datetime64[us]")[place], "time", kind)
    _check_texts(name, texts, numbers, table.point)
    return _as_asked(name, _category(name, column), "category", kind)


def kind_of(column: Shaped[np.ndarray, " rows"]) -> str:
    """What :func:`interpret` took a column for."""
    return {"f": "number", "M": "time"}.get(column.dtype.kind, "category")


def _as_asked(name: str, column: np.ndarray, kind: str, asked: str | None) -> np.ndarray:
    if asked is None or kind == asked:
        return column
    words = {"number": "numbers", "time": "times", "category": "texts"}
    such = f", such as {str(column[0])!r}" if kind == "category" else ""
    raise InputError(
        f"The column {name!r} holds {words[kind]}{such}", allowed=f"{words[asked]}, as in fit"
    )


def _category(name: str, texts: np.ndarray) -> np.ndarray:
    count = len(set(texts))
    if count > MOST_VALUES:
        raise InputError(
            f"The column {name!r} has {count} different texts, such as {texts[0]!r:.60}",
            allowed=f"up to {MOST_VALUES}, each of which becomes a column",
            remedy=f"Leave it out by: --drop {name}",
        )
    return texts


def _check_texts(
    name: str, texts: Sequence[str], numbers: Sequence[float | None], point: str
) -> None:
    """Whether texts are names of categories, and not numbers that could not be read."""
    other = "," if point == "." else "."
    if any(other in text for text in texts) and all(
        _number(text, other) is not None for text in texts
    ):
        raise InputError(
            f"The column {name!r} holds numbers such as {texts[-1]!r}, with a decimal "
            f"{'comma' if other == ',' else 'point'}",
            remedy=f"Say so by: --decimal {other} ; or leave the column out by: --drop {name}",
        )
    left = [text for text, number in zip(texts, numbers, strict=True) if number is None]
    if len(texts) - len(left) > MOST_NUMBERS:
        raise InputError(
            f"The column {name!r} holds numbers and {len(left)} other texts, such as "
            f"{left[0]!r:.60}",
            allowed="numbers, or texts that name categories",
            remedy="Empty those cells, which makes them missing values; or leave the column out "
            f"by: --drop {name}",
        )
    odd = [text for text in left if _NUMERIC.fullmatch(text)]
    if len(odd) > MOST_NUMBERS:
        raise InputError(
            f"The column {name!r} holds texts such as {odd[0]!r}, which are neither numbers nor "
            "times as they stand",
            allowed="numbers such as 1234.5, and times such as 2031-12-24 or 2031-12-24 18:30",
            remedy=f"Write them so, or leave the column out by: --drop {name}",
        )


def _number(text: str, point: str) -> float | None:
    if "_" in text or (point != "." and "." in text):
        return None
    try:
        return float(text.replace(point, "."))
    except ValueError:
        return None


def _time(name: str, text: str) -> datetime.datetime:
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"The column {name!r} holds {text!r}, which is no time",
            allowed="times such as 2031-12-24 or 2031-12-24 18:30",
        ) from None
    if time.tzinfo is not None:
        time = time.astimezone(datetime.UTC).replace(tzinfo=None)
    return time


def names_in(text: str | None, option: str) -> list[str]:
    """Names of columns in one text, with commas between; one that holds a comma in quotes.

    Raises:
        InputError: if one is named twice, or none.
    """
    if text is None:
        return []
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if not all(names) or not names or len(set(names)) < len(names):
        raise InputError(f"{option} is {text!r}", allowed="names of columns, each once")
    return names
