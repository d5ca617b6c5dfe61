"""Losses and scores over a model's ``apply(params, x)`` and a batch ``(x, y)``.

Outputs and targets never broadcast: shapes that do not go together are an ``InputError``. Labels
that are no class are one, too, where their values are known; inside ``jit`` they make the loss, its
gradient and the score NaN.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from pullback.core.checks import check_function, describe
from pullback.core.errors import InputError
from pullback.core.problem import Loss
from pullback.core.trees import Params

Apply = Callable[[Params, Array], Array]
Batch = tuple[Array, Array]


def cross_entropy(apply: Apply) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The mean cross-entropy of logits against integer labels, as ``loss(params, (x, y))``.

    Args:
        apply: ``apply(params, x)`` gives logits, one for each class along the last axis.

    Returns:
        The loss. Labels are one whole number in 0..classes-1 for each row of logits.

    Raises:
        InputError: if ``apply`` is no function; from the loss for targets of other shapes or
            types, and for labels that are no class.
    """
    check_function("apply", apply, "params, x")

    def loss(params: Params, batch: tuple[Array, Int[Array, " n"]]) -> Float[Array, ""]:
        logits, labels, known = _logits_and_labels("cross_entropy", apply, params, batch)
        each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
        # A factor, unlike a choice, makes the gradient NaN as well.
        return jnp.mean(each * known)

    return loss


def accuracy(apply: Apply) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The share of examples whose largest logit is the label's, as ``metric(params, (x, y))``.

    Args:
        apply: as for :func:`cross_entropy`.

    Returns:
        The metric.

    Raises:
        InputError: as :func:`cross_entropy` does.
    """
    check_function("apply", apply, "params, x")

    def metric(params: Params, batch: tuple[Array, Int[Array, " n"]]) -> Float[Array, ""]:
        logits, labels, known = _logits_and_labels("accuracy", apply, params, batch)
        right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
        # XLA makes 0 of a product of False and NaN.
        return jnp.mean(jnp.where(jnp.isnan(known), known, right.astype(known.dtype)))

    return metric


def mean_squared_error(apply: Apply) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The mean squared error, as ``loss(params, (x, y))``.

    Args:
        apply: ``apply(params, x)`` gives outputs, shaped as the targets are.

    Returns:
        The loss.

    Raises:
        InputError: if ``apply`` is no function; from the loss for targets of another shape.
    """
    check_function("apply", apply, "params, x")

    def loss(params: Params, batch: Batch) -> Float[Array, ""]:
        x, y = _pair("mean_squared_error", batch)
        outputs = apply(params, x)
        if jnp.shape(outputs) != jnp.shape(y):
            raise InputError(
                f"mean_squared_error has outputs {describe(outputs)} and targets {describe(y)}",
                allowed="targets of the outputs' own shape, which are not broadcast",
                remedy=_reshape(outputs, y),
            )
        return jnp.mean(optax.losses.squared_error(outputs, y))

    return loss


def without_aux(loss: Callable[[Params, Any], tuple[Float[Array, ""], Any]]) -> Loss:
    """The loss alone, of a function that returns ``(value, aux)``.

    ``aux`` is not lost: call the function itself at the adapted parameters.

    Args:
        loss: ``loss(params, batch) -> (value, aux)``, as for ``jax.value_and_grad`` with
            ``has_aux=True``.

    Returns:
        ``loss(params, batch) -> value``.

    Raises:
        InputError: if ``loss`` is no function of two arguments, or returns no pair.
    """
    check_function("loss", loss, "params, batch")

    def value(params: Params, batch: Any) -> Float[Array, ""]:
        pair = loss(params, batch)
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InputError(
                f"without_aux was given a loss that returns {describe(pair)}",
                allowed="a pair (value, aux)",
            )
        return pair[0]

    return value


def _logits_and_labels(owner: str, apply: Apply, params: Params, batch: Any):
    """Logits, labels, and per label 1, or NaN for one that is no class."""
    x, labels = _pair(owner, batch)
    labels_type = getattr(labels, "dtype", None)
    if labels_type is None or not jnp.issubdtype(labels_type, jnp.integer):
        raise InputError(
            f"{owner} has labels {describe(labels)}",
            allowed="an array of whole numbers, one label an example",
            remedy="Write labels.astype(jnp.int32), or jnp.argmax(labels, -1) for one-hot rows",
        )
    logits = apply(params, x)
    if not jnp.ndim(logits) or jnp.shape(logits)[:-1] != jnp.shape(labels):
        raise InputError(
            f"{owner} has logits {describe(logits)} and labels {describe(labels)}",
            allowed="logits of shape [examples, classes] and labels of shape [examples]",
            remedy=_reshape(logits[..., 0], labels) if jnp.ndim(logits) else None,
        )
    classes = logits.shape[-1]
    if not isinstance(labels, Tracer):
        _check_labels(owner, np.asarray(labels), classes)
    if labels.dtype.itemsize < 4:
        labels = labels.astype(jnp.int32)
    known = (labels >= 0) & (labels < classes)
    return logits, labels, jnp.where(known, 1.0, jnp.nan).astype(logits.dtype)


def _check_labels(owner: str, labels: np.ndarray, classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise InputError(
            f"{owner} has the label {wrong[0]}, and {wrong.size} of {labels.size} like it, "
            f"where there are logits of {classes} classes",
            allowed=f"labels in 0..{classes - 1}",
            remedy="Number the classes of a task from 0",
        )


def _pair(owner: str, batch: Any) -> tuple[Array, Array]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise InputError(f"{owner} has the batch {describe(batch)}", allowed="a pair (x, y)")
    return batch[0], batch[1]


def _reshape(outputs: Array, y: Array) -> str | None:
    shape = tuple(jnp.shape(outputs))
    return f"Write y.reshape({shape})" if jnp.size(outputs) == jnp.size(y) else None
