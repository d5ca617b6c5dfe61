"""What a linear solve takes and returns."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import equinox as eqx
from jaxtyping import Array, Float, Int

from pullback.trees import Params

Operator = Callable[[Params], Params]
"""A symmetric linear map on vectors shaped like the parameters."""


class LinearSolution(eqx.Module):
    """What a linear solve found, and how far to trust it.

    Args:
        value: u with A·u ≈ v.
        residual: ‖A·u − v‖ / ‖v‖.
        remainder: v − A·u, the vector itself.
        steps: products with A that were used.
        smallest_curvature: an upper bound of A's smallest eigenvalue from the directions tried,
            or NaN if the solver does not see any.
        largest_curvature: a lower bound of its largest eigenvalue likewise.
        code: a code of :mod:`pullback.codes`.
    """

    value: Params
    residual: Float[Array, ""]
    remainder: Params
    steps: Int[Array, ""]
    smallest_curvature: Float[Array, ""]
    largest_curvature: Float[Array, ""]
    code: Int[Array, ""]


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
