"""Views of pictures: turned and mirrored, each as good as a class of its own in training."""

import jax.numpy as jnp
from jaxtyping import Array, Int32, UInt8

from pullback.core.errors import InputError
from pullback.registries import STRONGEST_DISTORTION
from pullback.tasks.class_set import ClassSet

TURNS = 4


def count_views(rotations: bool, reflections: bool) -> int:
    """How many classes one class of pictures makes."""
    return (TURNS if rotations else 1) * (2 if reflections else 1)


def view(
    images: UInt8[Array, "groups each height width channels"],
    views: Int32[Array, " groups"],
    *,
    rotations: bool,
    reflections: bool,
) -> UInt8[Array, "groups each height width channels"]:
    """Each group of pictures in a view of its own.

    Args:
        images: square ones if they are to be turned.
        views: of each group, below :func:`count_views`.
        rotations: whether views are turned by 0°, 90°, 180° and 270°.
        reflections: whether views are mirrored, too.

    Returns:
        The pictures.
    """
    if rotations:
        images = _turned(images, views % TURNS)
    if reflections:
        reflected = views >= count_views(rotations, reflections=False)
        reflected = reflected[:, None, None, None, None]
        images = jnp.where(reflected, images[..., ::-1, :], images)
    return images


def _turned(images, quarters):
    quarters = quarters[:, None, None, None, None]
    halfway = jnp.where(quarters >= 2, jnp.rot90(images, 2, axes=(2, 3)), images)
    return jnp.where(quarters % 2 == 1, jnp.rot90(halfway, 1, axes=(2, 3)), halfway)


def check_views(
    class_set: ClassSet, rotations: bool, reflections: bool, distortion: float
) -> list[str]:
    """Whether examples can be turned, mirrored and distorted.

    Args:
        class_set: the examples.
        rotations: whether they are to be turned.
        reflections: whether they are to be mirrored.
        distortion: how strongly they are to be distorted; 0 for not at all.

    Returns:
        What makes classes of its own, in words.

    Raises:
        InputError: if they are no images, no square ones, or the distortion is out of range.
    """
    if not 0 <= distortion <= STRONGEST_DISTORTION:
        raise InputError(
            f"distortion is {distortion!r}", allowed=f"numbers from 0 to {STRONGEST_DISTORTION}"
        )
    kinds = [k for k, on in (("rotations", rotations), ("reflections", reflections)) if on]
    asked = [*kinds, *(["distortion"] if distortion else [])]
    if asked and not class_set.is_images:
        raise InputError(
            f"The examples of {class_set.name!r} are no images, and have no {asked[0]}",
            allowed="data sets of images",
        )
    if rotations and class_set.shape[0] != class_set.shape[1]:
        height, width, _ = class_set.shape
        raise InputError(
            f"Rotations were asked for, but the images are {height}×{width}",
            allowed="square images",
        )
    return kinds
