"""Few-shot classification tasks drawn from an image set."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32, PRNGKeyArray, UInt8

from pullback.core.errors import InputError
from pullback.tasks.base import Task
from pullback.tasks.distortion import STRONGEST, distort
from pullback.tasks.images import ImageSet

_TURNS = 4
# Folded in rather than split off: without distortion a key gives the tasks it always gave.
_DISTORT = 2
_KINDRED = 3


class Episodes(eqx.Module):
    """A source of ``ways``-way, ``shots``-shot classification tasks; see ``episodes``.

    The images are a leaf of the module: pass the module into a jitted function as an
    argument, and they are not compiled into it.

    Vinyals et al. (2016), "Matching Networks for One Shot Learning"; rotated classes as in
    Santoro et al. (2016), "Meta-Learning with Memory-Augmented Neural Networks".

    Args:
        images: grey values, 255 = ink.
        ways: number of classes in a task.
        shots: support examples per class.
        queries: query examples per class.
        rotations: whether each class turned by 0°, 90°, 180° and 270° makes four classes.
        mirrors: whether each class and its mirror image make two classes.
        distortion: how strongly each image is distorted; 0 for not at all.
        groups: the number of each class's alphabet.
        kindred: the share of tasks whose classes are all of one alphabet.
    """

    images: UInt8[Array, "classes examples height width"]
    ways: int = eqx.field(static=True)
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)
    rotations: bool = eqx.field(static=True, default=False)
    mirrors: bool = eqx.field(static=True, default=False)
    distortion: float = eqx.field(static=True, default=0.0)
    groups: Int32[Array, " classes"] | None = None
    kindred: float = eqx.field(static=True, default=0.0)

    def sample(self, key: PRNGKeyArray) -> Task:
        """One task: distinct classes in random order, distinct examples of each.

        Support and query are pairs ``(x, y)`` of images ``Float32[n, height, width, 1]`` in
        0..1 and labels ``Int32[n]`` in 0..ways-1, sorted by label; ``n`` is ways·shots for
        support and ways·queries for query.

        Args:
            key: the same key gives the same task.

        Returns:
            The task.
        """
        classes, examples = self.images.shape[:2]
        class_key, example_key = jax.random.split(key)
        drawn = self._draw_classes(class_key)
        per_class = self.shots + self.queries
        keys = jax.random.split(example_key, self.ways)
        chosen = jax.vmap(lambda k: _distinct(k, examples, per_class))(keys)

        images = self.images[(drawn % classes)[:, None], chosen]
        views = drawn // classes
        if self.rotations:
            images = _turned(images, views % _TURNS)
        if self.mirrors:
            mirrored = views >= _views(self.rotations, mirrors=False)
            images = jnp.where(mirrored[:, None, None, None], images[..., ::-1], images)
        if self.distortion:
            flat = images.reshape(-1, *images.shape[2:])
            distorted = distort(flat, jax.random.fold_in(key, _DISTORT), self.distortion)
            images = distorted.reshape(images.shape)
        return Task(support=_batch(images[:, : self.shots]), query=_batch(images[:, self.shots :]))

    def _draw_classes(self, key: PRNGKeyArray) -> Int32[Array, " ways"]:
        views = _views(self.rotations, self.mirrors)
        luck = jax.random.uniform(key, (len(self.images) * views,))
        if self.kindred and self.groups is not None:
            # The alphabet of a class drawn at random, so that every class is as likely as ever.
            first_key, share_key = jax.random.split(jax.random.fold_in(key, _KINDRED))
            first = jax.random.choice(first_key, self.groups)
            chosen = jax.random.uniform(share_key) < self.kindred
            # An alphabet of too few classes gives all it has.
            others = jnp.tile(self.groups != first, views)
            luck = luck - (chosen & others)
        return _highest(luck, self.ways)


def episodes(
    image_set: ImageSet,
    *,
    ways: int,
    shots: int,
    queries: int,
    rotations: bool = False,
    mirrors: bool = False,
    distortion: float = 0.0,
    kindred: float = 0.0,
) -> Episodes:
    """A source of few-shot classification tasks from the classes of an image set.

    Args:
        image_set: classes to draw from, usually one part of a split.
        ways: number of classes in a task.
        shots: support examples per class.
        queries: query examples per class.
        rotations: count each class turned by 0°, 90°, 180° and 270° as four classes. For
            meta-training only: in a test it would change what is measured.
        mirrors: count the mirror image of each class, turned or not, as a class too. For
            meta-training only, too.
        distortion: turn, stretch, shear and shift each image at random, this strongly
            (``pullback.tasks.distortion.distort``); 0 for not at all. For meta-training
            only, too.
        kindred: the share of tasks whose classes are all of one alphabet (``image_set.groups``):
            harder ones, which teach more. For meta-training only, too.

    Returns:
        The task source.

    Raises:
        InputError: if a number is not positive, the distortion is not from 0 to 2, the share not
            from 0 to 1, or the set has too few classes or examples.
    """
    for name, value in (("ways", ways), ("shots", shots), ("queries", queries)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}", allowed="a whole number, 1 or more")
    if not 0 <= distortion <= STRONGEST:
        raise InputError(f"distortion is {distortion!r}", allowed=f"numbers from 0 to {STRONGEST}")
    if not 0 <= kindred <= 1:
        raise InputError(f"kindred is {kindred!r}", allowed="numbers from 0 to 1")
    classes, examples, height, width = np.shape(image_set.images)
    available = classes * _views(rotations, mirrors)
    kinds = [k for k, on in (("rotations", rotations), ("mirrors", mirrors)) if on]
    with_views = f" with {' and '.join(kinds)}" if kinds else ""
    if ways > available:
        raise InputError(
            f"{ways} ways were asked for, but {image_set.name!r} has {available} "
            f"classes{with_views} to draw from",
            allowed=f"1 to {available} ways",
            remedy="Ask for fewer ways or give more classes",
        )
    if shots + queries > examples:
        raise InputError(
            f"{shots} shots and {queries} queries need {shots + queries} examples per class, "
            f"but {image_set.name!r} has {examples}",
            allowed=f"shots + queries at most {examples}",
            remedy="Ask for fewer shots or fewer queries",
        )
    if rotations and height != width:
        raise InputError(
            f"Rotations were asked for, but the images are {height}×{width}",
            allowed="square images",
        )
    numbers = np.unique(image_set.groups, return_inverse=True)[1].astype(np.int32)
    return Episodes(
        jnp.asarray(image_set.images),
        ways,
        shots,
        queries,
        rotations,
        mirrors,
        distortion,
        jnp.asarray(numbers),
        kindred,
    )


def _views(rotations: bool, mirrors: bool) -> int:
    """How many classes one class of drawings makes."""
    return (_TURNS if rotations else 1) * (2 if mirrors else 1)


def _distinct(key: PRNGKeyArray, count: int, draws: int) -> Int32[Array, " draws"]:
    """Distinct numbers below ``count`` in random order, every order equally likely."""
    # The largest of independent uniforms: far cheaper than shuffling all of them.
    return _highest(jax.random.uniform(key, (count,)), draws)


def _highest(luck: Float32[Array, " count"], draws: int) -> Int32[Array, " draws"]:
    return jax.lax.top_k(luck, draws)[1].astype(jnp.int32)


def _turned(
    images: UInt8[Array, "ways examples side side"], quarters: Int32[Array, " ways"]
) -> UInt8[Array, "ways examples side side"]:
    quarters = quarters[:, None, None, None]
    halfway = jnp.where(quarters >= 2, jnp.rot90(images, 2, axes=(2, 3)), images)
    return jnp.where(quarters % 2 == 1, jnp.rot90(halfway, 1, axes=(2, 3)), halfway)


def _batch(
    images: UInt8[Array, "ways examples height width"],
) -> tuple[Float32[Array, "n height width 1"], Int32[Array, " n"]]:
    ways, examples, height, width = images.shape
    x = images.reshape(ways * examples, height, width, 1).astype(jnp.float32) / 255.0
    y = jnp.repeat(jnp.arange(ways, dtype=jnp.int32), examples)
    return x, y
