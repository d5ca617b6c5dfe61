"""The table of a comparison: its rows, and how they are written."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pullback.core.scores import Score
from pullback.registries import INNER_LOOPS
from pullback.runs import formatting
from pullback.runs.compare.choices import describe_inner
from pullback.runs.config import RunConfig
from pullback.runs.folder import Run

COLUMNS = (
    "algorithm",
    "inner loop",
    "test score",
    "checkpoint",
    "meta-steps",
    "training",
    "ms/meta-step",
    "inner residual",
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        algorithm: its name.
        inner: its inner loop in words.
        mean: test score.
        interval: half the width of its 95 % interval.
        steps: meta-steps.
        seconds: seconds of training, without compilation and validations.
        step_milliseconds: of one meta-step.
        inner_residual: mean over the test tasks.
        best_step: the step of the checkpoint tested: of those kept, the best by validation.
    """

    algorithm: str
    inner: str
    mean: float | None
    interval: float | None
    steps: int
    seconds: float
    step_milliseconds: float | None
    inner_residual: float | None
    best_step: int


def make_row(name: str, config: RunConfig, record: Mapping[str, Any], run: Run | None) -> Row:
    """The row of an evaluation.

    Args:
        name: what was tested.
        config: its settings.
        record: the evaluation.
        run: where it was trained; None for what was not trained.

    Returns:
        The row.
    """
    if run is None:
        untrained = dataclasses.replace(config.algorithm, learn_strength=None)
        config = dataclasses.replace(config, algorithm=untrained)
    lines = run.metrics("step") if run else []
    # The first line of each session is mostly compilation.
    steady = [line for line in lines if not line["compiling"]]
    count = sum(line["count"] for line in steady)
    seconds = sum(line["block_seconds"] for line in steady)
    return Row(
        name,
        describe_inner(config),
        record.get("mean"),
        record.get("interval"),
        config.training.steps if run else 0,
        seconds,
        1000 * seconds / count if count else None,
        record.get("inner_residual"),
        record["step"],
    )


def cells(score: Score, row: Row) -> tuple[str, ...]:
    """A row of the table as text, in the order of ``COLUMNS``."""
    return (
        row.algorithm,
        row.inner,
        score.text(row.mean, row.interval),
        f"step {row.best_step}",
        str(row.steps),
        formatting.duration(row.seconds) if row.steps else "–",
        formatting.number(row.step_milliseconds),
        formatting.number(row.inner_residual, 2),
    )


def markdown(score: Score, record: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """The table as a Markdown document.

    Args:
        score: what was compared by.
        record: what is stored about the comparison.
        rows: the rows.

    Returns:
        The document.
    """
    lines = [
        f"{record['task']} on {record['dataset']}, {INNER_LOOPS[record['inner']]}; test "
        f"{score.name} over {record['tasks']} tasks with its 95 % interval",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    lines += ["| " + " | ".join(cells(score, row)) + " |" for row in rows]
    if record["normalisation"]:
        lines += ["", f"Normalisation {record['normalisation']}."]
    return "\n".join(lines) + "\n"
