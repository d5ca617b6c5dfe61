"""iMAML that learns its own inner problem: Λ, and hyperparameters η of the inner loss.

    φ*(θ, Λ, η) = argmin_φ  L(φ; η) + ½ (φ − θ)ᵀ Λ (φ − θ)

is stationary where ∇L(φ*; η) + Λ(φ* − θ) = 0. Differentiate that by Λ and by η as by θ
(Rajeswaran et al. 2019, Lemma 1). The adjoint u of eq. 7, with (H + Λ)u = v, serves all three:

    dθ = Λu,    dΛ = −(φ* − θ) ⊙ u,    dη = −uᵀ ∂_η ∇L(φ*; η).

dΛ is summed over a leaf, or over all, where Λ has one value for it. The logarithms of Λ and η are
what is learned, so both stay positive; an η that may have any sign is learned as it is.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from pullback.algorithms.adapted import (
    Adapted,
    OfAdapted,
    OuterLoss,
    check_outer,
    direct_gradient,
    of_free,
)
from pullback.algorithms.adaptive_strength import AdaptiveStrength
from pullback.algorithms.adjoint import Implicit, by_batch
from pullback.algorithms.base import MetaAlgorithm
from pullback.algorithms.imaml import DEFAULT, check_given
from pullback.core import trees
from pullback.core.checks import check_function, check_params
from pullback.core.errors import InputError, unknown_name
from pullback.core.problem import (
    InnerProblem,
    Loss,
    Strength,
    check_finite_leaves,
    check_positive_leaves,
    check_strength,
    check_structure,
    is_scalar,
    spread_strength,
)
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.implicit.certificate import Certify
from pullback.linear import LinearSolver
from pullback.registries import STRENGTH_FORMS
from pullback.solvers import BlackBox, InnerSolver

HyperLoss = Callable[[Params, PyTree[Any], PyTree[Any]], Float[Array, ""]]
"""``loss(params, batch, hyper) -> scalar``."""


class Learned(eqx.Module):
    """θ, Λ and η: what is meta-learned where the inner problem is learned too.

    Args:
        params: θ.
        log_strength: log Λ: a scalar, one scalar per leaf of ``params``, or shaped like it.
        log_hyper: log η, with None for what may have any sign; None where the inner loss has no
            hyperparameters.
        signed_hyper: η where it may have any sign, with None for all other; None where there is
            no such η.
    """

    params: Params
    log_strength: Strength
    log_hyper: PyTree[Any] = None
    signed_hyper: PyTree[Any] = None

    @property
    def strength(self) -> Strength:
        """Λ, in the form in which it is learned."""
        return jax.tree.map(jnp.exp, self.log_strength)

    @property
    def hyper(self) -> PyTree[Any]:
        """η; None where there is none."""
        return _hyper(self.log_hyper, self.signed_hyper)


def learned_imaml(
    loss: Loss | HyperLoss,
    *,
    strength: Strength,
    form: str = "scalar",
    hyper: PyTree[Any] = None,
    signed: PyTree[bool] = False,
    outer_loss: OuterLoss | None = None,
    solver: InnerSolver | BlackBox | None = None,
    linear_solver: LinearSolver | None = None,
    damping: float = 0.0,
    certify: Certify | None = DEFAULT,
    raise_strength: AdaptiveStrength | None = None,
) -> MetaAlgorithm:
    """Implicit MAML that learns Λ, and hyperparameters η of the inner loss, beside θ.

    One linear solve (Rajeswaran et al. 2019, eq. 7) gives all the gradients: with its u,
    ``d log Λ = −Λ(φ − θ) ⊙ u`` and ``d log η = −η ⊙ uᵀ∂_η∇L(φ; η)``. What ``certify`` estimates
    is the error of the gradient by θ.

    A black box finds ``(support, η)`` in the ``support`` of its problem where there is an η.

    Args:
        loss: ``loss(params, batch) -> scalar``, twice differentiable; with ``hyper`` the inner
            loss ``loss(params, batch, hyper)``.
        strength: Λ at the start: a positive scalar, or as far as ``form`` allows one scalar per
            leaf or a diagonal like the parameters.
        form: a name in :data:`pullback.registries.STRENGTH_FORMS`.
        hyper: η at the start, a pytree of numbers or arrays, positive but where ``signed``; None
            for no such hyperparameters. Write a bounded one as a function of a positive η: label
            smoothing in 0..1, for instance, as ``η / (1 + η)``.
        signed: where η may have any sign: True for all of it, or a pytree of truth values shaped
            like ``hyper``.
        outer_loss: ``outer_loss(params, batch) -> scalar`` of the query set, or an
            :class:`~pullback.algorithms.OfAdapted`; ``loss`` if None. Required with ``hyper``,
            since it need not depend on η: where it does, η is learned to lower the outer loss
            directly, too.
        solver: the inner solver, as for :func:`pullback.algorithms.imaml`.
        linear_solver: solves (H + Λ)u = v; ``pullback.linear.ECONOMICAL`` if None,
            preconditioned CG that stops after 10 products with H or at a relative residual of
            5 %. Give ``CG()`` for a solve to 1e-5.
        damping: δ ≥ 0 added to H + Λ in the solve: a deliberate bias of all the gradients.
        certify: how each meta-gradient's own error is estimated and judged; None for not at all.
        raise_strength: multiply Λ, task by task, until H + Λ is positive definite where the
            solver stops; the factor counts as a constant. None keeps Λ as it is learned.

    Returns:
        The algorithm. θ is a :class:`Learned`, and so is a meta-gradient.

    Raises:
        InputError: if Λ, η or the damping is out of range, the form is unknown or does not hold
            the given Λ, a solver is not one, or the outer loss is missing.
    """
    start = check_strength(check_given(strength))
    _check_form(form, start)
    signs = _check_signs(hyper, signed)
    outer = _check_losses(loss, hyper, signs, outer_loss)
    inner: Any = loss
    settings = Implicit(solver, linear_solver, damping, certify, raise_strength)

    def with_hyper(params, batch):
        examples, values = batch
        return inner(params, examples, values)

    def problem_of(theta, support) -> InnerProblem:
        if not isinstance(theta, Learned):
            raise InputError(
                f"θ is a {type(theta).__name__}",
                allowed="a Learned, from init(params) or from training",
            )
        if hyper is None:
            return InnerProblem(inner, support, theta.params, theta.strength)
        # As a part of the batch η reaches solvers, certificates and branches as any array does.
        return InnerProblem(with_hyper, (support, theta.hyper), theta.params, theta.strength)

    def seen_of(problem, theta, phi) -> Adapted:
        return Adapted(problem, phi, hyper=theta.hyper)

    def init(params):
        params = check_params(params)
        check_structure(start, params)
        kind = _common_type(params)
        values = jax.tree.map(lambda x: jnp.asarray(x, kind), hyper)
        of_any_sign, positive = eqx.partition(values, signs)
        if not jax.tree.leaves(of_any_sign):
            of_any_sign, positive = None, values
        log_hyper = jax.tree.map(jnp.log, positive)
        return Learned(params, _log_of_form(form, start, params, kind), log_hyper, of_any_sign)

    def adapt(theta, support, key):
        return settings.adapt(problem_of(theta, support), key)

    def adapted(theta, support, phi, report) -> Adapted:
        problem = settings.raised(problem_of(theta, support), report.strength_factor)
        return seen_of(problem, theta, phi)

    def meta_gradient(theta, task, key):
        problem = problem_of(theta, task.support)
        outer_of_phi = of_free(outer, seen_of(problem, theta, problem.theta))
        found = settings.adjoint(problem, outer_of_phi, task.query, key)
        offset = trees.subtract(found.phi, theta.params)
        by_strength = _strength_gradient(form, offset, found.gradient, theta.log_strength)
        by_hyper = None, None
        if hyper is not None:
            by_hyper = by_batch(
                with_hyper,
                lambda parts: (task.support, _hyper(*parts)),
                found,
                (theta.log_hyper, theta.signed_hyper),
            )
        gradient = Learned(found.gradient, by_strength, *by_hyper)
        if isinstance(outer, OfAdapted):

            def view(theta):
                return adapted(theta, task.support, found.phi, found.info)

            seen = direct_gradient(outer, view, theta, task.query)
            gradient = trees.add(gradient, seen)
        finite = trees.all_finite(gradient)
        code = jnp.where(finite, found.info.code, Verdict.NOT_FINITE)
        return found.value, gradient, dataclasses.replace(found.info, code=code)

    return MetaAlgorithm(init, adapt, meta_gradient, adapted)


def describe_strength(theta: Learned, form: str) -> dict[str, Any]:
    """The learned Λ in a few numbers.

    Args:
        theta: what was meta-learned.
        form: a name in :data:`pullback.registries.STRENGTH_FORMS`, as the algorithm was given.

    Returns:
        For ``"scalar"`` its value; for the others one entry a leaf of the parameters, with the
        value of Λ there, or for ``"diagonal"`` its ``min``, ``median`` and ``max``.
    """
    if form == "scalar":
        return {"value": float(theta.strength)}
    found = {}
    for path, leaf in jax.tree.leaves_with_path(theta.strength):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "parameters"
        if form == "leaf":
            found[name] = float(leaf)
        else:
            parts = {"min": np.min, "median": np.median, "max": np.max}
            found[name] = {part: float(take(np.asarray(leaf))) for part, take in parts.items()}
    return {"leaves": found}


def _hyper(logarithms: PyTree[Any], signed: PyTree[Any]) -> PyTree[Any]:
    """η of its two parts."""
    positive = jax.tree.map(jnp.exp, logarithms)
    return positive if signed is None else eqx.combine(positive, signed)


def _strength_gradient(form: str, offset: Params, gradient: Params, like: Strength) -> Strength:
    """−Λ(φ − θ) ⊙ u, in which Λu is at hand, summed to where Λ has one value."""

    def product(x, g, s):
        return -x.astype(s.dtype) * g.astype(s.dtype)

    each = jax.tree.map(product, offset, gradient, spread_strength(like, offset))
    if form == "diagonal":
        return each
    sums = jax.tree.map(jnp.sum, each)
    return sums if form == "leaf" else jax.tree.reduce(jnp.add, sums)


def _log_of_form(form: str, start: Strength, params: Params, kind: Any) -> Strength:
    if form == "scalar":
        return jnp.log(jnp.asarray(start, kind))

    def leaf(strength, parameter):
        shape = parameter.shape if form == "diagonal" else ()
        return jnp.broadcast_to(jnp.log(jnp.asarray(strength, parameter.dtype)), shape)

    return jax.tree.map(leaf, spread_strength(start, params), params)


def _common_type(params: Params) -> Any:
    return functools.reduce(jnp.promote_types, (leaf.dtype for leaf in jax.tree.leaves(params)))


def _check_form(form: str, strength: Strength) -> None:
    if form not in STRENGTH_FORMS:
        raise unknown_name("form of Λ", form, STRENGTH_FORMS)
    if form == "scalar" and not is_scalar(strength):
        raise InputError(
            "A scalar Λ is to be learned, but its start is not a scalar",
            allowed="one positive number",
            remedy="Give one number, or learn form='leaf' or form='diagonal'",
        )
    if form == "leaf":
        for path, leaf in trees.leaf_paths(strength):
            if jnp.ndim(leaf):
                raise InputError(
                    f"One λ per leaf is to be learned, but the start of Λ at {path} has shape "
                    f"{jnp.shape(leaf)}",
                    allowed="a scalar, or a pytree of one scalar per leaf",
                    remedy="Learn form='diagonal' to start from a diagonal",
                )


def _check_signs(hyper: PyTree[Any], signed: PyTree[bool]) -> PyTree[bool]:
    """For each leaf of η whether it may have any sign."""
    if isinstance(signed, bool):
        return jax.tree.map(lambda _: signed, hyper)
    given, wanted = jax.tree.structure(signed), jax.tree.structure(hyper)
    if given != wanted or not all(isinstance(sign, bool) for sign in jax.tree.leaves(signed)):
        raise InputError(
            f"learned_imaml(signed={signed!r}) does not go with hyper={hyper!r}",
            allowed="True, False, or a pytree of them shaped like hyper",
        )
    return signed


def _check_losses(
    loss: Any, hyper: PyTree[Any], signs: PyTree[bool], outer_loss: OuterLoss | None
) -> OuterLoss:
    if outer_loss is not None:
        check_outer("outer_loss", outer_loss)
    if hyper is None:
        check_function("loss", loss, "params, batch")
        return loss if outer_loss is None else outer_loss
    if not jax.tree.leaves(hyper):
        raise InputError(
            f"learned_imaml(hyper={hyper!r}) holds no numbers",
            allowed="a pytree of numbers, or None",
        )
    of_any_sign, positive = eqx.partition(hyper, signs)
    check_positive_leaves(
        positive,
        "The hyperparameter η",
        "Say signed=True of one that may be zero or negative",
    )
    check_finite_leaves(of_any_sign, "The hyperparameter η")
    if outer_loss is None:
        raise InputError(
            "learned_imaml(hyper=...) has no outer_loss",
            allowed="outer_loss(params, batch) -> scalar",
            remedy="Give the loss of the query set, which must not depend on hyper",
        )
    check_function("loss", loss, "params, batch, hyper")
    return outer_loss
