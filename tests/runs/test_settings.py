"""The schema of settings: said once, and read everywhere from there."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from pullback.cli import app
from pullback.core.errors import InputError
from pullback.runs import config as configs
from pullback.runs.config import SECTION_OF, SETTINGS, CompareConfig
from pullback.runs.fields import settings_of

ROOT = Path(__file__).parents[2]
ALL = [(section, name) for section, settings in SETTINGS.items() for name in settings]


def options(command):
    return {
        flag: parameter
        for parameter in get_command(app).commands[command].params
        for flag in parameter.opts
    }


@pytest.mark.parametrize("command", ["train", "compare"])
def test_every_setting_is_an_option(command):
    known = options(command)
    for section, name in ALL:
        if (command, name) == ("compare", "name"):
            continue
        described = SETTINGS[section][name]
        option = known[f"--{(described.flag or name).replace('_', '-')}"]
        assert option.help == described.help
        if described.former:
            assert known[f"--{described.former.replace('_', '-')}"].hidden


def test_every_setting_of_a_comparison_is_an_option_of_it():
    assert {f"--{name.replace('_', '-')}" for name in settings_of(CompareConfig)} <= set(
        options("compare")
    )


def test_no_name_occurs_in_two_sections():
    assert len(SECTION_OF) == len(ALL)


def test_the_table_of_the_documents_is_that_of_the_schema():
    page = runpy.run_path(str(ROOT / "docs/generate_settings.py"))["document"]()
    assert (ROOT / "docs/settings.md").read_text(encoding="utf-8") == page


@pytest.mark.parametrize(
    ("former", "name", "value"),
    [("mirrors", "reflections", True), ("kindred", "same_alphabet", 0.5)],
)
def test_a_former_name_is_read_and_the_new_one_written(former, name, value):
    config = configs.resolve({"data": {former: value}})
    assert getattr(config.data, name) == value
    assert former not in config.to_toml() and name in config.to_toml()
    later = configs.merge({"data": {former: value}}, {"data": {name: type(value)(0)}})
    assert not getattr(configs.resolve(later).data, name)
    with pytest.raises(InputError, match=f"{name} was given twice"):
        configs.resolve({"data": {former: value, name: value}})


def test_a_model_is_chosen_apart_from_the_data_set():
    config = configs.resolve({"model": {"model": "mlp", "hidden": [8]}})
    assert config.model.hidden == (8,) and config.model.width is None
    assert configs.resolve({"data": {"dataset": "sinusoid"}}).model.model == "mlp"
    with pytest.raises(InputError, match="the model 'linear' has no such setting"):
        configs.resolve({"model": {"model": "linear", "hidden": [8]}})


def test_a_schema_needs_no_jax():
    code = "import pullback.cli.settings, pullback.registries, sys; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
