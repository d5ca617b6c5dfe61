"""Data sets by name: what each gives, and how it is loaded."""

import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pullback.core.errors import InputError, shorten
from pullback.core.registry import Entry
from pullback.core.scores import ACCURACY, Score
from pullback.tasks.base import TaskDistribution, TaskFamily
from pullback.tasks.class_set import ClassSet
from pullback.tasks.standardisation import Standardisation

Data = ClassSet | TaskFamily
"""What a data set gives."""

CONTRACT = (
    "a class with sample(key) -> Task, or a function annotated to return pullback.tasks.ClassSet, "
    "pullback.tasks.TaskFamily or such a class"
)


def gives_classes(dataset: Entry) -> bool:
    """Whether a data set gives examples sorted into classes, rather than tasks.

    Args:
        dataset: a line of the registry of data sets.

    Returns:
        The answer, read off the code's annotation without loading anything.

    Raises:
        InputError: if the code does not say what it gives.
    """
    target = dataset.load()
    given = target if isinstance(target, type) else _annotated(target)
    if given is ClassSet:
        return True
    if given is TaskFamily or given is TaskDistribution or hasattr(given, "sample"):
        return False
    raise InputError(
        f"The data set {dataset.name!r} does not say what it gives",
        allowed=CONTRACT,
        remedy="Annotate what it returns",
    )


def load(dataset: Entry, **options: Any) -> Data:
    """The examples or the tasks of a data set.

    Args:
        dataset: a line of the registry of data sets.
        options: such as ``data_dir``, ``ways``, ``shots`` and ``queries``; those that the data set
            takes are passed on.

    Returns:
        Examples sorted into classes, or tasks with all that a model must know of them.

    Raises:
        InputError: if it gives anything else.
        DataError: if the data are missing or damaged.
    """
    given = dataset.make(**options)
    if isinstance(given, ClassSet):
        return given
    if isinstance(given, TaskFamily):
        return given.completed(dataset.name, options.get("ways"))
    if isinstance(given, TaskDistribution):
        return TaskFamily(given).completed(dataset.name, options.get("ways"))
    raise InputError(
        f"The data set {dataset.name!r} gave a {type(given).__name__}", allowed=CONTRACT
    )


@dataclass(frozen=True)
class DataSummary:
    """What of the data a run must know where the data are not at hand.

    Args:
        inputs: the shape of one example.
        outputs: how many numbers the model gives for an example.
        score: what a task is judged by.
        images: whether examples are images of bytes, as pictures are read.
        digests: of the examples of each class (:attr:`ClassSet.digests`), by which a run knows
            its data again; None where there are no classes, and in runs of earlier versions.
        standardisation: what the numbers of an example are standardised by; None for not at all.
    """

    inputs: tuple[int, ...]
    outputs: int
    score: Score
    images: bool = False
    digests: Mapping[str, str] | None = None
    standardisation: Standardisation | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**dataclasses.asdict(self), "inputs": list(self.inputs)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "DataSummary":
        """What ``to_dict`` wrote.

        Raises:
            InputError: if a value is missing or of another type.
        """
        try:
            inputs = tuple(_length(length) for length in stored["inputs"])
            score = Score(**stored["score"])
            if not isinstance(score.name, str):
                raise TypeError("the score has no name")
            digests = stored.get("digests")
            digests = None if digests is None else {str(c): str(d) for c, d in digests.items()}
            outputs = _length(stored["outputs"])
            if stored["images"] and len(inputs) != 3:
                raise ValueError(f"pictures with {len(inputs)} lengths")
            scale = stored.get("standardisation")
            scale = None if scale is None else Standardisation.from_dict(scale, math.prod(inputs))
            return cls(inputs, outputs, score, bool(stored["images"]), digests, scale)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"A summary of the data is broken: {error!r}") from None

    def with_ways(self, ways: int | None) -> "DataSummary":
        """The same for tasks of another number of classes; None where there are no classes."""
        return self if ways is None else dataclasses.replace(self, outputs=ways)

    def prepared(self, classes: ClassSet) -> ClassSet:
        """Some classes of the data set as a model takes them."""
        if self.standardisation is None:
            return classes
        return dataclasses.replace(classes, examples=self.standardisation(classes.examples))

    def come_and_gone(self, data: ClassSet) -> str:
        """Which classes a data set has more or fewer than when the run began, in a sentence.

        Args:
            data: the data set as it is now.

        Returns:
            The sentence; empty where the classes are the same, or were not stored.
        """
        known = self.digests or dict.fromkeys(data.classes, "")
        new = [name for name in data.classes if name not in known]
        gone = [name for name in known if name not in data.digests]
        parts = [f"{len(new)} classes are new, such as {new[0]!r}, and take no part"] if new else []
        parts += [f"{len(gone)} are gone, such as {gone[0]!r}"] if gone else []
        return f"The data have changed since the run began: {'; '.join(parts)}." if parts else ""

    def changed(self, data: ClassSet) -> list[str]:
        """The classes of a data set whose examples are not those that are summarised here."""
        known = self.digests or {}
        return [name for name, found in data.digests.items() if known.get(name, found) != found]


def _length(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"a length is {shorten(value)}")
    return value


def summarise_data(
    data: Data, ways: int | None, standardise_by: Iterable[str] | None = None
) -> DataSummary:
    """What a model must know of the data.

    Args:
        data: what the data set gave.
        ways: number of classes in a task, which examples sorted into classes leave open.
        standardise_by: the classes whose mean and deviation standardise all; None for not at all.

    Returns:
        The summary.

    Raises:
        InputError: if images are to be standardised.
    """
    if isinstance(data, ClassSet):
        assert ways is not None
        scale = None
        if standardise_by is not None:
            scale = Standardisation.of(data.select(standardise_by))
        return DataSummary(data.shape, ways, ACCURACY, data.is_images, data.digests, scale)
    assert data.inputs is not None and data.outputs is not None and data.objective is not None
    return DataSummary(data.inputs, data.outputs, data.objective.score)


def _annotated(function: Any) -> Any:
    try:
        return typing.get_type_hints(function).get("return")
    # An annotation may name what is imported for type checkers only.
    except NameError:
        return None
