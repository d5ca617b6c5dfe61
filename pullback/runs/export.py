"""Fitted estimators and runs as programs that run without what trained them (docs/serving.md)."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pullback.core.errors import InputError
from pullback.core.program import Program, check_installed, check_platforms, pack
from pullback.runs.folder import check_writable, write_with

Say = Callable[[str], None]

CAN_BE = (
    "a fitted MetaRegressor, what its adapt returned, or the folder of a pullback fit by a method"
)


def export(
    what: Any,
    path: Path | str,
    *,
    adapt: Any = None,
    platforms: Sequence[str] = ("cpu",),
    overwrite: bool = False,
    say: Say = warnings.warn,
) -> dict[str, Any]:
    """Write what adapts to new groups, or what has adapted, into one file that JAX alone can run.

    ``pullback.load_exported`` reads it with checks; docs/serving.md shows how it is run without
    this package.

    Args:
        what: a fitted :class:`pullback.sklearn.MetaRegressor`, what its ``adapt`` returned, or the
            folder of a fitted table.
        path: the file.
        adapt: groups to adapt to first, so that the program predicts rows of theirs: the
            arguments ``(X, y, groups)`` of ``with_groups``, or, of a fitted table, a file of rows.
        platforms: what the program is for: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"``.
        overwrite: whether a file that is there is replaced.
        say: told in sentences what of the rows in a file was left out.

    Returns:
        What stands in the file's ``about.json``.

    Raises:
        InputError: for what cannot be exported, for a file that is there already, and where
            ``flatbuffers`` is not installed.
        StorageError: if the disk refuses it.
    """
    path = Path(path)
    check_installed()
    check_platforms(platforms)
    if path.exists() and not (overwrite and path.is_file()):
        raise InputError(
            f"{str(path)!r} is there already", remedy="Give another file, or add --overwrite"
        )
    check_writable(path.parent, "Give another file")
    program = _program(what, adapt, say)
    about, content = pack(program, platforms)
    write_with(path, lambda temporary: temporary.write_bytes(content))
    return about


def _program(what: Any, adapt: Any, say: Say) -> Program:
    if isinstance(what, str | Path):
        return _of_folder(Path(what), adapt, say)
    if not hasattr(what, "get_params"):
        raise InputError(f"A {type(what).__name__} cannot be exported", allowed=CAN_BE)
    from pullback.sklearn import AdaptedRegressor, program

    if isinstance(what, AdaptedRegressor):
        if adapt is not None:
            raise InputError("Of a model that has adapted already, adapt is to be left out")
        return program.adapted(what)
    return program.adapting(what) if adapt is None else program.adapted(what.with_groups(*adapt))


def _of_folder(folder: Path, adapt: Path | str | None, say: Say) -> Program:
    if (folder / "fit.json").is_file():
        return _of_table(folder, adapt, say)
    raise InputError(f"{str(folder)!r} cannot be exported", allowed=CAN_BE)


def _of_table(folder: Path, adapt: Path | str | None, say: Say) -> Program:
    from pullback.runs import fitted
    from pullback.runs.tables import read_table
    from pullback.sklearn import program

    settings = fitted.read_report(folder).settings
    if settings.curve is not None:
        raise InputError(
            f"{str(folder)!r} is the fit of a curve, which cannot be exported", allowed=CAN_BE
        )
    run = fitted.FittedRun.open(folder)
    if adapt is None:
        made = program.adapting(run.model)
    else:
        rows = read_table(adapt, settings.separator, settings.point)
        made = program.adapted(fitted.adapt(run, rows, say))
    return replace(made, about={"target": settings.target, **made.about})
