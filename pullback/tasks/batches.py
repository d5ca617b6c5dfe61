"""Batches of labelled examples, for supervised pretraining."""

import equinox as eqx
import jax
from jaxtyping import Array, Int32, PRNGKeyArray, Shaped

from pullback.core.errors import check_counts
from pullback.tasks.base import Task
from pullback.tasks.class_set import ClassSet
from pullback.tasks.distortion import distort
from pullback.tasks.episodes import as_inputs, place_examples
from pullback.tasks.views import check_views, count_views, view

_DISTORT = 2


class Batches(eqx.Module):
    """A source of labelled batches; see ``batches``.

    Args:
        examples: of all classes, one class after the other.
        starts: the place of each class's first example.
        counts: how many examples each class has.
        size: examples in a batch.
        rotations: whether each class turned by 0°, 90°, 180° and 270° makes four classes.
        reflections: whether each class and its mirror image make two classes.
        distortion: how strongly each image is distorted; 0 for not at all.
    """

    examples: Shaped[Array, "examples *shape"]
    starts: Int32[Array, " classes"]
    counts: Int32[Array, " classes"]
    size: int = eqx.field(static=True)
    rotations: bool = eqx.field(static=True, default=False)
    reflections: bool = eqx.field(static=True, default=False)
    distortion: float = eqx.field(static=True, default=0.0)

    @property
    def classes(self) -> int:
        """How many labels there are, one for each view of a class."""
        return len(self.counts) * count_views(self.rotations, self.reflections)

    def sample(self, key: PRNGKeyArray) -> Task:
        """A batch as the query set of a task without a support set.

        Every label is as likely as any other, and so is every example of its class. The batch is
        a pair of examples ``Float32[size, *shape]``, images with values in 0..1, and labels
        ``Int32[size]`` below :attr:`classes`.

        Args:
            key: the same key gives the same batch.

        Returns:
            The task.
        """
        label_key, example_key = jax.random.split(key)
        labels = jax.random.randint(label_key, (self.size,), 0, self.classes)
        rows = labels % len(self.counts)
        chosen = jax.random.randint(example_key, (self.size,), 0, self.counts[rows])
        examples = self.examples[self.starts[rows] + chosen]
        if self.rotations or self.reflections:
            examples = view(
                examples[:, None],
                labels // len(self.counts),
                rotations=self.rotations,
                reflections=self.reflections,
            )[:, 0]
        if self.distortion:
            examples = distort(examples, jax.random.fold_in(key, _DISTORT), self.distortion)
        return Task((), (as_inputs(examples), labels))


def batches(
    class_set: ClassSet,
    *,
    size: int,
    rotations: bool = False,
    reflections: bool = False,
    distortion: float = 0.0,
) -> Batches:
    """A source of labelled batches from the classes of a data set.

    Args:
        class_set: the classes, usually the training part of a split.
        size: examples in a batch.
        rotations: count each class turned by 0°, 90°, 180° and 270° as four classes.
        reflections: count the mirror image of each class, turned or not, as a class too.
        distortion: turn, stretch, shear and shift each image at random, this strongly
            (``pullback.tasks.distortion.distort``); 0 for not at all.

    Returns:
        The source, for :func:`pullback.meta.pretrain`.

    Raises:
        InputError: if the size is not positive, the distortion is not from 0 to 2, or what is no
            image is to be turned, reflected or distorted.
    """
    check_counts("batches", size=size)
    check_views(class_set, rotations, reflections, distortion)
    placed = place_examples(class_set)
    return Batches(*placed, size, rotations, reflections, distortion)
