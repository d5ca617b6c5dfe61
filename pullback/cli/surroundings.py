"""What a process finds around itself, and how the program gets along with it.

Nothing here imports more than Python's own modules: it runs before all else.
"""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def end_at_once_when_interrupted() -> None:
    """Let Ctrl-C end the process without a traceback, even in the middle of an import.

    A command that has something to save takes the signal over while it does.
    """
    # A process in the background may have been told to ignore it.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        with contextlib.suppress(ValueError):  # Only the main thread may set handlers.
            signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: Any) -> None:
    if sys.stderr is not None and sys.stderr.isatty():
        # A progress bar hides the cursor.
        os.write(2, b"\x1b[?25h\n")
    os._exit(128 + number)


def print_anywhere() -> None:
    """Let every text be printed, whatever the encoding of the terminal or the pipe.

    What it has no character for is written as Python does on stderr, as in ``\\u03bb``.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def at_home() -> Iterator[None]:
    """Where the user has no home folder or no name, as in some containers, one for the time being.

    Without them, libraries fail that only want to know where to keep something.
    """
    import getpass
    import tempfile

    with contextlib.ExitStack() as stack:
        try:
            getpass.getuser()
        except (KeyError, OSError, ImportError):
            stack.enter_context(_environment("LOGNAME", str(getattr(os, "getuid", int)())))
        # Python leaves the ~ where it is.
        if os.name != "nt" and os.path.expanduser("~") == "~":  # noqa: PTH111
            folder = tempfile.TemporaryDirectory(prefix="pullback-home-")
            stack.enter_context(_environment("HOME", stack.enter_context(folder)))
        yield


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def keep_logs_away() -> None:
    """Without the log lines of XLA's C++ code, such as that a compilation is slow.

    What goes wrong there is an exception as well. Set through the environment, which XLA reads
    when JAX is imported; what is set already holds.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def find_modules_here() -> None:
    """For ``package.module:attribute`` in the folder that the program was started in."""
    with contextlib.suppress(OSError):  # The folder may be gone.
        here = str(Path.cwd())
        if not {"", here} & set(sys.path):
            sys.path.append(here)
