"""A person's own pictures: adapt to a few of each class, and name the class of others."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pullback.core import results
from pullback.core.errors import DataError, InputError, NumericalError, check_seed, span
from pullback.core.results import Verdict
from pullback.models import cross_entropy
from pullback.runs import build
from pullback.runs.folder import Run
from pullback.runs.pretrained import Packed, trained_theta, with_ways
from pullback.runs.score import describe_normalisation
from pullback.tasks import read_class_folders
from pullback.tasks.episodes import as_inputs
from pullback.tasks.images import (
    DRAWING,
    check_is_folder,
    files_beside,
    pictures_in,
    read_visible,
    visible_entries,
)


@dataclass(frozen=True)
class Query:
    """A picture whose class is asked for.

    Args:
        file: its path.
        image: as the data sets have it.
        label: its class, if a folder of that name says so.
    """

    file: Path
    image: np.ndarray
    label: str | None


def adapt_to_folders(
    run: Run, support: Path | str, query: Path | str, *, which: str = "best", seed: int = 0
) -> dict[str, Any]:
    """Adapt a run's initialisation to pictures of new classes, and classify others.

    Args:
        run: a run on images, or a packed initialisation.
        support: a folder with one sub-folder of pictures per class.
        query: a folder of pictures, or of sub-folders named as the classes.
        which: the checkpoint: ``"best"``, ``"last"`` or a step.
        seed: for solvers that draw random numbers.

    Returns:
        What was predicted for each picture and with which probability, as a JSON record;
        ``accuracy`` is None unless classes are known.

    Raises:
        InputError: if the run is not on images, or there are more classes than it has ways.
        DataError: if a folder or a picture cannot be read.
        NumericalError: if adaptation left the finite numbers.
    """
    check_seed(seed)
    run.check_trained()
    summary = build.summary_of(run)
    ways, free = run.config.data.ways, isinstance(run, Packed)
    if run.split is None or ways is None or not summary.images:
        raise InputError(
            f"The run {str(run.folder)!r} is on {run.config.data.dataset!r}, which has no "
            "pictures to adapt to",
            allowed="runs on images",
        )
    pictures, classes = read_class_folders(support, summary.inputs)
    if len(classes) > ways and not free:
        raise InputError(
            f"The folder {str(support)!r} holds {len(classes)} classes, but the run tells "
            f"{ways} apart",
            allowed=f"{span(2, ways)} classes",
            remedy=f"Take fewer, train a run with --ways {len(classes)}, or take one with free "
            "ways by --pretrained",
        )
    queries = read_queries(query, classes, summary.inputs)

    config = with_ways(run, run.config, len(classes) if free else None)
    built = build.assemble(config, summary.with_ways(config.data.ways), run.split)

    def apply(params, x):
        # The last layer has an output per way; those without a class take no part.
        return built.model.apply(params, x)[:, : len(classes)]

    algorithm = build.make_algorithm(run.config, cross_entropy(apply))
    step, theta = trained_theta(run, built, which)
    labels = np.repeat(np.arange(len(classes)), [len(images) for images in pictures])
    batch = (_inputs(np.concatenate(pictures)), jnp.asarray(labels, jnp.int32))
    phi, report = jax.jit(algorithm.adapt)(theta, batch, jax.random.key(seed))
    code = int(report.code)
    if code == Verdict.NOT_FINITE:
        raise NumericalError(f"Adaptation failed: {results.message(code)}.")
    logits = jax.jit(apply)(phi, _inputs(np.stack([each.image for each in queries])))
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
        "step": step,
        "classes": list(classes),
        "support": {name: len(each) for name, each in zip(classes, pictures, strict=True)},
        "passed_over": [str(file) for file in files_beside(Path(support))],
        "predictions": rows,
        "accuracy": float(np.mean(known)) if known else None,
        "inner_residual": float(report.inner_residual),
        "normalisation": describe_normalisation(run.config),
    }


def read_queries(
    folder: Path | str, classes: tuple[str, ...], shape: tuple[int, ...] = DRAWING
) -> list[Query]:
    """The pictures to classify: those directly in a folder, and those in folders of a class.

    Args:
        folder: the folder.
        classes: names that its sub-folders may have.
        shape: height, width and channels of the images.

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
            found.append(Query(entry, read_visible(entry, shape), None))
            continue
        if entry.name not in classes:
            raise DataError(
                f"The query folder {str(entry)!r} is named as none of the support classes",
                allowed=", ".join(classes),
                remedy="Put pictures of unknown class directly into the query folder",
            )
        files = pictures_in(entry)
        found += [Query(file, read_visible(file, shape), entry.name) for file in files]
    if not found:
        raise DataError(
            f"The folder {str(folder)!r} holds no pictures", remedy="Put at least one into it"
        )
    return found


def _inputs(images: np.ndarray) -> jax.Array:
    # Grey pictures come without an axis of channels.
    return as_inputs(jnp.asarray(images if images.ndim == 4 else images[..., None]))
