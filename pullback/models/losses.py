"""Losses and scores over a model's ``apply(params, x)`` and a batch ``(x, y)``, weighted or not.

Outputs and targets never broadcast: shapes that do not go together are an ``InputError``. Labels
that are no class are one, too, where their values are known; inside ``jit`` they make the loss, its
gradient and the score NaN.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jaxtyping import Array, Float

from pullback.core.checks import check_function, describe
from pullback.core.errors import InputError
from pullback.core.problem import Loss
from pullback.core.trees import Params
from pullback.models.head import LinearHead

Apply = Callable[[Params, Array], Array]
Batch = tuple[Array, Array]

Each = Callable[[Float[Array, "examples outputs"], Array], Float[Array, " examples"]]
"""``each(outputs, targets)``: the loss of each example, NaN for a target that is none."""


@dataclass(frozen=True, eq=False)
class MeanLoss:
    """``loss(params, batch)``: the mean over a batch of a loss of each example.

    A batch is ``(x, y)``, or ``(x, y, weights)`` for a weighted mean with weights from 0, by which
    sets of unequal sizes can be padded to one (padding must be finite, with a target that is one).
    The loss of no example at all is 0. Over a :class:`~pullback.models.LinearHead` the loss is
    convex in the head where ``each`` is convex in the outputs, and iMAML eliminates the head then.

    Args:
        apply: ``apply(params, x)`` gives the outputs.
        each: ``each(outputs, targets)`` gives the loss of each example.
        convex: whether ``each`` is convex in the outputs. It is compared with second derivatives
            at outputs drawn at random, once.
        quadratic: whether it is quadratic in them, so that one Newton step solves the head.
        check: ``check(outputs, targets)``, for errors of their shapes and types.

    Raises:
        InputError: if a function is none; from the loss, if ``convex`` is not true, or the batch
            does not fit.
    """

    apply: Apply
    each: Each
    convex: bool = False
    quadratic: bool = False
    check: Callable[[Array, Any], None] | None = None
    _compared: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self):
        check_function("apply", self.apply, "params, x")
        check_function("each", self.each, "outputs, targets")

    def __call__(self, params: Params, batch: Any) -> Float[Array, ""]:
        """The mean loss of a batch."""
        x, y, weights = split_batch("The loss", batch)
        return self.of_outputs(self.apply(params, x), y, weights)

    def of_outputs(
        self, outputs: Float[Array, "*examples outputs"], y: Array, weights: Array | None
    ) -> Float[Array, ""]:
        """The mean loss of outputs that are known."""
        if self.check is not None:
            self.check(outputs, y)
        return _weighted_mean(self.each(outputs, y), weights)

    def check_convex(self, outputs: Array, targets: Array) -> None:
        """Compare ``convex`` with second derivatives, once for each shape; nothing is traced.

        Args:
            outputs: of the shape and type that ``each`` is going to be given.
            targets: likewise.

        Raises:
            InputError: if one of them is negative.
        """
        seen = f"{describe(outputs)} {describe(targets)}"
        if not outputs.size or seen in self._compared:
            return
        draw = np.random.default_rng(0)
        with jax.ensure_compile_time_eval():
            points = jnp.asarray(3 * draw.normal(size=(8, outputs.shape[1])), outputs.dtype)
            numbers = jnp.issubdtype(targets.dtype, jnp.floating)
            wanted = draw.uniform(size=(8, *targets.shape[1:])) if numbers else np.zeros(8)
            wanted = jnp.asarray(wanted, targets.dtype)
            curved = np.asarray(jax.jit(self.curvatures)(points, wanted))
        least = np.linalg.eigvalsh(curved).min()
        if not least > -1e-3 * max(1.0, np.abs(curved).max()):
            raise InputError(
                f"The loss {getattr(self.each, '__name__', self.each)!r} is called convex in its "
                f"outputs, but has the second derivative {least:.3g} at outputs drawn at random",
                remedy="Make it without convex=True; the head is then solved like the rest",
            )
        self._compared.add(seen)

    def slopes(
        self, outputs: Float[Array, "examples outputs"], targets: Array
    ) -> Float[Array, "examples outputs"]:
        """The first derivatives of each example's loss by its outputs."""
        return jax.grad(lambda f: jnp.sum(self.each(f, targets)))(outputs)

    def curvatures(
        self, outputs: Float[Array, "examples outputs"], targets: Array
    ) -> Float[Array, "examples outputs outputs"]:
        """The second derivatives of each example's loss by its outputs."""
        if self.each is _cross_entropies:
            return _softmax_curvatures(outputs, targets)

        def one(f, y):
            return self.each(f[None], y[None])[0]

        return jax.vmap(jax.hessian(one))(outputs, targets)


def separable(loss: Loss) -> tuple["MeanLoss", LinearHead] | None:
    """A loss and its linear head, where it is convex in one; None for any other loss.

    Args:
        loss: ``loss(params, batch) -> scalar``.

    Returns:
        The loss and the map from parameters to outputs, which say how to take it apart.
    """
    if isinstance(loss, MeanLoss) and loss.convex and isinstance(loss.apply, LinearHead):
        return loss, loss.apply
    return None


def example_shares(weights: Array | None, count: int, like: Array) -> Float[Array, " examples"]:
    """What each example counts for in the mean; they add up to 1, or are all 0."""
    ones = jnp.ones(count, like.dtype) if weights is None else weights.astype(like.dtype)
    total = jnp.sum(ones)
    return ones / jnp.where(total > 0, total, 1.0)


def _weighted_mean(values: Array, weights: Array | None) -> Float[Array, ""]:
    if weights is None:
        return jnp.mean(values) if values.size else jnp.sum(values)
    values = jnp.mean(values.reshape(len(values), -1), axis=1)
    shares = example_shares(weights, len(values), values)
    return jnp.sum(shares * values)


def cross_entropy(apply: Apply) -> MeanLoss:
    """The mean cross-entropy of logits against integer labels, as ``loss(params, (x, y))``.

    Args:
        apply: ``apply(params, x)`` gives logits, one for each class along the last axis.

    Returns:
        The loss. Labels are one whole number in 0..classes-1 for each row of logits.

    Raises:
        InputError: if ``apply`` is no function; from the loss for targets of other shapes or
            types, and for labels that are no class.
    """
    return MeanLoss(
        apply,
        _cross_entropies,
        convex=True,
        check=functools.partial(_check_classes, "cross_entropy"),
    )


def accuracy(apply: Apply) -> Callable[[Params, Batch], Float[Array, ""]]:
    """The share of examples whose largest logit is the label's, as ``metric(params, (x, y))``.

    Args:
        apply: as for :func:`cross_entropy`.

    Returns:
        The metric.

    Raises:
        InputError: as :func:`cross_entropy` does.
    """
    return MeanLoss(apply, _hits, check=functools.partial(_check_classes, "accuracy"))


def binary_cross_entropy(apply: Apply) -> MeanLoss:
    """The mean logistic loss of logits against 0 and 1, as ``loss(params, (x, y))``.

    Args:
        apply: ``apply(params, x)`` gives logits, shaped as the targets are.

    Returns:
        The loss, a mean over all outputs of an example. Targets may lie between 0 and 1 too.

    Raises:
        InputError: if ``apply`` is no function; from the loss for targets of another shape.
    """
    return _of_numbers("binary_cross_entropy", apply, _logistic)


def poisson_loss(apply: Apply) -> MeanLoss:
    """The mean Poisson loss exp(f) − y·f of log rates f, as ``loss(params, (x, y))``.

    Args:
        apply: ``apply(params, x)`` gives logarithms of rates, shaped as the targets are.

    Returns:
        The loss, which is the negative log-likelihood of counts y but for log y!.

    Raises:
        InputError: if ``apply`` is no function; from the loss for targets of another shape.
    """
    return _of_numbers("poisson_loss", apply, _poisson)


def mean_squared_error(apply: Apply) -> MeanLoss:
    """The mean squared error, as ``loss(params, (x, y))``.

    Args:
        apply: ``apply(params, x)`` gives outputs, shaped as the targets are.

    Returns:
        The loss.

    Raises:
        InputError: if ``apply`` is no function; from the loss for targets of another shape.
    """
    return _of_numbers("mean_squared_error", apply, optax.losses.squared_error, quadratic=True)


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


def _cross_entropies(logits: Array, labels: Array) -> Array:
    each = optax.losses.softmax_cross_entropy_with_integer_labels(logits, _wide_labels(labels))
    # A factor, unlike a choice, makes the gradient NaN as well.
    return each * _known(logits, labels)


def _softmax_curvatures(logits: Array, labels: Array) -> Array:
    """diag(p) − ppᵀ, whose rows add up to 0.

    Where p saturates, p − p² is 0 while the products of p are not, and the matrix would be
    indefinite; so the diagonal is the sum of the others.
    """
    p = jax.nn.softmax(logits)
    diagonal = jnp.eye(p.shape[1], dtype=p.dtype)[None]
    products = p[:, :, None] * p[:, None, :] * (1 - diagonal)
    curved = jnp.sum(products, axis=2)[:, :, None] * diagonal - products
    return curved * _known(logits, labels)[:, None, None]


def _hits(logits: Array, labels: Array) -> Array:
    right = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    known = _known(logits, labels)
    # XLA makes 0 of a product of False and NaN.
    return jnp.where(jnp.isnan(known), known, right.astype(known.dtype))


def _wide_labels(labels: Array) -> Array:
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def _known(logits: Array, labels: Array) -> Array:
    """Per label 1, or NaN for one that is no class."""
    labels = _wide_labels(labels)
    known = (labels >= 0) & (labels < logits.shape[-1])
    return jnp.where(known, 1.0, jnp.nan).astype(logits.dtype)


def _logistic(logits: Array, targets: Array) -> Array:
    return jax.nn.softplus(logits) - targets * logits


def _poisson(log_rates: Array, counts: Array) -> Array:
    return jnp.exp(log_rates) - counts * log_rates


def _of_numbers(owner: str, apply: Apply, pointwise: Each, quadratic: bool = False) -> MeanLoss:
    """A loss of numbers against numbers of the same shape, a mean over the outputs too."""

    def each(outputs, targets):
        values = pointwise(outputs, targets)
        return jnp.mean(values.reshape(len(values), -1), axis=1) if values.ndim > 1 else values

    def check(outputs, targets):
        if jnp.shape(outputs) != jnp.shape(targets):
            raise InputError(
                f"{owner} has outputs {describe(outputs)} and targets {describe(targets)}",
                allowed="targets of the outputs' own shape, which are not broadcast",
                remedy=_reshape(outputs, targets),
            )

    return MeanLoss(apply, each, convex=True, quadratic=quadratic, check=check)


def _check_classes(owner: str, logits: Array, labels: Any) -> None:
    """Labels must be whole numbers, one for each row of logits, and those of a class.

    Raises:
        InputError: if they are not, as far as that is known.
    """
    labels_type = getattr(labels, "dtype", None)
    if labels_type is None or not jnp.issubdtype(labels_type, jnp.integer):
        raise InputError(
            f"{owner} has labels {describe(labels)}",
            allowed="an array of whole numbers, one label an example",
            remedy="Write labels.astype(jnp.int32), or jnp.argmax(labels, -1) for one-hot rows",
        )
    if not jnp.ndim(logits) or jnp.shape(logits)[:-1] != jnp.shape(labels):
        raise InputError(
            f"{owner} has logits {describe(logits)} and labels {describe(labels)}",
            allowed="logits of shape [examples, classes] and labels of shape [examples]",
            remedy=_reshape(logits[..., 0], labels) if jnp.ndim(logits) else None,
        )
    if not isinstance(labels, Tracer):
        _check_labels(owner, np.asarray(labels), logits.shape[-1])


def _check_labels(owner: str, labels: np.ndarray, classes: int) -> None:
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise InputError(
            f"{owner} has the label {wrong[0]}, and {wrong.size} of {labels.size} like it, "
            f"where there are logits of {classes} classes",
            allowed=f"labels in 0..{classes - 1}",
            remedy="Number the classes of a task from 0",
        )


def split_batch(owner: str, batch: Any) -> tuple[Array, Array, Array | None]:
    """The examples, targets and weights of a batch; None for weights that are all alike.

    Raises:
        InputError: if it is neither ``(x, y)`` nor ``(x, y, weights)``, or the weights are not one
            number for each target.
    """
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        raise InputError(
            f"{owner} has the batch {describe(batch)}", allowed="a pair (x, y), or (x, y, weights)"
        )
    x, y = batch[:2]
    weights = batch[2] if len(batch) == 3 else None
    if weights is not None and jnp.shape(weights) != jnp.shape(y)[:1]:
        raise InputError(
            f"{owner} has weights {describe(weights)} and targets {describe(y)}",
            allowed="one weight for each target",
        )
    return x, y, weights


def _reshape(outputs: Array, y: Array) -> str | None:
    shape = tuple(jnp.shape(outputs))
    return f"Write y.reshape({shape})" if jnp.size(outputs) == jnp.size(y) else None
