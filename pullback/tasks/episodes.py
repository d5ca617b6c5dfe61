"""Few-shot classification tasks drawn from examples that are sorted into classes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, Shaped

from pullback.core.errors import InputError, span
from pullback.tasks.base import Task
from pullback.tasks.class_set import ClassSet
from pullback.tasks.distortion import distort
from pullback.tasks.views import check_views, count_views, view

# Folded in rather than split off: without distortion a key gives the tasks it always gave.
_DISTORT = 2
_SAME_ALPHABET = 3


class Episodes(eqx.Module):
    """A source of ``ways``-way, ``shots``-shot classification tasks; see ``episodes``.

    The examples are a leaf of the module: pass the module into a jitted function as an
    argument, and they are not compiled into it.

    Vinyals et al. (2016), "Matching Networks for One Shot Learning"; rotated classes as in
    Santoro et al. (2016), "Meta-Learning with Memory-Augmented Neural Networks".

    Args:
        examples: of all classes, one class after the other.
        starts: the place of each class's first example.
        counts: how many examples each class has.
        most: the largest of these numbers.
        ways: number of classes in a task.
        shots: support examples per class.
        queries: query examples per class.
        ragged: whether the numbers of examples differ between classes.
        rotations: whether each class turned by 0°, 90°, 180° and 270° makes four classes.
        reflections: whether each class and its mirror image make two classes.
        distortion: how strongly each image is distorted; 0 for not at all.
        groups: the number of each class's alphabet.
        same_alphabet: the share of tasks whose classes are all of one alphabet.
    """

    examples: Shaped[Array, "examples *shape"]
    starts: Int32[Array, " classes"]
    counts: Int32[Array, " classes"]
    most: int = eqx.field(static=True)
    ways: int = eqx.field(static=True)
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)
    ragged: bool = eqx.field(static=True, default=False)
    rotations: bool = eqx.field(static=True, default=False)
    reflections: bool = eqx.field(static=True, default=False)
    distortion: float = eqx.field(static=True, default=0.0)
    groups: Int32[Array, " classes"] | None = None
    same_alphabet: float = eqx.field(static=True, default=0.0)

    def sample(self, key: PRNGKeyArray) -> Task:
        """One task: distinct classes in random order, distinct examples of each.

        Support and query are pairs ``(x, y)`` of examples ``Float32[n, *shape]``, images with
        values in 0..1, and labels ``Int32[n]`` in 0..ways-1, sorted by label; ``n`` is ways·shots
        for support and ways·queries for query.

        Args:
            key: the same key gives the same task.

        Returns:
            The task.
        """
        classes = len(self.counts)
        class_key, example_key = jax.random.split(key)
        drawn = self._draw_classes(class_key)
        per_class = self.shots + self.queries
        keys = jax.random.split(example_key, self.ways)
        rows = drawn % classes

        def choose(key: PRNGKeyArray, count: Int32[Array, ""]) -> Int32[Array, " per_class"]:
            return _distinct(key, self.most, per_class, count if self.ragged else None)

        chosen = jax.vmap(choose)(keys, self.counts[rows])
        examples = self.examples[self.starts[rows][:, None] + chosen]
        if self.rotations or self.reflections:
            views = drawn // classes
            given = {"rotations": self.rotations, "reflections": self.reflections}
            examples = view(examples, views, **given)
        if self.distortion:
            flat = examples.reshape(-1, *examples.shape[2:])
            distorted = distort(flat, jax.random.fold_in(key, _DISTORT), self.distortion)
            examples = distorted.reshape(examples.shape)
        return Task(_batch(examples[:, : self.shots]), _batch(examples[:, self.shots :]))

    def _draw_classes(self, key: PRNGKeyArray) -> Int32[Array, " ways"]:
        views = count_views(self.rotations, self.reflections)
        luck = jax.random.uniform(key, (len(self.counts) * views,))
        if self.same_alphabet and self.groups is not None:
            # The alphabet of a class drawn at random, so that every class is as likely as ever.
            first_key, share_key = jax.random.split(jax.random.fold_in(key, _SAME_ALPHABET))
            first = jax.random.choice(first_key, self.groups)
            chosen = jax.random.uniform(share_key) < self.same_alphabet
            # An alphabet of too few classes gives all it has.
            others = jnp.tile(self.groups != first, views)
            luck = luck - (chosen & others)
        return _highest(luck, self.ways)


def episodes(
    class_set: ClassSet,
    *,
    ways: int,
    shots: int,
    queries: int,
    rotations: bool = False,
    reflections: bool = False,
    distortion: float = 0.0,
    same_alphabet: float = 0.0,
) -> Episodes:
    """A source of few-shot classification tasks from the classes of a data set.

    Args:
        class_set: classes to draw from, usually one part of a split.
        ways: number of classes in a task.
        shots: support examples per class.
        queries: query examples per class.
        rotations: count each class turned by 0°, 90°, 180° and 270° as four classes. For
            meta-training only: in a test it would change what is measured.
        reflections: count the mirror image of each class, turned or not, as a class too. For
            meta-training only, too.
        distortion: turn, stretch, shear and shift each image at random, this strongly
            (``pullback.tasks.distortion.distort``); 0 for not at all. For meta-training
            only, too.
        same_alphabet: the share of tasks whose classes are all of one alphabet
            (``class_set.groups``): harder ones, which teach more. For meta-training only, too.

    Returns:
        The task source.

    Raises:
        InputError: if a number is not positive, the distortion is not from 0 to 2, the share not
            from 0 to 1, the set or a class of it is too small, or what is no image is to be turned,
            reflected or distorted.
    """
    for name, value in (("ways", ways), ("shots", shots), ("queries", queries)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}", allowed="a whole number, 1 or more")
    if not 0 <= same_alphabet <= 1:
        raise InputError(f"same_alphabet is {same_alphabet!r}", allowed="numbers from 0 to 1")
    kinds = check_views(class_set, rotations, reflections, distortion)
    available = len(class_set.classes) * count_views(rotations, reflections)
    with_views = f" with {' and '.join(kinds)}" if kinds else ""
    if ways > available:
        raise InputError(
            f"{ways} ways were asked for, but {class_set.name!r} has {available} "
            f"classes{with_views} to draw from",
            allowed=f"{span(1, available)} ways",
            remedy="Ask for fewer ways or give more classes",
        )
    fewest, most = int(class_set.counts.min()), int(class_set.counts.max())
    if shots + queries > fewest:
        smallest = class_set.classes[int(np.argmin(class_set.counts))]
        raise InputError(
            f"{shots} shots and {queries} queries need {shots + queries} examples per class, but "
            f"class {smallest!r} of {class_set.name!r} has {fewest}",
            allowed=f"shots + queries at most {fewest}",
            remedy="Ask for fewer shots or fewer queries, or leave out the smallest classes",
        )
    numbers = np.unique(class_set.groups, return_inverse=True)[1].astype(np.int32)
    return Episodes(
        *place_examples(class_set),
        most,
        ways,
        shots,
        queries,
        fewest < most,
        rotations,
        reflections,
        distortion,
        jnp.asarray(numbers),
        same_alphabet,
    )


def place_examples(
    class_set: ClassSet,
) -> tuple[Shaped[Array, "examples *shape"], Int32[Array, " classes"], Int32[Array, " classes"]]:
    """A data set on the device: its examples, and where those of each class begin and how many."""
    examples = class_set.examples
    if not class_set.is_images:
        examples = examples.astype(np.float32)
    starts, counts = (jnp.asarray(n, jnp.int32) for n in (class_set.starts, class_set.counts))
    return jnp.asarray(examples), starts, counts


def _distinct(
    key: PRNGKeyArray, most: int, draws: int, count: Int32[Array, ""] | None = None
) -> Int32[Array, " draws"]:
    """Distinct numbers in random order, every order equally likely.

    Args:
        key: for the order.
        most: the numbers are below this one.
        draws: how many.
        count: the numbers are below this one too, which is not below ``draws``.

    Returns:
        The numbers.
    """
    # The largest of independent uniforms: far cheaper than shuffling all of them.
    luck = jax.random.uniform(key, (most,))
    if count is not None:
        luck = jnp.where(jnp.arange(most) < count, luck, -1.0)
    return _highest(luck, draws)


def _highest(luck: Float32[Array, " count"], draws: int) -> Int32[Array, " draws"]:
    return jax.lax.top_k(luck, draws)[1].astype(jnp.int32)


def _batch(
    examples: Shaped[Array, "ways each *shape"],
) -> tuple[Float32[Array, "n *shape"], Int32[Array, " n"]]:
    ways, each, *shape = examples.shape
    x = as_inputs(examples.reshape(ways * each, *shape))
    y = jnp.repeat(jnp.arange(ways, dtype=jnp.int32), each)
    return x, y


def as_inputs(examples: Shaped[Array, "n *shape"]) -> Float32[Array, "n *shape"]:
    """Examples as a model takes them: bytes become numbers from 0 to 1."""
    x = examples.astype(jnp.float32)
    return x / 255.0 if examples.dtype == jnp.uint8 else x
