"""Any Lineax solver on the meta-gradient's linear system."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Int

from pullback.core import trees
from pullback.core.errors import InputError
from pullback.core.results import UNKNOWN, Verdict
from pullback.core.trees import Params
from pullback.linear.base import (
    LinearSolution,
    Operator,
    Unpreconditioned,
    conclude,
    prepare,
    rounding,
)


def by_lineax(
    solver: lx.AbstractLinearSolver, operator: Operator, rhs: Params, *, symmetric: bool = True
) -> lx.Solution:
    """Solve A·u = rhs by a Lineax solver, which never raises.

    Args:
        solver: any; those that want a positive definite matrix are told that A is one.
        operator: A.
        rhs: the right-hand side.
        symmetric: whether A is symmetric.

    Returns:
        Lineax's own solution.
    """
    tags: set[object] = {lx.symmetric_tag} if symmetric else set()
    if isinstance(solver, lx.CG | lx.Cholesky):
        tags.add(lx.positive_semidefinite_tag)
    # As one vector, since Lineax's solvers take leaves of one dtype, and none in half precision.
    flat, unravel = trees.ravel_wide(rhs)

    def product(u):
        return trees.ravel_wide(operator(unravel(u)))[0]

    linear = lx.FunctionLinearOperator(product, jax.eval_shape(lambda: flat), frozenset(tags))
    solution = lx.linear_solve(linear, flat, solver, throw=False)
    return eqx.tree_at(lambda s: s.value, solution, unravel(solution.value))


def by_residual(
    owner: str,
    make: Callable[[float], lx.AbstractLinearSolver],
    products: Callable[[Int[Array, ""]], Int[Array, ""]],
    operator: Operator,
    rhs: Params,
    approximate_inverse: Operator,
    rtol: float,
) -> LinearSolution:
    """Solve A·u = rhs by an iterative Lineax solver that only the residual's norm stops.

    Args:
        owner: the solver's name, for messages.
        make: builds the solver for a right-hand side of norm 1 from an absolute tolerance.
        products: how many products with A so many of its steps take.
        operator: A.
        rhs: the right-hand side.
        approximate_inverse: an SPD map near A⁻¹, for the scale of u and as the last resort.
        rtol: stop once ‖A·u − rhs‖ ≤ rtol·‖rhs‖.

    Returns:
        The solution. ``SOLVE_FAILED`` where Lineax reports a breakdown or a stagnation above the
        tolerance, and where what it returns is no better than zero.

    Raises:
        InputError: if the tolerance is finer than the numbers of ``rhs``.
    """
    unit, size, guess = prepare(owner, rtol, rhs, approximate_inverse)
    eps = rounding(unit)
    tolerance = max(rtol, eps)
    # Lineax holds the last step in u against the same tolerance as the residual, and Lineax's
    # thresholds of a breakdown are absolute. In a unit of u this large only the residual counts.
    length = trees.norm(guess)
    usable = (length > 0) & jnp.isfinite(length)
    scale = 0.01 * tolerance / jnp.where(usable, length, 1.0)
    found = by_lineax(make(tolerance), lambda w: trees.scale(1 / scale, operator(w)), unit)
    value = trees.scale(1 / scale, found.value)
    remainder = trees.subtract(unit, operator(value))
    sound = found.result == lx.RESULTS.successful
    sound |= found.result == lx.RESULTS.max_steps_reached
    # Near rounding every method stagnates, and has then done what can be done.
    sound |= trees.norm(remainder) <= max(rtol, eps**0.5)
    # A u of this length comes from a matrix that is singular to rounding.
    sound &= ~(usable & (eps**0.75 * trees.norm(value) > length))
    unseen = jnp.full_like(size, UNKNOWN)
    steps = products(jnp.asarray(found.stats["num_steps"])) + 1
    return conclude(
        operator,
        unit,
        size,
        value,
        remainder,
        guess,
        broken=~sound,
        steps=steps,
        smallest=unseen,
        largest=-unseen,
    )


class Lineax(Unpreconditioned):
    """A Lineax solver, its failure kept as a code instead of an exception.

    Args:
        solver: for instance ``lineax.GMRES(rtol=1e-6, atol=0.0)``. Lineax's ``CG`` and
            ``Cholesky`` are told that the operator is positive definite.

    Raises:
        InputError: if ``solver`` is not a Lineax solver.
    """

    solver: lx.AbstractLinearSolver

    def __init__(self, solver: lx.AbstractLinearSolver):
        if not isinstance(solver, lx.AbstractLinearSolver):
            raise InputError(f"Lineax(solver={solver!r})", allowed="an instance of a Lineax solver")
        self.solver = solver

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``; the approximate inverse is not used."""
        unit, size = trees.normalise(rhs)
        solution = by_lineax(self.solver, operator, unit)
        remainder = trees.subtract(unit, operator(solution.value))
        residual = trees.norm(remainder)
        # Some solvers divide by the norm of a right-hand side of zero.
        value = trees.where(size == 0, trees.zeros_like(rhs), trees.scale(size, solution.value))
        remainder = trees.where(size == 0, trees.zeros_like(rhs), trees.scale(size, remainder))
        residual = jnp.where(size == 0, 0.0, residual)
        solved = solution.result == lx.RESULTS.successful
        steps = solution.stats.get("num_steps")
        if steps is None:
            # A direct solver that leaves this much found the matrix singular, as a pseudo-inverse.
            solved &= residual <= rounding(unit) ** 0.5
        solved |= size == 0
        code = jnp.where(solved, Verdict.OK, Verdict.SOLVE_FAILED)
        finite = trees.all_finite(value) & jnp.isfinite(residual)
        code = jnp.where(finite, code, Verdict.NOT_FINITE)
        unseen = jnp.full_like(residual, UNKNOWN)
        steps = jnp.asarray(-1 if steps is None else steps)
        return LinearSolution(value, residual, remainder, steps, unseen, -unseen, code)
