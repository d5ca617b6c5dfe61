import tomllib

import pytest

from pullback.algorithms import ALGORITHMS
from pullback.core.errors import InputError
from pullback.runs import build
from pullback.runs import config as configs
from pullback.tasks import DATASETS

EVERY = [(dataset, algorithm) for dataset in DATASETS for algorithm in ALGORITHMS]


def resolve(dataset="glyphs", name="imaml", **sections):
    sections.setdefault("data", {})["dataset"] = dataset
    sections.setdefault("algorithm", {})["name"] = name
    return configs.resolve(sections)


@pytest.mark.parametrize(("dataset", "algorithm"), EVERY)
def test_what_is_written_is_read_back_whole(dataset, algorithm, tmp_path):
    config = resolve(dataset, algorithm)
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert configs.from_toml(tmp_path / "config.toml") == config


@pytest.mark.parametrize(("dataset", "algorithm"), EVERY)
def test_every_setting_in_use_is_explicit(dataset, algorithm):
    config = resolve(dataset, algorithm)
    parts = configs.find_parts({"dataset": dataset, "name": algorithm})
    table = configs.defaults(parts)
    written = {n: x for part in tomllib.loads(config.to_toml()).values() for n, x in part.items()}
    assert written == table


def test_defaults_follow_the_algorithm_and_the_data():
    assert resolve().algorithm.strength == 5.0
    assert resolve(name="maml").algorithm.strength == 0.0
    assert resolve().algorithm.solver == "projected"
    assert resolve(name="reptile").algorithm.inner_steps == 10
    assert resolve("sinusoid").data.shots == 10
    assert resolve("omniglot").data.rotations
    assert not resolve("glyphs").data.rotations
    assert resolve(name="maml").algorithm.linear_steps is None


def test_the_groups_of_the_normalisation_reach_the_network():
    config = resolve("glyphs", model={"width": 12, "groups": 3})
    assert build.assemble(config).model.groups == 3
    with pytest.raises(InputError, match="12 channels cannot be cut into 8 equal groups"):
        build.assemble(resolve("glyphs", model={"width": 12}))


def test_a_solver_without_a_step_size_takes_none():
    assert resolve(algorithm={"solver": "nesterov"}).algorithm.inner_learning_rate is None
    assert resolve(algorithm={"solver": "adam"}).algorithm.inner_momentum == 0.9


def resolve_with(section, name, value):
    return configs.resolve({section: {name: value}})


WRONG = [
    ("data", "ways", 1, "ways in [data] is 1. Allowed: whole numbers from 2"),
    ("data", "ways", True, "ways in [data] is True"),
    ("data", "rotations", 1, "Allowed: true or false"),
    ("data", "mirrors", "yes", "Allowed: true or false"),
    ("data", "kindred", -0.1, "Allowed: numbers from 0 to 1"),
    ("data", "distortion", 2.1, "Allowed: numbers from 0 to 2"),
    ("data", "dataset", 3, "dataset in [data] is 3"),
    ("model", "logit_scale", float("inf"), "Allowed: numbers above 0"),
    ("model", "groups", 0, "Allowed: whole numbers from 1"),
    ("model", "normalisation", "grp", "Did you mean 'group'"),
    ("algorithm", "damping", -1.0, "Allowed: numbers from 0"),
    ("algorithm", "linear_solver", "minre", "Did you mean 'minres'"),
    ("algorithm", "linear_rtol", 1.0, "Allowed: 0 ≤ number < 1"),
    ("training", "steps", 2.5, "Allowed: whole numbers from 0"),
    ("training", "steps", 0, "steps in [training] is 0"),
    ("training", "learning_rate", "fast", "learning_rate in [training] is 'fast'"),
    ("training", "strategy", "pmap", "Did you mean 'map'"),
    ("algorithm", "fit", "all", "the algorithm 'imaml' has no such setting"),
    ("data", "data_dir", "x", "the data set 'glyphs' has no such setting"),
    ("model", "hidden", [40], "the model 'conv4' has no such setting"),
]


@pytest.mark.parametrize(("section", "name", "value", "message"), WRONG)
def test_a_wrong_value_is_named_with_what_is_allowed(section, name, value, message):
    with pytest.raises(InputError) as caught:
        resolve_with(section, name, value)
    assert message in str(caught.value)


@pytest.mark.parametrize("widths", [[], [0], [40.0], "40", [True]])
def test_hidden_widths_are_whole_numbers(widths):
    with pytest.raises(InputError, match="a list of whole numbers from 1"):
        resolve("sinusoid", model={"hidden": widths})


def test_whole_numbers_serve_as_numbers_and_are_written_as_such():
    config = resolve(algorithm={"strength": 5})
    assert config.to_dict()["algorithm"]["strength"] == 5.0
    assert "strength = 5.0" in config.to_toml()


def test_differences_are_listed_by_name():
    one = resolve(training={"steps": 5, "seed": 1})
    other = resolve(training={"steps": 6, "seed": 1})
    assert configs.diff(one, other) == [("training.steps", 5, 6)]
    assert configs.diff(one, one) == []
    assert ("algorithm.linear_steps", 10, None) in configs.diff(one, resolve(name="maml"))
