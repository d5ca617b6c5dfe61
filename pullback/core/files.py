"""Files that are written as a whole or not at all, and read with errors that say what is wrong."""

import json
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pullback.core.errors import InputError, shorten


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Have a function write a temporary file, which replaces ``path`` only once it is complete.

    Args:
        path: the file; folders above it are made.
        write: called with the temporary file, which has the suffix of ``path``.

    Raises:
        OSError: if the disk refuses it; ``path`` is then as it was before.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        temporary.chmod(0o644)
        # Called by this name so that a test can make it fail.
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def parse_json(written: str) -> Any:
    """What a JSON document says.

    Raises:
        ValueError: if it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(written)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_file(path: Path, errors: str = "strict") -> str:
    """The text of a file, with or without a byte-order mark.

    Args:
        path: the file.
        errors: what becomes of bytes that are no UTF-8, as ``open`` has it.

    Raises:
        InputError: if it is missing, no file, or cannot be read.
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{shorten(str(path), 200)} is no file")
        return path.read_text(encoding="utf-8-sig", errors=errors)
    except FileNotFoundError:
        raise InputError(f"The file {str(path)!r} is missing") from None
    except UnicodeDecodeError as error:
        raise InputError(f"The file {str(path)!r} is broken: it is no UTF-8 ({error})") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"The file {shorten(str(path), 200)} cannot be read: {why}") from None
