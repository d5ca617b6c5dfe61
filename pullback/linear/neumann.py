"""The Neumann series, cut off: the simplest approximate inverse there is."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pullback.core import trees
from pullback.core.errors import InputError, check_positive
from pullback.core.results import UNKNOWN
from pullback.core.trees import Params
from pullback.linear.base import (
    RTOL,
    LinearSolution,
    Operator,
    Unpreconditioned,
    check_settings,
    conclude,
    prepare,
    rounding,
)

LOOKS = 4
"""Power iterations that find the scale of the series."""


class Neumann(Unpreconditioned):
    """u = α Σₖ (I − αA)ᵏ v, one product with A for each further term.

    Lorraine, Vicol & Duvenaud (2020) invert the Hessian so. With α < 2/λₘₐₓ(A) the
    remainder (I − αA)ᵏ v never grows on a positive definite A, but it falls as slowly as the
    condition number of A wants, whereas CG with as many products is never worse. A remainder
    that grows is a divergence: the sum stops before it, with the code ``SOLVE_FAILED``, or
    ``NEGATIVE_CURVATURE`` if A curves downward along it.

    Args:
        steps: the most products with A, those for the scale included.
        rtol: stop once ‖A·u − v‖ ≤ rtol·‖v‖; 0 goes on to rounding.
        scale: α; one over the largest curvature that a few power iterations from v find if None.

    Raises:
        InputError: if a setting is out of range.
    """

    steps: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    scale: float | None = eqx.field(static=True)

    def __init__(self, steps: int = 1000, rtol: float = RTOL, scale: float | None = None):
        check_settings("Neumann", rtol, steps=steps)
        if scale is not None:
            check_positive("Neumann", scale=scale)
        elif steps < 2:
            raise InputError(
                f"Neumann(steps={steps}) without a scale",
                allowed="from 2 steps on, the first of which find the scale",
            )
        self.steps, self.rtol, self.scale = steps, rtol, scale

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``; the approximate inverse is a last resort only."""
        unit, size, guess = prepare(type(self).__name__, self.rtol, rhs, approximate_inverse)
        eps = rounding(unit)
        floor, slack = max(self.rtol, eps), 1.0 + 10.0 * eps
        looks = 0 if self.scale is not None else min(LOOKS, self.steps // 2)
        alpha, largest = self._scale(operator, unit, looks)
        square = trees.dot(unit, unit)
        no = jnp.asarray(False)

        def unfinished(carry):
            step, _, remainder, _, _, _, broken = carry
            return (step < self.steps) & ~broken & (trees.norm(remainder) > floor)

        def iterate(carry):
            step, total, remainder, square, lowest, highest, _ = carry
            product = operator(remainder)
            curvature = trees.dot(remainder, product) / square
            lowest = jnp.minimum(lowest, curvature)
            steepness = trees.safe_sqrt(trees.dot(product, product) / square)
            highest = jnp.maximum(highest, steepness)
            after = trees.axpy(-alpha, product, remainder)
            new_square = trees.dot(after, after)
            # The negations also catch what is NaN.
            broken = ~(curvature > 0) | ~(new_square <= slack * square)
            kept = jnp.where(broken, 0.0, alpha)
            total = trees.axpy(kept, remainder, total)
            remainder = trees.where(broken, remainder, after)
            square = jnp.where(broken, square, new_square)
            return step + 1, total, remainder, square, lowest, highest, broken

        infinity = jnp.full_like(square, jnp.inf)
        start = (looks, trees.zeros_like(unit), unit, square, infinity, largest, no)
        step, total, remainder, _, lowest, highest, broken = jax.lax.while_loop(
            unfinished, iterate, start
        )
        looked = size > 0
        return conclude(
            operator,
            unit,
            size,
            total,
            remainder,
            guess,
            broken=broken,
            steps=jnp.asarray(step),
            smallest=jnp.where(looked, lowest, UNKNOWN),
            largest=jnp.where(looked, highest, -UNKNOWN),
        )

    def _scale(
        self, operator: Operator, unit: Params, looks: int
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """α, and the largest curvature that was seen on the way to it."""

        def look(carry, _):
            direction, largest = carry
            direction, length = trees.normalise(operator(direction))
            return (direction, jnp.maximum(largest, length)), None

        nothing = jnp.zeros_like(trees.norm(unit))
        (_, largest), _ = jax.lax.scan(look, (unit, nothing), length=looks)
        if self.scale is not None:
            return jnp.full_like(largest, self.scale), largest
        return 1.0 / jnp.where(largest > 0, largest, 1.0), largest
