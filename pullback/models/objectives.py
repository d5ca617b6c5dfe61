"""Objectives: the loss that is learned by, and the score that is judged by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pullback.core.problem import Loss
from pullback.core.scores import ACCURACY, MEAN_SQUARED_ERROR, Score
from pullback.models.losses import accuracy, cross_entropy, mean_squared_error

Apply = Callable[..., Any]


@dataclass(frozen=True)
class Objective:
    """What a model's outputs are trained for and judged by.

    Args:
        loss: ``loss(apply) -> (params, batch) -> scalar``.
        metric: likewise; its mean over tasks is the score.
        score: what the metric is called, and which way is better.
    """

    loss: Callable[[Apply], Loss]
    metric: Callable[[Apply], Loss]
    score: Score


CLASSIFICATION = Objective(cross_entropy, accuracy, ACCURACY)
REGRESSION = Objective(mean_squared_error, mean_squared_error, MEAN_SQUARED_ERROR)
