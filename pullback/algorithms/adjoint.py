"""One task's implicit gradient, from its inner problem to its verdict."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from pullback import implicit
from pullback.algorithms.adaptive_strength import AdaptiveStrength
from pullback.algorithms.base import Info, Report, report, start_value
from pullback.core import trees
from pullback.core.checks import check_type, check_value
from pullback.core.derivatives import refuse_derivative
from pullback.core.errors import InputError, check_number
from pullback.core.problem import InnerProblem, Loss
from pullback.core.results import UNKNOWN, Verdict
from pullback.core.trees import Params
from pullback.implicit.certificate import Certify, Errors, estimate, verdict
from pullback.linear import LinearSolver
from pullback.linear.cg import ECONOMICAL
from pullback.solvers import BlackBox, InnerSolver, Projected, run
from pullback.solvers.base import Solution, check_solver


class Adjoint(eqx.Module):
    """An implicit gradient and what it was made of.

    Args:
        value: the outer loss at φ.
        phi: where the inner solver stopped.
        solution: u with (H + Λ)u = v, the adjoint of every argument of the inner problem.
        gradient: Λu, the gradient by θ.
        info: how it was come by.
    """

    value: Float[Array, ""]
    phi: Params
    solution: Params
    gradient: Params
    info: Info


class Implicit(eqx.Module):
    """The settings of implicit gradients; see :func:`pullback.imaml`.

    Args:
        solver: the inner solver.
        linear_solver: solves (H + Λ)u = v; :data:`pullback.linear.cg.ECONOMICAL` if None.
        damping: δ ≥ 0 added to H + Λ in the solve.
        certify: how each gradient is judged; None for not at all.
        raising: when to solve a task with more of Λ; None for never.

    Raises:
        InputError: if a setting is out of range or no solver.
    """

    solver: InnerSolver | BlackBox
    linear_solver: LinearSolver
    damping: float = eqx.field(static=True)
    certify: Certify | None
    raising: AdaptiveStrength | None

    def __init__(
        self,
        solver: InnerSolver | BlackBox | None,
        linear_solver: LinearSolver | None,
        damping: float,
        certify: Certify | None,
        raising: AdaptiveStrength | None = None,
    ):
        self.solver = Projected.where_separable() if solver is None else solver
        self.linear_solver = ECONOMICAL if linear_solver is None else linear_solver
        self.damping, self.certify, self.raising = damping, certify, raising
        check_solver(self.solver)
        if isinstance(linear_solver, type) or not isinstance(self.linear_solver, LinearSolver):
            raise InputError(
                f"{linear_solver!r} is no linear solver",
                allowed="an instance of a solver of pullback.linear",
            )
        check_number(
            "imaml", "finite numbers from 0", lambda x: 0 <= x < float("inf"), damping=damping
        )
        if certify is not None:
            check_type("certify", certify, Certify, "None, or pullback.Certify(...)")
        if raising is not None:
            check_type(
                "raise_strength", raising, AdaptiveStrength, "None, or an AdaptiveStrength(...)"
            )

    def solve(
        self, problem: InnerProblem, key: PRNGKeyArray
    ) -> tuple[InnerProblem, Solution, Float[Array, ""]]:
        """Solve one inner problem from its θ.

        Args:
            problem: the inner problem, with its proximal term.
            key: for the solver.

        Returns:
            The problem as it was solved, its solution, and the factor on Λ between it and the
            one given.
        """
        if self.raising is not None:
            return self.raising.solve(self.solver, problem, key)
        return problem, run(self.solver, problem, problem.theta, key), jnp.ones(())

    def raised(self, problem: InnerProblem, factor: Float[Array, ""]) -> InnerProblem:
        """The problem with a multiple of its Λ, where tasks may be solved with more."""
        if self.raising is None:
            return problem
        strength = jax.tree.map(lambda leaf: factor * leaf, problem.strength)
        return InnerProblem(problem.loss, problem.support, problem.theta, strength)

    def adapt(self, problem: InnerProblem, key: PRNGKeyArray) -> tuple[Params, Report]:
        """Solve one inner problem, and report how well that went.

        Args:
            problem: the inner problem, with its proximal term.
            key: for the solver.

        Returns:
            φ and the report. By θ, Λ and the floating-point arrays of the support set φ has the
            derivatives of φ* (Rajeswaran et al. 2019, Lemma 1), of any order and in both modes,
            whatever the solver (:func:`pullback.implicit.attach_derivative`). The report has
            none.
        """
        solved, solution, factor = self.solve(implicit.without_derivatives(problem), key)
        found = report(solved, solution, factor)
        residual = found.inner_residual
        far = (found.code == Verdict.OK) & (residual > implicit.UNSOLVED)
        code = jnp.where(far, Verdict.INNER_NOT_CONVERGED, found.code)
        problem = self.raised(problem, factor)
        phi = implicit.attach_derivative(problem, solution.phi, residual, self.damping)
        return phi, dataclasses.replace(found, code=code)

    def adjoint(
        self, problem: InnerProblem, loss: Loss, query: PyTree[Any], key: PRNGKeyArray
    ) -> Adjoint:
        """Solve one inner problem and pull the outer loss's gradient back to its θ.

        Args:
            problem: the inner problem, with its proximal term.
            loss: the outer loss, ``loss(params, batch) -> scalar``.
            query: its batch.
            key: for the solver, and for what is certified.

        Returns:
            The gradient by θ (Rajeswaran et al. 2019, eq. 7), with its adjoint.

        Raises:
            InputError: where JAX differentiates it once more.
        """
        check_value(loss, problem.theta, query)
        problem, query = _refuse((problem, query))
        problem, solution, factor = self.solve(problem, key)
        phi = _refuse(solution.phi)
        point = implicit.linearise(problem, phi, eliminate_head=True, damping=self.damping)
        value, cotangent = jax.value_and_grad(loss)(phi, query)
        gradient, solve = implicit.vjp(
            point,
            cotangent,
            self.linear_solver,
            damping=self.damping,
            approximate_inverse=solution.inverse,
        )
        residual = point.residual()
        start = start_value(problem, solution)
        code = implicit.result_code(point, value, residual, start, solve)
        certify = self.certify
        unknown = jnp.full_like(residual, UNKNOWN)

        def judge():
            assert certify is not None
            errors = estimate(
                certify,
                point,
                loss,
                query,
                cotangent,
                gradient,
                solve,
                solution.inverse,
                self.damping,
            )
            return errors, verdict(certify, errors, code)

        errors = Errors(unknown, unknown)
        if certify is not None and certify.share == 1:
            errors, code = judge()
        elif certify is not None:
            chosen = jax.random.uniform(jax.random.fold_in(key, 0)) < certify.share
            unjudged = (errors, code)
            errors, code = jax.lax.cond(chosen, judge, lambda: unjudged)
        info = Info(
            residual,
            solve.residual,
            solve.steps,
            solve.smallest_curvature,
            solve.largest_curvature,
            jnp.asarray(self.damping, value.dtype),
            errors.inner,
            errors.linear,
            code,
            factor.astype(value.dtype),
        )
        return _refuse(Adjoint(value, phi, solve.value, gradient, info))


def by_batch(
    loss: Loss, batch: Callable[[Any], PyTree[Any]], found: Adjoint, value: PyTree[Any]
) -> PyTree[Any]:
    """−uᵀ ∂∇L(φ; batch), the gradient by what the inner loss finds in its batch.

    Args:
        loss: the inner loss.
        batch: its batch, as a function of ``value``.
        found: φ and the adjoint u.
        value: what is differentiated by.

    Returns:
        A gradient shaped like ``value``.
    """
    _, pull = jax.vjp(lambda value: jax.grad(loss)(found.phi, batch(value)), value)
    (gradient,) = pull(trees.scale(-1.0, found.solution))
    return gradient


_refuse = functools.partial(
    refuse_derivative,
    problem="A derivative of a meta-gradient or of its outer loss was asked for",
    remedy="Take derivatives of the outer loss at adapt's φ, which is differentiated implicitly "
    "to any order, or jax.lax.stop_gradient for a constant",
)
