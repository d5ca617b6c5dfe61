"""The inner problem: a loss on the support set and the proximal pull toward θ.

    φ*(θ) = argmin_φ  L(φ, D_support) + ½ ‖φ − θ‖²_Λ          (iMAML, eq. 3–4)

Λ is a positive scalar, one scalar per leaf, or a diagonal shaped like the parameters.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, PyTree

from pullback.core import trees
from pullback.core.checks import check_function, check_value, place
from pullback.core.errors import InputError
from pullback.core.trees import Params

Loss = Callable[[Params, PyTree[Any]], Float[Array, ""]]
"""``loss(params, batch) -> scalar``: all that this library asks of a model."""

Strength = PyTree[Any]
"""Λ: a scalar, a pytree of one scalar per leaf, or a pytree shaped like the parameters."""


class InnerProblem(eqx.Module):
    """One task's inner problem, ready for a solver.

    Args:
        loss: ``loss(params, batch) -> scalar``.
        support: the batch that ``loss`` is measured on.
        theta: the parameters the proximal term pulls toward, and where solvers start.
        strength: Λ, or None for no proximal term.

    Raises:
        InputError: if the loss does not give one number for ``theta`` and ``support``.
    """

    loss: Loss = eqx.field(static=True)
    support: PyTree[Any]
    theta: Params
    strength: Strength | None = None

    def __check_init__(self):
        check_value(self.loss, self.theta, self.support)

    def value(self, phi: Params) -> Float[Array, ""]:
        """``L(φ, support) + ½‖φ − θ‖²_Λ``."""
        value = self.loss(phi, self.support)
        if self.strength is None:
            return value
        offset = trees.subtract(phi, self.theta)
        return value + 0.5 * trees.dot(offset, self.pull(offset))

    def gradient(self, phi: Params) -> Params:
        """``∇L(φ, support) + Λ(φ − θ)``."""
        return self.add_pull(self.loss_gradient(phi), phi)

    def rises(
        self, phi: Params, loss: Float[Array, ""], start: Float[Array, ""]
    ) -> Bool[Array, ""]:
        """Whether the objective is larger at ``phi`` than at θ, by more than rounding.

        Args:
            phi: the adapted parameters.
            loss: ``L(φ, support)``.
            start: ``L(θ, support)``.

        Returns:
            Whether it is; False where a number is NaN.
        """
        value = loss
        if self.strength is not None:
            offset = trees.subtract(phi, self.theta)
            value = value + 0.5 * trees.dot(offset, self.pull(offset)).astype(loss.dtype)
        slack = 100 * jnp.finfo(loss.dtype).eps * jnp.maximum(jnp.abs(loss), jnp.abs(start))
        return value > start + slack

    def value_and_gradient(self, phi: Params) -> tuple[Float[Array, ""], Params]:
        """The value and the gradient of the whole objective, from one evaluation."""
        value, gradient = jax.value_and_grad(self.loss)(phi, self.support)
        if self.strength is None:
            return value, gradient
        offset = trees.subtract(phi, self.theta)
        pull = self.pull(offset)
        return value + 0.5 * trees.dot(offset, pull), trees.add(gradient, pull)

    def loss_gradient(self, phi: Params) -> Params:
        """``∇L(φ, support)``, without the proximal term."""
        return jax.grad(self.loss)(phi, self.support)

    def add_pull(self, gradient: Params, phi: Params) -> Params:
        """The gradient of the loss plus that of the proximal term."""
        if self.strength is None:
            return gradient
        return trees.add(gradient, self.pull(trees.subtract(phi, self.theta)))

    def pull(self, offset: Params) -> Params:
        """``Λ·offset``; zero where there is no proximal term."""
        if self.strength is None:
            return trees.zeros_like(offset)
        return apply_strength(self.strength, offset)

    def smallest_strength(self) -> Float[Array, ""]:
        """The smallest entry of Λ: how much curvature the proximal term adds at least."""
        if self.strength is None:
            return jnp.zeros(())
        leaves = [leaf for leaf in jax.tree.leaves(self.strength) if jnp.size(leaf)]
        return jnp.min(jnp.stack([jnp.min(jnp.asarray(leaf)) for leaf in leaves]))


class Proximal(eqx.Module):
    """A loss and its proximal term, not yet bound to a task.

    Args:
        loss: ``loss(params, batch) -> scalar``.
        strength: Λ, positive; None leaves the proximal term out.

    Raises:
        InputError: if the loss is no function of two arguments, or a value of Λ is not a
            positive number.
    """

    loss: Loss = eqx.field(static=True)
    strength: Strength | None

    def __init__(self, loss: Loss, strength: Strength | None):
        check_function("loss", loss, "params, batch")
        self.loss = loss
        self.strength = None if strength is None else check_strength(strength)

    def problem(self, theta: Params, support: PyTree[Any]) -> InnerProblem:
        """This objective on one task's support set, pulling toward ``theta``."""
        if self.strength is not None:
            check_structure(self.strength, theta)
        return InnerProblem(self.loss, support, theta, self.strength)


def apply_strength(strength: Strength, vector: Params) -> Params:
    """``Λ·vector`` for every form of Λ, keeping each leaf's dtype."""
    spread = spread_strength(strength, vector)
    return jax.tree.map(lambda s, x: (s * x).astype(x.dtype), spread, vector)


def divide_by_strength(strength: Strength, vector: Params) -> Params:
    """``Λ⁻¹·vector`` for every form of Λ, keeping each leaf's dtype."""
    spread = spread_strength(strength, vector)
    return jax.tree.map(lambda s, x: (x / s).astype(x.dtype), spread, vector)


def spread_strength(strength: Strength, like: Params) -> Params:
    """Λ with a leaf for each leaf of ``like``: a scalar one is repeated, others are as given."""
    if is_scalar(strength):
        return jax.tree.map(lambda _: strength, like)
    return strength


def is_scalar(strength: Strength) -> bool:
    """Whether Λ is one number for all parameters."""
    return jax.tree_util.all_leaves([strength]) and jnp.ndim(strength) == 0


def check_strength(strength: Strength) -> Strength:
    """Λ as given, once every concrete number in it is known to be positive and finite.

    Raises:
        InputError: naming the first leaf that holds anything else.
    """
    check_positive_leaves(
        strength,
        "The proximal strength Λ",
        "λ = 0 has no proximal term and no implicit gradient; MAML, FOMAML and Reptile take "
        "strength=None for that. In pullback.imaml λ = inf for a whole leaf freezes it, and λ = 0 "
        "for some leaves, beside others that are pulled, leaves these to the support set alone",
    )
    return strength


def check_positive_leaves(values: PyTree[Any], what: str, remedy: str) -> None:
    """Every concrete number in a pytree must be positive and finite.

    Args:
        values: numbers and arrays; traced ones pass.
        what: the values are, for the message.
        remedy: what to do about it.

    Raises:
        InputError: naming the first leaf that holds anything else.
    """
    _check_numbers(values, what, lambda x: x > 0, "positive finite numbers", remedy)


def check_finite_leaves(values: PyTree[Any], what: str) -> None:
    """Every concrete number in a pytree must be finite.

    Args:
        values: numbers and arrays; traced ones pass.
        what: the values are, for the message.

    Raises:
        InputError: naming the first leaf that holds anything else.
    """
    _check_numbers(values, what, np.isfinite, "finite numbers", None)


def _check_numbers(
    values: PyTree[Any],
    what: str,
    within: Callable[[np.ndarray], np.ndarray],
    allowed: str,
    remedy: str | None,
) -> None:
    for path, leaf in trees.leaf_paths(values):
        if isinstance(leaf, Tracer):
            continue
        dtype = np.asarray(leaf).dtype
        real = jnp.issubdtype(dtype, jnp.floating) or jnp.issubdtype(dtype, jnp.integer)
        numbers = np.asarray(leaf, dtype=float) if real else np.asarray(np.nan)
        if not (np.all(np.isfinite(numbers)) and np.all(within(numbers))):
            raise InputError(f"{what} is {leaf!r}{place(path)}", allowed=allowed, remedy=remedy)


def check_structure(strength: Strength, theta: Params) -> None:
    """Λ must be a scalar, or match θ leaf by leaf with scalars or equal shapes.

    Raises:
        InputError: naming the leaf that does not match, and both shapes.
    """
    if is_scalar(strength):
        return
    given, wanted = jax.tree.structure(strength), jax.tree.structure(theta)
    if given != wanted:
        raise InputError(
            f"Λ has the structure {given}, the parameters have {wanted}",
            allowed="a scalar, or a pytree of the parameters' own structure",
        )
    pairs = zip(trees.leaf_paths(theta), jax.tree.leaves(strength), strict=True)
    for (path, parameter), leaf in pairs:
        if jnp.ndim(leaf) and jnp.shape(leaf) != jnp.shape(parameter):
            raise InputError(
                f"Λ at {path} has shape {jnp.shape(leaf)}, the parameter has "
                f"{jnp.shape(parameter)}",
                allowed="a scalar or the parameter's own shape",
            )
