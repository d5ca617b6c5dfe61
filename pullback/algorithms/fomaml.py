"""First-order MAML: the outer gradient at φ, taken for the one at θ."""

import jax

from pullback.algorithms.base import MetaAlgorithm, adapt_with, info_without_solve, init_params
from pullback.core.checks import check_value
from pullback.core.problem import Loss, Proximal, Strength
from pullback.solvers import BlackBox, GradientDescent, InnerSolver
from pullback.solvers.base import check_solver


def fomaml(
    loss: Loss,
    *,
    solver: InnerSolver | BlackBox | None = None,
    strength: Strength | None = None,
) -> MetaAlgorithm:
    """First-order MAML (Finn, Abbeel & Levine 2017, section 5.2): ``∇L(φ, query)``.

    Args:
        loss: ``loss(params, batch) -> scalar``.
        solver: any inner solver or black box; five plain gradient steps of 0.1 if None.
        strength: Λ of a proximal term, or None for none, as in the paper.

    Returns:
        The algorithm. θ is the parameters.

    Raises:
        InputError: if the solver is not one, or Λ is out of range.
    """
    solver = GradientDescent() if solver is None else solver
    check_solver(solver)
    inner = Proximal(loss, strength)

    def adapt(theta, support, key):
        return adapt_with(inner.problem(theta, support), solver, key)

    def meta_gradient(theta, task, key):
        check_value(loss, theta, task.query)
        phi, report = adapt(theta, task.support, key)
        value, gradient = jax.value_and_grad(loss)(phi, task.query)
        return value, gradient, info_without_solve(report, value, gradient)

    return MetaAlgorithm(init_params, adapt, meta_gradient)
