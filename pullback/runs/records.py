"""What the lines and documents of a run's folder hold, whoever wrote them."""

from collections.abc import Mapping
from typing import Any

from pullback.core.errors import InputError
from pullback.runs.fields import FLAG, MOST, Kind, number, read, text, whole

COUNT = whole(0, 2**63 - 1)
STEP = whole(0, MOST)
FINITE = number("finite numbers", lambda x: True)
TEXT = Kind("a text", text)
NAME = Kind("a text or null", lambda value: None if value is None else text(value))
SIZE = Kind("whole numbers or null", lambda value: None if value is None else whole(0).read(value))


def _codes(value: Any) -> dict[str, int]:
    if not isinstance(value, Mapping) or not all(key.isdecimal() for key in value):
        raise ValueError
    if not all(isinstance(count, int) and count >= 0 for count in value.values()):
        raise ValueError
    return dict(value)


CODES = Kind("numbers of tasks by the number of a verdict", _codes)

NUMBERS = (
    *("loss", "mean", "interval", "seconds", "compilation", "block_seconds", "tasks_per_second"),
    *("inner_residual", "linear_residual", "inner_error", "linear_error", "smallest_curvature"),
)
TYPES = dict.fromkeys(NUMBERS, FINITE) | {
    "kind": TEXT,
    "step": STEP,
    "count": COUNT,
    "tasks": COUNT,
    "compiling": FLAG,
    "codes": CODES,
    "message": TEXT,
}
"""What is read of a line of the metrics."""

NEEDED = {
    "step": ("step", "count", "seconds", "compilation", "block_seconds", "compiling"),
    "validation": ("step", "seconds", "compilation"),
    "flags": ("step", "codes"),
    "failed": ("step", "message"),
}
"""What a line of the metrics must have, by its kind."""

EVALUATION = {
    "part": TEXT,
    "step": STEP,
    "tasks": COUNT,
    "mean": FINITE,
    "interval": FINITE,
    "inner_residual": FINITE,
    "ways": SIZE,
    "shots": SIZE,
    "normalisation": NAME,
}
"""What is read of a stored evaluation."""

EVALUATION_NEEDS = ("part", "step", "tasks")


def check_line(record: Any, kind: str | None = None) -> dict[str, Any]:
    """A line of the metrics: an object with a step.

    Args:
        record: what the line says.
        kind: if the line is of this kind, the types of its values are looked at too.

    Returns:
        The line.

    Raises:
        InputError: naming the first value that is missing or of another type.
    """
    if not isinstance(record, dict):
        raise InputError("it holds no JSON object")
    need(record, ("step",))
    read(STEP, "step", record["step"])
    if kind is not None and record.get("kind") == kind:
        need(record, NEEDED.get(kind, ()))
        for name in TYPES.keys() & record.keys():
            read(TYPES[name], name, record[name])
    return record


def check_evaluation(record: Mapping[str, Any]) -> None:
    """A stored evaluation whose values are of their types.

    Raises:
        InputError: naming the first that is not.
    """
    need(record, EVALUATION_NEEDS)
    for name, kind in EVALUATION.items():
        if name in record:
            read(kind, name, record[name])


def need(record: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Names that a record must have.

    Raises:
        InputError: naming those it lacks.
    """
    missing = [name for name in names if name not in record]
    if missing:
        raise InputError(f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} missing")
