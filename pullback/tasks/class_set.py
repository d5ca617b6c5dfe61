"""Examples sorted into classes: pictures, feature vectors, or arrays of any one shape."""

import functools
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from pullback.core.errors import InputError

_NAMED_AT_MOST = 5


@dataclass(frozen=True, eq=False)
class ClassSet:
    """Examples sorted into classes, which may have different numbers of them.

    Args:
        name: the data set's name, for instance ``"omniglot"``.
        examples: of all classes, one class after the other. Bytes are pixels of images
            ``[height, width, channels]`` with one to four channels, 255 = ink; floating-point
            numbers may have any shape.
        counts: how many of the examples belong to each class.
        classes: one unique name per class, for instance ``"Greek/character03"``.
        groups: the alphabet, or another group, of each class.
        parts: the official part of each class (``"background"`` or ``"evaluation"``), or
            ``""`` where the data set has no official parts.

    Raises:
        InputError: if the shapes disagree, a class name occurs twice or a number is not finite.
    """

    name: str
    examples: Shaped[np.ndarray, "examples *shape"]
    counts: Int[np.ndarray, " classes"]
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    parts: tuple[str, ...]

    @classmethod
    def of(
        cls,
        name: str,
        examples: Iterable[Shaped[np.ndarray, "_ *shape"]],
        classes: Sequence[str],
        groups: Sequence[str] | None = None,
        parts: Sequence[str] | None = None,
    ) -> "ClassSet":
        """A set from one array of examples per class.

        Args:
            name: the data set's name.
            examples: one array per class, the examples along its first axis. Images of bytes
                without an axis of channels get one.
            classes: one unique name per class.
            groups: of each class; every class is a group of its own if None.
            parts: of each class; none if None.

        Returns:
            The set.

        Raises:
            InputError: if the classes' examples differ in shape or type, or as :class:`ClassSet`
                does.
        """
        arrays = [np.asarray(each) for each in examples]
        kinds = sorted({(each.shape[1:], each.dtype.name) for each in arrays}, key=str)
        if len(kinds) != 1:
            found = " and ".join(f"{dtype}{list(shape)}" for shape, dtype in kinds) or "none"
            raise InputError(
                f"The examples of {name!r} are {found}", allowed="one shape and type for all"
            )
        joined = np.concatenate(arrays)
        if joined.dtype == np.uint8 and joined.ndim == 3:
            joined = joined[..., None]
        return cls(
            name,
            joined,
            np.asarray([len(each) for each in arrays]),
            tuple(classes),
            tuple(classes if groups is None else groups),
            tuple([""] * len(arrays) if parts is None else parts),
        )

    def __post_init__(self):
        self._check_examples()
        lengths = {len(self.classes), len(self.groups), len(self.parts), len(self.counts)}
        if len(lengths) > 1 or int(np.sum(self.counts)) != len(self.examples):
            raise InputError(
                f"The data set {self.name!r} has {len(self.examples)} examples in "
                f"{len(self.counts)} classes of {int(np.sum(self.counts))}, {len(self.classes)} "
                f"class names, {len(self.groups)} groups and {len(self.parts)} parts",
                allowed="the same number of each",
            )
        if len(set(self.classes)) < len(self.classes):
            seen: set[str] = set()
            twice = next(c for c in self.classes if c in seen or seen.add(c))
            raise InputError(f"Class {twice!r} occurs twice in the data set {self.name!r}")
        if not np.all(self.counts > 0):
            empty = self.classes[int(np.argmin(self.counts))]
            raise InputError(f"Class {empty!r} of the data set {self.name!r} has no examples")

    def _check_examples(self) -> None:
        found = f"The examples of {self.name!r} are {self.examples.dtype}{list(self.shape)}"
        if self.examples.dtype == np.uint8:
            if len(self.shape) != 3 or not 1 <= self.shape[-1] <= 4:
                raise InputError(
                    found, allowed="uint8[height, width, channels] with one to four channels"
                )
        elif not np.issubdtype(self.examples.dtype, np.floating) or not self.shape:
            raise InputError(
                found, allowed="images of bytes (uint8), or arrays of floating-point numbers"
            )
        elif not np.isfinite(self.examples).all():
            wrong = np.argmin(np.isfinite(self.examples).reshape(len(self.examples), -1).all(1))
            raise InputError(
                f"Example {wrong} of {self.name!r} holds a number that is not finite",
                remedy="Leave it out, or fill it in",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return self.examples.shape[1:]

    @property
    def is_images(self) -> bool:
        """Whether the examples are images of bytes."""
        return self.examples.dtype == np.uint8

    @functools.cached_property
    def starts(self) -> Int[np.ndarray, " classes"]:
        """The place of each class's first example."""
        return np.cumsum(self.counts) - self.counts

    def of_class(self, number: int) -> Shaped[np.ndarray, "examples *shape"]:
        """The examples of one class, by its place in ``classes``."""
        start = self.starts[number]
        return self.examples[start : start + self.counts[number]]

    @functools.cached_property
    def digests(self) -> dict[str, str]:
        """Of each class 16 hexadecimal digits that change with any of its examples."""
        kind = repr((self.shape, self.examples.dtype.str)).encode()
        examples = (np.ascontiguousarray(self.of_class(n)) for n in range(len(self.classes)))
        return {
            name: hashlib.sha256(kind + each.data).hexdigest()[:16]
            for name, each in zip(self.classes, examples, strict=True)
        }

    def digest(self) -> str:
        """16 hexadecimal digits that change with any example or class name."""
        return hashlib.sha256(repr(self.digests).encode()).hexdigest()[:16]

    def select(self, class_names: Iterable[str]) -> "ClassSet":
        """The same set with only the given classes, in the given order.

        Args:
            class_names: names of classes of this set.

        Returns:
            A set with exactly these classes.

        Raises:
            InputError: if no class is given, one is given twice or one is not in this set.
        """
        names = tuple(class_names)
        if not names:
            raise InputError(f"No classes were selected from the data set {self.name!r}")
        place = {name: index for index, name in enumerate(self.classes)}
        missing = [name for name in names if name not in place]
        if missing:
            shown = ", ".join(map(repr, missing[:_NAMED_AT_MOST]))
            rest = len(missing) - _NAMED_AT_MOST
            more = f" and {rest} more" if rest > 0 else ""
            raise InputError(
                f"{len(missing)} of {len(names)} classes are not in the data set "
                f"{self.name!r}: {shown}{more}",
                allowed=f"its {len(self.classes)} classes, such as {self.classes[0]!r}"
                if self.classes
                else None,
                remedy="Load the data the classes were drawn from, or draw a new split",
            )
        rows = [place[name] for name in names]
        return ClassSet.of(
            self.name,
            [self.of_class(row) for row in rows],
            names,
            [self.groups[row] for row in rows],
            [self.parts[row] for row in rows],
        )
