"""What the program finds around itself: encodings, homes, interrupts, memory, names of folders."""

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time

import jax
import pytest
from cli_helpers import cli

from pullback.cli import surroundings
from pullback.cli.console import Reporter
from pullback.core import array_cache, memory
from pullback.core.errors import InputError
from pullback.runs import build, checkpoint, formatting
from pullback.runs import config as configs
from pullback.runs.folder import Run, check_writable

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX alone")


def program(*argv, **options):
    return subprocess.run(
        [sys.executable, "-m", "pullback.cli", *argv], capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16", "utf-8"])
def test_everything_can_be_printed_in_every_encoding(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    surroundings.print_anywhere()
    record = {"λ": "±–ᚠ\udc80"}
    Reporter().result(record, "λ ± – ᚠ")
    Reporter(as_json=True).result(record)
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding)
    assert json.loads(shown[shown.index("{") :]) == record


def test_the_program_prints_help_where_stdout_is_ascii():
    done = program("train", "--help", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0, done.stderr
    assert "\\u03bb" in done.stdout


@POSIX
def test_without_a_home_and_a_name_there_is_one_for_the_time_being(monkeypatch):
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody(*_):
        raise KeyError("uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with surroundings.at_home():
        home = os.environ["HOME"]
        assert os.path.isdir(home)  # noqa: PTH112
        assert os.environ["LOGNAME"] == str(os.getuid())
        assert str(array_cache.cache_folder(None)).startswith(home)
    assert not os.path.exists(home)  # noqa: PTH110
    assert "HOME" not in os.environ
    # A library user has no such home: nothing is cached, and nothing fails.
    file = array_cache.cache_folder(None) / "x.npz"
    array_cache.write_arrays(file, {})
    assert array_cache.read_arrays(file, ()) is None


SLOW_IMPORT = """
import builtins, signal
# Tests may run in the background, where a shell lets it be ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
real = builtins.__import__
def slow(name, *more):
    if name == "typer" and "told" not in globals():
        globals()["told"] = True
        print("importing", flush=True)
        import time
        time.sleep(20)
    return real(name, *more)
builtins.__import__ = slow
from pullback.cli import main
main(["info", "algorithms"])
"""


@POSIX
def test_ctrl_c_while_importing_ends_it_without_a_word():
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_IMPORT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert (process.returncode, stderr) == (130, "")
    assert time.monotonic() - began < 10


@POSIX
def test_a_process_that_ignores_ctrl_c_still_does(monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        surroundings.end_at_once_when_interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_xla_is_asked_to_be_quiet_and_a_user_may_ask_otherwise(monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    surroundings.keep_logs_away()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    surroundings.keep_logs_away()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_printed_commands_can_be_given_to_a_shell():
    for name in ("my run", "it's", "$HOME", "a;b", "-x y", "ü"):
        assert shlex.split(formatting.command("evaluate", name)) == ["pullback", "evaluate", name]


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(36, "File name too long", "x" * 500), 2, "File name too long"),
        (OSError(5, "Input/output error"), 1, "Input/output error"),
        (MemoryError("4 TB"), 1, "too little memory"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), 1, "--tasks-per-step"),
    ],
)
def test_what_the_system_refuses_is_a_sentence(error, code, words, monkeypatch, tmp_path):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Run, "open", fail)
    done = cli("info", tmp_path, code=code)
    assert words in done.stderr and len(done.stderr) < 500


def test_a_model_is_refused_by_the_memory_there_is(monkeypatch):
    config = configs.resolve({"data": {"dataset": "sinusoid"}, "model": {"hidden": [1000]}})
    parameters = 1000 + 1000 + 1000 + 1
    copies = build.RESTORED_COPIES
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * copies * parameters)
    build.assemble(config)
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * copies * parameters - 1)
    with pytest.raises(InputError, match=r"3,001 parameters, of which 4 copies .* 48 kB"):
        build.assemble(config)
    # Training holds more of them.
    monkeypatch.setattr(memory, "available_bytes", lambda: 4 * (copies + 1) * parameters)
    with pytest.raises(InputError, match="3,001 parameters"):
        build.build(config)


def test_a_device_says_how_much_memory_it_has_left(monkeypatch):
    class Device:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 100, "bytes_in_use": 30}

    assert (memory.available_bytes() or 1) > 0
    monkeypatch.setattr(jax, "local_devices", lambda: [Device()])
    assert memory.available_bytes() == 70
    assert memory.bytes_text(17_280_000_000_000) == "17.3 TB"
    assert memory.bytes_text(999) == "999 bytes"


def test_looking_whether_a_folder_can_be_written_leaves_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="could not be written to"):
        check_writable(tmp_path / "link" / "b")


def test_another_precision_is_refused_with_both_and_a_remedy(sinusoid_run, copied):
    run = copied(sinusoid_run)
    assert Run.open(run).versions()["precision"] == "float32"
    with jax.enable_x64(True):
        for argv in (["evaluate", run, "--tasks", "2"], ["train", "--resume", run]):
            refused = cli(*argv, code=2).stderr
            assert "holds float32 numbers, and this process computes in float64" in refused
            assert "JAX_ENABLE_X64" in refused
        state = build.reopen(Run.open(run)).fresh_state()
        checkpoint.save(run / "wide", state, seed=0)
        cli("info", run)
    with pytest.raises(InputError, match=r"holds float64 .* computes in float32.*X64=1"):
        checkpoint.restore(run / "wide", build.reopen(Run.open(run)).fresh_state())
