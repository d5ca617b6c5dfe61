"""Leaves that do not adapt: Λ = ∞ there, so that φ = θ, and θ is learned all the same.

Write θ = (a, f) with f frozen. φ*(a, f) minimises L(·, f) + ½‖· − a‖²_Λ over what adapts, and f is
one of the things that this problem is posed with, as a hyperparameter is: with the adjoint
(H + Λ)u = v of what adapts,

    da = Λu,    df = ∂_f L(φ, f; D_query) − uᵀ ∂_f ∇L(φ, f; D_support).

With all but the last layer frozen these are the features that a head of its own for each task is
put on (Raghu et al. 2020, "Rapid Learning or Feature Reuse?").
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from pullback.core import trees
from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem, Loss, Strength, check_strength, check_structure
from pullback.core.trees import Params
from pullback.models.head import LinearHead
from pullback.models.losses import separable, split_batch


class Frozen:
    """The inner problem of a loss some of whose leaves are frozen.

    Args:
        loss: ``loss(params, batch) -> scalar``.
        strength: one entry a leaf, ``inf`` for one that is frozen.

    Raises:
        InputError: if every leaf is frozen, or another entry is not positive.
    """

    def __init__(self, loss: Loss, strength: Strength):
        self._given = jax.tree.map(lambda s: 1.0 if is_frozen(s) else s, strength)
        self._adapts = jax.tree.map(lambda s: not is_frozen(s), strength)
        if not any(jax.tree.leaves(self._adapts)):
            raise InputError(
                "The proximal strength Λ is infinite at every leaf, so that nothing adapts",
                allowed="positive finite numbers for at least one leaf",
            )
        self._strength = eqx.filter(check_strength(self._given), self._adapts)
        self._whole = loss
        self._head = self._free_head(loss)
        self.loss = self._of_free if self._head is None else self._head

    def split(self, params: Params) -> tuple[Params, Params]:
        """The leaves that adapt and those that do not, with None for the others.

        Raises:
            InputError: if Λ has another structure than the parameters.
        """
        check_structure(self._given, params)
        return eqx.partition(params, self._adapts)

    def problem(self, free: Params, frozen: Params, support: PyTree[Any]) -> InnerProblem:
        """The inner problem of what adapts."""
        return InnerProblem(self.loss, self.batch(frozen, support), free, self._strength)

    def batch(self, frozen: Params, support: PyTree[Any]) -> PyTree[Any]:
        """The support set as the problem's loss takes it: as an array, ``frozen`` reaches solvers,
        certificates and branches."""
        if self._head is None:
            return support, frozen
        x, y, weights = split_batch("The loss", support)
        return ((x, frozen), y) if weights is None else ((x, frozen), y, weights)

    def _of_free(self, free: Params, batch: Any):
        examples, frozen = batch
        return self._whole(eqx.combine(free, frozen), examples)

    def _free_head(self, loss: Loss) -> Loss | None:
        """The same loss over a head that adapts on features that may not; None without one."""
        parts = separable(loss)
        if parts is None:
            return None
        mean, apply = parts
        marks = [bool(mark) for mark in jax.tree.leaves(apply.split(self._marks())[1])]
        if not all(marks):
            return None

        def features(body, x):
            return apply.features(eqx.combine(body, x[1]), x[0])

        head = LinearHead(features, apply.head, apply.scale, apply.transposed)
        return dataclasses.replace(mean, apply=head)

    def _marks(self) -> Params:
        # Arrays of their own, since a head is found by what its leaves are.
        return jax.tree.map(lambda adapts: np.asarray(adapts), self._adapts)


def is_frozen(strength: Any) -> bool:
    """Whether an entry of Λ says that its leaf does not adapt."""
    if isinstance(strength, Tracer):
        return False
    value = np.asarray(strength)
    # What is no real number is for `check_strength` to refuse.
    real = value.ndim == 0 and jnp.issubdtype(value.dtype, jnp.floating)
    return bool(real and np.isposinf(value.astype(float)))


def freezes(strength: Strength | None) -> bool:
    """Whether Λ has an infinite entry for a whole leaf."""
    return any(is_frozen(leaf) for _, leaf in trees.leaf_paths(strength))
