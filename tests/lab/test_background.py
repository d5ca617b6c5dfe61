"""Long work in the background, and the cache of its results."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.lab.background import VisitorLeft, run_in_background
from pullback.lab.result_cache import ResultCache
from pullback.lab.session import Session

ARRAYS = {"weight": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}


def cache(tmp_path, recipe="recipe", like=ARRAYS):
    return ResultCache("thing", recipe, like, tmp_path)


def test_what_is_put_is_found_again(tmp_path):
    assert cache(tmp_path).get() is None
    put = cache(tmp_path).put(ARRAYS, {"seconds": 1.5})
    got = cache(tmp_path).get()
    assert put.fresh and not got.fresh
    assert got.facts == {"seconds": 1.5}
    jax.tree.map(np.testing.assert_array_equal, got.arrays, ARRAYS)
    assert cache(tmp_path, "another recipe").get() is None
    # Nothing but the file itself stays behind.
    assert [path.suffix for path in (tmp_path / "lab").iterdir()] == [".npz"]


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_torn_file_counts_as_none(tmp_path, keep):
    stored = cache(tmp_path)
    stored.put(ARRAYS, {})
    stored.file.write_bytes(stored.file.read_bytes()[:keep])
    assert stored.get() is None
    assert stored.put(ARRAYS, {}).fresh
    assert stored.get() is not None


def test_other_shapes_and_numbers_that_are_not_finite_count_as_none(tmp_path):
    stored = cache(tmp_path)
    stored.put(ARRAYS | {"bias": jnp.ones(4)}, {})
    assert stored.get() is None
    stored.put(ARRAYS | {"bias": jnp.full(3, jnp.nan)}, {})
    assert stored.get() is None


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "lab").write_text("in the way")
    stored = cache(tmp_path)
    result = stored.put(ARRAYS, {})
    np.testing.assert_array_equal(result.arrays["bias"], np.ones(3))
    assert stored.get() is None


class Document:
    def add_next_tick_callback(self, action):
        action()


def outcome(session, job):
    found, over = [], threading.Event()

    def put(*what):
        found.append(what)

    def end(kind, what):
        found.append((kind, what))
        over.set()

    run_in_background(
        session,
        job,
        on_progress=put,
        on_done=lambda result: end("done", result),
        on_error=lambda error: end("failed", str(error)),
    )
    return found, over


def test_work_reports_progress_and_ends():
    def job(progress):
        progress("half", 1)
        return 7

    found, over = outcome(Session(document=Document()), job)
    assert over.wait(30)
    assert found == [("half", 1), ("done", 7)]


def test_work_that_fails_says_why_and_the_next_still_runs():
    def job(progress):
        raise ValueError("why")

    found, over = outcome(Session(document=Document()), job)
    assert over.wait(30)
    assert found == [("failed", "why")]
    found, over = outcome(Session(document=Document()), lambda progress: 1)
    assert over.wait(30)


def test_work_ends_when_the_visitor_leaves():
    session, ended = Session(document=Document()), threading.Event()

    def job(progress):
        session.close()
        try:
            progress()
        except VisitorLeft:
            ended.set()
            raise

    found, over = outcome(session, job)
    assert ended.wait(30)
    assert not over.wait(0.2)
    assert found == []
