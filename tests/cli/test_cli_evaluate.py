import json
import shutil

import numpy as np
import pytest
from cli_helpers import cli, drawing, write_omniglot

from pullback.core.scores import MEAN_SQUARED_ERROR
from pullback.runs import build, checkpoint, score
from pullback.runs import config as configs
from pullback.runs.folder import Run


def evaluate(run, *argv, code=0):
    return cli("evaluate", run, "--tasks", "4", *argv, "--json", code=code)


def test_a_score_is_shown_with_all_that_belongs_to_it(omniglot_run, copied):
    shown = cli("evaluate", copied(omniglot_run), "--tasks", "4").stdout
    for word in ("Accuracy", "±", "3-way 1-shot", "4 tasks", "95 %", "inner residual"):
        assert word in shown


def test_the_result_is_stored_task_by_task(omniglot_run, copied):
    run = copied(omniglot_run)
    printed = evaluate(run).json
    (file,) = (run / "evaluations").iterdir()
    assert file.name.startswith(f"test-best-0-step{printed['step']}-4tasks-1shot-3query-")
    stored = json.loads(file.read_text())
    scores = [task["score"] for task in stored["records"]]
    assert len(scores) == 4
    assert np.mean(scores) == pytest.approx(printed["mean"])
    assert printed == {name: value for name, value in stored.items() if name != "records"}


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({}, "group: inductive"),
        ({"normalisation": "none"}, "none: inductive"),
        ({"normalisation": "batch"}, "batch: transductive"),
        ({"model": "mlp"}, None),
    ],
)
def test_whether_query_examples_see_each_other_is_said(model, said):
    config = configs.resolve({"data": {"dataset": "omniglot"}, "model": model})
    assert score.describe_normalisation(config) == said


def test_the_same_seed_gives_the_same_score_and_another_one_other_tasks(sinusoid_run, copied):
    run = copied(sinusoid_run)
    first, again, other = (evaluate(run, "--seed", seed).json["mean"] for seed in (0, 0, 1))
    assert first == again != other


def test_the_best_checkpoint_is_the_one_of_the_best_validation(sinusoid_run, copied):
    run = Run.open(copied(sinusoid_run))
    record = evaluate(run.folder).json
    assert record["step"] == run.best_validation(MEAN_SQUARED_ERROR)["step"]
    assert evaluate(run.folder, "--checkpoint", "10").json["step"] == 10
    message = "There is no checkpoint '11'"
    assert message in evaluate(run.folder, "--checkpoint", "11", code=2).stderr


def test_the_untrained_initialisation_can_be_scored_beside(sinusoid_run, copied):
    done = evaluate(copied(sinusoid_run), "--baseline")
    assert done.json["baseline"]["mean"] != done.json["mean"]
    assert done.json["baseline"]["step"] == 0


@pytest.mark.parametrize("part", build.PARTS)
def test_only_the_classes_of_the_part_are_drawn_from(part, omniglot_run):
    run = Run.open(omniglot_run)
    built = build.build(run.config, run.split)
    source = score.evaluation_tasks(run, built, part)
    wanted = built.data.select(run.split.classes(part)).examples
    assert (np.asarray(source.examples) == wanted).all()
    assert not source.rotations


def test_training_classes_are_refused_without_permission(omniglot_run, copied):
    run = copied(omniglot_run)
    done = evaluate(run, "--split", "train", code=2)
    assert "says nothing about new ones" in done.stderr
    assert "--allow-training-classes" in done.stderr
    score.check_part(Run.open(run), "train", allow_training_classes=True)


def test_an_unknown_part_is_named(omniglot_run, sinusoid_run):
    assert "Did you mean 'test'" in evaluate(omniglot_run, "--split", "tests", code=2).stderr
    assert "no classes to split" in evaluate(sinusoid_run, "--split", "validation", code=2).stderr


def test_more_data_change_nothing_about_the_test_classes(omniglot_run, omniglot, tmp_path):
    run = shutil.copytree(omniglot_run, tmp_path / "run")
    more = shutil.copytree(omniglot, tmp_path / "more")
    write_omniglot(more, "background", ["Aardvark", "Omega"])
    before = evaluate(run).json["mean"]
    assert evaluate(run, "--data-dir", more).json["mean"] == before


def test_classes_missing_from_another_copy_are_named(omniglot_run, omniglot, copied, tmp_path):
    less = shutil.copytree(omniglot, tmp_path / "less")
    gone = Run.open(omniglot_run).split.test[0].split("/")[0]
    shutil.rmtree(less / "images_background" / gone)
    done = evaluate(copied(omniglot_run), "--data-dir", less, code=2)
    assert f"'{gone}/character01'" in done.stderr


def test_unseen_are_all_classes_that_the_run_did_not_learn_from(omniglot_run, copied, tmp_path):
    run = copied(omniglot_run)
    other = write_omniglot(tmp_path / "other", "evaluation", ["Zeta"])
    record = evaluate(run, "--split", "unseen", "--data-dir", other).json
    assert record["part"] == "unseen"
    assert record["data_dir"] == str(other)
    opened = Run.open(run)
    built = build.build(opened.config, opened.split)
    own = score.evaluation_tasks(opened, built, "unseen")
    assert (np.asarray(own.examples) == built.data.select(opened.split.test).examples).all()


def test_a_copy_without_any_unseen_class_is_refused(omniglot_run, omniglot, copied, tmp_path):
    less = shutil.copytree(omniglot, tmp_path / "less")
    for name in Run.open(omniglot_run).split.test:
        shutil.rmtree(less / "images_background" / name)
    done = evaluate(copied(omniglot_run), "--split", "unseen", "--data-dir", less, code=2)
    assert "trained or validated on every class" in done.stderr


def test_other_shots_and_queries_are_stored_apart(omniglot_run, copied):
    run = copied(omniglot_run)
    record = evaluate(run, "--shots", "2", "--queries", "2").json
    assert (record["shots"], record["queries"]) == (2, 2)
    assert len(list((run / "evaluations").glob("test-best-0-*-2shot-2query-*.json"))) == 1
    assert "need 23 examples" in evaluate(run, "--shots", "20", code=2).stderr
    assert "shots is 0" in evaluate(run, "--shots", "0", code=2).stderr


def test_no_record_takes_the_place_of_another(omniglot_run, omniglot, copied, tmp_path):
    run, kept = copied(omniglot_run), set()
    for argv in ([], ["--tasks", "3"]):
        evaluate(run, *argv)
        assert len(list((run / "evaluations").iterdir())) == len(kept) + 1
        kept = {file.read_bytes() for file in (run / "evaluations").iterdir()}
    # The same test classes elsewhere are the same data.
    shutil.copytree(omniglot, tmp_path / "moved")
    write_omniglot(tmp_path / "moved", "background", ["Omega"])
    evaluate(run, "--data-dir", tmp_path / "moved")
    assert len(list((run / "evaluations").iterdir())) == len(kept)
    evaluate(run, "--split", "unseen", "--data-dir", tmp_path / "moved")
    assert len(list((run / "evaluations").iterdir())) == len(kept) + 1


@pytest.mark.parametrize("part", ["train", "test"])
def test_changed_drawings_are_noticed(part, omniglot_run, omniglot, copied, tmp_path):
    run, moved = copied(omniglot_run), shutil.copytree(omniglot, tmp_path / "moved")
    name = getattr(Run.open(run).split, part)[0]
    for file in (moved / "images_background" / name).iterdir():
        drawing(np.random.default_rng(9), np.array([1, 1])).save(file)
    for argv in (["evaluate", run], ["train", "--resume", run]):
        refused = cli(*argv, "--data-dir", moved, code=2).stderr
        assert "1 classes of 'omniglot' have other examples" in refused and name in refused
    before = evaluate(run).json
    after = evaluate(run, "--data-dir", moved, "--allow-changed-data").json
    assert (before["data"] == after["data"]) == (part == "train")


def test_a_changed_strength_and_a_moved_class_are_noticed(omniglot_run, copied):
    run = copied(omniglot_run)
    config, split = run / "config.toml", run / "split.json"
    settings, stored = config.read_text(), json.loads(split.read_text())
    config.write_text(settings.replace("inner_learning_rate = 0.1", "inner_learning_rate = 0.2"))
    for argv in (["evaluate", run, "--tasks", "4"], ["train", "--resume", run]):
        refused = cli(*argv, code=2).stderr
        assert "inner_learning_rate is 0.2" in refused and "trained with 0.1" in refused
    config.write_text(settings)
    stored["test"].append(stored["train"].pop())
    split.write_text(json.dumps(stored))
    for argv in (["evaluate", run, "--tasks", "4"], ["train", "--resume", run]):
        assert "split.json" in (refused := cli(*argv, code=2).stderr)
        assert "not the one that the checkpoint was trained with" in refused


def test_there_is_no_way_to_change_the_inner_problem(sinusoid_run):
    done = cli("evaluate", sinusoid_run, "--strength", "1", code=2)
    assert "No such option" in done.stderr


def test_a_broken_checkpoint_and_a_missing_run_are_told(sinusoid_run, copied, tmp_path):
    run = copied(sinusoid_run)
    for step in checkpoint.steps(run / "checkpoints"):
        shutil.rmtree(run / "checkpoints" / str(step) / "default")
    assert "is broken" in evaluate(run, code=2).stderr
    assert "does not exist" in evaluate(tmp_path / "none", code=2).stderr
    assert "whole numbers from 2" in cli("evaluate", run, "--tasks", "1", code=2).stderr


def test_info_shows_what_was_found(omniglot_run, copied):
    run = copied(omniglot_run)
    mean = evaluate(run).json["mean"]
    record = cli("info", run, "--json").json
    ((name, stored),) = record["evaluations"].items()
    assert stored["mean"] == mean
    assert sum(record["classes"].values()) == 12
    assert record["last_validation"]["step"] == record["step"] == 4
    shown = cli("info", run).stdout
    for word in (name, "best validation", "tasks per second", "jax", "split_by"):
        assert word in shown
