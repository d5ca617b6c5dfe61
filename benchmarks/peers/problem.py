"""What every implementation is given: the weights, the tasks and the settings, as NumPy arrays."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GROUPS, LOGIT_SCALE, EPSILON = 8, 4.0, 1e-5
"""Of the network; :class:`pullback.models.Conv4`'s own."""


@dataclass(frozen=True)
class Setting:
    """How a meta-gradient is computed.

    Args:
        algorithm: ``"imaml"`` or ``"maml"``, which has no proximal term.
        inner_steps: gradients of the inner loss.
        linear_steps: the most products with the Hessian in the linear solve.
        strength: λ.
        learning_rate: of gradient descent.
        momentum: of gradient descent; heavy ball, undamped, as PyTorch's and pullback's.
        options: what one implementation alone knows of.
    """

    algorithm: str = "imaml"
    inner_steps: int = 16
    linear_steps: int = 5
    strength: float = 2.0
    learning_rate: float = 0.03
    momentum: float = 0.0
    options: dict = dataclasses.field(default_factory=dict)

    def change(self, **changes):
        return dataclasses.replace(self, **changes)


@dataclass(frozen=True)
class Problem:
    """Weights by name and tasks stacked along their first axis.

    Args:
        theta: ``"conv0/weight"`` and so on, in pullback's layout.
        support_x: images, Float32[tasks, n, 28, 28, 1].
        support_y: labels, Int32[tasks, n].
        query_x: likewise.
        query_y: likewise.
    """

    theta: dict[str, np.ndarray]
    support_x: np.ndarray
    support_y: np.ndarray
    query_x: np.ndarray
    query_y: np.ndarray

    @property
    def tasks(self):
        return len(self.support_x)

    def task(self, index):
        """The four arrays of one task."""
        whole = self.support_x, self.support_y, self.query_x, self.query_y
        return tuple(array[index] for array in whole)

    def save(self, path):
        parts = {f"theta:{name}": array for name, array in self.theta.items()}
        tasks = {name: getattr(self, name) for name in FIELDS}
        np.savez(path, **parts, **tasks)

    @classmethod
    def load(cls, path: Path | str):
        with np.load(path) as file:
            theta = {n.removeprefix("theta:"): file[n] for n in file if n.startswith("theta:")}
            return cls(theta, *(file[name] for name in FIELDS))


FIELDS = ("support_x", "support_y", "query_x", "query_y")


def relative_error(found, exact):
    """‖found − exact‖ / ‖exact‖ over all weights, for each task: arrays stacked by task."""

    def squares(arrays):
        return sum(np.sum(a.reshape(len(a), -1) ** 2, axis=1) for a in arrays)

    wide = {name: np.asarray(array, np.float64) for name, array in exact.items()}
    off = squares([np.asarray(found[name], np.float64) - wide[name] for name in wide])
    return np.sqrt(off / squares(list(wide.values())))
