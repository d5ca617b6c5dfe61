"""The cache of arrays: what goes in comes out, and nothing that is broken does."""

import os

import numpy as np
import pytest

from pullback.core import array_cache
from pullback.core.array_cache import cache_folder, fingerprint, write_arrays

ARRAYS = {"weight": np.arange(6.0).reshape(2, 3), "names": np.array(["a", "φ"])}
FACTS = {"seconds": 1.5, "steps": [1, 2]}


def read_arrays(file, names=tuple(ARRAYS)):
    return array_cache.read_arrays(file, names)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "folder" / "thing.npz"


def same(found):
    return found is not None and (
        found.facts == FACTS
        and found.arrays.keys() == ARRAYS.keys()
        and all(np.array_equal(found.arrays[name], ARRAYS[name]) for name in ARRAYS)
    )


def test_what_is_written_is_read_again_and_nothing_else_stays_behind(file):
    assert read_arrays(file) is None
    write_arrays(file, ARRAYS, FACTS)
    assert same(read_arrays(file))
    assert list(file.parent.iterdir()) == [file]


def test_arrays_without_facts_are_read(file):
    write_arrays(file, ARRAYS)
    assert read_arrays(file).facts == {}


def test_a_file_with_any_byte_changed_is_whole_or_missing(file):
    write_arrays(file, ARRAYS, FACTS)
    whole = file.read_bytes()
    missing = 0
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        found = read_arrays(file)
        # Bytes that carry no data, as dates, may change.
        assert found is None or same(found)
        missing += found is None
    assert missing > len(whole) / 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_torn_file_counts_as_missing_and_is_replaced(file, share):
    write_arrays(file, ARRAYS, FACTS)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(share * len(whole))])
    assert read_arrays(file) is None
    write_arrays(file, ARRAYS, FACTS)
    assert same(read_arrays(file))


@pytest.mark.parametrize("content", [b"nonsense", b"[1, 2]"])
def test_another_kind_of_file_counts_as_missing(file, content):
    file.parent.mkdir()
    file.write_bytes(content)
    assert read_arrays(file) is None


def test_an_array_on_its_own_and_facts_of_another_kind_count_as_missing(file):
    file.parent.mkdir()
    with file.open("wb") as stream:
        np.save(stream, np.ones(3))
    assert read_arrays(file) is None
    with file.open("wb") as stream:
        np.savez(stream, facts=np.array("[1]"), **ARRAYS)
    assert read_arrays(file) is None


def test_a_file_without_one_of_the_arrays_counts_as_missing(file):
    write_arrays(file, ARRAYS)
    assert read_arrays(file, ["weight"]).arrays.keys() == {"weight"}
    assert read_arrays(file, ["weight", "bias"]) is None


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    (tmp_path / "folder").write_text("in the way")
    write_arrays(tmp_path / "folder" / "thing.npz", ARRAYS)
    assert (tmp_path / "folder").read_text() == "in the way"


def test_a_disk_that_refuses_leaves_the_old_file_and_no_other(file, monkeypatch):
    write_arrays(file, ARRAYS, FACTS)

    def refuse(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", refuse)
    write_arrays(file, {"weight": np.zeros(1)})
    assert same(read_arrays(file))
    assert list(file.parent.iterdir()) == [file]


def test_the_folder_is_the_given_one_or_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(str(tmp_path / "mine")) == tmp_path / "mine"
    assert cache_folder(None).name == "pullback"


def test_fingerprints_tell_facts_apart():
    assert fingerprint(1, "a") == fingerprint(1, "a")
    assert len({fingerprint(1, "a"), fingerprint("a", 1), fingerprint(1), fingerprint("1")}) == 4
