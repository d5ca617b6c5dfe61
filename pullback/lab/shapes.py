"""Shapes as curves, for figures."""

import numpy as np
from jaxtyping import Float


def ellipse(
    centre: Float[np.ndarray, "2"],
    matrix: Float[np.ndarray, "2 2"],
    radius: float,
    points: int = 49,
) -> Float[np.ndarray, "n 2"]:
    """The image of a small circle under a matrix, about a centre."""
    turn = np.linspace(0.0, 2 * np.pi, points)
    return centre + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1) @ matrix.T


def arrow(
    start: Float[np.ndarray, "2"], vector: Float[np.ndarray, "2"], longest: float = 1.2
) -> list[Float[np.ndarray, "n 2"]]:
    """A vector as lines; one that is long is drawn shorter, so that it stays in sight."""
    size = float(np.linalg.norm(vector))
    if not np.isfinite(size) or size < 1e-6:
        return []
    unit = vector / size
    tip = start + unit * longest * np.tanh(size)
    side = np.array([-unit[1], unit[0]])
    head = 0.12 * min(1.0, 4 * float(np.tanh(size)))
    barbs = np.stack([tip - head * (unit + 0.5 * side), tip, tip - head * (unit - 0.5 * side)])
    return [np.stack([start, tip]), barbs]


def same_pull(
    theta: Float[np.ndarray, "2"], place: Float[np.ndarray, "2"], strength: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "n 2"]:
    """The curve of all points that are pulled as hard as ``place``: an ellipse, or a circle."""
    size = float(np.sqrt(np.sum(strength * (place - theta) ** 2)))
    return ellipse(theta, np.diag(1 / np.sqrt(strength)), size, points=73)
