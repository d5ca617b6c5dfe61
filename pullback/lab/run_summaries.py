"""Runs as the lab shows them: a broken one is reported, and does not hide the others."""

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

MAX_RUNS = 60
"""Of more runs than that, the ones written to last are listed."""

MAX_POINTS = 400
"""Of more points than that, a curve shows means of neighbours."""

STOPPED_AFTER = 90.0
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
_RUN_FILES = (CONFIG, METRICS, SPLIT, CHECKPOINTS)


@dataclass(frozen=True)
class RunSummary:
    """One run, as far as its folder could be read.

    Args:
        name: its path below the folder that the lab was given.
        folder: its folder.
        signature: the sizes and times of its files.
        config: its settings; None if they cannot be read.
        curves: by name: ``loss``, ``validation``, ``inner_residual``, ``linear_residual``,
            ``tasks_per_second`` and ``flagged`` (the share of tasks with a verdict other than
            ok).
        verdicts: how many training tasks ended with each verdict, by name.
        step: the last meta-step in its metrics.
        seconds: of training so far, compilation included.
        last_written: when its metrics were last written to, in seconds of the system's clock.
        failure: the message that its training failed with; empty if it did not fail.
        error: why the folder, or a part of it, could not be read; empty if it could.
    """

    name: str
    folder: Path
    signature: tuple[Any, ...] = ()
    config: RunConfig | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    verdicts: Mapping[str, int] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    last_written: float = 0.0
    failure: str = ""
    error: str = ""

    @property
    def score(self) -> str:
        """What its validation measures."""
        images = self.config is not None and self.config.data.ways is not None
        return "accuracy" if images else "mean squared error"

    def state(self, now: float | None = None) -> str:
        """In one word: broken, failed, finished, training or stopped."""
        if self.error:
            return "broken"
        if self.failure:
            return "failed"
        if self.config is not None and self.step >= self.config.training.steps:
            return "finished"
        silent = (time.time() if now is None else now) - self.last_written
        return "training" if silent < STOPPED_AFTER else "stopped"


def find_runs(folder: Path) -> list[Path]:
    """The folders of runs in a folder: itself, or those in it, or one level further down.

    Args:
        folder: the folder that the lab was given.

    Returns:
        Folders that hold a file of a run, broken or not; the :data:`MAX_RUNS` written to last, by
        name.

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
    latest = sorted(found, key=lambda path: signature(path)[-1] or 0, reverse=True)[:MAX_RUNS]
    return sorted(latest)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _looks_like_a_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in _RUN_FILES)


def signature(folder: Path) -> tuple[Any, ...]:
    """The sizes and times of a run's files; the time of its metrics comes last."""

    def facts(name: str) -> tuple[int, int] | tuple[None, None]:
        try:
            found = (folder / name).stat()
        except OSError:
            return None, None
        return found.st_size, found.st_mtime_ns

    return (*facts(CONFIG), *facts(SPLIT), *facts(METRICS))


def read_runs(folder: Path, known: Sequence[RunSummary] = ()) -> tuple[RunSummary, ...]:
    """Every run of a folder.

    Args:
        folder: the folder that the lab was given.
        known: earlier summaries; those whose files have not changed are not read again.

    Returns:
        The summaries, by name.

    Raises:
        OSError: if the folder cannot be listed.
    """
    before = {summary.folder: summary for summary in known}
    summaries = []
    for path in find_runs(folder):
        earlier = before.get(path)
        same = earlier is not None and earlier.signature == signature(path)
        summaries.append(earlier if earlier is not None and same else read_run(path, folder))
    return tuple(summaries)


def read_run(path: Path, root: Path) -> RunSummary:
    """One run; what is wrong with it is not raised, but in the summary.

    Args:
        path: its folder.
        root: the folder that the lab was given.

    Returns:
        The summary.
    """
    name = path.name if path == root else str(path.relative_to(root))
    # Taken first, so that what is written in the meantime counts as a change the next time.
    seen = signature(path)
    last_written = (seen[-1] or 0) / 1e9
    try:
        run = Run.open(path)
    except Exception as error:
        return RunSummary(
            name, path, seen, last_written=last_written, error=_first_line(error, path)
        )
    try:
        lines = run.metrics()
        curves = {n: _curve(lines, kind, value) for n, (kind, value) in _CURVES.items()}
        curves["flagged"] = _flagged(lines, run.config.training.tasks_per_step)
        steps = [line for line in lines if line.get("kind") == "step"]
        failures = [line for line in lines if line.get("kind") == "failed"]
        return RunSummary(
            name,
            path,
            seen,
            run.config,
            curves,
            verdicts=_verdicts(lines),
            step=max((line["step"] for line in lines if line.get("kind") != "failed"), default=0),
            seconds=_number(steps[-1].get("seconds")) if steps else 0.0,
            last_written=last_written,
            failure=str(failures[-1].get("message")) if failures else "",
        )
    except Exception as error:
        return RunSummary(
            name, path, seen, run.config, last_written=last_written, error=_first_line(error, path)
        )


def _first_line(error: Exception, path: Path) -> str:
    """An error's first line, without the path of the run, which the page shows beside it."""
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
        # The first line after a start measures the compiler.
        values[[bool(line.get("compiling")) for line in found]] = math.nan
    return _thinned(found, values)


def _flagged(lines: Sequence[Mapping[str, Any]], tasks_per_step: int) -> Curve:
    found = [line for line in lines if line.get("kind") == "step"]
    counts = np.array([_number(line.get("count", 1)) for line in found])
    values = np.array([_number(line.get("flagged")) for line in found])
    return _thinned(found, values / np.maximum(1.0, counts * tasks_per_step))


def _thinned(lines: Sequence[Mapping[str, Any]], values: Float[np.ndarray, " n"]) -> Curve:
    steps = np.array([_number(line["step"]) for line in lines])
    seconds = np.array(
        [_number(line.get("seconds")) - _number(line.get("compilation", 0.0)) for line in lines]
    )
    kept = np.isfinite(values) & np.isfinite(steps) & np.isfinite(seconds)
    columns = np.stack([steps[kept], seconds[kept], values[kept]]) if lines else np.zeros((3, 0))
    window = -(-columns.shape[1] // MAX_POINTS)
    if window > 1:
        cut = columns.shape[1] // window * window
        blocks = columns[:, :cut].reshape(3, -1, window)
        # At the window's last step, so that no mean is drawn at a step before the values in it.
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


def differing_settings(runs: Sequence[RunSummary]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ.

    Args:
        runs: the runs.

    Returns:
        For each such setting ``("section.name", [a value for each run])``; ``"–"`` for a run that
        does not use the setting, or has no settings that can be read.
    """
    settings = [asdict(r.config) if r.config is not None else None for r in runs]
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
