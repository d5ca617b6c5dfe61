"""Programs that ``pullback.export`` wrote, read back and called with checks.

Neither scikit-learn nor anything that trains is imported. docs/serving.md shows how a program is
called without this package.
"""

import hashlib
import json
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jaxtyping import Float

from pullback.core.errors import InputError, shorten
from pullback.core.program import ABOUT, FORMAT, PROGRAM, check_installed
from pullback.grouped.table import Column, columns_of
from pullback.runs.records import need


@dataclass(frozen=True)
class Exported:
    """A program that was read from a file.

    Args:
        about: what stands in its ``about.json``.
        program: from arrays in the order of ``about["inputs"]`` to a tuple of arrays.
    """

    about: Mapping[str, Any]
    program: Any

    def __call__(self, **given: Any) -> dict[str, np.ndarray]:
        """Run it. Each new set of shapes is compiled first.

        Args:
            given: an array for each name in ``about["inputs"]``, of its shape and type.

        Returns:
            An array for each name in ``about["outputs"]``.

        Raises:
            InputError: for a name that is missing or unknown, and for an array of another shape or
                type, or with numbers out of bounds.
        """
        inputs = self.about["inputs"]
        names = [each["name"] for each in inputs]
        if set(given) != set(names):
            raise InputError(
                f"The program was given {', '.join(given) or 'nothing'}", allowed=", ".join(names)
            )
        free: dict[str, int] = {}
        arrays = [_checked(each, given[each["name"]], free) for each in inputs]
        with jax.enable_x64(self.about["x64"]):
            found = self.program(*arrays)
        outputs = [each["name"] for each in self.about["outputs"]]
        return dict(zip(outputs, map(np.asarray, found), strict=True))

    def rows(self, table: Any) -> Float[np.ndarray, "rows columns"]:
        """A table as the program takes it: one number for each of its columns.

        Args:
            table: a data frame, or a dictionary of columns; other columns are passed over.

        Returns:
            Numbers; of categories their places in ``about["columns"]``, and −1 with a warning for
            one that was not there in fit; of times days.

        Raises:
            InputError: if the program takes no tables, a column is missing, or one is of another
                kind or misses values.
        """
        if "columns" not in self.about:
            raise InputError(
                "The program takes no tables", allowed="arrays, as about['inputs'] says"
            )
        known = [
            Column(each["name"], each["kind"], tuple(each["values"]))
            for each in self.about["columns"]
        ]
        columns = columns_of(table) if hasattr(table, "columns") else table
        absent = [each.name for each in known if each.name not in columns]
        if absent:
            raise InputError(
                f"The table lacks the columns {', '.join(map(repr, absent))}",
                allowed=", ".join(each.name for each in known),
            )
        return np.stack([_numbers(each, np.asarray(columns[each.name])) for each in known], 1)


def load_exported(path: Path | str) -> Exported:
    """Read a program that ``pullback.export`` wrote.

    Args:
        path: the file.

    Returns:
        The program.

    Raises:
        InputError: if the file is missing, damaged, or of another format or version of JAX.
    """
    check_installed()
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            about = json.loads(archive.read(ABOUT))
            written = archive.read(PROGRAM)
        if not isinstance(about, dict):
            raise ValueError(f"{ABOUT} is no object")
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    except (KeyError, ValueError, RecursionError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{str(path)!r} is no program, or a damaged one: {error}",
            allowed="a file that pullback export wrote",
        ) from None
    if about.get("format") != FORMAT:
        raise InputError(
            f"{str(path)!r} is of format {shorten(about.get('format'))}",
            allowed=f"format {FORMAT}",
            remedy="Export it again by this version of pullback",
        )
    try:
        need(about, ("inputs", "outputs", "x64", "platforms", "versions", "checksum"))
    except InputError as error:
        raise InputError(f"{ABOUT} in {str(path)!r} is broken: {error}") from None
    if hashlib.sha256(written).hexdigest() != about["checksum"]:
        raise InputError(f"{str(path)!r} is damaged: the checksum of its {PROGRAM} is another one")
    try:
        program = export.deserialize(bytearray(written))
    # What JAX says of a version that it does not know differs between versions.
    except Exception as error:
        raise InputError(
            f"JAX {jax.__version__} cannot read {str(path)!r}, which JAX "
            f"{about['versions'].get('jax')} wrote: {error}",
            remedy="Export it again by this version of JAX",
        ) from None
    if jax.default_backend() not in map(_backend, program.platforms):
        raise InputError(
            f"{str(path)!r} is for {', '.join(program.platforms)}, and JAX computes on "
            f"{jax.default_backend()} here",
            remedy="Export it with --platforms, or set JAX_PLATFORMS",
        )
    return Exported(about, jax.jit(program.call))


def _backend(platform: str) -> str:
    return "gpu" if platform in ("cuda", "rocm") else platform


def _checked(wanted: Mapping[str, Any], given: Any, free: dict[str, int]) -> np.ndarray:
    """An array of the shape and type that an input has; free lengths are noted down."""
    name, dtype = wanted["name"], np.dtype(wanted["dtype"])
    try:
        array = np.asarray(given)
    except ValueError as error:
        raise InputError(f"{name} is no array: {error}") from None
    if not np.can_cast(array.dtype, dtype, "same_kind"):
        raise InputError(f"{name} is of type {array.dtype}", allowed=str(dtype))
    fits = array.ndim == len(wanted["shape"])
    for length, asked in zip(array.shape, wanted["shape"], strict=False):
        here = free.setdefault(asked, length) if isinstance(asked, str) else asked
        fits = fits and length == here and length > 0
    if not fits:
        seen = [f"{n} = {length}" for n, length in free.items() if n in wanted["shape"]]
        raise InputError(
            f"{name} has shape {list(array.shape)}",
            allowed=f"[{', '.join(map(str, wanted['shape']))}], none of them 0"
            + (f", where {', '.join(seen)}" if seen else ""),
        )
    if wanted["span"] is not None:
        least, most = wanted["span"]
        low, high = array.min(), array.max()
        if not low >= least or (most is not None and not high <= most):
            raise InputError(
                f"{name} has numbers from {low} to {high}",
                allowed=f"from {least}" + ("" if most is None else f" to {most}"),
            )
    return array.astype(dtype)


def _numbers(column: Column, given: np.ndarray) -> Float[np.ndarray, " rows"]:
    if column.kind == "time":
        column = Column(column.name, "time", (np.datetime64(column.values[0]),))
    found = column.numbers(given)
    if column.kind != "category":
        return found[:, 0]
    places = {value: place for place, value in enumerate(column.values)}
    found = np.array([places.get(value, -1) for value in given.astype(str).tolist()], float)
    new = int((found < 0).sum())
    if new:
        warnings.warn(
            f"{new} of {len(found)} rows have a value of {column.name!r} that was not there in "
            "fit; it counts as the column's average",
            UserWarning,
            stacklevel=3,
        )
    return found
