"""Long work: one piece at a time, off the event loop, its result kept for the next visit."""

import json
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from pullback.core.errors import StorageError
from pullback.lab.session import Session
from pullback.runs import folder
from pullback.tasks.cache import cache_folder, fingerprint

# Of its own, so that a training neither waits for a drag nor holds one up; of one thread, so that
# whoever asks second finds what the first one had made.
_one_by_one = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-long")
_BROKEN = (OSError, ValueError, KeyError, EOFError, NotImplementedError, zipfile.BadZipFile)


class Gone(Exception):
    """The visitor has left: raise it to end a piece of work."""


class Kept(NamedTuple):
    """Arrays from long work, and what is known about it.

    Args:
        arrays: what was made.
        facts: about its making, as JSON has it, such as ``seconds``.
        fresh: whether it was made just now.
    """

    arrays: PyTree[Any]
    facts: dict[str, Any]
    fresh: bool


class Shelf:
    """A place for the result of one recipe, in the user's cache folder.

    Args:
        name: the beginning of the file's name.
        recipe: everything that the result depends on, by its ``repr``; the versions of what
            computes are added.
        like: arrays, or their shapes, of the structure of the result.
        cache_dir: folder to use; None for the user's cache folder.
    """

    def __init__(
        self, name: str, recipe: object, like: PyTree[Any], cache_dir: Path | str | None = None
    ):
        key = fingerprint(recipe, sorted(folder.versions().items()))
        self.file = cache_folder(cache_dir) / "lab" / f"{name}-{key}.npz"
        self._leaves, self._tree = jax.tree.flatten(like)

    def get(self) -> Kept | None:
        """What was put there; None if there is nothing, or it is broken."""
        try:
            # Opened here because np.load leaves the file open when it finds it broken.
            with self.file.open("rb") as stream, np.load(stream, allow_pickle=False) as found:
                leaves = [found[f"leaf{i}"] for i in range(len(self._leaves))]
                facts = json.loads(str(found["facts"]))
        except (*_BROKEN, zlib.error):
            return None
        same = all(
            a.shape == b.shape and a.dtype == b.dtype and np.isfinite(a).all()
            for a, b in zip(leaves, self._leaves, strict=True)
        )
        return Kept(jax.tree.unflatten(self._tree, leaves), facts, False) if same else None

    def put(self, arrays: PyTree[Any], facts: dict[str, Any]) -> Kept:
        """Keep a result; a folder that cannot be written is done without."""
        leaves: dict[str, Any] = {
            f"leaf{i}": np.asarray(x) for i, x in enumerate(jax.tree.leaves(arrays))
        }

        def write(path: Path) -> None:
            with path.open("wb") as stream:
                np.savez(stream, facts=np.array(json.dumps(facts)), **leaves)

        with suppress(StorageError):
            folder.write_with(self.file, write)
        return Kept(jax.tree.map(np.asarray, arrays), facts, True)


Tell = Callable[..., None]


def begin(
    session: Session,
    job: Callable[[Tell], Any],
    *,
    told: Callable[..., None],
    done: Callable[[Any], None],
    failed: Callable[[Exception], None],
) -> None:
    """Start long work for a visitor.

    Args:
        session: the visitor's; it must have a document.
        job: ``job(tell) -> result``, in a thread; ``tell(...)`` raises :class:`Gone` once the
            visitor has left, and otherwise passes its arguments on.
        told: gets them when the document may be changed.
        done: gets the result, likewise.
        failed: gets what the job raised, likewise.
    """

    def tell(*arguments: Any) -> None:
        if session.closed:
            raise Gone
        session.later(partial(told, *arguments))

    def run() -> None:
        try:
            if not session.closed:
                result = job(tell)
                session.later(partial(done, result))
        except Gone:
            return
        except Exception as error:
            session.later(partial(failed, error))

    _one_by_one.submit(run)
