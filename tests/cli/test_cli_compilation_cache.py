"""The cache of compiled programs: on by default, the user's own settings first."""

import os
import stat
from pathlib import Path

import pytest

from pullback.cli.compilation_cache import keep_programs

NAMES = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_COMPILATION_CACHE_MAX_SIZE",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


@pytest.fixture
def clean(monkeypatch, tmp_path):
    for name in NAMES:
        # So that what is set below is undone afterwards.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / name))
    return tmp_path


def test_programs_are_kept_in_the_users_cache_folder(clean):
    keep_programs()
    folder = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    assert folder == clean / "pullback" / "programs" and folder.is_dir()
    assert int(os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"]) > 10**8


def test_the_users_own_settings_hold(clean, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(clean / "mine"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_MAX_SIZE", "5")
    keep_programs()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == str(clean / "mine")
    assert os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] == "5"
    assert not (clean / "pullback").exists()


def test_a_folder_that_cannot_be_made_is_done_without(clean):
    (clean / "pullback").write_text("in the way")
    keep_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written_is_done_without(clean):
    folder = clean / "pullback" / "programs"
    folder.mkdir(parents=True)
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    keep_programs()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
