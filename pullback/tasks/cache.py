"""Decoded image sets kept on disk, so that a second load takes no time."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from pullback.core.array_cache import cache_folder, read_arrays, write_arrays
from pullback.tasks.images import ImageSet

_TEXTS = ("classes", "groups", "parts")


def cached(
    cache_dir: Path | str | None, name: str, key: str, build: Callable[[], ImageSet]
) -> ImageSet:
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
    stored = read_arrays(file, ("images", *_TEXTS))
    if stored is not None:
        # An image set that its own checks refuse counts as missing too.
        with suppress(ValueError):
            return _from_arrays(name, stored.arrays)
    built = build()
    write_arrays(file, _to_arrays(built))
    return built


def _to_arrays(image_set: ImageSet) -> dict[str, np.ndarray]:
    texts = {kind: np.array(getattr(image_set, kind)) for kind in _TEXTS}
    return {"images": image_set.images} | texts


def _from_arrays(name: str, arrays: dict[str, np.ndarray]) -> ImageSet:
    texts = {kind: tuple(arrays[kind].tolist()) for kind in _TEXTS}
    return ImageSet(name=name, images=arrays["images"], **texts)
