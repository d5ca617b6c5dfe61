"""Bad input of every kind is answered by a sentence before any compute, never by a traceback."""

import pytest
from calls import CALLS
from commands import COMMANDS
from folders import FOLDERS
from tables import TABLES
from typer.testing import CliRunner

from pullback.cli import app
from pullback.core.errors import InputError

pytestmark = pytest.mark.usefixtures("tiny")


def refuse(argv):
    """What the program says in this process when it refuses a command line."""
    done = CliRunner().invoke(app, [str(word) for word in argv])
    if done.exit_code != 2 or "Traceback" in done.output:
        raise AssertionError(f"exit code {done.exit_code}: {done.output}") from done.exception
    return " ".join(done.stderr.split())


def missing(words, text):
    return [word for word in words if word not in text]


@pytest.mark.wrong_types
@pytest.mark.parametrize("name", CALLS)
def test_a_call(name):
    call, words = CALLS[name]
    with pytest.raises(InputError) as caught:
        call()
    assert missing(words, str(caught.value)) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv, words = COMMANDS[name]
    assert missing(words, refuse(argv)) == []


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder(name, tmp_path, monkeypatch):
    make, argv, words = FOLDERS[name]
    folder = tmp_path / "given"
    folder.mkdir()
    make(folder)
    monkeypatch.chdir(tmp_path)
    assert missing(words, refuse([str(word).replace("{}", str(folder)) for word in argv])) == []


@pytest.mark.parametrize("name", TABLES)
def test_a_table(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content, argv, words = TABLES[name]
    content = content if isinstance(content, bytes) else content.encode()
    for file in ("t.csv", "t.parquet"):
        (tmp_path / file).write_bytes(content)
    read = [] if "t.parquet" in argv else ["t.csv"]
    said = refuse(["fit", *read, *argv, "--target", "y", "--group", "id"])
    assert missing(words, said) == []
    # Nothing was written before it was refused.
    assert not (tmp_path / "runs").exists()
