"""A progress bar of a training, on stderr."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

PATIENCE = 2.0
"""Seconds of compiling after which something is said where stderr is no terminal."""

SECONDS_BETWEEN = 10.0
"""Seconds between two lines there."""

Metrics = dict[str, np.ndarray]


@contextlib.contextmanager
def progress_bar(done: int, steps: int) -> Iterator[Callable[[int, Metrics], None]]:
    """Show how a training goes; where stderr is no terminal, a line at its end and now and then.

    Args:
        done: meta-steps done before.
        steps: meta-steps in all.

    Yields:
        ``show(done, metrics)``, to be called after each block of steps with the number of steps
        done and the block's metrics.
    """
    console = Console(stderr=True, highlight=False)
    moving = console.is_terminal or console.is_jupyter
    with _bar(console, done, steps) if moving else _line(console, steps) as show:
        yield show


@contextlib.contextmanager
def _bar(console: Console, done: int, steps: int) -> Iterator[Callable[[int, Metrics], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TextColumn("{task.fields[metrics]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    # Where the terminal is too narrow for all, the metrics are cut, and not the time left.
    others = len(f"compiling {12 * '━'} {steps}/{steps} 0:00:00 ")
    room = max(0, console.width - others)
    # The speed is that of the steps since the first block, which compiles.
    with Progress(*columns, console=console, speed_estimate_period=600.0) as bar:
        task = bar.add_task("compiling", total=steps, completed=done, metrics="")
        yield lambda done, metrics: bar.update(
            task, description="training", completed=done, metrics=_text(metrics)[:room]
        )


@contextlib.contextmanager
def _line(console: Console, steps: int) -> Iterator[Callable[[int, Metrics], None]]:
    began, text = time.monotonic(), ""
    due = began + SECONDS_BETWEEN
    compiling = threading.Timer(PATIENCE, console.print, [f"compiling for {steps} meta-steps …"])
    compiling.daemon = True
    compiling.start()

    def show(done: int, metrics: Metrics) -> None:
        nonlocal text, due
        compiling.cancel()
        text = f"{done}/{steps} meta-steps  {_text(metrics)}"
        if time.monotonic() > due and done < steps:
            console.print(Text(text), soft_wrap=True)
            due = time.monotonic() + SECONDS_BETWEEN

    try:
        yield show
    finally:
        compiling.cancel()
    if text:
        spent = timedelta(seconds=round(time.monotonic() - began))
        console.print(Text(f"{text}  in {spent}"), soft_wrap=True)


def _text(metrics: Metrics) -> str:
    loss, residual = (float(metrics[name][-1]) for name in ("loss", "inner_residual"))
    return f"loss {loss:.4g}  inner residual {residual:.2g}"
