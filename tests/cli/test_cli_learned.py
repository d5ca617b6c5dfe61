"""A run that learns Λ: trained, resumed, shown, and evaluated with what it learned."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli_helpers import assert_equal_states, cli, state

from pullback.algorithms import imaml
from pullback.core.errors import InputError
from pullback.core.scores import MEAN_SQUARED_ERROR
from pullback.meta.evaluation import evaluate
from pullback.runs import build, checkpoint, trainer
from pullback.runs import config as configs
from pullback.runs.folder import Run
from pullback.solvers import Projected

LEARNED = (
    *("--dataset", "sinusoid", "--hidden", "8", "--shots", "5", "--inner-steps", "5"),
    *("--linear-steps", "2", "--tasks-per-step", "2", "--steps", "4"),
    *("--validate-every", "2", "--validation-tasks", "4"),
    *("--learn-strength", "diagonal", "--strength-learning-rate", "0.5"),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learned") / "run"
    cli("train", *LEARNED, "--out", folder)
    return folder


def test_the_settings_are_stored_and_the_strength_is_learned(run):
    text = (run / "config.toml").read_text()
    assert 'learn_strength = "diagonal"' in text
    assert "strength_learning_rate = 0.5" in text
    theta = state(run).theta
    assert jax.tree.structure(theta.log_strength) == jax.tree.structure(theta.params)
    moved = [np.abs(np.asarray(leaf) - np.log(2.0)) for leaf in jax.tree.leaves(theta.log_strength)]
    assert max(leaf.max() for leaf in moved) > 0.3


def test_a_resumed_run_equals_one_without_interruption_in_every_bit(run, tmp_path):
    built = build.build(Run.open(run).config)
    half = Run.create(tmp_path / "run", built.config, None)
    asked = iter([False, False, True])
    outcome = trainer.train_run(half, built, should_stop=lambda: next(asked, True))
    assert 0 < int(outcome.state.step) < 4
    cli("train", "--resume", half.folder)
    assert_equal_states(state(half.folder), state(run))


def test_a_run_is_scored_with_the_strength_of_its_checkpoint(run):
    """The score of plain iMAML with that Λ, and not the one with Λ at the start."""
    record = cli("evaluate", run, "--tasks", "4", "--checkpoint", "last", "--json").json
    theta = state(run).theta
    built = build.reopen(Run.open(run))

    def score(strength):
        return evaluate(
            imaml(built.loss, strength=strength, solver=Projected.where_separable(5)),
            theta.params,
            built.tasks("test"),
            metric=built.metric,
            key=jax.random.fold_in(jax.random.key(0), build.EVALUATE),
            count=4,
        ).mean

    assert record["mean"] == pytest.approx(score(theta.strength), rel=1e-5)
    start = jax.tree.map(lambda x: jnp.full_like(x, 2.0), theta.strength)
    assert record["mean"] != pytest.approx(score(start), rel=1e-4)


def test_info_shows_what_was_learned(run, copied):
    best = checkpoint.find(run / "checkpoints", "best", MEAN_SQUARED_ERROR)
    record = cli("info", run, "--json").json["learned_strength"]
    assert (record["form"], record["step"]) == ("diagonal", best)
    strength = state(run, best).theta.strength
    leaf = record["leaves"]["layer0.weight"]
    assert list(leaf) == ["min", "median", "max"]
    assert leaf["median"] == pytest.approx(np.median(strength["layer0"]["weight"]))
    shown = " ".join(cli("info", run).stdout.split())
    assert f"learned λ one for each parameter, at step {best}" in shown
    assert "parameters min median max" in shown
    assert "layer0.weight" in shown
    spoiled = copied(run)
    for path in (spoiled / "checkpoints" / str(best)).rglob("*"):
        if path.is_file() and "metrics" not in path.parts:
            path.write_bytes(b"")
    assert f"The checkpoint of step {best}" in " ".join(cli("info", spoiled).stdout.split())


@pytest.mark.parametrize("form", ["scalar", "leaf"])
def test_the_other_forms_are_shown_too(form, tmp_path):
    argv = [arg if arg != "diagonal" else form for arg in LEARNED]
    argv[argv.index("--steps") + 1] = "1"
    cli("train", *argv, "--out", tmp_path / "run")
    record = cli("info", tmp_path / "run", "--json").json["learned_strength"]
    values = [record["value"]] if form == "scalar" else list(record["leaves"].values())
    learned = jax.tree.leaves(state(tmp_path / "run", record["step"]).theta.strength)
    assert values == pytest.approx([float(value) for value in learned])
    shown = " ".join(cli("info", tmp_path / "run").stdout.split())
    text = f"{values[0]:.3g}" if form == "scalar" else "one for each array"
    assert f"learned λ {text}, at step {record['step']}" in shown


def test_a_comparison_learns_the_strength_of_imaml_alone(tmp_path):
    file = tmp_path / "compare.toml"
    file.write_text(
        """
        [algorithm]
        learn_strength = "leaf"
        strength_learning_rate = 0.1
        linear_steps = 2
        """
    )
    small = ("--algorithms", "imaml,fomaml", "--dataset", "sinusoid", "--hidden", "8")
    small += ("--shots", "5", "--steps", "1", "--tasks-per-step", "2", "--tasks", "2")
    small += ("--validation-tasks", "2", "--config", file, "--out", tmp_path / "all")
    cli("compare", *small)
    rows = json.loads((tmp_path / "all" / "table.json").read_text())["rows"]
    inner = {row["algorithm"]: row["inner"] for row in rows}
    assert inner["imaml"].endswith("λ = 2 at first, learned (leaf)")
    assert inner["without meta-learning"].endswith("λ = 2")
    assert inner["fomaml"].endswith("no proximal term")


REFUSED = {
    "form": ({"learn_strength": "diag"}, "Did you mean 'diagonal'"),
    "maml": ({"name": "maml", "learn_strength": "leaf"}, "'maml' has no such setting"),
    "nothing to learn": (
        {"strength_learning_rate": 0.1},
        "a run that learns no strength has no such setting",
    ),
    "rate": (
        {"learn_strength": "leaf", "strength_learning_rate": 0.0},
        "strength_learning_rate in [algorithm] is 0.0",
    ),
}


@pytest.mark.parametrize(("given", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_learned_is_refused(given, message):
    with pytest.raises(InputError) as caught:
        configs.resolve({"algorithm": given})
    assert message in str(caught.value)


def test_the_rate_is_a_setting_only_where_there_is_something_to_learn():
    learned = configs.resolve({"algorithm": {"learn_strength": "scalar"}}).algorithm
    assert learned.strength_learning_rate == 0.01
    plain = configs.resolve({}).algorithm
    assert (plain.learn_strength, plain.strength_learning_rate) == ("none", None)
