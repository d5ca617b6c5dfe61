"""Results of long work, kept for the next visit."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from pullback.core.array_cache import cache_folder, fingerprint, read_arrays, write_arrays
from pullback.runs.folder import versions


class CachedResult(NamedTuple):
    """The result of long work, and what is known about it.

    Args:
        arrays: what was computed.
        facts: about the computation, as JSON has it, such as ``seconds``.
        fresh: whether it was computed just now.
    """

    arrays: PyTree[Any]
    facts: dict[str, Any]
    fresh: bool


class ResultCache:
    """The place of one result in the cache folder.

    Args:
        name: the beginning of the file's name.
        recipe: everything that the result depends on, by its ``repr``; the versions of the
            packages that compute it are added.
        like: arrays, or their shapes, of the structure of the result.
        cache_dir: folder to use; None for the user's cache folder.
    """

    def __init__(
        self, name: str, recipe: object, like: PyTree[Any], cache_dir: Path | str | None = None
    ):
        key = fingerprint(recipe, sorted(versions().items()))
        self.file = cache_folder(cache_dir) / "lab" / f"{name}-{key}.npz"
        self._leaves, self._tree = jax.tree.flatten(like)
        self._names = [f"leaf{i}" for i in range(len(self._leaves))]

    def get(self) -> CachedResult | None:
        """The stored result; None if there is none, or it is broken, or not finite."""
        stored = read_arrays(self.file, self._names)
        if stored is None:
            return None
        leaves = [stored.arrays[name] for name in self._names]
        usable = all(
            found.shape == like.shape and found.dtype == like.dtype and np.isfinite(found).all()
            for found, like in zip(leaves, self._leaves, strict=True)
        )
        tree = jax.tree.unflatten(self._tree, leaves)
        return CachedResult(tree, stored.facts, fresh=False) if usable else None

    def put(self, arrays: PyTree[Any], facts: dict[str, Any]) -> CachedResult:
        """Store a result, which is returned even where the folder cannot be written.

        Args:
            arrays: of the structure of ``like``.
            facts: about the computation, as JSON has it.

        Returns:
            Both, with NumPy's arrays.
        """
        arrays = jax.tree.map(np.asarray, arrays)
        write_arrays(self.file, dict(zip(self._names, jax.tree.leaves(arrays), strict=True)), facts)
        return CachedResult(arrays, facts, fresh=True)
