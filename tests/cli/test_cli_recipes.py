import pytest
from cli_helpers import cli

from pullback.core.errors import InputError
from pullback.runs import config as configs
from pullback.runs import recipes
from pullback.runs.folder import Run
from pullback.runs.opening import Asked

TINY = ("--steps", 2, "--tasks-per-step", 1, "--validation-tasks", 2, "--hidden", "4")


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_a_whole_configuration_and_says_what_it_is_for(name):
    given = recipes.read_recipe(name)
    written = configs.resolve(given).to_dict()
    for section, settings in given.items():
        for setting, value in settings.items():
            assert written[section][setting] == value
    assert recipes.purpose(name).endswith(".")
    assert recipes.purpose(name) in " ".join(cli("info", "recipes").stdout.split())


def test_the_command_line_goes_before_a_file_and_a_file_before_the_recipe(tmp_path):
    file = tmp_path / "more.toml"
    file.write_text("[training]\nsteps = 3\nseed = 5\n[data]\nshots = 4\n")
    cli("train", "--recipe", "sinusoid", "--config", file, *TINY, "--out", tmp_path / "run")
    config = Run.open(tmp_path / "run").config
    assert (config.training.steps, config.training.seed) == (2, 5)
    assert (config.data.dataset, config.data.shots) == ("sinusoid", 4)
    done = cli("train", "--resume", tmp_path / "run", "--recipe", "sinusoid", code=2)
    assert "--recipe was given with --resume" in done.stderr


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        ({"pretraining": {"pretrain": 0}}, ("pretraining", "pretrain_distortion")),
        ({"model": {"model": "mlp"}}, ("model", "groups")),
    ],
)
def test_what_a_changed_run_has_no_use_for_is_left_out_of_the_recipe(changed, gone):
    recipe = recipes.read_recipe("omniglot-5w1s")
    section, name = gone
    assert name in recipe[section]
    config = configs.resolve(Asked(changed, recipe="omniglot-5w1s").merged())
    assert name not in config.to_dict()[section]
    assert config.data.split_by == "character"


def test_what_is_left_out_takes_with_it_what_needs_it():
    asked = Asked({"data": {"dataset": "sinusoid"}}, recipe="omniglot-5w1s")
    config = configs.resolve(asked.merged())
    assert config.data.ways is None
    assert "pretrain_distortion" not in config.to_dict()["pretraining"]
    assert config.training.steps == 10_000


def test_what_is_given_is_not_left_out():
    asked = Asked({"model": {"model": "mlp", "groups": 2}}, recipe="omniglot-5w1s")
    with pytest.raises(InputError, match="groups is 2, but the model 'mlp' has no such setting"):
        configs.resolve(asked.merged())


def test_an_unknown_recipe_has_the_nearest_named(tmp_path):
    done = cli("train", "--recipe", "sinusoids", "--out", tmp_path / "run", code=2)
    assert "Did you mean 'sinusoid'?" in done.stderr
    assert not (tmp_path / "run").exists()
