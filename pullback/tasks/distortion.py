"""Small random distortions of pictures: the same class as another hand would have drawn it."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PRNGKeyArray, UInt8

from pullback.tasks.images import border_of

# At strength 1 every quantity is drawn evenly from within these bounds.
LARGEST_ANGLE = jnp.pi / 12
LARGEST_STRETCH = 0.15
LARGEST_SHEAR = 0.15
LARGEST_SHIFT = 0.07


def distort(
    images: UInt8[Array, "n height width *channels"], key: PRNGKeyArray, strength: float
) -> UInt8[Array, "n height width *channels"]:
    """Each picture under an affine map of its own: turned, stretched, sheared and shifted.

    At strength 1 by at most 15°, by factors between 0.86 and 1.16 along either axis, by a shear
    of 0.15 and by 7 % of the side; the bounds grow in proportion to the strength. Values between
    pixels are interpolated; what comes from beyond the edge has the median colour of the border,
    which in a drawing is paper.

    Args:
        images: of bytes; all channels of one are distorted alike.
        key: the same key gives the same distortions.
        strength: above 0, at most ``STRONGEST_DISTORTION``.

    Returns:
        The pictures, each distorted about its middle.
    """
    keys = jax.random.split(key, len(images))
    shaped = images if images.ndim == 4 else images[..., None]
    distorted = jax.vmap(lambda image, k: _distort(image, k, strength))(shaped, keys)
    return distorted.reshape(images.shape)


def _distort(
    image: UInt8[Array, "height width channels"], key: PRNGKeyArray, strength: float
) -> UInt8[Array, "height width channels"]:
    height, width, _ = image.shape
    drawn = strength * jax.random.uniform(key, (6,), minval=-1.0, maxval=1.0)
    angle = LARGEST_ANGLE * drawn[0]
    stretch = jnp.exp(LARGEST_STRETCH * drawn[1:3])
    shear = LARGEST_SHEAR * drawn[3]
    shift = LARGEST_SHIFT * drawn[4:6] * jnp.asarray([height, width])

    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turn = jnp.asarray([[cos, -sin], [sin, cos]])
    # The map from a place in the result to its source, so no place is left without a value.
    matrix = turn @ jnp.asarray([[1.0, shear], [0.0, 1.0]]) * stretch
    middle = jnp.asarray([(height - 1) / 2, (width - 1) / 2])
    rows, columns = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
    places = jnp.stack([rows, columns], -1) - middle
    sources: Float32[Array, "height width 2"] = places @ matrix.T + middle + shift

    border = jnp.sort(jnp.concatenate(border_of(image)), axis=0)
    ground = border[len(border) // 2].astype(jnp.float32)

    def interpolate(
        channel: Float32[Array, "height width"],
    ) -> Float32[Array, "height width"]:
        return jax.scipy.ndimage.map_coordinates(
            channel, [sources[..., 0], sources[..., 1]], order=1, cval=0.0
        )

    # Beyond the edge is the ground, from which all values are counted.
    above = image.astype(jnp.float32) - ground
    values = jax.vmap(interpolate, in_axes=-1, out_axes=-1)(above) + ground
    return jnp.round(values).astype(jnp.uint8)
