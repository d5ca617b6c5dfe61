"""Files that are written as a whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


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
