"""Losses over two parameters, for figures in which everything can be seen.

A task's support and query losses have the same shape, a little displaced, as the losses of two
samples of the same data have.
"""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pullback.tasks import Task

Point = Float[Array, "2"]

KINDS = {"quadratic": "Quadratic", "valley": "Curved valley", "optima": "Several optima"}
"""The losses by name, with the text that the page shows."""

REACH = 3.0
"""Figures show −REACH to REACH in both directions."""

WAVE = 2.4
"""How often the waves come that make several optima: 2π/WAVE apart."""


class Landscape(eqx.Module):
    """The data of one loss: what its batch holds.

    Args:
        centre: where it is lowest.
        axis: the direction of its first axis, of length 1.
        bowl: half the curvature along both axes.
        bend: how fast the bottom of the valley bends away from its first axis.
        waves: the height of the waves that make several optima.
    """

    centre: Point
    axis: Point
    bowl: Point
    bend: Float[Array, ""]
    waves: Float[Array, ""]


def loss(params: Point, batch: Landscape) -> Float[Array, ""]:
    """The loss of two parameters on one landscape: ``loss(params, batch) -> scalar``.

    Args:
        params: φ.
        batch: the landscape.

    Returns:
        A smooth function of φ, zero at the centre and nowhere less.
    """
    offset = params - batch.centre
    along = jnp.sum(batch.axis * offset)
    across = batch.axis[0] * offset[1] - batch.axis[1] * offset[0] - batch.bend * along**2
    waves = 2.0 - jnp.cos(WAVE * along) - jnp.cos(WAVE * across)
    return batch.bowl[0] * along**2 + batch.bowl[1] * across**2 + batch.waves * waves


def curvature_bound(batch: Landscape) -> Float[Array, ""]:
    """The largest curvature of a loss, in any direction and anywhere, but for a valley's bend."""
    return 2.0 * jnp.max(batch.bowl) + WAVE**2 * batch.waves


_SHAPES = {
    "quadratic": ((0.12, 0.75), 0.0, 0.0),
    "valley": ((0.06, 0.9), 0.3, 0.0),
    "optima": ((0.06, 0.06), 0.0, 0.35),
}
_CENTRES = ((-1.5, 0.9), (1.4, 1.1), (0.5, -1.7))
_ANGLES = (0.5, -0.6, 1.9)


@functools.cache
def tasks(kind: str, count: int = 2) -> tuple[Task, ...]:
    """The tasks of a figure.

    Args:
        kind: a name in :data:`KINDS`.
        count: how many, at most three.

    Returns:
        Tasks whose support and query are each a :class:`Landscape`.
    """
    bowl, bend, waves = _SHAPES[kind]

    def landscape(centre: np.ndarray, angle: float) -> Landscape:
        axis = np.asarray([np.cos(angle), np.sin(angle)])
        numbers = (centre, axis, np.asarray(bowl), np.asarray(bend), np.asarray(waves))
        return Landscape(*(jnp.asarray(x, jnp.float32) for x in numbers))

    made = []
    for centre, angle in zip(_CENTRES[:count], _ANGLES[:count], strict=True):
        place = np.asarray(centre)
        shift = 0.3 * np.asarray([np.sin(3 * angle), np.cos(3 * angle)])
        made.append(Task(landscape(place, angle), landscape(place + shift, angle)))
    return tuple(made)


def grid(reach: float = REACH, points: int = 61) -> Float[np.ndarray, " n"]:
    """The coordinates of a figure's grid, the same for both axes."""
    return np.linspace(-reach, reach, points, dtype=np.float32)


@jax.jit
def surface(
    axis: Float[Array, " n"], batch: Landscape, theta: Point, strength: Point
) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    """The loss and the proximal term over a grid.

    Args:
        axis: the coordinates along both axes.
        batch: the landscape.
        theta: θ.
        strength: the diagonal of Λ.

    Returns:
        Both; their rows go with the second coordinate, their columns with the first.
    """
    first, second = jnp.meshgrid(axis, axis)
    points = jnp.stack([first.ravel(), second.ravel()], axis=1)
    losses = jax.vmap(lambda point: loss(point, batch))(points)
    pulls = 0.5 * jnp.sum(strength * (points - theta) ** 2, axis=1)
    return losses.reshape(first.shape), pulls.reshape(first.shape)


def contours(
    axis: Float[np.ndarray, " n"], values: Float[np.ndarray, "n n"], levels: Float[np.ndarray, " k"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """All contour lines of a surface as one curve, with NaN where one line ends.

    Args:
        axis: the coordinates along both axes.
        values: the surface, as from :func:`surface`.
        levels: the heights of the lines.

    Returns:
        The coordinates of the curve.
    """
    import contourpy

    made = contourpy.contour_generator(
        axis, axis, values, line_type=contourpy.LineType.ChunkCombinedNan
    )
    parts = [made.lines(float(level))[0][0] for level in levels]
    gap = np.full((1, 2), np.nan)
    points = [piece for part in parts if part is not None for piece in (part, gap)]
    if not points:
        return np.zeros(0, np.float32), np.zeros(0, np.float32)
    joined = np.concatenate(points).astype(np.float32)
    return joined[:, 0], joined[:, 1]


def contour_levels(values: Float[np.ndarray, "n n"], count: int = 9) -> Float[np.ndarray, " k"]:
    """Contour levels that are denser toward the bottom of a surface, where it is flat."""
    low, high = float(values.min()), float(np.percentile(values, 85))
    return low + (high - low) * np.linspace(0.08, 1.0, count) ** 2
