"""Tasks: what a few-shot task is, and the data sets they are drawn from."""

from pullback.registries import DATASETS
from pullback.tasks.base import Task, TaskDistribution, TaskFamily, WithKeys
from pullback.tasks.batches import Batches, batches
from pullback.tasks.class_set import ClassSet
from pullback.tasks.datasets import gives_classes, load
from pullback.tasks.episodes import Episodes, episodes
from pullback.tasks.folder import load_folder
from pullback.tasks.glyphs import load_glyphs
from pullback.tasks.images import read_class_folders, read_image, read_picture
from pullback.tasks.omniglot import load_omniglot
from pullback.tasks.sinusoid import Sinusoid
from pullback.tasks.splits import ClassSplit, draw_split
from pullback.tasks.vectors import load_vectors

__all__ = [
    "DATASETS",
    "Batches",
    "ClassSet",
    "ClassSplit",
    "Episodes",
    "Sinusoid",
    "Task",
    "TaskDistribution",
    "TaskFamily",
    "WithKeys",
    "batches",
    "draw_split",
    "episodes",
    "gives_classes",
    "load",
    "load_folder",
    "load_glyphs",
    "load_omniglot",
    "load_vectors",
    "read_class_folders",
    "read_image",
    "read_picture",
]
