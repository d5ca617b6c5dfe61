"""Folders of runs as the lab reads them: whatever is broken is named, and the rest stays."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pullback.core import results
from pullback.runs.config import SECTIONS, RunConfig
from pullback.runs.folder import CHECKPOINTS, CONFIG, METRICS, SPLIT, Run

MOST = 60
"""Runs listed at most: the ones written to last."""

POINTS = 400
"""Points of a curve at most; beyond that, means of neighbours are shown."""

QUIET = 90.0
"""Seconds without a new line after which an unfinished run counts as stopped."""

Curve = tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]
"""Meta-steps, seconds without compilation, and values."""

_CURVES = {
    "loss": ("step", "loss"),
    "validation": ("validation", "mean"),
    "inner_residual": ("step", "inner_residual"),
    "linear_residual": ("step", "linear_residual"),
    "tasks_per_second": ("step", "tasks_per_second"),
}
_MARKS = (CONFIG, METRICS, SPLIT, CHECKPOINTS)


@dataclass(frozen=True)
class Reading:
    """One run's folder, as far as it could be read.

    Args:
        name: its path from the folder that the lab was pointed at.
        folder: where it is.
        signature: changes when its files do.
        config: its settings; None if they cannot be read.
        curves: by name: ``loss``, ``validation``, ``inner_residual``, ``linear_residual``,
            ``tasks_per_second`` and ``flagged`` (the share of tasks with a verdict other than
            ok).
        verdicts: how many training tasks ended with each verdict, by name.
        step: the last meta-step written.
        seconds: of training so far, compilation included.
        written: when its metrics were written last, in seconds of the system's clock.
        failure: what it said when it failed; empty if it did not.
        trouble: why it, or a part of it, cannot be shown; empty if all is well.
    """

    name: str
    folder: Path
    signature: tuple[Any, ...] = ()
    config: RunConfig | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    verdicts: Mapping[str, int] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    written: float = 0.0
    failure: str = ""
    trouble: str = ""

    @property
    def score(self) -> str:
        """What its validation measures."""
        images = self.config is not None and self.config.data.ways is not None
        return "accuracy" if images else "mean squared error"

    def state(self, now: float | None = None) -> str:
        """In one word: broken, failed, finished, training or stopped."""
        if self.trouble:
            return "broken"
        if self.failure:
            return "failed"
        if self.config is not None and self.step >= self.config.training.steps:
            return "finished"
        passed = (time.time() if now is None else now) - self.written
        return "training" if passed < QUIET else "stopped"


def find(folder: Path) -> list[Path]:
    """The folders of runs in a folder: itself, or those in it, or one level further down.

    Args:
        folder: what the lab was pointed at.

    Returns:
        Folders that hold a file of a run, whole or not; the :data:`MOST` written to last, by name.

    Raises:
        OSError: if the folder cannot be listed.
    """
    if _looks_like_a_run(folder):
        return [folder]
    found: list[Path] = []
    for entry in _folders(folder):
        if _looks_like_a_run(entry):
            found.append(entry)
            continue
        try:
            found += [deeper for deeper in _folders(entry) if _looks_like_a_run(deeper)]
        except OSError:
            continue
    latest = sorted(found, key=lambda path: signature(path)[-1] or 0, reverse=True)[:MOST]
    return sorted(latest)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _looks_like_a_run(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _MARKS)


def signature(folder: Path) -> tuple[Any, ...]:
    """What changes when the files of a run do; the time of its metrics comes last."""

    def facts(name: str) -> tuple[int, int] | tuple[None, None]:
        try:
            found = (folder / name).stat()
        except OSError:
            return None, None
        return found.st_size, found.st_mtime_ns

    return (*facts(CONFIG), *facts(SPLIT), *facts(METRICS))


def read_all(folder: Path, known: Sequence[Reading] = ()) -> tuple[Reading, ...]:
    """Every run of a folder.

    Args:
        folder: what the lab was pointed at.
        known: earlier readings; those whose files have not changed are kept.

    Returns:
        The readings, by name.

    Raises:
        OSError: if the folder cannot be listed.
    """
    before = {reading.folder: reading for reading in known}
    readings = []
    for path in find(folder):
        earlier = before.get(path)
        same = earlier is not None and earlier.signature == signature(path)
        readings.append(earlier if earlier is not None and same else read(path, folder))
    return tuple(readings)


def read(path: Path, root: Path) -> Reading:
    """One run; nothing that is wrong with it is raised.

    Args:
        path: its folder.
        root: what the lab was pointed at.

    Returns:
        The reading.
    """
    name = path.name if path == root else str(path.relative_to(root))
    # Taken first: what is written while reading shows as a change the next time.
    seen = signature(path)
    written = (seen[-1] or 0) / 1e9
    try:
        run = Run.open(path)
    except Exception as error:
        return Reading(name, path, seen, written=written, trouble=_first(error, path))
    try:
        lines = run.metrics()
        curves = {n: _curve(lines, kind, value) for n, (kind, value) in _CURVES.items()}
        curves["flagged"] = _flagged(lines, run.config.training.tasks_per_step)
        steps = [line for line in lines if line.get("kind") == "step"]
        return Reading(
            name,
            path,
            seen,
            run.config,
            curves,
            _verdicts(lines),
            max((line["step"] for line in lines if line.get("kind") != "failed"), default=0),
            _number(steps[-1].get("seconds")) if steps else 0.0,
            written,
            next((str(x.get("message")) for x in lines[::-1] if x.get("kind") == "failed"), ""),
        )
    except Exception as error:
        return Reading(name, path, seen, run.config, written=written, trouble=_first(error, path))


def _first(error: Exception, path: Path) -> str:
    """An error's first line, without the way to the run, which is known where it is read."""
    text = str(error).strip().split("\n")[0] or type(error).__name__
    return text.replace(f"{path}/", "").replace(str(path), path.name)


def _number(value: Any) -> float:
    """A value of a metric; NaN for what is missing or no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _curve(lines: Sequence[Mapping[str, Any]], kind: str, name: str) -> Curve:
    found = [line for line in lines if line.get("kind") == kind]
    values = np.array([_number(line.get(name)) for line in found])
    if name == "tasks_per_second":
        # The first line of a sitting measures the compiler.
        values[[bool(line.get("compiling")) for line in found]] = math.nan
    return _thin(found, values)


def _flagged(lines: Sequence[Mapping[str, Any]], tasks_per_step: int) -> Curve:
    found = [line for line in lines if line.get("kind") == "step"]
    counts = np.array([_number(line.get("count", 1)) for line in found])
    values = np.array([_number(line.get("flagged")) for line in found])
    return _thin(found, values / np.maximum(1.0, counts * tasks_per_step))


def _thin(lines: Sequence[Mapping[str, Any]], values: Float[np.ndarray, " n"]) -> Curve:
    steps = np.array([_number(line["step"]) for line in lines])
    seconds = np.array(
        [_number(line.get("seconds")) - _number(line.get("compilation", 0.0)) for line in lines]
    )
    kept = np.isfinite(values) & np.isfinite(steps) & np.isfinite(seconds)
    columns = np.stack([steps[kept], seconds[kept], values[kept]]) if lines else np.zeros((3, 0))
    window = -(-columns.shape[1] // POINTS)
    if window > 1:
        cut = columns.shape[1] // window * window
        blocks = columns[:, :cut].reshape(3, -1, window)
        # The place is a window's end, so that nothing is drawn before its time.
        thin = np.stack([blocks[0, :, -1], blocks[1, :, -1], blocks[2].mean(1)])
        columns = np.concatenate([thin, columns[:, cut:]], axis=1)
    return columns[0], columns[1], columns[2]


def _verdicts(lines: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in lines:
        given = line.get("codes")
        if line.get("kind") != "flags" or not isinstance(given, Mapping):
            continue
        for code, count in given.items():
            name = results.label(int(code) if code.isdigit() else -1).replace("_", " ")
            found[name] = found.get(name, 0) + (count if isinstance(count, int) else 0)
    return found


def differences(readings: Sequence[Reading]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ.

    Args:
        readings: runs; those without settings count as having none.

    Returns:
        For each such setting, ``("section.name", a value for each run)``; ``"–"`` where a run has
        no use for it.
    """
    settings = [asdict(r.config) if r.config is not None else None for r in readings]
    known = [each for each in settings if each is not None]
    different = [
        (section, name)
        for section in SECTIONS
        for name in (known[0][section] if known else ())
        if len({repr(each[section][name]) for each in known}) > 1
    ]
    return [
        (
            f"{section}.{name}",
            [_shown(each[section][name]) if each is not None else "–" for each in settings],
        )
        for section, name in different
    ]


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value) or "–"
