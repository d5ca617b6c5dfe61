import json
import tomllib

import jax
import pytest
from cli_helpers import SINUSOID, cli, theta
from typer.testing import CliRunner

from pullback.cli import app
from pullback.core.scores import MEAN_SQUARED_ERROR
from pullback.runs import build, trainer
from pullback.runs import config as configs
from pullback.runs.folder import Run


def test_a_run_folder_holds_all_there_is_to_know(sinusoid_run):
    names = {path.name for path in sinusoid_run.iterdir()}
    assert names >= {"config.toml", "metrics.jsonl", "versions.json", "checkpoints", "plot.png"}
    config = tomllib.loads((sinusoid_run / "config.toml").read_text())
    assert config["training"]["steps"] == 12
    assert config["training"]["learning_rate"] == 0.002
    assert config["algorithm"]["solver"] == "gradient-descent"
    assert {"jax", "numpy", "optax", "pullback"} <= Run.open(sinusoid_run).versions().keys()
    assert (sinusoid_run / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_metrics_cover_every_step_once_and_leave_out_what_is_not_a_number(sinusoid_run):
    run = Run.open(sinusoid_run)
    assert sum(line["count"] for line in run.metrics("step")) == 12
    assert [line["step"] for line in run.metrics("validation")] == [0, 5, 10, 12]
    assert all("linear_residual" not in line for line in run.metrics("step"))
    assert "NaN" not in (sinusoid_run / "metrics.jsonl").read_text()
    seconds = [line["seconds"] for line in run.metrics("step")]
    assert seconds == sorted(seconds)


def test_the_last_two_and_the_best_checkpoint_are_kept(sinusoid_run):
    run = Run.open(sinusoid_run)
    best = run.best_validation(MEAN_SQUARED_ERROR)["step"]
    kept = sorted(int(path.name) for path in (sinusoid_run / "checkpoints").iterdir())
    assert kept == sorted({10, 12, best})


def test_the_written_configuration_trains_the_same_run_again(sinusoid_run, tmp_path):
    cli("train", "--config", sinusoid_run / "config.toml", "--out", tmp_path / "again")
    first, again = theta(sinusoid_run), theta(tmp_path / "again")
    assert all((first[path] == again[path]).all() for path in first)
    text = (sinusoid_run / "config.toml").read_text()
    assert (tmp_path / "again" / "config.toml").read_text() == text


def test_another_seed_trains_another_run(sinusoid_run, tmp_path):
    cli("train", *SINUSOID, "--seed", "1", "--out", tmp_path / "other")
    first, other = theta(sinusoid_run), theta(tmp_path / "other")
    assert any((first[path] != other[path]).any() for path in first)


def test_the_split_of_a_run_is_stored_and_has_no_class_twice(omniglot_run):
    split = json.loads((omniglot_run / "split.json").read_text())
    parts = [set(split[part]) for part in ("train", "validation", "test")]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts)) == 12
    alphabets = [{name.split("/")[0] for name in part} for part in parts]
    assert not set.intersection(*alphabets)


def test_the_first_example_of_a_newcomer_is_understood(omniglot, tmp_path, monkeypatch):
    # All of it but the training, which takes long.
    monkeypatch.setattr(trainer, "train_run", lambda run, built, **more: 1 / 0)
    command = (
        f"train --dataset omniglot --data-dir {omniglot} --algorithm imaml --ways 3 --shots 1 "
        f"--queries 15 --strength 5 --steps 2000 --out {tmp_path / 'first'} "
        "--validation-classes 3 --test-classes 3"
    )
    with pytest.raises(ZeroDivisionError):
        CliRunner().invoke(app, command.split(), catch_exceptions=False)
    run = Run.open(tmp_path / "first")
    assert run.config.data.rotations
    assert run.config.algorithm.solver == "projected"
    assert run.config.algorithm.strength == 5.0
    assert run.config.training.steps == 2000
    assert len(run.split.train) == 6


def test_the_defaults_are_glyphs_with_imaml():
    built = build.build(configs.resolve({"model": {"width": 8}}))
    assert built.data.name == "glyphs"
    assert built.config.algorithm.name == "imaml"
    assert built.tasks("train").sample(jax.random.key(0)).query[0].shape == (75, 28, 28, 1)


def test_json_is_one_document_and_nothing_else(tmp_path):
    done = cli("train", *SINUSOID, "--out", tmp_path / "run", "--json")
    assert done.json["run"] == str(tmp_path / "run")
    assert done.json["score"] == "mean squared error"
    assert "step 5/12" in done.stderr


def test_quiet_says_nothing_on_the_way(tmp_path):
    done = cli("train", *SINUSOID, "--out", tmp_path / "run", "--quiet")
    assert done.stderr == ""
    assert "Done: 12 meta-steps" in done.stdout


def test_one_plain_line_a_validation_without_a_terminal(tmp_path):
    done = cli("train", *SINUSOID, "--out", tmp_path / "run")
    for word in ("step 10/12", "loss", "validation", "inner residual", "tasks/s"):
        assert word in done.stderr


def test_a_name_is_found_for_a_run_without_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("train", *SINUSOID, "--json")
    assert done.json["run"].startswith("runs/sinusoid-fomaml-")


def test_minutes_set_the_steps_by_the_pace_here(tmp_path):
    few = [arg for arg in SINUSOID if arg not in ("--steps", "12")]
    done = cli("train", *few, "--minutes", "0.0001", "--out", tmp_path / "run", "--json")
    assert done.json["finished"]
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert config["training"]["steps"] == done.json["steps"]


def test_options_go_before_the_file(sinusoid_run, tmp_path):
    config = sinusoid_run / "config.toml"
    done = cli("train", "--config", config, "--steps", "3", "--out", tmp_path / "run", "--json")
    assert done.json["steps"] == 3


BAD = {
    "data set": (["--dataset", "sinusiod"], "Did you mean 'sinusoid'"),
    "algorithm": (["--algorithm", "imalm"], "Did you mean 'imaml'"),
    "solver": (["--solver", "lbgfs"], "Did you mean 'lbfgs'"),
    "range": (["--shots", "0"], "shots in [data] is 0. Allowed: whole numbers from 1"),
    "rate": (["--learning-rate", "nan"], "learning_rate in [training] is nan"),
    "strength": (["--dataset", "sinusoid", "--strength", "0"], "imaml needs a proximal term"),
    "maml": (
        ["--dataset", "sinusoid", "--algorithm", "maml", "--solver", "lbfgs"],
        "MAML differentiates through its inner solver",
    ),
    "no use": (["--dataset", "sinusoid", "--ways", "5"], "'sinusoid' has no such setting"),
    "no size": (["--inner-learning-rate", "1"], "the solver 'projected' has no such setting"),
    "hidden": (["--hidden", "40;40"], "whole numbers with commas"),
    "groups": (["--width", "12"], "cannot be cut into 8 equal groups"),
    "data": (["--dataset", "omniglot", "--data-dir", "nowhere"], "'nowhere' does not exist"),
    "config": (["--config", "nowhere.toml"], "cannot be read: No such file"),
    "both": (["--steps", "5", "--minutes", "1"], "Both --steps and --minutes"),
    "minutes": (["--minutes", "-1"], "minutes is -1"),
    "no run": (["--resume", "nowhere"], "'nowhere' does not exist"),
    "resume": (["--resume", "nowhere", "--out", "x"], "--out was given with --resume"),
}


@pytest.mark.parametrize(("argv", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_refused_in_one_line_before_anything_is_written(
    argv, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = cli("train", *argv, code=2)
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


CROWDED = {
    "train": (["--ways", "7", "--validation-classes", "3"], "the train classes: 7 ways"),
    "validation": (["--ways", "4"], "the validation classes: 4 ways"),
    "examples": (["--shots", "6"], "6 shots and 15 queries need 21 examples per class"),
    "split": (["--test-classes", "12"], "has 12 classes to deal"),
}


@pytest.mark.parametrize(("argv", "message"), CROWDED.values(), ids=CROWDED.keys())
def test_tasks_that_the_data_cannot_give_are_refused(argv, message, omniglot, tmp_path):
    few = ["--dataset", "omniglot", "--data-dir", omniglot, "--width", "8", "--no-rotations"]
    few += ["--validation-classes", "3", "--test-classes", "3", "--ways", "2"]
    done = cli("train", *few, *argv, "--out", tmp_path / "run", code=2)
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_tasks_are_made_harder_in_training_only(omniglot):
    data = {"dataset": "omniglot", "data_dir": str(omniglot), "ways": 2, "queries": 3}
    data |= {"reflections": True, "distortion": 0.5, "same_alphabet": 0.25}
    data |= {"validation_classes": 3, "test_classes": 3}
    built = build.build(configs.resolve({"data": data, "model": {"width": 8}}))
    sources = [built.tasks(part) for part in build.PARTS]
    assert [source.rotations for source in sources] == [True, False, False]
    assert [source.reflections for source in sources] == [True, False, False]
    assert [source.distortion for source in sources] == [0.5, 0.0, 0.0]
    assert [source.same_alphabet for source in sources] == [0.25, 0.0, 0.0]


def test_a_folder_that_is_not_empty_is_left_alone(sinusoid_run, tmp_path):
    before = sorted(path.name for path in sinusoid_run.iterdir())
    done = cli("train", *SINUSOID, "--out", sinusoid_run, code=2)
    assert "is not empty" in done.stderr
    assert "--resume" in done.stderr
    assert sorted(path.name for path in sinusoid_run.iterdir()) == before
    (tmp_path / "file").write_text("mine")
    assert "is a file" in cli("train", *SINUSOID, "--out", tmp_path / "file", code=2).stderr


def test_a_typing_mistake_in_a_file_is_named_with_the_nearest_setting(tmp_path):
    file = tmp_path / "config.toml"
    for text, message in {
        "[data]\nwais = 5": "Unknown setting 'wais' in [data]",
        "[dat]\nways = 5": "Unknown section [dat]",
        "[data]\nways = '5'": "ways in [data] is '5'. Allowed: whole numbers from 2",
        "[model]\nsteps = 5": "It belongs into [training]",
        "[data": "is no TOML",
        "data = 3": "data is 3",
    }.items():
        file.write_text(text)
        assert message in cli("train", "--config", file, "--out", tmp_path / "r", code=2).stderr
    assert not (tmp_path / "r").exists()


def test_a_disk_that_refuses_is_told_without_a_traceback(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = cli("train", *SINUSOID, "--out", tmp_path / "file" / "run", code=2)
    assert "could not be written" in done.stderr
    assert "nothing was started" in done.stderr
