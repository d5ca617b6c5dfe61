"""Arrays that took long to make, kept on disk.

A cache is a convenience and never a source of failure: a file that is broken counts as missing,
and a folder that cannot be written is done without.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pullback.core.files import write_atomically

# What NumPy and zipfile raise for a torn or altered file. Each member's checksum is verified while
# it is read, so that a flipped bit shows too.
_BROKEN = (
    OSError, ValueError, TypeError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile,
    zlib.error,
)  # fmt: skip


class CachedArrays(NamedTuple):
    """What a cache file holds.

    Args:
        arrays: by name.
        facts: what else is known about them, as JSON has it.
    """

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


def cache_folder(cache_dir: Path | str | None) -> Path:
    """The folder for cached files.

    Args:
        cache_dir: folder to use; None for the user's cache folder of this platform.

    Returns:
        The folder, which need not exist yet.
    """
    if cache_dir is not None:
        return Path(cache_dir)
    import platformdirs

    try:
        return Path(platformdirs.user_cache_dir("pullback"))
    except RuntimeError:
        # The user has no home folder: where nothing can be written, nothing is kept.
        return Path(os.devnull) / "pullback"


def fingerprint(*facts: object) -> str:
    """A short digest that changes when any of the facts changes.

    Args:
        facts: values whose ``repr`` says all that matters about them.

    Returns:
        32 hexadecimal digits.
    """
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def read_arrays(file: Path, names: Iterable[str]) -> CachedArrays | None:
    """The contents of a cache file.

    Args:
        file: written by :func:`write_arrays`.
        names: of the arrays that it must hold.

    Returns:
        The arrays and facts; None if the file is missing or broken, or lacks one of the arrays.
    """
    try:
        # Opened here because np.load leaves the file open when it finds it broken.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in names}
            facts = json.loads(str(stored["facts"]))
    except _BROKEN:
        return None
    return CachedArrays(arrays, facts) if isinstance(facts, dict) else None


def write_arrays(
    file: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any] | None = None
) -> None:
    """Write a cache file as a whole, or not at all where the disk refuses it.

    Args:
        file: the file, ending in ``.npz``.
        arrays: by name, any but ``"facts"``; of numbers, truth values or text.
        facts: what else to keep, as JSON has it.
    """

    members: dict[str, Any] = {**arrays, "facts": np.array(json.dumps(facts or {}))}

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez_compressed(stream, **members)

    with suppress(OSError):
        write_atomically(file, write)
