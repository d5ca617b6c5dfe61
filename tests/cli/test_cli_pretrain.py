import shutil

import jax
import numpy as np
import pytest
from cli_helpers import OMNIGLOT, assert_equal_states, cli, state

from pullback.core.errors import InputError
from pullback.runs import build, checkpoint, starting, trainer
from pullback.runs.folder import Run

PRETRAINED = (*OMNIGLOT, "--pretrain", "20", "--pretrain-batch", "16")


@pytest.fixture(scope="module")
def run(tmp_path_factory, omniglot):
    folder = tmp_path_factory.mktemp("pretrained") / "run"
    cli("train", *PRETRAINED, "--data-dir", omniglot, "--out", folder)
    return folder


def stage(folder):
    """The experiment of the pretraining, and its last state."""
    run = Run.open(folder)
    built = build.build(run.config, run.split, summary=run.summary)
    pretraining = built.pretraining()
    return built, pretraining, build.restore(run.pretraining(), pretraining)


def test_meta_training_starts_from_the_pretrained_body(run):
    built, _, last = stage(run)
    assert int(last.step) == 20
    # Alphabets are split as wholes; each class counts eight times.
    assert last.theta.prototypes.shape[1] == 8 * len(built.split.train)
    start = starting.start(Run.open(run), built).params
    for one, other in zip(*map(jax.tree.leaves, (start, last.theta.params)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert checkpoint.steps(run / "checkpoints")[-1] == 4


def test_the_classes_are_those_of_training_and_no_others(run, omniglot):
    built, pretraining, _ = stage(run)
    known = built.data.select(built.split.train).examples
    np.testing.assert_array_equal(pretraining.tasks("train").examples, known)
    others = pretraining.tasks("validation").examples
    np.testing.assert_array_equal(others, built.data.select(built.split.validation).examples)


def test_its_metrics_are_kept_apart_and_its_seconds_count(run):
    opened = Run.open(run)
    before = opened.pretraining().metrics("validation")
    assert [line["step"] for line in before] == list(range(0, 21, 2))
    assert (run / "pretraining" / "plot.png").is_file()
    first, *_ = opened.metrics("validation")
    assert first["step"] == 0
    assert first["seconds"] == before[-1]["seconds"] > 0
    # The same body and the same tasks.
    assert first["mean"] == before[-1]["mean"]
    assert "20 of 20 steps, validation" in cli("info", run).stdout


def test_without_meta_learning_means_pretrained(run, omniglot):
    shown = cli("evaluate", run, "--tasks", 4, "--baseline", "--json", "--data-dir", omniglot).json
    built, _, last = stage(run)
    tasks = built.tasks("test")
    expected = built.evaluate(last.theta.params, tasks, count=4, seed=0).mean
    assert shown["baseline"]["mean"] == pytest.approx(expected)


def test_a_run_may_end_with_its_pretraining(tmp_path, omniglot):
    given = [*PRETRAINED, "--data-dir", omniglot, "--out", tmp_path / "run"]
    given[given.index("--steps") + 1] = "0"
    done = cli("train", *given)
    assert "Done: 20 steps of pretraining in" in done.stdout
    assert cli("evaluate", tmp_path / "run", "--tasks", 4, "--json").json["step"] == 0


def test_the_smallest_pretraining_with_the_strongest_distortion(tmp_path, omniglot):
    given = [*OMNIGLOT, "--pretrain", "1", "--pretrain-batch", "1", "--no-pretrain-views"]
    given += ["--pretrain-distortion", "2", "--data-dir", omniglot, "--out", tmp_path / "run"]
    given[given.index("--steps") + 1] = "0"
    cli("train", *given)
    built, _, last = stage(tmp_path / "run")
    assert last.theta.prototypes.shape[1] == len(built.split.train)


def stopped(config, folder, after):
    built = build.build(config)
    run = Run.create(folder, built.config, built.split, built.summary)
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) > after

    return trainer.train_run(run, built, should_stop=should_stop)


@pytest.mark.parametrize("after", [1, 4, 16])
def test_a_resumed_run_equals_one_without_interruption_in_every_bit(run, tmp_path, after):
    outcome = stopped(Run.open(run).config, tmp_path / "run", after)
    assert outcome.stopped
    done = cli("train", "--resume", tmp_path / "run", "--json").json
    assert done["finished"]
    assert_equal_states(state(tmp_path / "run"), state(run))
    whole, resumed = (Run.open(each).metrics("validation") for each in (run, tmp_path / "run"))
    assert [line["mean"] for line in whole] == [line["mean"] for line in resumed]


def test_a_meta_training_goes_on_without_what_came_before(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "pretraining")
    cli("train", "--resume", tmp_path / "run")
    assert not (tmp_path / "run" / "pretraining").exists()
    assert_equal_states(state(tmp_path / "run"), state(run))


def test_a_stop_in_the_pretraining_is_told_as_one(run, tmp_path, monkeypatch):
    outcome = stopped(Run.open(run).config, tmp_path / "run", 3)
    assert outcome.pretraining
    assert outcome.stopped
    assert not checkpoint.steps(tmp_path / "run" / "checkpoints")


def test_algorithms_that_are_compared_share_one_body(tmp_path, omniglot):
    given = [*PRETRAINED, "--data-dir", omniglot, "--tasks", "4", "--algorithms", "fomaml,reptile"]
    for flag in ("--algorithm", "--inner-steps"):
        at = given.index(flag)
        del given[at : at + 2]
    cli("compare", *given, "--out", tmp_path / "all")
    names = ("fomaml", "reptile")
    assert_equal_states(*(stage(tmp_path / "all" / name)[2].theta for name in names))
    stages = [tmp_path / "all" / name / "pretraining" for name in names]
    one, other = ((each / "metrics.jsonl").read_text() for each in stages)
    assert one == other


def test_a_body_pretrained_with_other_settings_is_refused(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("pretrain_batch = 16", "pretrain_batch = 32"))
    opened = Run.open(tmp_path / "run")
    built = build.build(opened.config, opened.split, summary=opened.summary)
    with pytest.raises(InputError, match="pretrain_batch"):
        starting.start(opened, built)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--steps", "0"], "there is no pretraining either"),
        (["--pretrain-batch", "16"], "a run without it has no such setting"),
        (["--pretrain", "5", "--pretrain-batch", "0"], "pretrain_batch in"),
        (["--pretrain", "-1"], "pretrain in"),
        (["--pretrain", "5", "--dataset", "sinusoid"], "no such setting"),
    ],
)
def test_bad_input(given, words, tmp_path):
    done = cli("train", *given, "--out", tmp_path / "run", code=2)
    assert words in done.stderr
    assert not (tmp_path / "run").exists()
