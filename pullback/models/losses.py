"""Losses and scores over a model's ``apply(params, x)`` and a batch ``(x, y)``."""

from collections.abc import Callable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from pullback.core.trees import Params

Apply = Callable[[Params, Array], Array]
Batch = tuple[Array, Array]


def cross_entropy(apply: Apply) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The mean cross-entropy of logits against integer labels, as ``loss(params, (x, y))``."""

    def loss(params: Params, batch: tuple[Array, Int[Array, " n"]]) -> Float[Array, ""]:
        x, y = batch
        logits = apply(params, x)
        return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, y))

    return loss


def accuracy(apply: Apply) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The share of examples whose largest logit is the label's, as ``metric(params, (x, y))``."""

    def metric(params: Params, batch: tuple[Array, Int[Array, " n"]]) -> Float[Array, ""]:
        x, y = batch
        return jnp.mean(jnp.argmax(apply(params, x), axis=-1) == y)

    return metric


def mean_squared_error(apply: Apply) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The mean squared error, as ``loss(params, (x, y))``."""

    def loss(params: Params, batch: Batch) -> Float[Array, ""]:
        x, y = batch
        return jnp.mean(optax.losses.squared_error(apply(params, x), y))

    return loss
