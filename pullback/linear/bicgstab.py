"""Lineax's BiCGStab on the meta-gradient's linear system."""

import equinox as eqx
import lineax as lx

from pullback.core import trees
from pullback.core.trees import Params
from pullback.linear.base import (
    RTOL,
    STEPS,
    LinearSolution,
    Operator,
    Unpreconditioned,
    check_settings,
)
from pullback.linear.lineax_solver import by_residual


class BiCGStab(Unpreconditioned):
    """The stabilised bi-conjugate gradients of van der Vorst (1992), by Lineax.

    Two products a step, and a residual that need not fall. For a symmetric matrix it has no
    advantage over CG or MINRES. In single precision Lineax takes a negative coefficient for a
    breakdown, which definite matrices give as well; the code is then ``SOLVE_FAILED``.

    Args:
        steps: the most products with A; two more measure the residual at the start and the end.
        rtol: stop once ‖A·u − v‖ ≤ rtol·‖v‖.

    Raises:
        InputError: if a setting is out of range.
    """

    steps: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)

    def __init__(self, steps: int = STEPS, rtol: float = RTOL):
        check_settings("BiCGStab", rtol, steps=steps)
        self.steps, self.rtol = steps, rtol

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``; the approximate inverse sets the scale of u only."""
        most = max(1, self.steps // 2)

        def make(atol: float) -> lx.BiCGStab:
            return lx.BiCGStab(rtol=0.0, atol=atol, norm=trees.norm, max_steps=most)

        return by_residual(
            type(self).__name__,
            make,
            lambda iterations: 1 + 2 * iterations,
            operator,
            rhs,
            approximate_inverse,
            self.rtol,
        )
