"""Implicit MAML: the meta-gradient of a converged proximal problem."""

import dataclasses
import functools

import equinox as eqx
import jax.numpy as jnp

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
from pullback.algorithms.base import MetaAlgorithm, init_params
from pullback.algorithms.frozen import Frozen, sets_apart
from pullback.algorithms.unpulled import derivative_where
from pullback.core import trees
from pullback.core.errors import InputError
from pullback.core.problem import Loss, Proximal, Strength
from pullback.core.results import Verdict
from pullback.implicit.certificate import Certify
from pullback.linear import LinearSolver
from pullback.solvers import BlackBox, InnerSolver

DEFAULT = Certify()


def imaml(
    loss: Loss,
    *,
    strength: Strength,
    outer_loss: OuterLoss | None = None,
    solver: InnerSolver | BlackBox | None = None,
    linear_solver: LinearSolver | None = None,
    damping: float = 0.0,
    certify: Certify | None = DEFAULT,
    raise_strength: AdaptiveStrength | None = None,
) -> MetaAlgorithm:
    """Implicit MAML (Rajeswaran et al. 2019, Algorithms 1 and 2).

    Each task minimises ``L(φ, support) + ½‖φ − θ‖²_Λ``; the meta-gradient of the query loss is
    ``Λ(H + Λ)⁻¹∇L(φ, query)``, whatever the solver's path.

    Args:
        loss: ``loss(params, batch) -> scalar``, twice differentiable.
        strength: Λ: a positive scalar, one scalar per leaf, or a diagonal like the parameters. A
            leaf whose scalar is infinite does not adapt, and is learned all the same; what
            ``certify`` estimates is then the error of the gradient by the leaves that do. One whose
            scalar is 0 adapts and is not pulled: the support set alone determines it, and the
            gradient by it is zero.
        outer_loss: ``outer_loss(params, batch) -> scalar`` of the query set, or an
            :class:`~pullback.algorithms.OfAdapted`; ``loss`` if None.
        solver: the inner solver. None is :class:`~pullback.solvers.Projected` where the loss is
            convex in a linear head, and L-BFGS where it is not. A callable
            ``solver(problem, theta, key) -> phi`` is a black box and never differentiated.
        linear_solver: solves (H + Λ)u = v; ``pullback.linear.ECONOMICAL`` if None,
            preconditioned CG that stops after 10 products with H or at a relative residual of
            5 %. Give ``CG()`` for a solve to 1e-5.
        damping: δ ≥ 0 added to H + Λ in the solve: a deliberate bias, recorded in the info.
        certify: how each meta-gradient's own error is estimated and judged; None for not at all.
        raise_strength: multiply Λ, task by task, until H + Λ is positive definite where the
            solver stops; None keeps Λ as it is.

    Returns:
        The algorithm. θ is the parameters.

    Raises:
        InputError: if Λ or the damping is out of range, no leaf adapts, or a solver or a loss is
            not one.
    """
    strength = check_given(strength)
    outer = loss if outer_loss is None else outer_loss
    check_outer("outer_loss", outer)
    frozen = Frozen(loss, strength) if sets_apart(strength) else None
    inner = None if frozen else Proximal(loss, strength)
    settings = Implicit(solver, linear_solver, damping, certify, raise_strength)

    def posed(theta, support) -> Adapted:
        """The problem at its start, as the outer loss sees it."""
        if inner is not None:
            return Adapted(inner.problem(theta, support), theta)
        assert frozen is not None
        free, kept = frozen.split(theta)
        return Adapted(frozen.problem(free, kept, support), free, kept)

    def adapt(theta, support, key):
        start = posed(theta, support)
        free, found = settings.adapt(start.problem, key)
        if frozen is None:
            return free, found
        others, code = frozen.complete(free, start.frozen, support)
        phi = dataclasses.replace(start, frozen=others).join(free)
        return derivative_where(code == Verdict.OK, phi), _with_code(found, code)

    def adapted(theta, support, phi, report) -> Adapted:
        start = posed(theta, support)
        problem = settings.raised(start.problem, report.strength_factor)
        if frozen is None:
            return Adapted(problem, phi)
        free = frozen.split(phi)[0]
        return Adapted(problem, free, frozen.complete(free, start.frozen, support)[0])

    def meta_gradient(theta, task, key):
        start = posed(theta, task.support)

        def others_at(free, others):
            return others if frozen is None else frozen.complete(free, others, task.support)[0]

        of_pulled = of_free(outer, start, others_at)
        found = settings.adjoint(start.problem, of_pulled, task.query, key)
        gradient, info = found.gradient, found.info
        if frozen is not None:
            info = _with_code(info, frozen.complete(found.phi, start.frozen, task.support)[1])
            batch = functools.partial(frozen.batch, support=task.support)
            slope = by_batch(start.problem.loss, batch, found, start.frozen)
            gradient = eqx.combine(gradient, slope)
        if frozen is not None or isinstance(outer, OfAdapted):

            def view(theta):
                return adapted(theta, task.support, start.join(found.phi), info)

            seen = direct_gradient(outer, view, theta, task.query)
            gradient = trees.add(gradient, seen)
            code = jnp.where(trees.all_finite(gradient), info.code, Verdict.NOT_FINITE)
            info = dataclasses.replace(info, code=code)
        return found.value, gradient, info

    return MetaAlgorithm(init_params, adapt, meta_gradient, adapted)


def _with_code(found, code):
    """The same record, with a code where it has none that says more."""
    return dataclasses.replace(found, code=jnp.where(found.code == Verdict.OK, code, found.code))


def check_given(strength: Strength | None) -> Strength:
    """iMAML without a proximal term has no implicit gradient.

    Raises:
        InputError: if ``strength`` is None.
    """
    if strength is None:
        raise InputError("iMAML needs a proximal strength Λ", allowed="positive numbers")
    return strength
