"""Long work and where its results are kept."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.lab import background
from pullback.lab.background import Gone, Shelf
from pullback.lab.session import Session

ARRAYS = {"weight": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3)}


def shelf(tmp_path, recipe="recipe", like=ARRAYS):
    return Shelf("thing", recipe, like, tmp_path)


def test_what_is_put_is_found_again(tmp_path):
    assert shelf(tmp_path).get() is None
    put = shelf(tmp_path).put(ARRAYS, {"seconds": 1.5})
    got = shelf(tmp_path).get()
    assert put.fresh and not got.fresh
    assert got.facts == {"seconds": 1.5}
    jax.tree.map(np.testing.assert_array_equal, got.arrays, ARRAYS)
    assert shelf(tmp_path, "another recipe").get() is None
    # Nothing but the file itself stays behind.
    assert [path.suffix for path in (tmp_path / "lab").iterdir()] == [".npz"]


@pytest.mark.parametrize("keep", [0, 10, 200])
def test_a_torn_file_counts_as_none(tmp_path, keep):
    place = shelf(tmp_path)
    place.put(ARRAYS, {})
    place.file.write_bytes(place.file.read_bytes()[:keep])
    assert place.get() is None
    assert place.put(ARRAYS, {}).fresh
    assert place.get() is not None


def test_other_shapes_and_numbers_that_are_not_finite_count_as_none(tmp_path):
    place = shelf(tmp_path)
    place.put(ARRAYS | {"bias": jnp.ones(4)}, {})
    assert place.get() is None
    place.put(ARRAYS | {"bias": jnp.full(3, jnp.nan)}, {})
    assert place.get() is None


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "lab").write_text("in the way")
    place = shelf(tmp_path)
    kept = place.put(ARRAYS, {})
    np.testing.assert_array_equal(kept.arrays["bias"], np.ones(3))
    assert place.get() is None


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

    background.begin(
        session,
        job,
        told=put,
        done=lambda result: end("done", result),
        failed=lambda error: end("failed", str(error)),
    )
    return found, over


def test_work_tells_and_ends():
    def job(tell):
        tell("half", 1)
        return 7

    found, over = outcome(Session(document=Document()), job)
    assert over.wait(30)
    assert found == [("half", 1), ("done", 7)]


def test_work_that_fails_says_why_and_the_next_still_runs():
    def job(tell):
        raise ValueError("why")

    found, over = outcome(Session(document=Document()), job)
    assert over.wait(30)
    assert found == [("failed", "why")]
    found, over = outcome(Session(document=Document()), lambda tell: 1)
    assert over.wait(30)


def test_work_ends_when_the_visitor_leaves():
    session, ended = Session(document=Document()), threading.Event()

    def job(tell):
        session.close()
        try:
            tell()
        except Gone:
            ended.set()
            raise

    found, over = outcome(session, job)
    assert ended.wait(30)
    assert not over.wait(0.2)
    assert found == []
