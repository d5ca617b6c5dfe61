"""The losses of two parameters, their gradients and Hessians, in NumPy alone."""

from typing import Any, NamedTuple

import numpy as np

WAVE = 2.4


class Derivatives(NamedTuple):
    """Of a loss at one point."""

    value: float
    gradient: np.ndarray
    hessian: np.ndarray


def derivatives(phi: Any, batch: Any) -> Derivatives:
    """A loss of :mod:`pullback.lab.landscapes` at a point, in 64 bits."""
    centre, axis, bowl, bend, waves = (np.asarray(x, np.float64) for x in _leaves(batch))
    offset = np.asarray(phi, np.float64) - centre
    normal = np.array([-axis[1], axis[0]])
    along = axis @ offset
    across = normal @ offset - bend * along**2
    turn = normal - 2 * bend * along * axis
    first = _ridge(along, bowl[0], waves)
    second = _ridge(across, bowl[1], waves)
    return Derivatives(
        first[0] + second[0],
        first[1] * axis + second[1] * turn,
        (first[2] - 2 * bend * second[1]) * np.outer(axis, axis) + second[2] * np.outer(turn, turn),
    )


def _leaves(batch: Any) -> tuple[Any, ...]:
    return batch.centre, batch.axis, batch.bowl, batch.bend, batch.waves


def _ridge(x: Any, bowl: Any, waves: Any) -> tuple[Any, Any, Any]:
    """A parabola with waves on it, and its first two derivatives."""
    return (
        bowl * x**2 + waves * (1 - np.cos(WAVE * x)),
        2 * bowl * x + waves * WAVE * np.sin(WAVE * x),
        2 * bowl + waves * WAVE**2 * np.cos(WAVE * x),
    )
