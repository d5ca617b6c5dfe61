"""What a person sees: progress, tables, warnings and errors. Results alone go to stdout."""

import contextlib
import json
import math
import re
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import console
from rich.console import ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from pullback.core.scores import Score
from pullback.runs.folder import finite
from pullback.runs.formatting import duration, number

REST = Column(no_wrap=True, overflow="ellipsis", ratio=1)
"""The column of a bar that takes what room the others leave."""

# What moves the cursor, turns the direction of writing round or cannot be encoded at all: in the
# name of a file or a line of a stranger's run it could make a terminal show or do anything.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """A text with what a terminal might obey written out, as ``\\u001b``.

    Args:
        text: from anywhere; line breaks and tabs stay.

    Returns:
        The text.
    """
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class Console(console.Console):
    """A console through which no text reaches the terminal as a command."""

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """What is printed, piece by piece; the console's own commands are pieces apart."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else piece._replace(text=printable(piece.text))


class Reporter:
    """Where a command's words go: results to stdout, all else to stderr.

    Args:
        quiet: say nothing but results and errors.
        as_json: print the result as one JSON document and nothing else on stdout.
    """

    def __init__(self, quiet: bool = False, as_json: bool = False):
        self.quiet, self.as_json = quiet, as_json
        self.out = Console(highlight=False)
        if not self.out.is_terminal:
            # Into a file or a pipe no table needs to be squeezed.
            self.out = Console(highlight=False, width=160)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A remark on the way."""
        if not self.quiet:
            self.err.print(Text(text))

    def warn(self, text: str) -> None:
        """A warning; what it is about belongs into the result as well."""
        if not self.quiet:
            self.err.print(Text.assemble(("Warning: ", "bold yellow"), text))

    def error(self, text: str) -> None:
        """The one line that tells why a command failed."""
        line = " ".join(text.split())
        self.err.print(Text(f"Error: {line}", style="bold red"))

    def result(self, record: Mapping[str, Any], *shown: Any) -> None:
        """The result of a command.

        Args:
            record: what is printed as JSON, if that was asked for.
            shown: lines and tables for a person otherwise.
        """
        if self.as_json:
            # In ASCII, which every terminal and every pipe can take.
            print(json.dumps(finite(record), indent=1), flush=True)
            return
        for item in shown:
            if isinstance(item, str):
                self.out.print(Text(item), soft_wrap=True)
            else:
                self.out.print(item)

    @contextlib.contextmanager
    def counting(self, label: str, total: int | None, unit: str = "tasks") -> Iterator[Any]:
        """A bar over a number of tasks.

        Yields:
            What is to be told the number done, and the number of all where it was not known.
        """
        if self.quiet or not self.err.is_terminal:
            yield lambda done, of=total: None if done else self.say(f"{label}: {of} {unit} …")
            return
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.err,
            transient=True,
        ) as bar:
            task = bar.add_task(label, total=total)
            yield lambda done, of=total: bar.update(task, completed=done, total=of)

    @contextlib.contextmanager
    def training(self, score: Score, steps: int, label: str = "") -> Iterator[Any]:
        """Progress of a training; yields the function that takes its events."""
        watch = _Watch(self, score, label)
        if self.quiet or not self.err.is_terminal:
            yield watch
            return
        with Progress(
            TextColumn(f"{label + ' ' if label else ''}{{task.fields[what]}}"),
            BarColumn(bar_width=12),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            # Where the terminal is too narrow for all, these are cut.
            TextColumn("{task.fields[facts]}", table_column=REST),
            console=self.err,
            expand=True,
        ) as bar:
            watch.bar = bar
            watch.task = bar.add_task("", total=steps, what="compiling", facts="", left="")
            yield watch


class Silent(Reporter):
    """For a process that leaves the word to another one: errors alone are shown."""

    def __init__(self):
        super().__init__(quiet=True)

    def result(self, record: Mapping[str, Any], *shown: Any) -> None:
        """Left to the other process."""


class _Watch:
    """Turns the events of a training into a moving bar, or into a line a validation."""

    def __init__(self, reporter: Reporter, score: Score, label: str):
        self.reporter, self.score, self.label = reporter, score, label
        self.bar: Progress | None = None
        self.task: Any = None
        self.step: dict[str, Any] = {}
        self.validation, self.stage = "", "training"
        self.began, self.first, self.compiled = time.monotonic(), 0, False
        self.warned: set[Any] = set()

    def __call__(self, event: Any) -> None:
        data = event.data
        if event.kind == "start":
            self.began, self.first, self.compiled = time.monotonic(), data["step"], False
            self.stage = "pretraining" if data.get("pretraining") else "training"
            self.step = {}
            if self.bar is not None:
                self.bar.update(self.task, total=data["steps"])
            self.show(data["step"], what="compiling")
        elif event.kind == "warning":
            # How often it came again is counted in the run, and told at its end.
            if data["about"] not in self.warned:
                self.warned.add(data["about"])
                self.reporter.warn(f"{self.prefix()}step {data['step']}: {data['message']}")
        elif event.kind == "validating":
            self.show(data["step"], what="validating")
        elif event.kind == "step":
            self.step = data
            if not self.compiled:
                # Compilation is over, and would spoil the forecast of what is left.
                self.began, self.first, self.compiled = time.monotonic(), data["step"], True
            self.show(data["step"], what=self.stage)
        elif event.kind == "validation":
            self.validation = self.score.text(data.get("mean"), data.get("interval"))
            if self.bar is None:
                self.line(data)
            self.show(data["step"], what=self.stage if self.compiled else "compiling")

    def pace(self) -> str:
        unit = "batches" if self.stage == "pretraining" else "tasks"
        return f"{self.step['tasks_per_second']:.0f} {unit}/s"

    def prefix(self) -> str:
        return f"{self.label}: " if self.label else ""

    def left(self, step: int, steps: int) -> str:
        done = step - self.first
        if done <= 0 or step >= steps:
            return ""
        rest = (time.monotonic() - self.began) / done * (steps - step)
        return f"{duration(rest)} left"

    def show(self, step: int, what: str) -> None:
        if self.bar is None:
            return
        facts = [f"validation {self.validation}"] if self.validation else []
        steps = self.step.get("steps", 0)
        if self.step:
            facts.insert(0, f"loss {number(self.step['loss'])}")
            if math.isfinite(self.step["inner_residual"]):
                facts.append(f"residual {number(self.step['inner_residual'], 2)}")
                if self.step.get("inner_error") is not None:
                    error = max(self.step["inner_error"], self.step["linear_error"])
                    facts.append(f"error {number(error, 2)}")
            facts.append(self.pace())
        left = self.left(step, steps) if steps else ""
        self.bar.update(self.task, completed=step, what=what, facts="  ".join(facts), left=left)

    def line(self, data: Mapping[str, Any]) -> None:
        parts = [f"{self.prefix()}step {data['step']}/{data['steps']}"]
        if self.stage == "pretraining":
            parts[0] += " of pretraining"
        if self.step:
            parts.append(f"loss {number(self.step['loss'])}")
        parts.append(f"validation {self.validation}")
        parts.append(f"inner residual {number(data.get('inner_residual'), 2)}")
        if self.step:
            parts.append(self.pace())
            left = self.left(data["step"], data["steps"])
            parts += [left] if left else []
        self.reporter.say("  ".join(parts))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str | None = None) -> Table:
    """A plain table, numbers to the right.

    Args:
        columns: headings; one that ends in a space-free ``>`` is aligned right.
        rows: cells.
        title: above the table.

    Returns:
        The table, ready to print.
    """
    from rich import box

    made = Table(
        title=title,
        box=box.SIMPLE_HEAD if any(columns) else box.SIMPLE,
        show_header=any(columns),
        title_justify="left",
        title_style="bold",
    )
    for name in columns:
        right = name.endswith(">")
        made.add_column(
            name.removesuffix(">"), justify="right" if right else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


@contextlib.contextmanager
def interruptible(reporter: Reporter) -> Iterator[Any]:
    """Let the first Ctrl-C ask for an orderly end, and the second one end at once.

    Yields:
        A function that says whether the end was asked for.
    """
    asked = []

    def on_signal(number: int, frame: Any) -> None:
        asked.append(number)
        # The system's own handler ends the process even while compiled code is running.
        for each in former:
            signal.signal(each, signal.SIG_DFL)
        reporter.err.print(
            "\nStopping after this block of steps and saving; Ctrl-C again quits at once."
        )

    former: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # Only the main thread may set handlers.
        for each in (signal.SIGINT, signal.SIGTERM):
            former[each] = signal.signal(each, on_signal)
    try:
        yield lambda: bool(asked)
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
