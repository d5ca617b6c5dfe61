"""MAML: differentiates through the inner steps."""

import jax

from pullback.algorithms.base import (
    MetaAlgorithm,
    adapt_with,
    info_without_solve,
    init_params,
    report,
)
from pullback.core.checks import check_value
from pullback.core.errors import InputError
from pullback.core.problem import Loss, Proximal, Strength
from pullback.solvers import BlackBox, GradientDescent, InnerSolver, is_differentiable, run
from pullback.solvers.base import check_solver, describe


def maml(
    loss: Loss,
    *,
    solver: InnerSolver | BlackBox | None = None,
    strength: Strength | None = None,
) -> MetaAlgorithm:
    """Model-agnostic meta-learning (Finn, Abbeel & Levine 2017, eq. 1).

    The meta-gradient is that of ``L(φ(θ), query)`` through every inner step, second-order terms
    included; its memory grows with the number of steps.

    Args:
        loss: ``loss(params, batch) -> scalar``, twice differentiable.
        solver: a differentiable inner solver; five plain gradient steps of 0.1 if None.
        strength: Λ of a proximal term, or None for none, as in the paper.

    Returns:
        The algorithm. θ is the parameters.

    Raises:
        InputError: if the solver cannot be differentiated through, or Λ is out of range.
    """
    solver = GradientDescent() if solver is None else solver
    check_solver(solver)
    if not is_differentiable(solver):
        raise InputError(
            f"MAML differentiates through its inner solver, and {describe(solver)} cannot be",
            allowed="GradientDescent, Nesterov, Optax",
            remedy="To keep this solver use imaml, fomaml or reptile, which need only its result",
        )
    inner = Proximal(loss, strength)

    def adapt(theta, support, key):
        return adapt_with(inner.problem(theta, support), solver, key)

    def meta_gradient(theta, task, key):
        check_value(loss, theta, task.query)

        def outer(theta):
            problem = inner.problem(theta, task.support)
            solution = run(solver, problem, theta, key)
            return loss(solution.phi, task.query), report(problem, solution)

        (value, inner_report), gradient = jax.value_and_grad(outer, has_aux=True)(theta)
        return value, gradient, info_without_solve(inner_report, value, gradient)

    return MetaAlgorithm(init_params, adapt, meta_gradient)
