"""Preconditioned conjugate gradients that watch the curvature they meet."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pullback.core import trees
from pullback.core.errors import InputError, check_number
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.linear.base import (
    RTOL,
    STEPS,
    LinearSolution,
    Operator,
    check_settings,
    prepare,
)

REMEMBERED = 16
"""The most search directions whose inner products are kept for the Ritz values."""


class CG(eqx.Module):
    """Conjugate gradients on A·u = v, at most ``steps`` products with A.

    The right-hand side is normalised first, so that a tiny one cannot underflow. If a direction
    with pᵀAp ≤ 0 turns up, A is not positive definite: the solve stops before that direction and
    says so (code ``NEGATIVE_CURVATURE``); if it is the first direction, the approximate inverse
    applied to v is returned, never zero. A matrix that is singular to rounding has the code
    ``SOLVE_FAILED``.

    The smallest curvature reported is the smallest Ritz value over the last directions, the
    largest the greatest ‖Ap‖/‖p‖ of any direction.

    Args:
        steps: the most products with A.
        rtol: stop once ‖A·u − v‖ ≤ rtol·‖v‖; 0 goes on to rounding.
        start: ``"zero"``, or ``"rhs"`` for the approximate inverse applied to v (for a plain
            scalar λ that is v/λ, the first-order meta-gradient), at one more product.
        balance: with a number above 0, stop also once the residual is this share of the inner
            solution's own relative stationarity residual: beside an error that size, solving
            further buys nothing.
        preconditioned: use the inner solver's own approximation of A⁻¹ where it has one (L-BFGS
            does); otherwise, and always without it, Λ⁻¹.

    Raises:
        InputError: if a setting is out of range.
    """

    steps: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    start: str = eqx.field(static=True)
    preconditioned: bool = eqx.field(static=True)
    balance: float = eqx.field(static=True)
    enough: Float[Array, ""] | float

    def __init__(
        self,
        steps: int = STEPS,
        rtol: float = RTOL,
        start: str = "zero",
        preconditioned: bool = True,
        balance: float = 0.0,
    ):
        check_settings("CG", rtol, steps=steps)
        if start not in ("zero", "rhs"):
            raise InputError(f"CG(start={start!r})", allowed="'zero', 'rhs'")
        self.steps, self.rtol, self.start = steps, rtol, start
        check_number(
            "CG", "finite numbers from 0", lambda x: 0 <= x < float("inf"), balance=balance
        )
        self.preconditioned, self.balance, self.enough = preconditioned, balance, 0.0

    def balanced(self, inner_residual: Float[Array, ""]) -> "CG":
        """The same solver, content with ``balance`` times the inner solution's residual.

        Half of the right-hand side is solved for however poor that is.
        """
        enough = jnp.minimum(self.balance * inner_residual, 0.5)
        return eqx.tree_at(lambda solver: solver.enough, self, enough)

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs`` for an SPD operator."""
        unit, size, guess = prepare(type(self).__name__, self.rtol, rhs, approximate_inverse)
        # CG does not depend on the scale of its preconditioner; its products' range does.
        span = trees.dot(unit, guess)
        span = jnp.where((span > 0) & jnp.isfinite(span), span, 1.0)

        def precondition(vector: Params) -> Params:
            return trees.scale(1.0 / span, approximate_inverse(vector))

        floor = jnp.maximum(max(self.rtol, float(jnp.finfo(span.dtype).eps)), self.enough)
        if self.start == "rhs":
            x, residual = guess, trees.subtract(unit, operator(guess))
        else:
            x, residual = trees.zeros_like(guess), unit
        preconditioned = precondition(residual)
        product = trees.dot(residual, preconditioned)
        infinity = jnp.full_like(product, jnp.inf)

        def unfinished(carry):
            step, _, residual, _, product, _, _, _, failed = carry
            return (
                (step < self.steps)
                & ~failed
                & (trees.norm(residual) > floor)
                # A residual of exactly zero has nothing left to divide by.
                & (product > 0)
            )

        def iterate(carry):
            step, x, residual, p, product, directions, lowest, highest, _ = carry
            a_p = operator(p)
            curvature, square = trees.dot(p, a_p), trees.dot(p, p)
            failed = ~(curvature > 0)
            lowest = jnp.minimum(lowest, curvature / square)
            highest = jnp.maximum(highest, trees.safe_sqrt(trees.dot(a_p, a_p) / square))
            shrink = jnp.where(failed, 0.0, jax.lax.rsqrt(curvature))
            rows = [shrink.astype(like.dtype) * trees.ravel_wide(v)[0] for v in (p, a_p)]
            directions = tuple(
                ring.at[step % kept].set(row) for ring, row in zip(directions, rows, strict=True)
            )
            alpha = product / jnp.where(failed, 1.0, curvature)
            # Stop before a direction of negative curvature; at the very first one fall back on
            # the guess, which is p but for its scale.
            alpha = jnp.where(failed, jnp.where(step == 0, span, 0.0), alpha)
            alpha = jnp.where(failed & (self.start == "rhs"), 0.0, alpha)
            x = trees.axpy(alpha, p, x)
            residual = trees.axpy(-alpha, a_p, residual)
            preconditioned = precondition(residual)
            new_product = trees.dot(residual, preconditioned)
            p = trees.axpy(new_product / product, p, preconditioned)
            return step + 1, x, residual, p, new_product, directions, lowest, highest, failed

        kept = min(self.steps, REMEMBERED)
        like = trees.ravel_wide(x)[0]
        none = jnp.zeros((kept, like.size), like.dtype)
        unseen = ((none, none), infinity, -infinity, jnp.asarray(False))
        first = (0, x, residual, preconditioned, product, *unseen)
        step, x, residual, _, _, (directions, curved), lowest, highest, failed = jax.lax.while_loop(
            unfinished, iterate, first
        )
        looked = step > 0
        lowest = jnp.minimum(lowest, _smallest_ritz(directions))
        # The loop ends before its first product only if the approximate inverse is not positive
        # definite. Then the solution is unknown: NaN, and not the zero that it started from.
        stuck = ~looked & (trees.norm(residual) > floor) & (size > 0)
        value = trees.scale(jnp.where(stuck, jnp.nan, size), x)
        # A is singular to working precision: the recursively updated residual has lost touch
        # with the true one.
        size_of_a = jnp.where(looked, highest, 0.0)
        lost = jnp.finfo(span.dtype).eps * size_of_a * trees.norm(x)
        blown = lost > 1
        code = jnp.where(blown, Verdict.SOLVE_FAILED, Verdict.OK)
        code = jnp.where(failed, Verdict.NEGATIVE_CURVATURE, code)
        finite = trees.all_finite(value) & trees.all_finite(residual) & jnp.isfinite(product)
        code = jnp.where(finite, code, Verdict.NOT_FINITE)
        return LinearSolution(
            value,
            # The recursively updated residual goes on shrinking below what rounding leaves.
            jnp.maximum(trees.norm(residual), lost),
            trees.scale(size, residual),
            jnp.asarray(step),
            lowest,
            highest,
            code,
            directions,
            curved,
        )


ECONOMICAL = CG(steps=10, rtol=0.05)
"""What :func:`pullback.imaml` uses unless it is given a linear solver: enough in training, where
the certificate estimates what is left of the error."""


def _smallest_ritz(directions: Float[Array, "k n"]) -> Float[Array, ""]:
    """The smallest Ritz value of A over the span of directions p with pᵀAp = 1."""
    # CG's directions are conjugate, so that PᵀAP = I and the Ritz values are 1 / eig(PᵀP). That
    # holds with any preconditioner, whereas the Lanczos matrix of preconditioned CG belongs to
    # the preconditioned operator. Without one both are the same numbers.
    return 1.0 / jnp.linalg.eigvalsh(directions @ directions.T)[-1]
