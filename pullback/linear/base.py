"""What a linear solve takes and returns."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from pullback.core import trees
from pullback.core.display import VerdictRecord
from pullback.core.errors import check_counts, check_number
from pullback.core.results import Verdict
from pullback.core.trees import Params

Operator = Callable[[Params], Params]
"""A symmetric linear map on vectors shaped like the parameters."""


class LinearSolution(VerdictRecord):
    """What a linear solve found, and how far to trust it.

    A solve that spends its steps before it reaches its tolerance is no failure: what is missing
    stands in ``residual``, and the certificate makes an error of the meta-gradient of it. A
    breakdown, a divergence or a matrix that is not positive definite has a code of its own.

    Args:
        value: u with A·u ≈ v.
        residual: ‖A·u − v‖ / ‖v‖.
        remainder: v − A·u, the vector itself.
        steps: products with A that were used, −1 if unknown.
        smallest_curvature: an upper bound of A's smallest eigenvalue from the directions tried;
            ∞ if the solver does not see any.
        largest_curvature: a lower bound of its largest eigenvalue likewise; −∞ if it sees none.
        code: a code of :mod:`pullback.core.results`.
        directions: flat vectors p_i with p_i·A·p_j = 1 where i = j and 0 elsewhere, zero rows
            among them; None from a solver that makes none.
        curved: A·p_i, flat too.
    """

    value: Params
    residual: Float[Array, ""]
    remainder: Params
    steps: Int[Array, ""]
    smallest_curvature: Float[Array, ""]
    largest_curvature: Float[Array, ""]
    code: Int[Array, ""]
    directions: Float[Array, "k n"] | None = None
    curved: Float[Array, "k n"] | None = None


@runtime_checkable
class LinearSolver(Protocol):
    """Solves A·u = v for a symmetric A that is known by its products only.

    ``preconditioned`` asks for the inner solver's own approximation of A⁻¹, where it has one.
    """

    @property
    def preconditioned(self) -> bool:
        """Whether the solver makes use of an approximate inverse."""
        ...

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``.

        Args:
            operator: A, symmetric, and positive definite where all is well.
            rhs: v.
            approximate_inverse: an SPD map near A⁻¹: a preconditioner, and a first guess.

        Returns:
            The solution with its residual.
        """
        ...


class Unpreconditioned(eqx.Module):
    """A linear solver that has no use for the inner solver's approximation of A⁻¹."""

    @property
    def preconditioned(self) -> bool:
        """Always False."""
        return False


def damped(operator: Operator, damping: float) -> Operator:
    """``u ↦ A·u + δu``."""
    return (lambda u: trees.axpy(damping, u, operator(u))) if damping else operator


STEPS = 100
"""The most products with A, unless told otherwise: enough for :data:`RTOL` on most systems."""

RTOL = 1e-5
"""The relative residual to reach, unless told otherwise."""


def check_settings(owner: str, rtol: float, **counts: int) -> None:
    """The settings that iterative solvers share.

    Raises:
        InputError: naming the first that is out of range.
    """
    check_counts(owner, **counts)
    check_number(owner, "0 ≤ rtol < 1", lambda x: 0 <= x < 1, rtol=rtol)


def prepare(
    owner: str, rtol: float, rhs: Params, approximate_inverse: Operator
) -> tuple[Params, Float[Array, ""], Params]:
    """What an iterative solver starts from: the system scaled to a right-hand side of norm 1.

    The products of a tiny right-hand side would underflow.

    Args:
        owner: the solver's name, for the message.
        rtol: its tolerance.
        rhs: v.
        approximate_inverse: an SPD map near A⁻¹.

    Returns:
        v / ‖v‖, ‖v‖, and the approximate inverse applied to v / ‖v‖.

    Raises:
        InputError: if the tolerance is finer than the numbers of ``rhs``.
    """
    trees.check_attainable(owner, rtol, rhs)
    unit, size = trees.normalise(rhs)
    return unit, size, approximate_inverse(unit)


def rounding(vector: Params) -> float:
    """The coarsest relative rounding error among a vector's leaves."""
    return max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(vector))


def conclude(
    operator: Operator,
    unit: Params,
    size: Float[Array, ""],
    value: Params,
    remainder: Params,
    guess: Params,
    *,
    broken: Bool[Array, ""],
    steps: Int[Array, ""],
    smallest: Float[Array, ""],
    largest: Float[Array, ""],
) -> LinearSolution:
    """The solution of a solver that reduces the residual in every step, unless it fails.

    If the value is no better than u = 0, the solver failed: the approximate inverse applied to v
    is returned instead, with its true residual and the code ``SOLVE_FAILED``.

    Args:
        operator: A.
        unit: v / ‖v‖.
        size: ‖v‖.
        value: what was found for ``unit``.
        remainder: ``unit − A·value``.
        guess: the approximate inverse applied to ``unit``.
        broken: whether the method broke down or diverged.
        steps: products with A.
        smallest: smallest curvature seen, as in :class:`LinearSolution`.
        largest: largest curvature seen.

    Returns:
        The solution for v.
    """
    nothing = size == 0
    value = trees.where(nothing, trees.zeros_like(value), value)
    remainder = trees.where(nothing, trees.zeros_like(remainder), remainder)
    # Rounding puts the norm of a unit vector on either side of 1.
    bar = (1 - 10 * rounding(unit)) * trees.norm(unit)
    useless = ~(trees.norm(remainder) < bar) & ~nothing | ~trees.all_finite(value)
    guess = jax.tree.map(lambda g, u: jnp.asarray(g, u.dtype), guess, unit)
    value, remainder = jax.lax.cond(
        useless,
        lambda: (guess, trees.subtract(unit, operator(guess))),
        lambda: (value, remainder),
    )
    code = jnp.where((broken & ~nothing) | useless, Verdict.SOLVE_FAILED, Verdict.OK)
    code = jnp.where(smallest <= 0, Verdict.NEGATIVE_CURVATURE, code)
    value, residual = trees.scale(size, value), trees.norm(remainder)
    finite = trees.all_finite(value) & jnp.isfinite(residual)
    return LinearSolution(
        value,
        residual,
        trees.scale(size, remainder),
        jnp.asarray(steps) + useless.astype(jnp.asarray(steps).dtype),
        smallest,
        largest,
        jnp.where(finite, code, Verdict.NOT_FINITE),
    )
