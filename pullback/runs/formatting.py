"""How times, residuals and evaluations are written for a person."""

import shlex
from collections.abc import Mapping
from typing import Any

from pullback.core.scores import Score


def command(*words: Any) -> str:
    """A command line of the program that can be given to a shell as it stands."""
    return shlex.join(["pullback", *map(str, words)])


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return "–" if value is None or value != value else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A number with a few significant digits."""
    if value is None or value != value:
        return "–"
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """A time span in the largest unit that suits it."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def task_text(ways: int | None, shots: int | None) -> str:
    """What a task is, in words; empty where it has neither classes nor support points."""
    if ways:
        return f"{ways}-way {shots}-shot"
    return f"{shots} support points" if shots else ""


def evaluation_text(score: Score, record: Mapping[str, Any], label: str | None = None) -> str:
    """An evaluation in one sentence, with all that belongs to its number."""
    task = task_text(record.get("ways"), record.get("shots"))
    label = label or f"{record['part']}, checkpoint of step {record['step']}"
    written = score.text(record.get("mean"), record.get("interval"))
    text = (
        f"{score.name.capitalize()} {written} ({label}; {task}{', ' if task else ''}"
        f"{record['tasks']} tasks, 95 % interval; "
        f"inner residual {number(record.get('inner_residual'), 2)}"
    )
    if record.get("normalisation"):
        text += f"; normalisation {record['normalisation']}"
    return text + ")"
