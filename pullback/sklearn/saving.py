"""Fitted estimators in files that hold numbers and texts, and no code.

A curve of the user's own is code: it is left out, and given again to :func:`load`.

``model.json`` says what the estimator is made of; its larger arrays stand in ``model.npz``. A
stranger's files can be loaded: only the classes listed here are made, and nothing is unpickled.
"""

import datetime
import hashlib
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from pullback.core.errors import InputError
from pullback.core.files import parse_json, read_file, write_atomically
from pullback.grouped.basis import Basis
from pullback.grouped.curves import Curve, Fitted, Parameter
from pullback.grouped.mixed import Adapted, Mixed
from pullback.grouped.pooled import Pool
from pullback.grouped.table import Column, Encoder
from pullback.grouped.vectors import BaseClasses, Calibration, Head, Map, NewClasses
from pullback.sklearn.classifier import MetaClassifier
from pullback.sklearn.curve import CurveRegressor
from pullback.sklearn.few_shot import FewShotClassifier
from pullback.sklearn.regressor import MetaRegressor

ESTIMATORS: tuple[type[BaseEstimator], ...] = (
    CurveRegressor,
    FewShotClassifier,
    MetaClassifier,
    MetaRegressor,
)
"""What can be saved. One may name attributes in ``_DERIVED`` that its ``_derive`` makes again."""

PARTS: tuple[type, ...] = (
    Adapted,
    BaseClasses,
    Basis,
    Calibration,
    Column,
    Curve,
    Encoder,
    Fitted,
    Head,
    Map,
    Mixed,
    NewClasses,
    Parameter,
    Pool,
)
"""What they are made of: frozen dataclasses and named tuples."""

FORMAT = 1
MODEL, ARRAYS = "model.json", "model.npz"
_CLASSES = {kind.__name__: kind for kind in (*ESTIMATORS, *PARTS)}
_TIMES = (datetime.datetime, datetime.date)
_PLAIN = (bool, int, float, str)


def save(model: BaseEstimator, folder: Path | str) -> None:
    """Write a fitted estimator into a folder, as ``model.json`` and ``model.npz``.

    Args:
        model: one of ``ESTIMATORS``, fitted.
        folder: is made if it does not exist; a model that is in it is replaced.

    Raises:
        InputError: for another estimator, or one that holds what cannot be saved.
        NotFittedError: before fit.
        OSError: if the disk refuses it.
    """
    if not isinstance(model, ESTIMATORS):
        names = ", ".join(kind.__name__ for kind in ESTIMATORS)
        raise InputError(f"A {type(model).__name__} cannot be saved", allowed=names)
    check_is_fitted(model)
    arrays: dict[str, Any] = {}
    written = _write(model, arrays)
    path = Path(folder) / ARRAYS
    write_atomically(path, lambda temporary: np.savez(temporary, **arrays))
    record = {"format": FORMAT, "checksum": _checksum(path), "model": written}
    text = json.dumps(record, ensure_ascii=False)
    write_atomically(Path(folder) / MODEL, lambda new: new.write_text(text, encoding="utf-8"))


def load(folder: Path | str, curve: Callable[..., Any] | None = None) -> Any:
    """Read a fitted estimator that :func:`save` wrote; its predictions are the same to the bit.

    Args:
        folder: with ``model.json`` and ``model.npz``.
        curve: that of a ``CurveRegressor``, which no file holds.

    Returns:
        The estimator.

    Raises:
        InputError: if a file is missing, damaged, or of a later version, and if a curve is missing
            or of no use.
    """
    path, beside = Path(folder) / MODEL, Path(folder) / ARRAYS
    try:
        record = parse_json(read_file(path))
        form = record["format"]
        if form != FORMAT:
            raise InputError(
                f"{str(path)!r} is of format {form!r}", allowed=f"format {FORMAT} of this version"
            )
        if not beside.is_file():
            raise InputError(f"The file {str(beside)!r} is missing")
        if _checksum(beside) != record["checksum"]:
            raise InputError(f"The file {str(beside)!r} is damaged: its checksum is another one")
        with np.load(beside, allow_pickle=False) as arrays:
            model = _read(record["model"], arrays, curve)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise InputError(f"The file {str(path)!r} is broken: {error}") from None
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        raise InputError(f"The file {str(beside)!r} is broken: {error}") from None
    if not isinstance(model, ESTIMATORS):
        raise InputError(f"The file {str(path)!r} holds no estimator")
    if curve is not None and not isinstance(model, CurveRegressor):
        raise InputError(f"A curve was given, and {str(path)!r} is a {type(model).__name__}")
    return model


def _checksum(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write(value: Any, arrays: dict[str, Any]) -> Any:
    """A value as JSON has it: plain ones as they are, others as an object of one name."""
    # Numbers and texts of NumPy are some of Python's own too.
    if isinstance(value, np.datetime64):
        return {"time": [str(value.dtype), int(value.astype(np.int64))]}
    if isinstance(value, np.bool_ | np.number | np.str_):
        value = value.item()
    if value is None or type(value) in _PLAIN:
        lost = isinstance(value, float) and not math.isfinite(value)
        return {"number": str(value)} if lost else value
    if isinstance(value, FunctionType):
        return {"function": value.__qualname__}
    if type(value) in _TIMES:
        return {type(value).__name__: value.isoformat()}
    if isinstance(value, np.ndarray):
        if value.dtype == object:
            return {"objects": [_write(each, arrays) for each in value]}
        name = f"a{len(arrays)}"
        arrays[name] = value
        return {"array": name}
    if type(value) in (list, tuple):
        parts = [_write(each, arrays) for each in value]
        return parts if isinstance(value, list) else {"tuple": parts}
    if type(value) is dict:
        pairs = [[_write(key, arrays), _write(each, arrays)] for key, each in value.items()]
        return {"dict": pairs}
    if type(value) in _CLASSES.values():
        return {type(value).__name__: {k: _write(v, arrays) for k, v in _parts(value).items()}}
    raise InputError(
        f"A {type(value).__name__} cannot be saved: {value!r:.80}",
        allowed="numbers, texts, truth values and times, as the names of groups and as settings",
    )


def _parts(value: Any) -> dict[str, Any]:
    if isinstance(value, BaseEstimator):
        derived = getattr(value, "_DERIVED", ())
        return {name: part for name, part in vars(value).items() if name not in derived}
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value._asdict()


def _read(written: Any, arrays: Any, curve: Callable[..., Any] | None) -> Any:
    if isinstance(written, list):
        return [_read(each, arrays, curve) for each in written]
    if not isinstance(written, dict):
        return written
    ((name, content),) = written.items()
    if name in _CLASSES:
        parts = {key: _read(each, arrays, curve) for key, each in content.items()}
        kind = _CLASSES[name]
        if not issubclass(kind, BaseEstimator):
            return kind(**parts)
        model = kind.__new__(kind)
        vars(model).update(parts)
        derive = getattr(model, "_derive", None)
        if derive is not None:
            derive()
        return model
    if name == "function":
        if curve is None:
            raise InputError(
                f"The curve {content!r} is code, which no file holds", remedy="Give it again"
            )
        given = getattr(curve, "__qualname__", repr(curve))
        if given != content:
            raise InputError(
                f"The curve {given!r} was given", allowed=f"{content!r}, as in the fit"
            )
        return curve
    return _READERS[name](content, lambda each: _read(each, arrays, curve), arrays)


def _objects(content: Any, read: Callable[[Any], Any], arrays: Any) -> np.ndarray:
    found = np.empty(len(content), object)
    found[:] = [read(each) for each in content]
    return found


def _time(content: Any, read: Callable[[Any], Any], arrays: Any) -> np.datetime64:
    kind = np.dtype(content[0])
    if kind.kind != "M":
        raise ValueError(f"{content[0]!r} is no type of times")
    return np.int64(content[1]).view(kind)


_READERS: dict[str, Callable[[Any, Callable[[Any], Any], Any], Any]] = {
    "array": lambda content, read, arrays: arrays[content],
    "objects": _objects,
    "tuple": lambda content, read, arrays: tuple(map(read, content)),
    "dict": lambda content, read, arrays: {read(key): read(each) for key, each in content},
    "number": lambda content, read, arrays: float(content),
    "time": _time,
    "datetime": lambda content, read, arrays: datetime.datetime.fromisoformat(content),
    "date": lambda content, read, arrays: datetime.date.fromisoformat(content),
}
