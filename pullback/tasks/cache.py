"""Decoded examples kept on disk, so that a second load takes no time."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from pullback.core.array_cache import cache_folder, read_arrays, write_arrays
from pullback.tasks.class_set import ClassSet

_TEXTS = ("classes", "groups", "parts")


def cached(
    cache_dir: Path | str | None, name: str, key: str, build: Callable[[], ClassSet]
) -> ClassSet:
    """The examples stored under a key, built and stored if it is not there.

    Args:
        cache_dir: folder of the cache; None for the user's cache folder.
        name: name of the data set, the beginning of the file's name.
        key: digest of everything the built set depends on.
        build: makes the set; what it raises is passed on.

    Returns:
        The examples, equal to what ``build`` returns.
    """
    file = cache_folder(cache_dir) / f"{name}-{key}.npz"
    stored = read_arrays(file, ("examples", "counts", *_TEXTS))
    if stored is not None:
        # What its own checks refuse counts as missing too.
        with suppress(ValueError):
            return _from_arrays(name, stored.arrays)
    built = build()
    write_arrays(file, _to_arrays(built))
    return built


def file_state(file: Path) -> tuple[int, ...]:
    """What of a file changes with its content, without reading it; a link's target counts.

    Raises:
        OSError: if the file cannot be looked at.
    """
    facts = file.stat()
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino


def _to_arrays(class_set: ClassSet) -> dict[str, np.ndarray]:
    texts = {kind: np.array(getattr(class_set, kind)) for kind in _TEXTS}
    return {"examples": class_set.examples, "counts": class_set.counts} | texts


def _from_arrays(name: str, arrays: dict[str, np.ndarray]) -> ClassSet:
    texts = {kind: tuple(arrays[kind].tolist()) for kind in _TEXTS}
    return ClassSet(name, arrays["examples"], arrays["counts"], **texts)
