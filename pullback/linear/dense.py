"""The whole matrix, for small problems."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pullback.core import trees
from pullback.core.errors import InputError, check_counts
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.linear.base import LinearSolution, Operator, Unpreconditioned


def matrix(operator: Operator, like: Params) -> Float[Array, "n n"]:
    """A as a matrix over raveled vectors, by one product for each column.

    Args:
        operator: A, symmetric or not.
        like: a vector of the structure that A takes.

    Returns:
        The matrix.
    """
    flat, unravel = trees.ravel(like)
    basis = jnp.eye(flat.size, dtype=flat.dtype)
    columns = jax.lax.map(lambda e: trees.ravel(operator(unravel(e)))[0], basis, batch_size=32)
    return columns.T


class Dense(Unpreconditioned):
    """The whole matrix and its eigenvalues, for problems of at most a few hundred parameters.

    Exact for an indefinite matrix too; ``smallest_curvature`` is its smallest eigenvalue. One
    product with A for each parameter.

    Args:
        limit: the most parameters, squared what is held in memory.

    Raises:
        InputError: if ``limit`` is no positive whole number; from ``solve``, if there are more
            parameters.
    """

    limit: int = eqx.field(static=True)

    def __init__(self, limit: int = 4096):
        check_counts("Dense", limit=limit)
        self.limit = limit

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``; the approximate inverse is not used."""
        unit, size = trees.normalise(rhs)
        flat, unravel = trees.ravel(unit)
        if flat.size > self.limit:
            raise InputError(
                f"Dense(limit={self.limit}) on {flat.size} parameters",
                allowed="at most as many parameters as the limit",
                remedy="Use CG or MINRES, which need products only",
            )
        whole = matrix(operator, unit)
        values, vectors = jnp.linalg.eigh(0.5 * (whole + whole.T))
        value = vectors @ ((vectors.T @ flat) / values)
        remainder = flat - whole @ value
        residual = jnp.linalg.norm(remainder)
        value = size * value
        code = jnp.where(values[0] > 0, Verdict.OK, Verdict.NEGATIVE_CURVATURE)
        code = jnp.where(jnp.all(jnp.isfinite(value)), code, Verdict.NOT_FINITE)
        steps = jnp.asarray(flat.size)
        remainder = unravel(size * remainder)
        value = unravel(value)
        return LinearSolution(value, residual, remainder, steps, values[0], values[-1], code)
