import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_helpers import SINUSOID, assert_equal_states, cli, state

from pullback.core.errors import InputError, NumericalError
from pullback.runs import build, checkpoint, trainer
from pullback.runs import config as configs
from pullback.runs.folder import Run


def settings_of(run):
    return Run.open(run).config


def interrupted(folder, config, after):
    """A run that was asked to stop after so many blocks of steps."""
    built = build.build(config)
    run = Run.create(folder, built.config, built.split)
    asked = []

    def should_stop():
        # Asked before the first block too.
        asked.append(None)
        return len(asked) > after

    outcome = trainer.train_run(run, built, should_stop=should_stop)
    assert outcome.stopped
    return int(outcome.state.step)


def test_a_resumed_run_equals_one_without_interruption_in_every_bit(sinusoid_run, tmp_path):
    step = interrupted(tmp_path / "run", settings_of(sinusoid_run), after=2)
    assert step % 5 != 0
    assert checkpoint.steps(tmp_path / "run" / "checkpoints")[-1] == step
    done = cli("train", "--resume", tmp_path / "run", "--json")
    assert done.json["finished"]
    assert_equal_states(state(tmp_path / "run"), state(sinusoid_run))
    whole, resumed = Run.open(sinusoid_run), Run.open(tmp_path / "run")
    assert sum(line["count"] for line in resumed.metrics("step")) == 12
    for name in ("step", "mean", "interval"):
        one, other = ([line[name] for line in r.metrics("validation")] for r in (whole, resumed))
        assert one == other


def test_a_run_killed_between_checkpoints_repeats_what_it_lost(sinusoid_run, copied):
    run = copied(sinusoid_run)
    # As if killed in the middle of a line, after the checkpoint of step 10.
    for step in checkpoint.steps(run / "checkpoints"):
        if step > 10:
            for path in sorted((run / "checkpoints" / str(step)).rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            (run / "checkpoints" / str(step)).rmdir()
    lines = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(lines[:-20])
    cli("train", "--resume", run)
    assert_equal_states(state(run), state(sinusoid_run))
    assert [line["step"] for line in Run.open(run).metrics("validation")] == [0, 5, 10, 12]


def test_a_finished_run_stays_as_it_is(sinusoid_run, copied):
    run = copied(sinusoid_run)
    before = (run / "metrics.jsonl").read_text()
    assert "Done: 12 meta-steps" in cli("train", "--resume", run).stdout
    assert (run / "metrics.jsonl").read_text() == before


def test_a_run_stopped_before_its_first_checkpoint_starts_from_the_beginning(
    sinusoid_run, tmp_path
):
    Run.create(tmp_path / "run", settings_of(sinusoid_run), None)
    cli("train", "--resume", tmp_path / "run")
    assert_equal_states(state(tmp_path / "run"), state(sinusoid_run))


CHANGED = {
    "steps": (["--steps", "24"], "training.steps is 12 in the run, but 24 was asked for"),
    "why": (["--steps", "24"], "cosine"),
    "seed": (["--seed", "3"], "training.seed is 0 in the run, but 3 was asked for"),
    "algorithm": (["--algorithm", "maml"], "algorithm.name is 'fomaml' in the run"),
    "shots": (["--shots", "6"], "data.shots is 5 in the run, but 6 was asked for"),
}


@pytest.mark.parametrize(("argv", "message"), CHANGED.values(), ids=CHANGED.keys())
def test_a_changed_setting_is_refused_with_both_values(argv, message, sinusoid_run):
    assert message in cli("train", "--resume", sinusoid_run, *argv, code=2).stderr


def test_a_changed_file_is_refused_too(sinusoid_run, tmp_path):
    text = (sinusoid_run / "config.toml").read_text().replace("seed = 0", "seed = 4")
    (tmp_path / "other.toml").write_text(text)
    done = cli("train", "--resume", sinusoid_run, "--config", tmp_path / "other.toml", code=2)
    assert "training.seed is 0 in the run, but 4 was asked for" in done.stderr


def test_unchanged_settings_may_be_given_again(sinusoid_run):
    cli("train", "--resume", sinusoid_run, "--steps", "12", "--algorithm", "fomaml")


def test_without_its_checkpoints_a_run_is_not_begun_anew(sinusoid_run, copied):
    run = copied(sinusoid_run)
    (run / "checkpoints").rename(run / "moved")
    before = (run / "metrics.jsonl").read_text()
    assert "There is no checkpoint" in cli("train", "--resume", run, code=2).stderr
    assert (run / "metrics.jsonl").read_text() == before


def test_a_loss_that_is_not_a_number_keeps_the_last_good_checkpoint(tmp_path):
    wild = [arg if arg != "0.001" else "1e30" for arg in SINUSOID]
    wild += ["--hidden", "9"]
    done = cli("train", *wild, "--out", tmp_path / "run", code=1)
    assert "Meta-step 1, task" in done.stderr
    assert "The last good checkpoint, of step 0, is kept" in done.stderr
    run = Run.open(tmp_path / "run")
    assert run.metrics("failed")[0]["step"] == 1
    assert all(np.isfinite(leaf).all() for leaf in state(run.folder).theta["layer0"].values())
    assert "failed" in cli("info", run.folder).stdout


def test_a_failure_later_on_keeps_the_state_before_it(sinusoid_run, tmp_path, monkeypatch):
    config = settings_of(sinusoid_run)
    built = build.build(config)
    run = Run.create(tmp_path / "run", config, None)
    train = build.training.train

    def fail_after_seven(*args, on_block, **options):
        def limited(state, block):
            on_block(state, block)
            return int(state.step) >= 7

        train(*args, on_block=limited, **options | {"block_ends": 7})
        raise NumericalError("Meta-step 8, task 0 of 2: the loss is nan.")

    monkeypatch.setattr(build.training, "train", fail_after_seven)
    with pytest.raises(NumericalError, match="The last good checkpoint, of step 7, is kept"):
        trainer.train_run(run, built)
    monkeypatch.undo()
    assert checkpoint.steps(run.checkpoints)[-1] == 7
    # The same run without the failure goes on from there.
    cli("train", "--resume", run.folder)
    assert_equal_states(state(run.folder), state(sinusoid_run))
    assert run.metrics("failed") == []


def test_a_full_disk_ends_a_training_with_what_stands(sinusoid_run, tmp_path, monkeypatch):
    import orbax.checkpoint as ocp

    save = ocp.CheckpointManager.save

    def full(manager, step, *args, **options):
        if step >= 5:
            raise OSError(28, os.strerror(28))
        return save(manager, step, *args, **options)

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    done = cli("train", *SINUSOID, "--out", tmp_path / "run", code=1)
    assert "No space left on device" in done.stderr
    assert "the checkpoints of steps 0 stand" in done.stderr
    monkeypatch.undo()
    cli("train", "--resume", tmp_path / "run")
    assert_equal_states(state(tmp_path / "run"), state(sinusoid_run))


def test_flagged_tasks_are_told_once_and_counted(tmp_path):
    argv = ("--dataset", "sinusoid", "--hidden", "8", "--shots", "5", "--strength", "0.0001")
    argv += ("--solver", "lbfgs", "--inner-steps", "1", "--linear-steps", "2")
    argv += ("--tasks-per-step", "2")
    argv += ("--validate-every", "2", "--validation-tasks", "4", "--steps", "4")
    done = cli("train", *argv, "--out", tmp_path / "run")
    flags = Run.open(tmp_path / "run").metrics("flags")
    curved = [line["codes"]["2"] for line in flags if "2" in line["codes"]]
    assert done.stderr.count("is not positive definite") == 1
    assert f"{curved[0]} of the last 4 training tasks" in done.stderr
    assert f"Doubtful: {sum(curved)} of 8 training tasks: negative_curvature" in done.stdout
    record = cli("info", tmp_path / "run", "--json").json
    assert sum(record["flagged"].values()) == sum(sum(line["codes"].values()) for line in flags)
    lines = Run.open(tmp_path / "run").metrics("step")
    assert all(line["linear_steps"] > 0 and line["linear_residual"] >= 0 for line in lines)
    shown = cli("info", tmp_path / "run").stdout
    assert "linear residual in training" in shown
    assert "smallest curvature" in shown


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_ctrl_c_leaves_a_run_that_can_go_on(tmp_path):
    long = [arg if arg != "12" else "200000" for arg in SINUSOID]
    long[long.index("--validate-every") + 1] = "1000"
    command = [sys.executable, "-m", "pullback.cli", "train", *long, "--out", tmp_path / "run"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and '"kind": "step"' in metrics.read_text():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "Stopping after this block" in stderr
    assert f"pullback train --resume {tmp_path / 'run'}" in " ".join(stdout.split())
    run = Run.open(tmp_path / "run")
    step = int(state(run.folder).step)
    assert 0 < step < 200000
    assert run.metrics()[-1]["step"] == step
    # It can be gone on with, here for one more block.
    built = build.build(run.config)
    asked = iter([False, True])
    outcome = trainer.train_run(run, built, resume=True, should_stop=lambda: next(asked, True))
    assert int(outcome.state.step) > step


def test_the_stored_split_is_used_whatever_the_seed_would_draw(omniglot_run, copied):
    run = copied(omniglot_run)
    stored = Run.open(run).split
    text = (run / "config.toml").read_text().replace("split_seed = 0", "split_seed = 1")
    (run / "config.toml").write_text(text)
    opened = Run.open(run)
    assert build.build(opened.config).split != stored
    assert build.build(opened.config, opened.split).split == stored
    assert cli("evaluate", run, "--tasks", "4", "--json").json["part"] == "test"
    assert Run.open(run).split == stored


def test_building_refuses_classes_that_are_gone(omniglot_run):
    run = Run.open(omniglot_run)
    images = build.load_data(run.config)
    fewer = images.select([name for name in images.classes if name not in run.split.test[:1]])
    with pytest.raises(InputError, match="classes are not in the data set"):
        build.build(run.config, run.split, fewer)
    assert configs.diff(run.config, run.config) == []
