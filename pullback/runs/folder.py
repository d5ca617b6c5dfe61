"""A run is a folder: its configuration, its split, what was measured, and its checkpoints."""

import contextlib
import datetime
import errno
import importlib.metadata
import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax

from pullback.core.errors import InputError, StorageError, shorten
from pullback.core.files import parse_json, read_file, write_atomically
from pullback.core.scores import Score
from pullback.registries import DATASETS
from pullback.runs import config as configs
from pullback.runs.config import RunConfig
from pullback.runs.fields import read
from pullback.runs.formatting import command
from pullback.runs.records import TEXT, check_line
from pullback.tasks import ClassSplit, gives_classes
from pullback.tasks.datasets import DataSummary

CONFIG = "config.toml"
SPLIT = "split.json"
DATA = "data.json"
METRICS = "metrics.jsonl"
VERSIONS = "versions.json"
PLOT = "plot.png"
CHECKPOINTS = "checkpoints"
EVALUATIONS = "evaluations"
PRETRAINING = "pretraining"
START = "start"
PACKAGES = ("pullback", "jax", "jaxlib", "numpy", "optax", "equinox")

_NOT_IN_ORIGIN = configs.MAY_DIFFER | {
    *("data.split_by", "data.split_seed", "data.validation_classes", "data.test_classes"),
}
_OF_EPISODES = (
    *("ways", "shots", "queries"),
    *("rotations", "reflections", "distortion", "same_alphabet"),
)
_NOT_IN_ORIGIN_OF_PRETRAINING = _NOT_IN_ORIGIN | {
    *(f"data.{name}" for name in _OF_EPISODES),
    *(f"algorithm.{name}" for name in configs.SETTINGS["algorithm"]),
    *(f"training.{name}" for name in configs.SETTINGS["training"] if name != "seed"),
}

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Run:
    """A run's folder, opened.

    Args:
        folder: where it is.
        config: its settings.
        split: its classes; None where tasks are computed and there are no classes.
        summary: what a model must know of its data; None in a run of an earlier version.
    """

    folder: Path
    config: RunConfig
    split: ClassSplit | None
    summary: DataSummary | None = None

    @classmethod
    def create(
        cls,
        folder: Path | str,
        config: RunConfig,
        split: ClassSplit | None,
        summary: DataSummary | None = None,
    ) -> "Run":
        """Start a run in a new folder.

        Args:
            folder: must not exist yet, or be empty.
            config: written to ``config.toml``.
            split: written to ``split.json``.
            summary: written to ``data.json``.

        Returns:
            The run.

        Raises:
            InputError: if something is in the way.
            StorageError: if the folder cannot be written.
        """
        folder = Path(folder)
        check_free(folder)
        with storage(folder, "nothing was started"):
            folder.mkdir(parents=True, exist_ok=True)
        run = cls(folder, config, split, summary)
        run.write()
        return run

    def write(self) -> None:
        """Write all that is known before anything is trained.

        Raises:
            StorageError: if the disk refuses it.
        """
        write_text(self.folder / CONFIG, self.config.to_toml())
        if self.split is not None:
            write_json(self.folder / SPLIT, self.split.to_dict())
        if self.summary is not None:
            write_json(self.folder / DATA, self.summary.to_dict())
        precision = "float64" if jax.config.values["jax_enable_x64"] else "float32"
        write_json(self.folder / VERSIONS, versions() | {"precision": precision})

    @classmethod
    def open(cls, folder: Path | str) -> "Run":
        """Open the folder of a run.

        Args:
            folder: as given to :meth:`create`.

        Returns:
            The run.

        Raises:
            InputError: if the folder is no run, or a file of it is broken.
        """
        folder = Path(folder)
        if not folder.is_dir():
            what = "is not a folder" if folder.exists() else "does not exist"
            raise InputError(
                f"The run {str(folder)!r} {what}", remedy="Give the folder of a pullback run"
            )
        if not (folder / CONFIG).is_file():
            raise InputError(
                f"{str(folder)!r} is no run: {CONFIG} is missing",
                remedy="Give the folder that pullback train wrote with --out",
            )
        try:
            config = configs.from_toml(folder / CONFIG)
        except InputError as error:
            raise InputError(f"The run {str(folder)!r} cannot be opened: {error}") from None
        split = None
        # Of a run that ended before anything was trained, nothing is lost by drawing it then.
        begun = cls(folder, config, None).begun
        of_classes = gives_classes(DATASETS.find(config.data.dataset))
        if (folder / SPLIT).exists() or (of_classes and begun):
            split = read_record(folder / SPLIT, ClassSplit.from_dict)
            registered = config.data.dataset in DATASETS
            if registered and split.dataset != config.data.dataset:
                raise InputError(
                    f"{str(folder / SPLIT)!r} is a split of {split.dataset!r}, but the run's "
                    f"data set is {config.data.dataset!r}"
                )
        summary = None
        if (folder / DATA).exists():
            summary = read_record(folder / DATA, DataSummary.from_dict)
        return cls(folder, config, split, summary)

    @property
    def begun(self) -> bool:
        """Whether anything was measured or saved."""
        metrics = self.folder / METRICS
        pretraining = self.folder / PRETRAINING / CHECKPOINTS
        kept = (self.checkpoints, pretraining)
        saved = any(each.is_dir() and any(each.iterdir()) for each in kept)
        return saved or (metrics.exists() and (not metrics.is_file() or metrics.stat().st_size > 0))

    def check_trained(self) -> None:
        """Whether there is anything to score.

        Raises:
            InputError: if it ended before anything was trained.
        """
        if not self.begun:
            raise InputError(
                f"The run {str(self.folder)!r} ended before anything was trained",
                remedy=f"Go on with it by: {command('train', '--resume', self.folder)}",
            )

    def pretraining(self) -> "Run":
        """The stage before meta-training, in a folder below this one."""
        return PretrainingRun(self.folder / PRETRAINING, self.config, self.split, self.summary)

    @property
    def _not_in_origin(self) -> Set[str]:
        """What a checkpoint need not agree with: of a split its classes are compared themselves."""
        return _NOT_IN_ORIGIN

    def lineage(self) -> "list[Run]":
        """This run, what it started from, what that started from, and so on."""
        start = self.folder / START
        return [self, *(Run.open(start).lineage() if (start / CONFIG).is_file() else ())]

    @property
    def checkpoints(self) -> Path:
        """The folder of its checkpoints."""
        return self.folder / CHECKPOINTS

    @property
    def plot(self) -> Path:
        """The picture of its curves."""
        return self.folder / PLOT

    def check_real(self) -> None:
        """Whether what is written into the run, and deleted, is in its folder and not elsewhere.

        Raises:
            InputError: for a link in it.
        """
        stage = self.folder / PRETRAINING
        link = find_link(self.checkpoints, self.folder / METRICS, stage)
        link = link or find_link(stage / CHECKPOINTS, stage / METRICS)
        if link is not None:
            raise InputError(
                f"{str(link)!r} is a link, and what it points to might be changed or deleted",
                remedy="Put in its place what it points to",
            )

    def origin(self) -> dict[str, Any]:
        """What a checkpoint says of the configuration and the split that it was trained with."""
        settings = {
            section: {
                name: value
                for name, value in values.items()
                if f"{section}.{name}" not in self._not_in_origin
            }
            for section, values in self.config.to_dict().items()
        }
        return {"settings": settings, "split": None if self.split is None else self.split.digest()}

    def check_origin(self, stored: Mapping[str, Any]) -> None:
        """Whether a checkpoint was trained with the configuration and the split in this folder.

        Args:
            stored: what :meth:`origin` said when it was saved; empty in earlier versions.

        Raises:
            InputError: if it was trained with others.
        """
        if not stored:
            return
        for name, then, now in configs.diff(configs.resolve(stored["settings"]), self.config):
            if name not in self._not_in_origin:
                raise InputError(
                    f"{name} is {now!r} in {str(self.folder / CONFIG)!r}, but the checkpoint was "
                    f"trained with {then!r}",
                    remedy="Write that back, or train a new run",
                )
        if stored["split"] != self.origin()["split"]:
            raise InputError(
                f"The split in {str(self.folder / SPLIT)!r} is not the one that the checkpoint was "
                "trained with",
                remedy="Put the run's own split back, or train a new run",
            )

    def append(self, *records: Mapping[str, Any]) -> None:
        """Add lines to the metrics; numbers that are not finite are left out.

        Raises:
            StorageError: if the disk refuses it.
        """
        lines = (json.dumps(finite(record), ensure_ascii=False) + "\n" for record in records)
        with storage(self.folder / METRICS, "the lines before it are whole"):
            self.folder.mkdir(exist_ok=True)
            with (self.folder / METRICS).open("a", encoding="utf-8") as stream:
                stream.write("".join(lines))

    def metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The lines of the metrics; a last one that a crash cut short is passed over.

        Args:
            kind: only lines of this kind; all if None.

        Returns:
            One dictionary a line.

        Raises:
            InputError: if a line that is not the last is broken.
        """
        path = self.folder / METRICS
        if not path.exists():
            return []
        lines = read_file(path, errors="replace").split("\n")
        records = []
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            try:
                record = check_line(parse_json(line), kind)
            except ValueError as error:
                # Only the last line can have been cut, and then no line break follows it.
                if number == len(lines):
                    break
                raise InputError(
                    f"Line {number} of {str(path)!r} is broken: {error}",
                    remedy="Remove that line, or start a new run",
                ) from None
            records.append(record)
        return [r for r in records if kind is None or r.get("kind") == kind]

    def best_validation(self, score: Score) -> dict[str, Any]:
        """The line of the best validation so far; empty if there is none."""
        lines = [line for line in self.metrics("validation") if "mean" in line]
        # Of equal ones the latest, as with checkpoints.
        return max(lines, key=lambda line: (score.better(line["mean"]), line["step"]), default={})

    def rewind(self, step: int) -> None:
        """Drop the metrics beyond a step, and a last line that was cut.

        Raises:
            StorageError: if the disk refuses it.
        """
        kept = [r for r in self.metrics() if r["step"] <= step]
        lines = [json.dumps(r, ensure_ascii=False) + "\n" for r in kept]
        write_text(self.folder / METRICS, "".join(lines))

    def store_evaluation(self, name: str, record: Mapping[str, Any]) -> Path:
        """Write the result of an evaluation.

        Returns:
            The file written.

        Raises:
            StorageError: if the disk refuses it.
        """
        path = self.folder / EVALUATIONS / f"{name}.json"
        write_json(path, record)
        return path

    def evaluations(self) -> dict[str, dict[str, Any]]:
        """The results of its evaluations, by name.

        Raises:
            InputError: if a file is broken.
        """
        paths = sorted((self.folder / EVALUATIONS).glob("*.json"))
        return {path.stem: read_json(path) for path in paths}

    def versions(self) -> dict[str, str]:
        """The versions it was trained with.

        Raises:
            InputError: if the file is broken.
        """
        path = self.folder / VERSIONS
        stored = read_json(path) if path.exists() else {}
        for name, value in stored.items():
            read(TEXT, f"{name} in {str(path)!r}", value)
        return stored


@dataclass(frozen=True)
class PretrainingRun(Run):
    """The folder of a pretraining, which only depends on some of a run's settings."""

    @property
    def _not_in_origin(self) -> Set[str]:
        """Whatever the algorithm and its episodes are, the body is pretrained alike."""
        return _NOT_IN_ORIGIN_OF_PRETRAINING


def versions(*more: str) -> dict[str, str]:
    """The versions of what a run's numbers depend on; of ``more`` packages too."""
    found = {"python": platform.python_version()}
    for package in (*PACKAGES, *more):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | {"platform": platform.platform()}


def default_folder(*names: str) -> Path:
    """A new folder below ``runs``, named by what it holds and the time."""
    time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    # A name may be package.module:attribute.
    return Path("runs") / "-".join([*(name.replace(":", ".") for name in names), time])


def check_free(
    folder: Path | str,
    remedy: str = "Give another one with --out, or go on with that run by --resume",
) -> None:
    """A new run needs a folder of its own, which can be written to.

    Args:
        folder: must not exist yet, or be empty.
        remedy: what to do if it is not.

    Raises:
        InputError: if the folder holds something, is a file, or cannot be made or written to.
    """
    folder = Path(folder)
    if holds_something(folder):
        raise InputError(f"The folder {str(folder)!r} is not empty", remedy=remedy)
    check_writable(folder)


def holds_something(folder: Path) -> bool:
    """Whether a folder is there, and is not empty."""
    with contextlib.suppress(OSError):
        return folder.is_dir() and any(folder.iterdir())
    return False


def check_writable(folder: Path | str, remedy: str = "Give another folder with --out") -> None:
    """Whether files can be written to a folder, found out by writing one; nothing of it stays.

    Args:
        folder: need not exist.
        remedy: what to do if it cannot be made, or not be written to.

    Raises:
        InputError: if it cannot.
    """
    folder = Path(folder)
    made: list[Path] = []
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{str(folder)!r} is a file", remedy=remedy)
        for place in (*reversed(folder.parents), folder):
            if not place.exists():
                place.mkdir()
                made.append(place)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(
            f"The folder {shorten(str(folder), 200)} could not be written to ({why}); nothing was "
            "started",
            allowed="a folder that exists and may be written to, or one that can be made",
            remedy=remedy,
        ) from None
    finally:
        for place in reversed(made):
            with contextlib.suppress(OSError):
                place.rmdir()


def find_link(folder: Path, *others: Path) -> Path | None:
    """The first link among a folder, what is directly in it, and other paths; None without one."""
    inside = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((path for path in (folder, *inside, *others) if path.is_symlink()), None)


@contextlib.contextmanager
def storage(path: Path, standing: str) -> Iterator[None]:
    """Turn a refusal of the disk into an error that says what stands.

    Args:
        path: what is being written.
        standing: what is still whole.

    Raises:
        StorageError: in place of any OSError.
    """
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        advice = {
            errno.ENOSPC: " Free some space, then go on with --resume.",
            errno.EACCES: " Look at the folder's permissions.",
            errno.EROFS: " Write to another disk.",
        }.get(error.errno or 0, "")
        raise StorageError(
            f"{str(path)!r} could not be written ({why}); {standing}.{advice}"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file as a whole or not at all.

    Raises:
        StorageError: if the disk refuses it.
    """
    write_with(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_with(path: Path, write: Callable[[Path], Any]) -> None:
    """Have a function write a file, and put it in place only when it is whole.

    Args:
        path: the file.
        write: called with the temporary file to write, which has the same suffix.

    Raises:
        StorageError: if the disk refuses it.
    """
    standing = "what stood there before is whole" if path.exists() else "nothing was written"
    with storage(path, standing):
        write_atomically(path, write)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON document as a whole or not at all; numbers that are not finite are left out.

    Raises:
        StorageError: if the disk refuses it.
    """
    write_text(path, json.dumps(finite(record), indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        InputError: if the file is missing or holds anything else.
    """
    written = read_file(path)
    try:
        record = parse_json(written)
    except ValueError as error:
        raise InputError(f"The file {str(path)!r} is broken: {error}") from None
    if not isinstance(record, dict):
        raise InputError(f"The file {str(path)!r} is broken: it holds no JSON object")
    return record


def read_record(path: Path, parse: Callable[[dict[str, Any]], Parsed]) -> Parsed:
    """What a JSON object in a file says.

    Args:
        path: the file.
        parse: makes it of the object; raises InputError for another one.

    Returns:
        What ``parse`` returns.

    Raises:
        InputError: if the file is missing or broken, by its name.
    """
    stored = read_json(path)
    try:
        return parse(stored)
    except InputError as error:
        raise InputError(f"The file {str(path)!r} is broken: {error}") from None


def finite(value: Any) -> Any:
    """The same without numbers that JSON has no word for; in a list they become None."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items() if not _is_odd(item)}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if _is_odd(value) else value


def _is_odd(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
