"""Lineax's GMRES on the meta-gradient's linear system."""

import equinox as eqx
import jax
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


class GMRES(Unpreconditioned):
    """Restarted GMRES (Saad & Schultz 1986), by Lineax: for matrices that need not be definite.

    Lineax looks at the residual after each whole cycle only, and each cycle takes one product
    more to measure it. A matrix that is symmetric gains nothing from GMRES over
    :class:`~pullback.linear.MINRES`, which does the same in constant memory; this one is for
    comparison, and for where rounding has cost MINRES its orthogonality.

    Args:
        steps: the most products with A that span a Krylov space, rounded up to whole cycles.
        rtol: stop once ‖A·u − v‖ ≤ rtol·‖v‖.
        restart: products in a cycle; memory is as many parameter vectors.

    Raises:
        InputError: if a setting is out of range.
    """

    steps: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    restart: int = eqx.field(static=True)

    def __init__(self, steps: int = STEPS, rtol: float = RTOL, restart: int = 20):
        check_settings("GMRES", rtol, steps=steps, restart=restart)
        self.steps, self.rtol, self.restart = steps, rtol, restart

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``; the approximate inverse sets the scale of u only."""
        size = sum(leaf.size for leaf in jax.tree.leaves(rhs))
        restart = min(self.restart, self.steps, size)
        cycles = -(-self.steps // restart)

        def make(atol: float) -> lx.GMRES:
            # Lineax counts a first pass that only measures the residual.
            return lx.GMRES(
                rtol=0.0,
                atol=atol,
                norm=trees.norm,
                max_steps=cycles + 1,
                restart=restart,
                stagnation_iters=3,
            )

        return by_residual(
            type(self).__name__,
            make,
            lambda passes: passes + (passes - 1) * restart,
            operator,
            rhs,
            approximate_inverse,
            self.rtol,
        )
