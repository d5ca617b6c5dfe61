import os
import subprocess
import sys

import pytest
from cli_helpers import cli

from pullback import registries as r
from pullback.runs.config import SECTION_OF, SETTINGS

COMMANDS = ["train", "evaluate", "adapt", "compare", "study", "info", "fit", "predict", "export"]
CHOICES = ["normalisations", "activations", "strategies", "splits"]
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
        if parameter.name != "help" and not parameter.hidden:
            assert parameter.help, f"{command} {parameter.name}"


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("dataset", r.DATASETS),
        ("model", r.MODELS),
        ("name", r.ALGORITHMS),
        ("learn_strength", r.STRENGTH_FORMS),
        ("solver", r.SOLVERS),
        ("linear_solver", r.LINEAR_SOLVERS),
        ("normalisation", r.NORMALISATIONS),
        ("activation", r.ACTIVATIONS),
        ("on_bad_verdict", r.POLICIES),
        ("strategy", r.STRATEGIES),
        ("split_by", r.SPLITS),
        ("fit", r.REPTILE_FITS),
    ],
)
def test_help_names_all_there_is(name, names):
    text = SETTINGS[SECTION_OF[name]][name].help
    assert all(each in text for each in names)


@pytest.mark.parametrize(
    "what",
    ["algorithms", "datasets", "models", "solvers", "linear-solvers", "rooms", *CHOICES],
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
    assert "Did you mean 'solvers'" in cli("info", "solver", code=2).stderr


def test_unknown_commands_and_options_are_refused():
    assert "No such command" in cli("trian", code=2).stderr
    assert "No such option" in cli("train", "--stepz", "3", code=2).stderr
