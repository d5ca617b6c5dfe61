"""Any Optimistix minimiser as an inner solver."""

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from pullback.core.errors import InputError, check_counts
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Solution, check_solver


class Optimistix(eqx.Module):
    """An Optimistix minimiser on the proximal objective, stopped at its tolerance or budget.

    Running out of steps is no error: the adapted parameters' residual tells how good they are.

    Args:
        solver: for instance ``optimistix.BFGS(rtol=1e-5, atol=1e-6)``; its tolerances are those of
            Optimistix, on the change of the parameters and of the objective.
        steps: the most steps; what one costs depends on the solver.

    Raises:
        InputError: if Optimistix is not installed, ``solver`` is no minimiser of it, or ``steps``
            is not positive.
    """

    differentiable: ClassVar[bool] = False
    solver: Any
    steps: int = eqx.field(static=True)

    def __init__(self, solver: Any, steps: int = 64):
        optimistix = _import()
        check_counts("Optimistix", steps=steps)
        if isinstance(solver, type):
            check_solver(solver)
        if not isinstance(solver, optimistix.AbstractMinimiser):
            raise InputError(
                f"Optimistix(solver={solver!r})",
                allowed="an Optimistix minimiser, such as optimistix.BFGS(rtol=1e-5, atol=1e-6)",
            )
        self.solver, self.steps = solver, steps

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""
        # Optimistix would differentiate through the optimum by a linear solve of its own.
        problem, theta = jax.lax.stop_gradient((problem, theta))
        answer = _import().minimise(
            lambda phi, problem: problem.value(phi),
            self.solver,
            theta,
            args=problem,
            max_steps=self.steps,
            throw=False,
        )
        phi = jax.tree.map(lambda new, old: new.astype(old.dtype), answer.value, theta)
        return Solution(jax.lax.stop_gradient(phi))


def _import() -> Any:
    try:
        import optimistix
    except ImportError as error:
        raise InputError(
            "The solver Optimistix needs the package optimistix, which is not installed",
            remedy="pip install 'pullback[optimistix]'",
        ) from error
    return optimistix
