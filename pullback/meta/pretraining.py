"""Supervised pretraining: a classifier over all training classes, whose body θ starts from."""

from collections.abc import Callable
from typing import Any

import optax
from jaxtyping import PRNGKeyArray

from pullback.algorithms.base import MetaAlgorithm
from pullback.algorithms.supervised import SCALE, supervised
from pullback.core.checks import check_type
from pullback.core.errors import check_counts, check_positive
from pullback.core.trees import Params
from pullback.meta import multihost, training
from pullback.meta.training import Block, TrainResult, TrainState
from pullback.models.head import LinearHead
from pullback.tasks.batches import Batches

LEARNING_RATE, WEIGHT_DECAY = 3e-3, 1e-4
DEVICES = 1
"""Of each process. The prototypes are most of the parameters: on a CPU its cores share a batch
faster than host devices, each with a copy of them, share two."""


def pretraining_optimizer(
    steps: int, learning_rate: float = LEARNING_RATE, weight_decay: float = WEIGHT_DECAY
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with a cosine decay to zero over ``steps`` steps.

    Args:
        steps: of the whole pretraining.
        learning_rate: at the start.
        weight_decay: of every parameter, in proportion to the learning rate.

    Returns:
        The optimiser.

    Raises:
        InputError: for numbers that are not positive.
    """
    check_counts("pretraining_optimizer", steps=steps)
    check_positive("pretraining_optimizer", learning_rate=learning_rate, weight_decay=weight_decay)
    schedule = optax.cosine_decay_schedule(learning_rate, steps)
    return optax.adamw(schedule, weight_decay=weight_decay)


def pretrain(
    apply: LinearHead,
    params: Params,
    batches: Batches,
    *,
    steps: int,
    key: PRNGKeyArray,
    scale: float = SCALE,
    smoothing: float = 0.0,
    then: MetaAlgorithm | None = None,
    optimizer: optax.GradientTransformation | None = None,
    state: TrainState | None = None,
    on_block: Callable[[TrainState, Block], bool | None] | None = None,
    block_ends: int = 100,
    block_seconds: float = 1.0,
    progress: bool = False,
) -> TrainResult:
    """Train the body as that of a cosine classifier over all classes, before any meta-learning.

    A step takes one batch, on one device; where several processes train together, one in each.

    ``result.theta.params`` are then parameters to meta-train from, or to adapt as they are: the
    model's own, with the pretrained body and a head of zeros. The prototypes of the classifier,
    ``result.theta.prototypes``, are of no further use.

    Args:
        apply: a model that says where its head is (:class:`pullback.models.LinearHead`).
        params: its parameters, to start from.
        batches: from :func:`pullback.tasks.batches`, of the training classes and no others.
        steps: in all, those of ``state`` included.
        key: for the prototypes, and the batches.
        scale: factor on the cosines (:func:`pullback.algorithms.supervised`).
        smoothing: share of each target that is spread evenly over all labels.
        then: the algorithm by which ``pullback.evaluate`` can judge the state in between.
        optimizer: an Optax optimiser; if None AdamW of 3e-3, falling along a cosine.
        state: where to go on from.
        on_block: as in :func:`pullback.meta.train`, like the others.
        block_ends: a block ends where the step is a multiple of this.
        block_seconds: about how long a block takes, in seconds.
        progress: show a bar.

    Returns:
        The final state and the metrics of every step.

    Raises:
        InputError: if the batches are none, or as :func:`pullback.meta.train` does.
        NumericalError: when a loss or a gradient is NaN or infinite.
    """
    check_type(
        "pretrain(batches=...)", batches, Batches, "pullback.tasks.batches(class_set, size=128)"
    )
    check_counts("pretrain", steps=steps)
    algorithm: Any = supervised(
        apply, batches.classes, key=key, scale=scale, smoothing=smoothing, then=then
    )
    return training.train(
        algorithm,
        params,
        batches,
        steps=steps,
        key=key,
        tasks_per_step=multihost.count(),
        optimizer=pretraining_optimizer(steps) if optimizer is None else optimizer,
        state=state,
        on_block=on_block,
        block_ends=block_ends,
        block_seconds=block_seconds,
        devices=DEVICES,
        progress=progress,
    )
