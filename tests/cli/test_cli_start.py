import json
import math
import shutil

import jax
import numpy as np
import pytest
from cli_helpers import SINUSOID, assert_equal_states, cli, state, write_omniglot

import pullback as pb
from pullback.runs import build, starting
from pullback.runs import pretrained as p
from pullback.runs.folder import Run

FEW = ("--queries", "3", "--algorithm", "fomaml", "--inner-steps", "1", "--tasks-per-step", "2")
FEW += ("--steps", "2", "--validate-every", "2", "--validation-tasks", "4", "--no-rotations")


@pytest.fixture(scope="module")
def run(omniglot_run, omniglot, tmp_path_factory):
    """Started from a run of three ways, with two."""
    folder = tmp_path_factory.mktemp("started") / "run"
    cli(
        *("train", "--start", omniglot_run, "--ways", 2, *FEW),
        *("--data-dir", omniglot, "--out", folder),
    )
    return folder


def parts(built, params):
    """The arrays of the body and of the head."""
    return [jax.tree.leaves(part) for part in built.model.apply.split(params)]


def start_of(folder):
    run = Run.open(folder)
    built = build.reopen(run)
    return parts(built, starting.start(run, built).params)


def best_of(folder):
    run = Run.open(folder)
    built = build.reopen(run)
    return parts(built, p.trained_theta(run, built)[1])


def assert_starts_from(run, first):
    """From its best body, and a head of zeros."""
    body, head = start_of(run)
    for one, other in zip(body, best_of(first)[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(np.any(leaf) for leaf in head)


def test_a_run_starts_from_the_best_of_another_with_a_head_of_zeros(run, omniglot_run):
    assert_starts_from(run, omniglot_run)
    assert any(np.any(leaf) for leaf in best_of(omniglot_run)[1])


def test_the_model_and_the_split_are_those_it_starts_from(run, omniglot_run):
    first, then = Run.open(omniglot_run), Run.open(run)
    assert then.config.model == first.config.model
    assert then.split == first.split
    assert then.config.data.ways == 2


def test_without_meta_learning_means_what_it_started_from(run, omniglot_run, omniglot, tmp_path):
    pb.pack(Run.open(omniglot_run), tmp_path / "packed", dtype="float32")
    given = ("--tasks", 4, "--json", "--data-dir", omniglot)
    shown = cli("evaluate", run, *given, "--baseline").json["baseline"]
    alone = cli("evaluate", tmp_path / "packed", *given, "--ways", 2).json
    assert shown["mean"] == alone["mean"]


def test_it_needs_nothing_outside_its_folder(omniglot_run, omniglot, run, tmp_path):
    shutil.copytree(omniglot_run, tmp_path / "first")
    given = ("--start", tmp_path / "first", "--ways", 2, *FEW, "--data-dir", omniglot)
    cli("train", *given, "--out", tmp_path / "run")
    assert_equal_states(state(tmp_path / "run").theta, state(run).theta)
    shutil.rmtree(tmp_path / "first")
    # Interrupted before anything was saved.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "metrics.jsonl").unlink()
    cli("train", "--resume", tmp_path / "run")
    assert_equal_states(state(tmp_path / "run").theta, state(run).theta)


def test_what_went_into_it_is_known_when_it_is_packed(run, omniglot_run, omniglot, tmp_path):
    packed = pb.pack(Run.open(run), tmp_path / "packed")
    # The split it started from is its own, and is not packed twice.
    assert [each.split for each in packed.lineage()] == [Run.open(omniglot_run).split]
    assert packed.config.training.start == ""
    before = json.loads((run / "start" / "card.json").read_text())["seconds"]
    own = Run.open(run).metrics("validation")
    assert packed.card["seconds"] - before in [line["seconds"] for line in own]
    # Trained on other data, it still knows the classes of what it started from.
    others = write_omniglot(tmp_path / "others", "background", ["Eta", "Iota", "Phi", "Zeta"])
    cli(
        *("train", "--start", packed.folder, "--ways", 2, *FEW, "--split-seed", 3),
        *("--data-dir", others, "--out", tmp_path / "other"),
    )
    whole = pb.pack(Run.open(tmp_path / "other"), tmp_path / "whole")
    assert len(whole.lineage()) == 2
    assert str(tmp_path) not in (whole.folder / "start" / "config.toml").read_text()
    shutil.move(others / "images_background" / "Eta", tmp_path)
    seen = Run.open(run).split.train[0].split("/")[0]
    shutil.copytree(omniglot / "images_background" / seen, others / "images_background" / "New")
    refused = cli(
        *("evaluate", tmp_path / "other", "--split", "unseen", "--tasks", 4, "--data-dir", others),
        code=2,
    )
    assert "have the very examples of classes" in refused.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--start", "omniglot-5w"), "Did you mean 'omniglot-5w1s'?"),
        (("--start", "{run}", "--hidden", "16"), "with other shapes"),
        (("--start", "{run}", "--model", "conv4"), "with other shapes"),
        (("--start", "{run}", "--split-seed", "7"), "classes of the split are among those"),
        (("--start", "{run}", "--pretrain", "9"), "Both --pretrain and --start"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_before_anything_is_written(
    given, said, omniglot_run, omniglot, tmp_path
):
    given = [str(omniglot_run) if part == "{run}" else part for part in given]
    refused = cli(
        *("train", *given, *FEW, "--ways", 2, "--data-dir", omniglot, "--out", tmp_path / "run"),
        code=2,
    )
    assert said in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("section", ["training", "data", "model"])
def test_a_section_that_is_none_is_named_before_anything_is_inherited(section, tmp_path):
    file = tmp_path / "wrong.toml"
    file.write_text(f"{section} = 3\n")
    start = ("--start", "omniglot-5w1s") if section != "training" else ()
    refused = cli("train", "--config", file, *start, "--out", tmp_path / "run", code=2)
    assert f"{section} is 3" in refused.stderr


def test_a_run_that_was_not_saved_yet_is_no_start(omniglot_run, omniglot, copied, tmp_path):
    run = copied(omniglot_run)
    shutil.rmtree(run / "checkpoints")
    refused = cli(
        *("train", "--start", run, *FEW, "--ways", 2, "--data-dir", omniglot),
        *("--out", tmp_path / "new"),
        code=2,
    )
    assert "checkpoint" in refused.stderr
    assert not (tmp_path / "new").exists()


class Headless:
    """A model that does not say where its head is."""

    def __init__(self, inputs, outputs):
        self.shape = math.prod(inputs), outputs

    def init(self, key):
        return jax.random.normal(key, self.shape)

    def apply(self, params, x):
        return x.reshape(len(x), -1) @ params


@pytest.mark.parametrize("asked", ["start", "pretrain"])
def test_a_model_that_does_not_say_where_its_head_is_is_named(
    asked, omniglot_run, omniglot, tmp_path
):
    given = {"start": ("--start", omniglot_run), "pretrain": ("--pretrain", 3)}[asked]
    model = f"{__name__}:{Headless.__name__}"
    split = ("--validation-classes", 3, "--test-classes", 3)
    refused = cli(
        *("train", *given, *split, *FEW, "--ways", 2, "--model", model, "--dataset", "omniglot"),
        *("--data-dir", omniglot, "--out", tmp_path / "run"),
        code=2,
    )
    assert f"(--{asked})" in refused.stderr
    assert "does not say" in refused.stderr


def test_tasks_without_classes_have_a_start_too(sinusoid_run, tmp_path):
    cli("train", *SINUSOID, "--start", sinusoid_run, "--out", tmp_path / "run")
    assert_starts_from(tmp_path / "run", sinusoid_run)


def test_a_comparison_starts_there(omniglot_run, omniglot, tmp_path):
    cli(
        *("compare", "--algorithms", "fomaml", "--inner", "same", "--start", omniglot_run),
        *("--ways", 2, "--queries", 3, "--steps", 2, "--tasks-per-step", 2, "--no-baseline"),
        *("--inner-steps", 1, "--solver", "gradient-descent", "--strength", 0),
        *("--validation-tasks", 4, "--tasks", 4, "--data-dir", omniglot, "--out", tmp_path / "all"),
    )
    assert_starts_from(tmp_path / "all" / "fomaml", omniglot_run)
