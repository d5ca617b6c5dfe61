"""A curve of the user's own by name: ``module:name``, or ``file.py:name``."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from pullback.core.errors import InputError, unknown_name
from pullback.sklearn import CurveRegressor


def find_curve(text: str, parameters: Sequence[str] = ()) -> CurveRegressor:
    """The estimator of a curve, which is imported and thereby run.

    Args:
        text: a module, or a file that ends in ``.py``, a colon, and the name of a function or of a
            ``CurveRegressor`` in it.
        parameters: of a function, with their bounds; else those that its arguments name.

    Returns:
        The estimator, not fitted.

    Raises:
        InputError: if there is none, or importing it fails.
    """
    where, _, name = text.rpartition(":")
    if not (where and name):
        raise InputError(
            f"--curve is {text!r}", allowed="module:name or file.py:name, such as dose.py:curve"
        )
    module = _module(where)
    if not hasattr(module, name):
        public = [each for each, value in vars(module).items() if callable(value)]
        raise unknown_name(f"name in {where!r}", name, public)
    found = getattr(module, name)
    if isinstance(found, CurveRegressor):
        if parameters:
            raise InputError(f"--parameters was given, and {text!r} is an estimator that has some")
        return found
    if not callable(found):
        raise InputError(
            f"{text!r} is an object of type {type(found).__name__}",
            allowed="a function, or a CurveRegressor",
        )
    if not parameters:
        parameters = list(inspect.signature(found).parameters)[1:]
    return CurveRegressor(found, list(parameters))


def _module(where: str) -> ModuleType:
    try:
        if where.endswith(".py"):
            path = Path(where)
            if not path.is_file():
                raise InputError(f"There is no file {where!r}")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
        # A module of the user's own stands where the command was given.
        if "" not in sys.path:
            sys.path.insert(0, "")
        return importlib.import_module(where)
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"Importing {where!r} fails: {type(error).__name__}: {error}",
            allowed="a module that can be imported from here, or a file",
        ) from error
