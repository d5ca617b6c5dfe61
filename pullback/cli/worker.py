"""A command that runs under a supervisor, as a training by several processes does."""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = "PULLBACK_WORKER"
"""The environment's name for the folder through which a command talks to its supervisor."""

FACTS, NOISE = "facts.json", "noise.txt"
GRACE = 8
"""Seconds, beyond those of a heartbeat, in which JAX finds out which process was lost."""

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
def awaiting_the_worst(heartbeat: float) -> Iterator[None]:
    """Turn the failure of a collective operation into the end that JAX is about to make.

    Gloo notices at once that a connection is closed, but not whose; JAX knows that soon, and ends
    this process with the answer.

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
