"""Implicit MAML: the meta-gradient of a converged proximal problem."""

import jax
import jax.numpy as jnp

from pullback import implicit
from pullback.algorithms.base import Info, MetaAlgorithm, adapt_with, init_params
from pullback.certificate import Certify, Errors, estimate, verdict
from pullback.errors import InputError
from pullback.linear import CG, LinearSolver
from pullback.problem import Loss, Proximal, Strength
from pullback.solvers import LBFGS, BlackBox, InnerSolver, run
from pullback.solvers.base import check_solver

DEFAULT = Certify()


def imaml(
    loss: Loss,
    *,
    strength: Strength,
    solver: InnerSolver | BlackBox | None = None,
    linear_solver: LinearSolver | None = None,
    damping: float = 0.0,
    certify: Certify | None = DEFAULT,
) -> MetaAlgorithm:
    """Implicit MAML (Rajeswaran et al. 2019, Algorithms 1 and 2).

    Each task minimises ``L(φ, support) + ½‖φ − θ‖²_Λ``; the meta-gradient of the query loss is
    ``Λ(H + Λ)⁻¹∇L(φ, query)``, whatever the solver's path.

    Args:
        loss: ``loss(params, batch) -> scalar``, twice differentiable.
        strength: Λ: a positive scalar, one scalar per leaf, or a diagonal like the parameters.
        solver: the inner solver; L-BFGS if None. A callable ``solver(problem, theta, key) -> phi``
            is a black box and never differentiated.
        linear_solver: solves (H + Λ)u = v; preconditioned CG if None.
        damping: δ ≥ 0 added to H + Λ in the solve: a deliberate bias, recorded in the info.
        certify: how each meta-gradient's own error is estimated and judged; None for not at all.

    Returns:
        The algorithm. θ is the parameters.

    Raises:
        InputError: if Λ or the damping is out of range, or a solver is not one.
    """
    inner = Proximal(loss, check_given(strength))
    solver = LBFGS() if solver is None else solver
    linear_solver = CG() if linear_solver is None else linear_solver
    check_solver(solver)
    if isinstance(linear_solver, type) or not isinstance(linear_solver, LinearSolver):
        raise InputError(
            f"{linear_solver!r} is no linear solver",
            allowed="an instance of a solver of pullback.linear",
        )
    if not 0 <= damping < float("inf"):
        raise InputError(f"imaml(damping={damping!r})", allowed="finite numbers from 0")

    def adapt(theta, support, key):
        return adapt_with(inner.problem(theta, support), solver, key)

    def meta_gradient(theta, task, key):
        problem = inner.problem(theta, task.support)
        solution = run(solver, problem, theta, key)
        phi = jax.lax.stop_gradient(solution.phi)
        point = implicit.linearise(problem, phi)
        value, cotangent = jax.value_and_grad(loss)(phi, task.query)
        gradient, solve = implicit.vjp(
            point,
            cotangent,
            linear_solver,
            damping=damping,
            approximate_inverse=solution.inverse,
        )
        residual = point.residual()
        code = implicit.result_code(phi, value, residual, solve)
        unknown = jnp.full_like(residual, jnp.nan)

        def judge():
            errors = estimate(
                certify, point, loss, task.query, cotangent, gradient, solve, solution.inverse
            )
            return errors, verdict(certify, errors, code)

        errors = Errors(unknown, unknown)
        if certify is not None and certify.share == 1:
            errors, code = judge()
        elif certify is not None:
            chosen = jax.random.uniform(jax.random.fold_in(key, 0)) < certify.share
            errors, code = jax.lax.cond(chosen, judge, lambda: (errors, code))
        info = Info(
            residual,
            solve.residual,
            solve.steps,
            solve.smallest_curvature,
            solve.largest_curvature,
            jnp.asarray(damping, value.dtype),
            errors.inner,
            errors.linear,
            code,
        )
        return value, gradient, info

    return MetaAlgorithm(init_params, adapt, meta_gradient)


def check_given(strength: Strength | None) -> Strength:
    """iMAML without a proximal term has no implicit gradient.

    Raises:
        InputError: if ``strength`` is None.
    """
    if strength is None:
        raise InputError("iMAML needs a proximal strength Λ", allowed="positive numbers")
    return strength
