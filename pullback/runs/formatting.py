"""Numbers in words: how scores, times and residuals are written for a person."""

from collections.abc import Mapping
from typing import Any


def score_text(
    score: str, mean: float | None, interval: float | None = None, *, spread: bool = True
) -> str:
    """A score with its 95 % confidence interval, in the unit it is read in.

    Args:
        score: ``"accuracy"`` or ``"mean squared error"``.
        mean: the mean over tasks; None if it was not finite.
        interval: half the width of its interval.
        spread: show the interval.

    Returns:
        For instance ``"93.4 % ± 0.5"``.
    """
    if mean is None or mean != mean:
        return "not finite"
    scale, digits, unit = (100, 1, " %") if score == "accuracy" else (1, 3, "")
    text = f"{scale * mean:.{digits}f}{unit}"
    if not spread or interval is None or interval != interval:
        return text
    return f"{text} ± {scale * interval:.{digits}f}"


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


def evaluation_text(record: Mapping[str, Any], label: str | None = None) -> str:
    """An evaluation in one sentence, with all that belongs to its number."""
    task = f"{record['shots']} support points"
    if record.get("ways"):
        task = f"{record['ways']}-way {record['shots']}-shot"
    label = label or f"{record['part']}, checkpoint of step {record['step']}"
    score = score_text(record["score"], record.get("mean"), record.get("interval"))
    text = (
        f"{record['score'].capitalize()} {score} ({label}; {task}, {record['tasks']} tasks, 95 % "
        f"interval; inner residual {number(record.get('inner_residual'), 2)}"
    )
    if record.get("normalisation"):
        text += f"; normalisation {record['normalisation']}"
    return text + ")"
