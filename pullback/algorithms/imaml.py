"""Implicit MAML: the meta-gradient of a converged proximal problem."""

from pullback.algorithms.adaptive_strength import AdaptiveStrength
from pullback.algorithms.adjoint import Implicit
from pullback.algorithms.base import MetaAlgorithm, init_params
from pullback.core.errors import InputError
from pullback.core.problem import Loss, Proximal, Strength
from pullback.implicit.certificate import Certify
from pullback.linear import LinearSolver
from pullback.solvers import BlackBox, InnerSolver

DEFAULT = Certify()


def imaml(
    loss: Loss,
    *,
    strength: Strength,
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
        strength: Λ: a positive scalar, one scalar per leaf, or a diagonal like the parameters.
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
        InputError: if Λ or the damping is out of range, or a solver is not one.
    """
    inner = Proximal(loss, check_given(strength))
    settings = Implicit(solver, linear_solver, damping, certify, raise_strength)

    def adapt(theta, support, key):
        return settings.adapt(inner.problem(theta, support), key)

    def meta_gradient(theta, task, key):
        found = settings.adjoint(inner.problem(theta, task.support), loss, task.query, key)
        return found.value, found.gradient, found.info

    return MetaAlgorithm(init_params, adapt, meta_gradient)


def check_given(strength: Strength | None) -> Strength:
    """iMAML without a proximal term has no implicit gradient.

    Raises:
        InputError: if ``strength`` is None.
    """
    if strength is None:
        raise InputError("iMAML needs a proximal strength Λ", allowed="positive numbers")
    return strength
