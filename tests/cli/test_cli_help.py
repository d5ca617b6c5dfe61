import os
import subprocess
import sys

import pytest
from cli_helpers import cli

from pullback import algorithms, linear, models, solvers, tasks
from pullback.cli import options
from pullback.meta import parallel
from pullback.tasks.splits import WAYS_TO_SPLIT

COMMANDS = ["train", "evaluate", "adapt", "compare", "study", "info"]
SEEN = """
import sys
from pullback.cli import main
try:
    main({argv!r})
except SystemExit as end:
    heavy = {{"jax", "numpy", "matplotlib", "optax", "equinox"}} & sys.modules.keys()
    sys.exit(f"imported {{heavy}}" if heavy else end.code)
"""


@pytest.mark.parametrize("argv", [["--help"], ["--version"], *([c, "--help"] for c in COMMANDS)])
def test_help_is_quick_and_imports_nothing_that_computes(argv):
    code = SEEN.format(argv=argv)
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert "pullback" in done.stdout
    # The time it computes, which does not depend on what else the machine is doing.
    spent = after.children_user + after.children_system
    assert spent - before.children_user - before.children_system < 1


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command):
    from typer.main import get_command

    from pullback.cli import app

    for parameter in get_command(app).commands[command].params:
        if parameter.name != "help":
            assert parameter.help, f"{command} {parameter.name}"


@pytest.mark.parametrize(
    ("option", "names"),
    [
        (options.Dataset, tasks.DATASETS),
        (options.Algorithm, algorithms.ALGORITHMS),
        (options.LearnStrength, algorithms.FORMS),
        (options.Solver, solvers.SOLVERS),
        (options.LinearSolver, linear.LINEAR_SOLVERS),
        (options.Normalisation, models.NORMALISATIONS),
        (options.Activation, models.ACTIVATIONS),
        (options.Strategy, parallel.STRATEGIES),
        (options.SplitBy, WAYS_TO_SPLIT),
    ],
)
def test_help_names_all_there_is(option, names):
    text = option.__metadata__[0].help
    assert all(name in text for name in names)


@pytest.mark.parametrize(
    "what",
    ["algorithms", "datasets", "solvers", "normalisations", "activations", "strategies", "splits"],
)
def test_info_lists_what_there_is(what):
    record = cli("info", what, "--json").json
    shown = cli("info", what).stdout
    assert record["names"]
    assert all(name in shown for name in record["names"])


def test_a_folder_is_not_taken_for_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "solvers").mkdir()
    assert "is no run" in cli("info", "solvers", code=2).stderr
    assert "neither a folder nor a list" in cli("info", "solver", code=2).stderr


def test_unknown_commands_and_options_are_refused():
    assert "No such command" in cli("trian", code=2).stderr
    assert "No such option" in cli("train", "--stepz", "3", code=2).stderr
