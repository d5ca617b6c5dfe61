"""Training states on disk, by Orbax: written whole or not at all, and read back bit for bit."""

import contextlib
import json
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from pullback.core.errors import InputError, StorageError
from pullback.core.scores import ACCURACY, Score
from pullback.runs.folder import find_link


@runtime_checkable
class Stepped(Protocol):
    """A pytree of arrays that knows its step, as the training's state does."""

    @property
    def step(self) -> Any:
        """Meta-steps done."""
        ...


State = TypeVar("State", bound=Stepped)

KEPT = 2
"""How many of the last checkpoints are kept, beside the best one."""

_LONGEST_ORIGIN = 1_000_000


def save(
    folder: Path,
    state: Stepped,
    *,
    seed: int,
    value: float | None = None,
    score: Score = ACCURACY,
    origin: Mapping[str, Any] | None = None,
) -> int:
    """Save a training state; a step that is saved already is left as it is.

    Args:
        folder: the folder of all checkpoints of a run.
        state: what to save.
        seed: the run's seed, which with the step gives every later random number.
        value: of the validation score; None if there is none for this step.
        score: what it is of, which says which checkpoint is the best.
        origin: what it was trained with, as JSON has it.

    Returns:
        The step saved.

    Raises:
        StorageError: if the disk refuses it, or the folder is a link, behind which nothing is
            deleted; earlier checkpoints stand.
    """
    step = int(state.step)
    # A score that is not a number cannot be ranked, and must not count as the best.
    metrics = None if value is None or not math.isfinite(value) else {"score": float(value)}
    tree = {"state": _arrays(state), "seed": np.asarray(seed, np.int64)}
    if origin is not None:
        tree["origin"] = np.frombuffer(json.dumps(origin).encode(), np.uint8)
    link = find_link(folder)
    if link is not None:
        raise StorageError(
            f"{str(link)!r} is a link, and checkpoints are deleted in the run's own folder only. "
            "Move what it points to in its place."
        )
    try:
        with _manager(folder, score) as manager:
            if step in manager.all_steps():
                return step
            manager.save(step, args=_args().StandardSave(tree), metrics=metrics, force=True)
    except Exception as error:
        kept = steps(folder)
        standing = f"the checkpoints of steps {_listed(kept)} stand" if kept else "none stands"
        raise StorageError(
            f"The checkpoint of step {step} could not be written to {str(folder)!r} "
            f"({_first_line(error)}); {standing}."
        ) from error
    return step


def restore(
    folder: Path,
    like: State,
    which: str | int = "last",
    score: Score = ACCURACY,
    check: Callable[[Mapping[str, Any]], None] = lambda origin: None,
) -> State:
    """Read a training state back.

    Args:
        folder: the folder of all checkpoints of a run.
        like: a state of the same structure, shapes and dtypes.
        which: ``"last"``, ``"best"``, or a step.
        score: as given to :func:`save`.
        check: called with the ``origin`` given to :func:`save`, empty if there was none; raises an
            InputError if the state is not to be used.

    Returns:
        The state, equal to the one saved in every bit.

    Raises:
        InputError: if there is no such checkpoint, it is broken, or it is of another model.
    """
    step = find(folder, which, score)
    leaves = jax.tree.leaves_with_path(like)
    shapes = {leaf_name(path): np.shape(leaf) for path, leaf in leaves}
    try:
        with _quiet():
            import orbax.checkpoint as ocp

            with ocp.StandardCheckpointer(multiprocessing_options=_alone()) as reader:
                place = _item(folder, step).resolve()
                # Before anything is read: what a file claims to hold may exceed all memory.
                if not _fits(dict(reader.metadata(place).item_metadata), shapes):
                    raise InputError(
                        f"The checkpoint of step {step} in {str(folder)!r} is of another model",
                        remedy="Give the run's own configuration",
                    )
                tree = reader.restore(place)
        stored = dict(tree["state"])
        check(json.loads(bytes(tree["origin"])) if "origin" in tree else {})
        _check_precision(step, folder, stored, {leaf_name(path): leaf for path, leaf in leaves})
    except InputError:
        raise
    # Orbax and TensorStore report a damaged file by many kinds of exception.
    except Exception as error:
        others = [other for other in steps(folder) if other != step]
        raise InputError(
            f"The checkpoint of step {step} in {str(folder)!r} is broken ({_first_line(error)})",
            allowed=f"the others are of steps {_listed(others)}" if others else None,
            remedy=f"Remove {str(folder / str(step))!r}",
        ) from error
    flat = [jnp.asarray(stored[leaf_name(path)], leaf.dtype) for path, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(like), flat)


def _check_precision(step: int, folder: Path, stored: Any, wanted: Any) -> None:
    """Numbers of another precision are not rounded to this process's without a word."""
    for name, leaf in wanted.items():
        there, here = np.asarray(stored[name]).dtype, np.dtype(leaf.dtype)
        if there != here:
            wide = there.itemsize > here.itemsize
            raise InputError(
                f"The checkpoint of step {step} in {str(folder)!r} holds {there} numbers, and this "
                f"process computes in {here}",
                remedy="Set the environment variable JAX_ENABLE_X64=1, as when it was trained"
                if wide
                else "Train and use a run in one precision: leave JAX_ENABLE_X64 out, or set it "
                "to 0",
            )


def steps(folder: Path) -> list[int]:
    """The steps of all whole checkpoints, ascending."""
    if not folder.is_dir():
        return []
    with _quiet():
        from orbax.checkpoint import utils

        return sorted(utils.checkpoint_steps(folder.resolve()))


def scores(folder: Path) -> dict[int, float]:
    """The validation score of each checkpoint that has one."""
    if not folder.is_dir():
        return {}
    found = {}
    with _quiet(), _manager(folder, ACCURACY) as manager:
        for step in steps(folder):
            # A damaged file leaves a checkpoint without its score, and the others with theirs.
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                found[step] = float(manager.metrics(step)["score"])
    return found


def find(folder: Path, which: str | int = "last", score: Score = ACCURACY) -> int:
    """The step of a checkpoint.

    Args:
        folder: the folder of all checkpoints of a run.
        which: ``"last"``, ``"best"``, or a step.
        score: as given to :func:`save`.

    Returns:
        The step.

    Raises:
        InputError: if there is no such checkpoint; names those there are.
    """
    existing = steps(folder)
    if not existing:
        raise InputError(f"There is no checkpoint in {str(folder)!r}", remedy="Train first")
    if which == "last":
        return existing[-1]
    if which == "best":
        scored = scores(folder)
        if not scored:
            return existing[-1]
        # Of equal ones the latest, which is also the one that Orbax keeps.
        return max(scored, key=lambda step: (score.better(scored[step]), step))
    if not str(which).isdecimal() or int(which) not in existing:
        raise InputError(
            f"There is no checkpoint {which!r} in {str(folder)!r}",
            allowed=f"last, best, or a step: {_listed(existing)}",
        )
    return int(which)


def _fits(stored: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a checkpoint holds the arrays that are wanted and no others, by its metadata."""
    others = {name: found for name, found in stored.items() if name != "state"}
    return {name: tuple(found.shape) for name, found in stored["state"].items()} == shapes and all(
        name in ("seed", "origin") and math.prod(found.shape) <= _LONGEST_ORIGIN
        for name, found in others.items()
    )


def _item(folder: Path, step: int) -> Path:
    return folder / str(step) / "default"


def leaf_name(path: Any) -> str:
    """What a leaf is called in a file, from its path in the tree."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _arrays(state: Stepped) -> dict[str, np.ndarray]:
    """A flat dictionary, which needs none of this package's classes to be read."""
    return {leaf_name(path): np.asarray(leaf) for path, leaf in jax.tree.leaves_with_path(state)}


def _args() -> Any:
    import orbax.checkpoint as ocp

    return ocp.args


def _alone() -> Any:
    """Where several processes train together, process 0 reads and writes without the others."""
    from orbax.checkpoint import options

    return options.MultiprocessingOptions(primary_host=0, active_processes={0})


@contextlib.contextmanager
def _manager(folder: Path, score: Score) -> Iterator[Any]:
    with _quiet():
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as policies

        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics["score"],
            reverse=not score.higher_is_better,
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        folder.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            create=False,
            multiprocessing_options=_alone(),
            enable_async_checkpointing=False,
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(KEPT), best]),
            best_fn=lambda metrics: metrics["score"],
            best_mode="max" if score.higher_is_better else "min",
        )
        with ocp.CheckpointManager(folder.resolve(), options=options) as manager:
            yield manager


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without Orbax's log lines, and without the warnings it gives about itself."""
    loggers = [logging.getLogger(name) for name in ("absl", "orbax")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"orbax\.|tensorstore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
