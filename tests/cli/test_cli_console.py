"""What a person is shown on the way: a bar that fits, each warning once, and nothing if asked."""

import io
import re

import pytest
from rich.console import Console
from typer.main import get_command

from pullback.cli import app
from pullback.cli.console import Reporter
from pullback.core.scores import ACCURACY
from pullback.runs.trainer import Event

STEP = {"loss": 1.2345, "inner_residual": 1.2e-4, "inner_error": 1e-4, "linear_error": 1e-4}
STEP |= {"steps": 20_000, "tasks_per_second": 123.0}
VALIDATION = {"steps": 20_000, "mean": 0.5, "interval": 0.01}


def reporter(width, **options):
    made = Reporter(**options)
    made.err = Console(file=io.StringIO(), force_terminal=width > 0, width=width or 80)
    return made


def shown(made):
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", made.err.file.getvalue())
    return text.replace("\r", "\n").splitlines()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_bar_keeps_the_time_left_at_every_width(width):
    made = reporter(width)
    with made.training(ACCURACY, 20_000, "reptile") as watch:
        watch(Event("start", {"step": 0, "steps": 20_000}))
        watch(Event("validation", VALIDATION | {"step": 0}))
        watch(Event("step", STEP | {"step": 1}))
        watch.began -= 60
        watch(Event("step", STEP | {"step": 400}))
        watch.bar.refresh()
    last = [line for line in shown(made) if "400/20000" in line][-1]
    assert re.search(r"\d+ min \d\d s left", last)
    assert len(last) <= width


def test_while_compiling_the_bar_says_so():
    made = reporter(100)
    with made.training(ACCURACY, 20_000) as watch:
        for kind in ("start", "validating", "validation"):
            watch(Event(kind, VALIDATION | {"step": 0}))
            watch.bar.refresh()
        assert "training" not in "".join(shown(made))
        assert shown(made)[-1].startswith("compiling")
        watch(Event("step", STEP | {"step": 1}))
        watch.bar.refresh()
        assert shown(made)[-1].startswith("training")


@pytest.mark.parametrize(("quiet", "lines"), [(False, 2), (True, 0)])
def test_a_warning_is_said_once_for_each_kind_and_not_at_all_when_quiet(quiet, lines):
    made = reporter(0, quiet=quiet)
    with made.training(ACCURACY, 20_000) as watch:
        for step in range(100):
            for kind in (2, "validation"):
                event = {"step": step, "about": kind, "message": f"{step} tasks: {kind}"}
                watch(Event("warning", event))
    assert len([line for line in shown(made) if "Warning" in line]) == lines
    assert len(shown(made)) == lines


DRAWS = {"train", "evaluate", "adapt", "compare", "study", "fit", "export"}
"""The commands that draw random numbers."""


def test_every_command_has_the_options_that_the_readme_says():
    for name, command in get_command(app).commands.items():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert {"--quiet", "--json"} <= flags, name
        assert ("--seed" in flags) == (name in DRAWS), name
