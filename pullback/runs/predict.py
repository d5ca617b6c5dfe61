"""A person's own pictures or feature vectors: adapt to a few of each class, and classify others."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pullback.algorithms import MetaAlgorithm
from pullback.algorithms.base import Theta
from pullback.core import results
from pullback.core.errors import DataError, InputError, NumericalError, check_seed, span
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.models import cross_entropy
from pullback.runs import build
from pullback.runs.folder import Run
from pullback.runs.pretrained import Packed, trained_theta, with_ways
from pullback.runs.score import describe_normalisation
from pullback.tasks import read_class_folders
from pullback.tasks.datasets import DataSummary
from pullback.tasks.episodes import as_inputs
from pullback.tasks.images import (
    DRAWING,
    Read,
    check_is_folder,
    files_beside,
    pictures_in,
    read_fitted,
    read_visible,
    visible_entries,
)
from pullback.tasks.vectors import load_vectors, read_vectors


@dataclass(frozen=True)
class Query:
    """An example whose class is asked for.

    Args:
        file: the path of its picture, or the number of its row from 0.
        example: as the data sets have it.
        label: its class, if that is known.
    """

    file: Path | str
    example: np.ndarray
    label: str | None


@dataclass(frozen=True)
class Given:
    """What a run is to adapt to, and to classify.

    Args:
        examples: of each class to adapt to.
        classes: their names.
        queries: what is to be classified.
        passed_over: files that are no examples.
    """

    examples: Sequence[np.ndarray]
    classes: tuple[str, ...]
    queries: Sequence[Query]
    passed_over: Sequence[Path] = ()


def adapt_to_examples(
    run: Run, support: Path | str, query: Path | str, *, which: str = "best", seed: int = 0
) -> dict[str, Any]:
    """Adapt a run's initialisation to examples of new classes, and classify others.

    They are read as those that the run was trained on were: pictures at the size and with the
    channels of the run, feature vectors standardised by its training classes.

    Args:
        run: a run on classes of images or vectors, or a packed initialisation.
        support: a folder with one sub-folder of pictures per class; of vectors a ``.npz`` file of
            ``x`` and ``y``.
        query: a folder of pictures, or of sub-folders named as the classes; of vectors a ``.npz``
            file of ``x``, and of ``y`` where the classes are known.
        which: the checkpoint: ``"best"``, ``"last"`` or a step.
        seed: for solvers that draw random numbers.

    Returns:
        What was predicted for each example and with which probability, as a JSON record;
        ``accuracy`` is None unless classes are known.

    Raises:
        InputError: if the run is on neither, or there are more classes than it has ways.
        DataError: if a folder or a file cannot be read.
        NumericalError: if adaptation left the finite numbers.
    """
    check_seed(seed)
    given, summary = read_examples(run, support, query)
    classes, queries = given.classes, given.queries
    adapter = adapter_of(run, len(classes), which)
    phi, residual = adapter.adapt_to(given, summary, seed)
    examples = as_batch(np.stack([each.example for each in queries]), summary)
    logits = jax.jit(adapter.apply)(phi, examples)
    probabilities = np.asarray(jax.nn.softmax(logits, axis=-1), float)
    rows = [
        {
            "file": str(each.file),
            "predicted": classes[int(np.argmax(row))],
            "probability": float(np.max(row)),
            "label": each.label,
            "probabilities": dict(zip(classes, row.tolist(), strict=True)),
        }
        for each, row in zip(queries, probabilities, strict=True)
    ]
    known = [row["predicted"] == row["label"] for row in rows if row["label"] is not None]
    return {
        "run": str(run.folder),
        "step": adapter.step,
        "classes": list(classes),
        "support": {name: len(each) for name, each in zip(classes, given.examples, strict=True)},
        "passed_over": [str(file) for file in given.passed_over],
        "predictions": rows,
        "accuracy": float(np.mean(known)) if known else None,
        "inner_residual": residual,
        "normalisation": describe_normalisation(run.config),
    }


def read_examples(
    run: Run, support: Path | str, query: Path | str | None = None
) -> tuple[Given, DataSummary]:
    """Read examples as those that a run was trained on were.

    Args:
        run: as for :func:`adapt_to_examples`.
        support: likewise.
        query: likewise; None for nothing to classify.

    Returns:
        The examples, and what the run knows of its data.

    Raises:
        InputError, DataError: as :func:`adapt_to_examples` does.
    """
    run.check_trained()
    summary = build.summary_of(run)
    ways, free = run.config.data.ways, isinstance(run, Packed)
    if run.split is None or ways is None or not (summary.images or len(summary.inputs) == 1):
        raise InputError(
            f"The run {str(run.folder)!r} is on {run.config.data.dataset!r}, which has no "
            "pictures to adapt to",
            allowed="runs on classes of images or of feature vectors",
        )
    check = functools.partial(_check_ways, support, ways=None if free else ways)
    if not summary.images:
        return _read_rows(support, query, summary, check), summary
    # Own pictures are read as they are, others as drawings or cut to size.
    fitted = run.config.data.image_size is not None
    read = read_fitted if fitted else read_visible
    return _read_pictures(support, query, summary, read, check), summary


@dataclass(frozen=True)
class Adapter:
    """A checkpoint of a run, ready to adapt to tasks of some number of classes.

    Args:
        apply: ``apply(params, x)`` gives an output for each class.
        algorithm: whose ``adapt(theta, support, key)`` adapts.
        theta: the initialisation.
        step: of the checkpoint.
    """

    apply: Callable[..., Any]
    algorithm: MetaAlgorithm
    theta: Theta
    step: int

    def adapt_to(self, given: Given, summary: DataSummary, seed: int) -> tuple[Params, float]:
        """φ and its residual, from the support examples.

        Raises:
            NumericalError: if adaptation left the finite numbers.
        """
        sizes = [len(each) for each in given.examples]
        labels = jnp.asarray(np.repeat(np.arange(len(sizes)), sizes), jnp.int32)
        batch = (as_batch(np.concatenate(given.examples), summary), labels)
        phi, report = jax.jit(self.algorithm.adapt)(self.theta, batch, jax.random.key(seed))
        code = int(report.code)
        if code == Verdict.NOT_FINITE:
            raise NumericalError(f"Adaptation failed: {results.message(code)}.")
        return phi, float(report.inner_residual)


def adapter_of(run: Run, ways: int, which: str | int = "best") -> Adapter:
    """A checkpoint of a run on classes, for tasks of some number of them.

    Args:
        run: the run, or a packed initialisation.
        ways: how many classes; of a run no more than it was trained with.
        which: the checkpoint: ``"best"``, ``"last"`` or a step.

    Returns:
        What adapts.

    Raises:
        InputError: if there is no such checkpoint.
    """
    config = with_ways(run, run.config, ways if isinstance(run, Packed) else None)
    summary = build.summary_of(run).with_ways(config.data.ways)
    built = build.assemble(config, summary, run.split)
    step, theta = trained_theta(run, built, which)
    if ways == summary.outputs:
        return Adapter(built.model.apply, built.algorithm, theta, step)

    def apply(params, x):
        # The last layer has an output per way; those without a class take no part.
        return built.model.apply(params, x)[:, :ways]

    return Adapter(apply, build.make_algorithm(run.config, cross_entropy(apply)), theta, step)


def _check_ways(support: Path | str, classes: Sequence[str], ways: int | None) -> None:
    """Whether a run can tell so many classes apart; None for any number."""
    if ways is not None and len(classes) > ways:
        kind = "folder" if Path(support).is_dir() else "file"
        raise InputError(
            f"The {kind} {str(support)!r} holds {len(classes)} classes, but the run tells "
            f"{ways} apart",
            allowed=f"{span(2, ways)} classes",
            remedy=f"Take fewer, train a run with --ways {len(classes)}, or take one with free "
            "ways by --pretrained",
        )


def _read_pictures(
    support: Path | str,
    query: Path | str | None,
    summary: DataSummary,
    read: Read,
    check: Callable[[Sequence[str]], None],
) -> Given:
    pictures, classes = read_class_folders(support, summary.inputs, read)
    check(classes)
    queries = [] if query is None else read_queries(query, classes, summary.inputs, read)
    return Given(pictures, classes, queries, files_beside(Path(support)))


def _read_rows(
    support: Path | str,
    query: Path | str | None,
    summary: DataSummary,
    check: Callable[[Sequence[str]], None],
) -> Given:
    """Rows of two files, on the scale that the run was trained on."""
    known = load_vectors(support)
    check(known.classes)
    _check_columns(support, known.shape[0], summary)
    scaled = summary.prepared(known)
    examples = [scaled.of_class(n) for n in range(len(known.classes))]
    if query is None:
        return Given(examples, known.classes, [])
    x, labels = read_vectors(query)
    _check_columns(query, x.shape[1], summary)
    named = [None] * len(x) if labels is None else [str(label) for label in labels]
    foreign = sorted({name for name in named if name is not None} - {*known.classes})
    if foreign:
        raise DataError(
            f"y in {str(query)!r} has labels of no support class, such as {foreign[0]!r}",
            allowed=", ".join(known.classes),
            remedy="Leave y out where classes are not known",
        )
    rows = x if summary.standardisation is None else summary.standardisation(x)
    queries = [
        Query(f"row {number}", row, name)
        for number, (row, name) in enumerate(zip(rows, named, strict=True))
    ]
    return Given(examples, known.classes, queries)


def _check_columns(place: Path | str, columns: int, summary: DataSummary) -> None:
    if (columns,) != summary.inputs:
        raise DataError(
            f"x in {str(place)!r} has {columns} columns",
            allowed=f"{summary.inputs[0]}, as the run was trained with",
        )


def read_queries(
    folder: Path | str,
    classes: tuple[str, ...],
    shape: tuple[int, ...] = DRAWING,
    read: Read = read_visible,
) -> list[Query]:
    """The pictures to classify: those directly in a folder, and those in folders of a class.

    Args:
        folder: the folder.
        classes: names that its sub-folders may have.
        shape: height, width and channels of the images.
        read: reads one picture of that shape.

    Returns:
        The pictures, in the order of their names.

    Raises:
        DataError: if there are none, one is blank or cannot be read, or a sub-folder is named
            otherwise.
    """
    folder = Path(folder)
    check_is_folder(folder, "Give a folder of pictures, or of one per class")
    found: list[Query] = []
    for entry in visible_entries(folder):
        if not entry.is_dir():
            found.append(Query(entry, read(entry, shape), None))
            continue
        if entry.name not in classes:
            raise DataError(
                f"The query folder {str(entry)!r} is named as none of the support classes",
                allowed=", ".join(classes),
                remedy="Put pictures of unknown class directly into the query folder",
            )
        files = pictures_in(entry)
        found += [Query(file, read(file, shape), entry.name) for file in files]
    if not found:
        raise DataError(
            f"The folder {str(folder)!r} holds no pictures", remedy="Put at least one into it"
        )
    return found


def as_batch(examples: np.ndarray, summary: DataSummary) -> jax.Array:
    """Examples as a model takes them."""
    # Grey drawings come without an axis of channels.
    return as_inputs(jnp.asarray(examples.reshape(len(examples), *summary.inputs)))
