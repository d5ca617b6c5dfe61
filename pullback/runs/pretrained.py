"""Trained initialisations without what trained them: packed from a run, loaded by name or folder.

A packed initialisation is a folder: the run's configuration, split, summary of the data and
versions, θ without its head, and a card. The head starts at zero, so that the number of ways is
free.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pullback.algorithms import Learned, MetaAlgorithm
from pullback.algorithms.base import Theta
from pullback.core.errors import InputError, unknown_name
from pullback.runs import build, checkpoint
from pullback.runs.build import Experiment
from pullback.runs.config import RunConfig
from pullback.runs.fields import read
from pullback.runs.folder import (
    START,
    Run,
    check_free,
    read_json,
    storage,
    write_json,
    write_with,
)
from pullback.runs.records import FINITE, NAME, TEXT, need
from pullback.tasks.datasets import DataSummary

FOLDER = Path(str(resources.files("pullback"))) / "pretrained"
"""Where those that come with the package are."""
THETA, CARD = "theta.npz", "card.json"
DTYPES = ("float16", "float32")


@dataclass(frozen=True)
class Packed(Run):
    """A packed initialisation, which can be evaluated and adapted, and not trained on.

    Args:
        card: what stands in its ``card.json``.
    """

    card: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def begun(self) -> bool:
        """It was trained before it was packed."""
        return True


@dataclass(frozen=True)
class Pretrained:
    """A trained initialisation, ready to adapt.

    Args:
        model: the network, with ``apply(params, x)``.
        algorithm: whose ``adapt(theta, support, key)`` adapts it.
        theta: the initialisation.
        config: the settings it was trained with; the ways are those asked for.
        card: what it is, and how well it did.
        summary: what the examples are; ``summary.prepared`` standardises them as in training.
    """

    model: Any
    algorithm: MetaAlgorithm
    theta: Theta
    config: RunConfig
    card: Mapping[str, Any]
    summary: DataSummary


def names() -> tuple[str, ...]:
    """The names of those that come with the package."""
    return tuple(sorted(path.parent.name for path in FOLDER.glob(f"*/{CARD}")))


def about(name: str) -> str:
    """What one of :func:`names` is for, in its card's words."""
    return str(read_json(FOLDER / name / CARD).get("about") or "")


def open_trained(place: Path | str) -> Run:
    """A run, or a packed initialisation.

    Args:
        place: the folder of either, or a name of :func:`names`; a folder goes first.

    Returns:
        The run, or a :class:`Packed`.

    Raises:
        InputError: if it is neither, or damaged.
    """
    folder = Path(place)
    if not folder.exists() and str(place) in names():
        folder = FOLDER / str(place)
    if (folder / CARD).is_file():
        return _open_packed(folder)
    if not folder.exists() and folder.name == str(place) and names():
        asked = "run or pretrained initialisation"
        raise unknown_name(asked, str(place), names(), "a run's folder")
    return Run.open(folder)


def _open_packed(folder: Path) -> Packed:
    run = Run.open(folder)
    card = read_json(folder / CARD)
    with _broken(folder / CARD):
        need(card, ("name", "checksum", "step", "seconds"))
        for name in ("name", "checksum"):
            read(TEXT, name, card[name])
        read(FINITE, "seconds", card["seconds"])
        read(NAME, "about", card.get("about"))
    found = _checksum(folder / THETA)
    if found != card["checksum"]:
        raise InputError(
            f"The file {str(folder / THETA)!r} is damaged: its checksum is {found[:16]}…, and "
            f"should be {card['checksum'][:16]}…",
            remedy="Install the package anew, or get another copy of the folder",
        )
    return Packed(run.folder, run.config, run.split, run.summary, card)


@contextlib.contextmanager
def _broken(path: Path) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"The file {str(path)!r} is broken: {error}") from None


def _checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"The file {str(path)!r} cannot be read: {error.strerror}") from None


def pack(
    run: Run,
    folder: Path | str,
    *,
    name: str | None = None,
    about: str | None = None,
    which: str | int = "best",
    dtype: str = "float16",
) -> Packed:
    """Pack a checkpoint of a run into a folder of its own, small enough to pass on.

    Args:
        run: the run.
        folder: must not exist yet, or be empty.
        name: of the initialisation; that of the folder if None.
        about: what it is for and where its limits are, in sentences.
        which: the checkpoint: ``"best"``, ``"last"`` or a step.
        dtype: of the numbers stored, ``"float16"`` or ``"float32"``.

    Returns:
        The packed initialisation. Its card has the run's evaluations, without their tasks.

    Raises:
        InputError: if something is in the way, there is no such checkpoint, the model does not say
            where its head is, the type is another, or numbers do not fit it.
        StorageError: if the disk refuses it.
    """
    if dtype not in DTYPES:
        raise unknown_name("type of numbers", dtype, DTYPES)
    run.check_trained()
    folder = Path(folder)
    check_free(folder, remedy="Give another one")
    built = build.reopen(run)
    step, theta = trained_theta(run, built, which)
    arrays = {}
    for path, leaf in _without_head(built, theta).items():
        arrays[path] = np.asarray(leaf, dtype)
        if not np.all(np.isfinite(arrays[path])):
            raise InputError(
                f"{path} of step {step} has numbers that {dtype} does not hold",
                remedy="Pack it in float32",
            )
    with storage(folder, "nothing was packed"):
        folder.mkdir(parents=True, exist_ok=True)
    place, known = folder, None
    for before in run.lineage():
        # Of what it started from, the classes must be known, not θ.
        if before.split == known and before is not run:
            continue
        with storage(place, "the packed folder is not whole"):
            place.mkdir(exist_ok=True)
        Run(place, portable(before.config), before.split, build.summary_of(before)).write()
        place, known = place / START, before.split

    def write(temporary: Path) -> None:
        with temporary.open("wb") as stream:
            np.savez(stream, **arrays)

    write_with(folder / THETA, write)
    lines = [line for line in run.metrics("validation") if line["step"] <= step]
    card = {
        "name": folder.name if name is None else name,
        "about": about,
        "checksum": _checksum(folder / THETA),
        "dtype": dtype,
        "step": step,
        "seconds": (lines[-1]["seconds"] if lines else 0.0) + _seconds_before(run),
        "validation": lines[-1] if lines else None,
        "trained_with": run.versions(),
        "evaluations": [
            {name: value for name, value in record.items() if name not in ("records", "data_dir")}
            for record in run.evaluations().values()
            if record.get("step") == step
        ],
    }
    write_json(folder / CARD, card)
    packed = open_trained(folder)
    assert isinstance(packed, Packed)
    return packed


def portable(config: RunConfig) -> RunConfig:
    """A configuration without the folders of whoever trained by it."""
    data, training = config.data, dataclasses.replace(config.training, start="")
    if data.data_dir:
        data = dataclasses.replace(data, data_dir="")
    return dataclasses.replace(config, data=data, training=training)


def _seconds_before(run: Run) -> float:
    """Seconds that all which a run started from had taken."""
    card = run.folder / START / CARD
    return read_json(card)["seconds"] if card.is_file() else 0.0


def find_step(run: Run, which: str | int = "best") -> int:
    """The step of a checkpoint of a run, or of a packed initialisation, which has one only.

    Raises:
        InputError: if there is no such checkpoint.
    """
    if not isinstance(run, Packed):
        return checkpoint.find(run.checkpoints, which, build.summary_of(run).score)
    step = run.card["step"]
    if which not in ("best", "last") and str(which) != str(step):
        raise InputError(
            f"{run.card['name']!r} was asked for its checkpoint {which!r}",
            allowed=f"best, which is that of step {step}; no other was packed",
        )
    return step


def trained_theta(run: Run, built: Experiment, which: str | int = "best") -> tuple[int, Theta]:
    """The step and θ of a checkpoint of a run, or of a packed initialisation.

    Args:
        run: either.
        built: its experiment; of a packed one with any number of ways.
        which: ``"best"``, ``"last"`` or a step; ``"best"`` alone of a packed one.

    Returns:
        The step, and θ.

    Raises:
        InputError: if there is no such checkpoint, it is broken, or of another model.
    """
    step = find_step(run, which)
    if not isinstance(run, Packed):
        return step, build.restore(run, built, step).theta
    like = built.fresh_state().theta
    wanted = _without_head(built, like)
    path = run.folder / THETA
    try:
        with np.load(path) as file:
            stored = {name: file[name] for name in file.files}
    # NumPy reports a damaged archive by many kinds of exception.
    except Exception as error:
        raise InputError(f"The file {str(path)!r} cannot be read: {error}") from None
    shapes = {name: np.shape(leaf) for name, leaf in wanted.items()}
    if {name: leaf.shape for name, leaf in stored.items()} != shapes:
        raise InputError(
            f"{str(path)!r} is of another model than {str(run.folder / 'config.toml')!r} says"
        )

    def leaf(where: Any, fresh: Any) -> Any:
        name = checkpoint.leaf_name(where)
        given = stored[name] if name in stored else np.zeros(np.shape(fresh))
        return jnp.asarray(given, fresh.dtype)

    return step, jax.tree.map_with_path(leaf, like)


def with_ways(run: Run, config: RunConfig, ways: int | None) -> RunConfig:
    """A configuration with other ways, where those are free.

    Raises:
        InputError: of a run whose head was trained for its own number of ways.
    """
    if ways is None or ways == config.data.ways:
        return config
    if not isinstance(run, Packed) or config.data.ways is None:
        raise InputError(
            f"{ways} ways were asked for, and the run {str(run.folder)!r} was trained with "
            f"{config.data.ways}",
            remedy="Pack it first, which leaves its head out: pullback.pack(run, folder)",
        )
    if config.algorithm.learn_strength == "diagonal":
        raise InputError(
            f"{ways} ways were asked for, and Λ was learned for each parameter of a head of "
            f"{config.data.ways}",
            allowed=str(config.data.ways),
        )
    return dataclasses.replace(config, data=dataclasses.replace(config.data, ways=ways))


def load_pretrained(place: Path | str, ways: int | None = None) -> Pretrained:
    """A trained initialisation by its name, or from a folder.

    Args:
        place: a name of :func:`pullback.runs.pretrained.names`, or the folder of a run or of a
            packed initialisation.
        ways: classes of the tasks to come; as trained if None.

    Returns:
        What ``found.algorithm.adapt(found.theta, support, key)`` and then
        ``found.model.apply(phi, x)`` need.

    Raises:
        InputError: for an unknown name, with the nearest one; a damaged file; or other ways than
            those of a run that is not packed.
    """
    run = open_trained(place)
    config = with_ways(run, run.config, ways)
    built = build.assemble(config, build.summary_of(run).with_ways(config.data.ways), run.split)
    _, theta = trained_theta(run, built)
    card = run.card if isinstance(run, Packed) else {}
    return Pretrained(built.model, built.algorithm, theta, config, card, built.summary)


def _without_head(built: Experiment, theta: Theta) -> dict[str, Any]:
    """The leaves of θ by path, but for those of the linear head."""
    apply = built.head_for("A packed initialisation, which leaves the head out,")
    if isinstance(theta, Learned):
        body = dataclasses.replace(theta, params=apply.split(theta.params)[0])
    else:
        body = apply.split(theta)[0]
    return {checkpoint.leaf_name(path): leaf for path, leaf in jax.tree.leaves_with_path(body)}
