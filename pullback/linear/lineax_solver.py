"""Any Lineax solver on the meta-gradient's linear system, and a dense one for small problems."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from pullback import codes, trees
from pullback.errors import InputError
from pullback.linear.base import LinearSolution, Operator
from pullback.trees import Params


class Lineax(eqx.Module):
    """A Lineax solver, its failure kept as a code instead of an exception.

    Args:
        solver: for instance ``lineax.GMRES(rtol=1e-6, atol=0.0)``. Lineax's ``CG`` is told that
            the operator is positive definite.

    Raises:
        InputError: if ``solver`` is not a Lineax solver.
    """

    preconditioned: ClassVar[bool] = False
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
        structure = jax.eval_shape(lambda: unit)
        tags = frozenset({lx.symmetric_tag})
        if isinstance(self.solver, lx.CG):
            tags |= {lx.positive_semidefinite_tag}
        linear = lx.FunctionLinearOperator(operator, structure, tags)
        solution = lx.linear_solve(linear, unit, self.solver, throw=False)
        remainder = trees.subtract(unit, operator(solution.value))
        residual = trees.norm(remainder)
        # Some solvers divide by the norm of a right-hand side of zero.
        value = trees.where(size == 0, trees.zeros_like(rhs), trees.scale(size, solution.value))
        remainder = trees.where(size == 0, trees.zeros_like(rhs), trees.scale(size, remainder))
        residual = jnp.where(size == 0, 0.0, residual)
        solved = (solution.result == lx.RESULTS.successful) | (size == 0)
        code = jnp.where(solved, codes.OK, codes.NOT_SOLVED)
        code = jnp.where(trees.all_finite(value), code, codes.NOT_FINITE)
        steps = solution.stats.get("num_steps")
        unseen = jnp.full_like(residual, jnp.nan)
        steps = jnp.asarray(-1 if steps is None else steps)
        return LinearSolution(value, residual, remainder, steps, unseen, unseen, code)


class Dense(eqx.Module):
    """The whole matrix and its eigenvalues, for problems of at most a few hundred parameters.

    Exact for an indefinite matrix too; ``smallest_curvature`` is its smallest eigenvalue. One
    product with A for each parameter.
    """

    preconditioned: ClassVar[bool] = False

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``; the approximate inverse is not used."""
        unit, size = trees.normalise(rhs)
        flat, unravel = trees.ravel(unit)
        basis = jnp.eye(flat.size, dtype=flat.dtype)
        matrix = jax.lax.map(lambda e: trees.ravel(operator(unravel(e)))[0], basis)
        values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
        value = vectors @ ((vectors.T @ flat) / values)
        remainder = flat - matrix @ value
        residual = jnp.linalg.norm(remainder)
        value = size * value
        code = jnp.where(values[0] > 0, codes.OK, codes.NEGATIVE_CURVATURE)
        code = jnp.where(jnp.all(jnp.isfinite(value)), code, codes.NOT_FINITE)
        steps = jnp.asarray(flat.size)
        remainder = unravel(size * remainder)
        value = unravel(value)
        return LinearSolution(value, residual, remainder, steps, values[0], values[-1], code)
