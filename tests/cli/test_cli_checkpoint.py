import errno
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli_helpers import assert_equal_states

from pullback.core.errors import InputError, StorageError
from pullback.core.scores import ACCURACY, MEAN_SQUARED_ERROR
from pullback.meta import training
from pullback.meta.training import TrainState
from pullback.runs import checkpoint

OPTIMIZER = training.default_optimizer(10)


def a_state(step, shape=(3, 2)):
    keys = jax.random.split(jax.random.key(step))
    theta = {"layer": {"weight": jax.random.normal(keys[0], shape), "bias": jnp.zeros(2)}}
    state = TrainState(jnp.asarray(step), theta, OPTIMIZER.init(theta))
    odd = jnp.asarray([np.float32(1e-42), -0.0])
    return TrainState(state.step, theta | {"odd": odd}, OPTIMIZER.init(theta | {"odd": odd}))


def save(folder, step, value=None, score=ACCURACY):
    return checkpoint.save(folder, a_state(step), seed=0, value=value, score=score)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.mark.filterwarnings("error")
def test_a_state_comes_back_in_every_bit(folder, capfd):
    save(folder, 3)
    assert_equal_states(checkpoint.restore(folder, a_state(0)), a_state(3))
    assert capfd.readouterr() == ("", "")


def test_the_last_two_and_the_best_stay(folder):
    for step, score in enumerate([0.2, 0.9, None, 0.5, float("nan"), 0.4]):
        save(folder, step, score)
    assert checkpoint.steps(folder) == [1, 4, 5]
    assert checkpoint.find(folder, "best") == 1
    assert checkpoint.find(folder, "last") == 5


def test_the_best_is_the_lowest_where_lower_is_better(folder):
    for step, score in enumerate([0.9, 0.2, 0.5, 0.6, 0.7]):
        save(folder, step, score, MEAN_SQUARED_ERROR)
    assert checkpoint.steps(folder) == [1, 3, 4]
    assert checkpoint.find(folder, "best", MEAN_SQUARED_ERROR) == 1


def test_of_equally_good_ones_the_latest_is_the_best(folder):
    for step in range(4):
        save(folder, step, 0.5)
    assert checkpoint.find(folder, "best") == 3


def test_a_step_that_is_saved_already_is_left_as_it_is(folder):
    save(folder, 1, 0.5)
    save(folder, 1, 0.7)
    assert checkpoint.scores(folder) == {1: 0.5}


def test_without_any_score_the_last_serves_as_best(folder):
    save(folder, 1)
    save(folder, 2)
    assert checkpoint.find(folder, "best") == 2


@pytest.mark.parametrize("which", ["first", 7, "7", "-1"])
def test_a_checkpoint_that_does_not_exist_is_refused_with_those_that_do(which, folder):
    save(folder, 1)
    save(folder, 2)
    with pytest.raises(InputError, match="Allowed: last, best, or a step: 1, 2"):
        checkpoint.find(folder, which)


def test_no_checkpoint_at_all_is_said(folder):
    with pytest.raises(InputError, match="There is no checkpoint in"):
        checkpoint.find(folder)


def test_a_damaged_checkpoint_is_an_error_that_names_the_others(folder):
    save(folder, 1)
    save(folder, 2)
    for file in (folder / "2" / "default").rglob("*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"step 2 .* is broken .*the others are of steps 1"):
        checkpoint.restore(folder, a_state(0))
    assert_equal_states(checkpoint.restore(folder, a_state(0), 1), a_state(1))


def test_a_checkpoint_without_its_arrays_is_broken(folder):
    save(folder, 1)
    shutil.rmtree(folder / "1" / "default")
    with pytest.raises(InputError, match="is broken"):
        checkpoint.restore(folder, a_state(0))


def test_a_checkpoint_of_another_model_is_refused(folder):
    save(folder, 1)
    with pytest.raises(InputError, match="is of another model"):
        checkpoint.restore(folder, a_state(0, (3, 3)))


def test_shapes_are_compared_before_anything_is_read(folder, monkeypatch):
    import orbax.checkpoint as ocp

    save(folder, 1)
    monkeypatch.setattr(ocp.StandardCheckpointer, "restore", lambda *_, **__: 1 / 0)
    with pytest.raises(InputError, match="is of another model"):
        checkpoint.restore(folder, a_state(0, (3, 3)))


def test_what_a_state_was_trained_with_is_checked(folder):
    asked = []
    save(folder, 1)
    checkpoint.save(folder, a_state(2), seed=0, origin={"strength": 2.0})
    for step in (1, 2):
        checkpoint.restore(folder, a_state(0), step, check=asked.append)
    assert asked == [{}, {"strength": 2.0}]

    def refuse(origin):
        raise InputError("of another run")

    with pytest.raises(InputError, match=r"^of another run\.$"):
        checkpoint.restore(folder, a_state(0), check=refuse)


def test_nothing_is_deleted_behind_a_link(folder, tmp_path):
    for step in range(3):
        save(folder, step)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").symlink_to(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1").symlink_to(folder / "1")
    for linked in (tmp_path / "run" / "checkpoints", tmp_path / "other"):
        with pytest.raises(StorageError, match="is a link"):
            save(linked, 9)
    assert checkpoint.steps(folder) == [1, 2]


def test_a_full_disk_leaves_what_stood(folder, monkeypatch):
    import orbax.checkpoint as ocp

    save(folder, 1, 0.5)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(StorageError, match=r"No space left on device.*of steps 1 stand"):
        save(folder, 2)
    assert_equal_states(checkpoint.restore(folder, a_state(0)), a_state(1))


def test_a_file_in_the_way_is_a_storage_error(folder):
    folder.write_text("")
    with pytest.raises(StorageError, match=r"could not be written.*none stands"):
        save(folder, 1)


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_cli_checkpoint as t
folder = Path({folder!r})
t.save(folder, 1, 0.5)
# The moment when all is written under another name, and not yet renamed.
from orbax.checkpoint import _src
from orbax.checkpoint._src.path import atomicity
def die(*args, **kwargs):
    os._exit(9)
for name in ("AtomicRenameTemporaryPath", "CommitFileTemporaryPath"):
    getattr(atomicity, name).finalize = die
t.save(folder, 2, 0.9)
"""


def test_a_checkpoint_half_written_is_none(folder, request):
    code = KILLED.format(tests=str(request.path.parent), folder=str(folder))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert len(list(folder.iterdir())) == 2
    assert checkpoint.steps(folder) == [1]
    assert_equal_states(checkpoint.restore(folder, a_state(0)), a_state(1))
    # What was left behind is in nobody's way.
    save(folder, 2, 0.7)
    assert checkpoint.scores(folder) == {1: 0.5, 2: 0.7}
    assert_equal_states(checkpoint.restore(folder, a_state(0)), a_state(2))
