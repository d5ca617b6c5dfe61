"""Leaves that do not adapt: Λ = ∞ there, so that φ = θ, and θ is learned all the same.

Write θ = (a, f) with f frozen. φ*(a, f) minimises L(·, f) + ½‖· − a‖²_Λ over what adapts, and f is
one of the things that this problem is posed with, as a hyperparameter is: with the adjoint
(H + Λ)u = v of what adapts,

    da = Λu,    df = ∂_f L(φ, f; D_query) − uᵀ ∂_f ∇L(φ, f; D_support).

With all but the last layer frozen these are the features that a head of its own for each task is
put on (Raghu et al. 2020, "Rapid Learning or Feature Reuse?").

Leaves with λ = 0 are no part of the pulled problem either (:mod:`pullback.algorithms.unpulled`).
"""

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int, PyTree

from pullback.algorithms.unpulled import Unpulled
from pullback.core import trees
from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem, Loss, Strength, check_strength, check_structure
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.models.head import LinearHead
from pullback.models.losses import separable, split_batch


class Frozen:
    """The inner problem of a loss some of whose leaves are frozen, or not pulled.

    Args:
        loss: ``loss(params, batch) -> scalar``.
        strength: one entry a leaf, ``inf`` for one that is frozen, 0 for one that is not pulled.

    Raises:
        InputError: if no leaf is pulled, or another entry is not positive.
    """

    def __init__(self, loss: Loss, strength: Strength):
        self._given = jax.tree.map(lambda s: 1.0 if _is_outside(s) else s, strength)
        self._adapts = jax.tree.map(lambda s: not _is_outside(s), strength)
        if not any(jax.tree.leaves(self._adapts)):
            free = any(map(is_zero, jax.tree.leaves(strength)))
            raise InputError(
                f"The proximal strength Λ is {'0 or ' if free else ''}infinite at every leaf, "
                f"so that nothing {'is pulled' if free else 'adapts'}",
                allowed="positive finite numbers for at least one leaf",
            )
        self._strength = eqx.filter(check_strength(self._given), self._adapts)
        self._whole = loss
        unpulled = jax.tree.map(is_zero, strength)
        self._unpulled = Unpulled(loss, unpulled) if any(jax.tree.leaves(unpulled)) else None
        self._head = None if self._unpulled else self._free_head(loss)
        self.loss = self._unpulled or self._head or self._of_free

    def split(self, params: Params) -> tuple[Params, Params]:
        """The leaves that are pulled and all others, with None in place of the rest.

        Raises:
            InputError: if Λ has another structure than the parameters, or the leaves that are not
                pulled are too large.
        """
        check_structure(self._given, params)
        if self._unpulled is not None:
            self._unpulled.check_size(params)
        return eqx.partition(params, self._adapts)

    def complete(
        self, free: Params, others: Params, support: PyTree[Any]
    ) -> tuple[Params, Int[Array, ""]]:
        """The leaves that are not pulled, adapted.

        Args:
            free: the leaves that are pulled, adapted.
            others: all others, as in θ.
            support: the support set.

        Returns:
            The others, with their derivatives; and a code of :mod:`pullback.core.results`, which
            is not ``OK`` where the support set does not determine them.
        """
        if self._unpulled is None:
            return others, jnp.asarray(Verdict.OK)
        return self._unpulled.complete(free, others, support)

    def problem(self, free: Params, frozen: Params, support: PyTree[Any]) -> InnerProblem:
        """The inner problem of what is pulled."""
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
    return _scalar(strength) == math.inf


def is_zero(strength: Any) -> bool:
    """Whether an entry of Λ says that its leaf is not pulled."""
    return _scalar(strength) == 0


def _is_outside(strength: Any) -> bool:
    return is_frozen(strength) or is_zero(strength)


def _scalar(strength: Any) -> float:
    """An entry of Λ as a number; NaN for what is none, which `check_strength` refuses."""
    if isinstance(strength, Tracer):
        return math.nan
    value = np.asarray(strength)
    real = jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer)
    return float(value) if value.ndim == 0 and real else math.nan


def sets_apart(strength: Strength | None) -> bool:
    """Whether Λ has an entry for a whole leaf that is infinite, or 0 beside others that are not."""
    entries = [leaf for _, leaf in trees.leaf_paths(strength)]
    zeros = [is_zero(entry) for entry in entries]
    return any(map(is_frozen, entries)) or (any(zeros) and not all(zeros))
