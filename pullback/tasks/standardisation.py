"""Numbers brought to one scale: less their mean, over their deviation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from pullback.core.errors import InputError
from pullback.tasks.class_set import ClassSet

# A deviation below this share of the mean is rounding, and the number a constant.
_LEVEL = 1e-12


@dataclass(frozen=True)
class Standardisation:
    """The mean and the deviation of each number of an example, those of the training classes.

    Args:
        mean: of each number, in the order of a flattened example.
        deviation: of each; 1 for a constant.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, class_set: ClassSet) -> "Standardisation":
        """That of the examples of some classes, each counting the same.

        Raises:
            InputError: if the examples are images.
        """
        if class_set.is_images:
            raise InputError(
                f"standardise was asked for, and the examples of {class_set.name!r} are images, "
                "whose bytes become numbers from 0 to 1",
                remedy="Leave standardise out",
            )
        flat = _flat(class_set.examples)
        # Squares of the largest and the smallest numbers would leave the range.
        largest = np.maximum(np.abs(flat).max(0), np.finfo(float).tiny)
        flat = flat / largest
        mean = flat.mean(0)
        deviation = np.sqrt(np.mean((flat - mean) ** 2, 0))
        scale = np.where(deviation > _LEVEL * np.abs(mean), deviation * largest, 1.0)
        return cls(tuple((mean * largest).tolist()), tuple(scale.tolist()))

    def __call__(
        self, examples: Shaped[np.ndarray, "examples *shape"]
    ) -> Float[np.ndarray, "examples *shape"]:
        """Examples on this scale.

        Raises:
            InputError: for a number that is too far out to be held in 32 bits.
        """
        scaled = (_flat(examples) - np.asarray(self.mean)) / np.asarray(self.deviation)
        far = np.flatnonzero((np.abs(scaled) > np.finfo(np.float32).max).any(0))
        if len(far):
            raise InputError(
                f"Column {far[0]} (counted from 0) holds numbers more than 10³⁸ deviations of the "
                "training classes away from their mean",
                remedy="Leave that column out, or take its logarithm",
            )
        return scaled.astype(np.float32).reshape(examples.shape)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any], size: int) -> "Standardisation":
        """What a JSON object holds.

        Args:
            stored: the fields by name.
            size: how many numbers an example has.

        Returns:
            The standardisation.

        Raises:
            KeyError, TypeError, ValueError: if it holds anything else.
        """
        mean, deviation = (tuple(map(float, stored[name])) for name in ("mean", "deviation"))
        if not len(mean) == len(deviation) == size:
            raise ValueError(f"{len(mean)} means for {size} numbers")
        if not np.isfinite(mean + deviation).all() or min(deviation) <= 0:
            raise ValueError("a mean or a deviation that cannot be one")
        return cls(mean, deviation)


def _flat(examples: Shaped[np.ndarray, "examples *shape"]) -> Float[np.ndarray, "examples numbers"]:
    return examples.reshape(len(examples), -1).astype(np.float64)
