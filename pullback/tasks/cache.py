"""Decoded image sets kept on disk, so that a second load takes no time.

The cache is a convenience and never a source of failure: a file that is broken is built
again, and a folder that cannot be written is done without.
"""

import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from pullback.tasks.class_set import ClassSet


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

    return Path(platformdirs.user_cache_dir("pullback"))


def fingerprint(*facts: object) -> str:
    """A short digest that changes when any of the facts changes.

    Args:
        facts: values whose ``repr`` says all that matters about them.

    Returns:
        32 hexadecimal digits.
    """
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:32]


def cached(
    cache_dir: Path | str | None, name: str, key: str, build: Callable[[], ClassSet]
) -> ClassSet:
    """The image set stored under a key, built and stored if it is not there.

    Args:
        cache_dir: folder of the cache; None for the user's cache folder.
        name: name of the image set, the beginning of the file's name.
        key: digest of everything the built set depends on.
        build: makes the set; what it raises is passed on.

    Returns:
        The image set, equal to what ``build`` returns.
    """
    file = cache_folder(cache_dir) / f"{name}-{key}.npz"
    stored = _read(file, name)
    if stored is not None:
        return stored
    built = build()
    with suppress(OSError):
        _write(file, built)
    return built


def _read(file: Path, name: str) -> ClassSet | None:
    # zipfile checks each member's checksum while reading, so a flipped bit shows here too.
    broken = (
        OSError,
        ValueError,
        KeyError,
        EOFError,
        NotImplementedError,
        zipfile.BadZipFile,
        zlib.error,
    )
    try:
        # Opened here because np.load leaves the file open when it finds it broken.
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return ClassSet(
                name=name,
                examples=arrays["examples"],
                counts=arrays["counts"],
                classes=tuple(arrays["classes"].tolist()),
                groups=tuple(arrays["groups"].tolist()),
                parts=tuple(arrays["parts"].tolist()),
            )
    except broken:
        return None


def _write(file: Path, class_set: ClassSet) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.stem}-", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            np.savez_compressed(
                stream,
                examples=class_set.examples,
                counts=class_set.counts,
                classes=np.array(class_set.classes),
                groups=np.array(class_set.groups),
                parts=np.array(class_set.parts),
            )
        Path(temporary).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
