"""Tasks: what a few-shot task is, and the sources they are drawn from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pullback.core.errors import unknown_name
from pullback.tasks.base import Task, TaskDistribution
from pullback.tasks.episodes import Episodes, episodes
from pullback.tasks.glyphs import load_glyphs
from pullback.tasks.images import ImageSet, read_class_folders, read_image
from pullback.tasks.omniglot import load_omniglot
from pullback.tasks.sinusoid import Sinusoid
from pullback.tasks.splits import ClassSplit, draw_split

__all__ = [
    "DATASETS",
    "ClassSplit",
    "Dataset",
    "Episodes",
    "ImageSet",
    "Sinusoid",
    "Task",
    "TaskDistribution",
    "draw_split",
    "episodes",
    "find_dataset",
    "load_glyphs",
    "load_omniglot",
    "read_class_folders",
    "read_image",
]


@dataclass(frozen=True)
class Dataset:
    """A data set that can be asked for by name.

    Args:
        name: the name to ask by.
        kind: what its tasks are.
        summary: one line for a person.
        load: gives the images; None where tasks are computed and nothing is loaded.
    """

    name: str
    kind: Literal["classification", "regression"]
    summary: str
    load: Callable[..., ImageSet] | None


DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "sinusoid",
            "regression",
            "Sine waves of random amplitude and phase; nothing to load.",
            None,
        ),
        Dataset(
            "glyphs",
            "classification",
            "Characters of many scripts drawn from Matplotlib's fonts; no download.",
            load_glyphs,
        ),
        Dataset(
            "omniglot",
            "classification",
            "Handwritten characters of 50 alphabets, from local files or downloaded.",
            load_omniglot,
        ),
    )
}


def find_dataset(name: str) -> Dataset:
    """The data set of a name.

    Args:
        name: a key of ``DATASETS``.

    Returns:
        The data set.

    Raises:
        InputError: if there is none of that name; names the nearest one.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return DATASETS[name]
