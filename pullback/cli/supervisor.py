"""A training that others take part in runs in a process of its own, watched by this one.

When a process is lost, JAX ends the others from within its C++ code, by a signal and many lines
that no Python code can catch. The watching process keeps those lines from the terminal, says in
one sentence what happened and how to go on, and imports no JAX.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pullback.cli.worker import FACTS, FOLDER, NOISE, is_worker

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
    kept = facts["run"]
    return (
        f"What was saved in {kept!r} is kept. Look at what the other processes say, and go on from "
        f"the last checkpoint, with as many processes as you like, by: pullback train --resume "
        f"{kept}"
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
