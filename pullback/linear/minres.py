"""The minimal residual method of Paige and Saunders: symmetric matrices, definite or not."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pullback.core import trees
from pullback.core.results import UNKNOWN
from pullback.core.trees import Params
from pullback.linear.base import (
    RTOL,
    STEPS,
    LinearSolution,
    Operator,
    Unpreconditioned,
    check_settings,
    conclude,
    prepare,
    rounding,
)


class MINRES(Unpreconditioned):
    """MINRES (Paige & Saunders 1975): of all u in the Krylov space the one of smallest residual.

    Takes one product a step, and the residual never rises. It solves an indefinite system as
    well, where CG must stop; the code is then ``NEGATIVE_CURVATURE`` all the same, because φ is
    no minimum of the inner problem. A singular system whose right-hand side A does not reach
    ends with the best u found and ``SOLVE_FAILED``.

    The curvatures reported are the extreme Ritz values, from the Lanczos matrix that MINRES
    builds anyway.

    Args:
        steps: the most products with A; one more measures the residual.
        rtol: stop once ‖A·u − v‖ ≤ rtol·‖v‖; 0 goes on to rounding.

    Raises:
        InputError: if a setting is out of range.
    """

    steps: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)

    def __init__(self, steps: int = STEPS, rtol: float = RTOL):
        check_settings("MINRES", rtol, steps=steps)
        self.steps, self.rtol = steps, rtol

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``; the approximate inverse is a last resort only."""
        unit, size, guess = prepare(type(self).__name__, self.rtol, rhs, approximate_inverse)
        eps = rounding(unit)
        floor = max(self.rtol, eps)
        nothing = trees.zeros_like(unit)
        zero = jnp.zeros_like(trees.norm(unit))

        def unfinished(carry):
            return (carry["step"] < self.steps) & ~carry["ended"] & (carry["residual"] > floor)

        def iterate(c):
            # Lanczos: A v = β v₋ + α v + β₊ v₊.
            product = operator(c["v"])
            alpha = trees.dot(c["v"], product)
            rest = trees.axpy(-c["beta"], c["v_before"], trees.axpy(-alpha, c["v"], product))
            v_next, beta = trees.normalise(rest)
            largest = jnp.maximum(c["largest"], jnp.abs(alpha) + c["beta"] + beta)
            # What is left is rounding, and a direction made of it is not orthogonal to v.
            exhausted = ~(beta > 10 * eps * largest)
            beta = jnp.where(exhausted & jnp.isfinite(beta), 0.0, beta)
            # The last plane rotation, the new one, and its row of the triangular factor.
            delta = c["cosine"] * c["delta_bar"] + c["sine"] * alpha
            gamma_bar = c["sine"] * c["delta_bar"] - c["cosine"] * alpha
            gamma = jnp.hypot(gamma_bar, beta)
            singular = ~(gamma > 10 * eps * largest)
            divisor = jnp.where(singular, 1.0, gamma)
            cosine, sine = gamma_bar / divisor, beta / divisor
            w = trees.axpy(-c["epsilon"], c["w_before"], trees.axpy(-delta, c["w"], c["v"]))
            w = trees.scale(1.0 / divisor, w)
            move = jnp.where(singular, 0.0, cosine * c["residual"])
            left = jnp.where(singular, c["residual"], sine * c["residual"])
            return {
                "step": c["step"] + 1,
                "x": trees.axpy(move, w, c["x"]),
                "residual": left,
                "v_before": c["v"],
                "v": v_next,
                "w_before": c["w"],
                "w": w,
                "beta": beta,
                "cosine": cosine,
                "sine": sine,
                "delta_bar": -c["cosine"] * beta,
                "epsilon": c["sine"] * beta,
                "largest": largest,
                "alphas": c["alphas"].at[c["step"]].set(alpha),
                "betas": c["betas"].at[c["step"]].set(beta),
                "singular": singular,
                "ended": exhausted | singular,
            }

        no, row = jnp.asarray(False), jnp.zeros(self.steps, zero.dtype)
        start: dict[str, Any] = {
            "step": jnp.asarray(0),
            "x": nothing,
            "residual": trees.norm(unit),
            "v_before": nothing,
            "v": unit,
            "w_before": nothing,
            "w": nothing,
            "beta": zero,
            "cosine": zero - 1.0,
            "sine": zero,
            "delta_bar": zero,
            "epsilon": zero,
            "largest": zero,
            "alphas": row,
            "betas": row,
            "singular": no,
            "ended": no,
        }
        end = jax.lax.while_loop(unfinished, iterate, start)
        smallest, largest = _ritz(end["alphas"], end["betas"], end["step"])
        return conclude(
            operator,
            unit,
            size,
            end["x"],
            # Where A is ill-conditioned rounding makes the recurrence too hopeful.
            trees.subtract(unit, operator(end["x"])),
            guess,
            broken=end["singular"],
            steps=end["step"] + 1,
            smallest=smallest,
            largest=largest,
        )


def _ritz(
    alphas: Float[Array, " k"], betas: Float[Array, " k"], step: Int[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The extreme eigenvalues of the first ``step`` rows of the Lanczos matrix, if any."""
    index = jnp.arange(alphas.size)
    # Rows that were never filled become eigenvalues of their own, and no extreme ones.
    diagonal = jnp.where(index < step, alphas, alphas[0])
    beside = jnp.where(index < step - 1, betas, 0.0)[:-1]
    values = jnp.linalg.eigvalsh(jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1))
    return (
        jnp.where(step > 0, values[0], UNKNOWN),
        jnp.where(step > 0, values[-1], -UNKNOWN),
    )
