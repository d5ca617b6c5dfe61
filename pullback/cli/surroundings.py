"""What a process finds around itself, and how the program gets along with it.

Nothing here imports more than Python's own modules: it runs before all else.
"""

import contextlib
import io
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def ending_at_once() -> Iterator[None]:
    """Ctrl-C ends the process without a traceback, even in the middle of an import.

    A command that has something to save takes the signal over while it does.
    """
    # A process in the background may have been told to ignore it.
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def leave(number: int, frame: Any) -> None:
        if sys.stderr is not None and sys.stderr.isatty():
            # A progress bar hides the cursor.
            os.write(2, b"\x1b[?25h\n")
        os._exit(128 + number)

    try:
        signal.signal(signal.SIGINT, leave)
    except ValueError:  # Only the main thread may set handlers.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def print_anywhere() -> None:
    """Let every text be printed, whatever the encoding of the terminal or the pipe.

    What it has no character for is written as Python does on stderr, as in ``\\u03bb``.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def at_home() -> Iterator[None]:
    """Where the user has no home folder, as in some containers, a temporary one."""
    # Without one, Python leaves the ~ where it is.
    if os.path.expanduser("~") != "~" or os.name == "nt":  # noqa: PTH111
        yield
        return
    with tempfile.TemporaryDirectory(prefix="pullback-home-") as folder:
        os.environ["HOME"] = folder
        try:
            yield
        finally:
            del os.environ["HOME"]


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
