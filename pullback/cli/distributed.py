"""A training that other processes take part in: how it runs here, and how it ends.

When a process is lost, JAX ends the others from within its C++ code, by a signal and many lines
that no Python code can catch. So the command runs in a process of its own, a worker. A supervisor
watches it, keeps those lines from the terminal, says in one sentence what happened and how to go
on, and imports no JAX.
"""

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pullback.cli.console import Reporter
    from pullback.meta.multihost import Place

FOLDER = "PULLBACK_WORKER"
"""The environment's name for the folder through which a command talks to its supervisor."""

FACTS, NOISE = "facts.json", "noise.txt"
GRACE = 8
"""Seconds beyond a heartbeat's that JAX needs to find out which process was lost."""

_known: dict[str, Any] = {}


def is_worker() -> bool:
    """Whether this process has a supervisor."""
    return FOLDER in os.environ


def begin() -> None:
    """Keep what C++ code writes from the terminal, and end when the supervisor does."""
    noise = os.open(Path(os.environ[FOLDER]) / NOISE, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for name, number in (("stdout", 1), ("stderr", 2)):
        stream = os.fdopen(os.dup(number), "w", buffering=1, encoding="utf-8")
        setattr(sys, name, stream)
        os.dup2(noise, number)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()


def _end_with_supervisor() -> None:
    # Nothing is ever written there: reading ends when the supervisor has ended.
    with contextlib.suppress(OSError):
        while os.read(0, 1):
            pass
    os._exit(1)


def tell(**facts: Any) -> None:
    """Let the supervisor know something of this process, for its last words."""
    if not is_worker():
        return
    _known.update(facts)
    path = Path(os.environ[FOLDER]) / FACTS
    part = path.with_suffix(".part")
    part.write_text(json.dumps(_known), encoding="utf-8")
    part.replace(path)


@contextlib.contextmanager
def training_together(
    place: "Place | None", devices: int | None, quiet: bool, as_json: bool
) -> "Iterator[Reporter]":
    """Join the other processes of a training, if there are any, and part from them in the end.

    Args:
        place: from :func:`pullback.meta.multihost.find_place`; None for this process alone.
        devices: as given to the command.
        quiet: as given to the command.
        as_json: as given to the command.

    Yields:
        What a person is told by: in process 0 as ever, in the others warnings and errors only.

    Raises:
        InputError: if they cannot be joined.
    """
    from pullback.core.errors import InputError, NumericalError
    from pullback.meta import multihost

    with _ending_with_the_others(multihost.HEARTBEAT):
        reporter = _join(place, devices, quiet, as_json)
        try:
            yield reporter
        except (InputError, NumericalError):
            # Every process raises these, and none may end before the others have heard of it.
            multihost.leave()
            raise
        multihost.leave()


def _join(place: "Place | None", devices: int | None, quiet: bool, as_json: bool) -> "Reporter":
    import jax

    from pullback.cli.console import Reporter, Silent
    from pullback.meta import multihost, parallel

    if place is not None:
        tell(place=dataclasses.asdict(place))
        multihost.join(place)
        known = {"process": multihost.index(), "processes": multihost.count()}
        tell(place=dataclasses.asdict(place) | known)
    if not multihost.is_first():
        return Silent()
    reporter = Reporter(quiet, as_json)
    if place is not None:
        reporter.say(f"All {multihost.count()} processes are here.")
    if devices is not None and jax.default_backend() == "cpu" and devices > parallel.cores():
        reporter.say(f"{devices} devices on {parallel.cores()} cores: right, but no faster.")
    return reporter


@contextlib.contextmanager
def _ending_with_the_others(heartbeat: float) -> Iterator[None]:
    """After a failed collective operation, wait for JAX to report which process was lost.

    Gloo, which carries the operations, notices at once that a connection is closed, but not which
    process is gone. JAX's heartbeats tell a few seconds later, and JAX then ends this process.

    Args:
        heartbeat: seconds after which JAX gives a silent process up.
    """
    try:
        yield
    # Gloo's errors arrive as ValueError, XlaRuntimeError and others; their text tells.
    except Exception as error:
        if not is_worker() or "gloo" not in str(error).lower():
            raise
        tell(lost=" ".join(str(error).split("\n")[0].split())[:200])
        time.sleep(heartbeat + GRACE)
        end(3)


def end(code: int) -> None:
    """End at once, without waiting for the other processes, which so hear of it at once."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


FLAGS = ("--hosts", "--coordinator", "--process-id", "--processes")
LOST = 3
"""Exit code where another process was lost, or did not come."""


def is_wanted(argv: Sequence[str]) -> bool:
    """Whether a command line asks for a training by several processes."""
    several = any(word.split("=")[0] in FLAGS for word in argv[1:])
    return argv[:1] == ["train"] and several and not is_worker()


def supervise(argv: Sequence[str]) -> int:
    """Run a command in a process of its own, and say what became of it where it cannot.

    Args:
        argv: the command's arguments, ``train`` first.

    Returns:
        The exit code: the command's own; 3 where another process was lost; 128 and the signal's
        number where a signal ended the command.
    """
    from pullback.cli.console import Reporter

    with tempfile.TemporaryDirectory(prefix="pullback-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-m", "pullback.cli", *argv],
            # The command ends when this pipe does, so that it cannot outlive its supervisor.
            stdin=subprocess.PIPE,
            env=os.environ | {FOLDER: folder},
            # Ctrl-C reaches the command once, through here.
            process_group=0,
        )
        with _passing_signals_to(process):
            code = process.wait()
        facts = _facts(Path(folder))
        noise = _text(Path(folder) / NOISE)
    if code >= 0 and code != LOST:
        return code
    reporter = Reporter()
    if reporter.err.is_terminal:
        reporter.err.show_cursor(True)
    if code in (-signal.SIGINT, -signal.SIGTERM):
        return 128 - code
    explained = explain(noise, facts)
    if explained is None and code < 0:
        ended = (
            f"This process of the training was ended from outside by signal {-code} "
            f"({signal.Signals(-code).name})"
        )
        reporter.error(f"{ended}. {_remedy(facts)}")
        return 128 - code
    reporter.error(f"{explained or 'Another process of this training was lost'}. {_remedy(facts)}")
    return LOST


def explain(noise: str, facts: Mapping[str, Any]) -> str | None:
    """What JAX's last lines say about the other processes, in one sentence without its stop.

    Args:
        noise: what JAX wrote.
        facts: what the command knew of itself.

    Returns:
        The sentence; None if nothing is said about them.
    """
    place = facts.get("place", {})
    where = f" at {place['coordinator']}" if place.get("coordinator") else ""
    patience = place.get("patience")
    if "RegisterTask" in noise:
        if place.get("process") == 0:
            number = place.get("processes")
            return f"Not all of the {number} processes came within {patience} s"
        return (
            f"Process 0 could not be reached{where} within {patience} s, or not all processes came"
        )
    if found := re.search(r"stopped sending heartbeats\):\s*((?:\S*\d+\s*[,\n]\s*)+)", noise):
        lost = sorted({int(n) for n in re.findall(r"(\d+)\s*(?:[,\n]|$)", found[1])})
        one = f"Process {lost[0]}" if len(lost) == 1 else f"Processes {', '.join(map(str, lost))}"
        return f"{one} of this training ended or was cut off"
    if "Failed to send RPC to coordination service" in noise:
        return "Process 0 of this training, which leads it, ended or was cut off"
    if "distributed service detected fatal errors" in noise or "lost" in facts:
        why = f" ({facts['lost']})" if "lost" in facts else ""
        return f"Another process of this training ended or was cut off{why}"
    return None


def _remedy(facts: Mapping[str, Any]) -> str:
    if "run" not in facts:
        return "Nothing was computed yet. Look at what the other processes say, and start again."
    from pullback.runs.formatting import command

    kept = facts["run"]
    return (
        f"What was saved in {kept!r} is kept. Look at what the other processes say, and go on from "
        f"the last checkpoint, with as many processes as you like, by: "
        f"{command('train', '--resume', kept)}"
    )


def _facts(folder: Path) -> dict[str, Any]:
    try:
        return json.loads(_text(folder / FACTS))
    except ValueError:
        return {}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


@contextlib.contextmanager
def _passing_signals_to(process: subprocess.Popen) -> Iterator[None]:
    former = {}
    for each in (signal.SIGINT, signal.SIGTERM):
        former[each] = signal.signal(each, lambda number, frame: process.send_signal(number))
    try:
        yield
    finally:
        for each, handler in former.items():
            signal.signal(each, handler)
