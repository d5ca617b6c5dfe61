"""L-BFGS with a fixed budget of gradients and no line search: the default inner solver."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pullback import trees
from pullback.problem import InnerProblem
from pullback.solvers.base import Solution, check_steps, probe
from pullback.trees import Params

Vector = Float[Array, " n"]


class Secants(eqx.Module):
    """The last ``m`` secant pairs, in a ring that is written in place, and their inner products.

    Stands for the SPD matrix B ≈ (H + Λ)⁻¹ in its compact form (Byrd, Nocedal & Schnabel 1994,
    eq. 3.1): two passes over the pairs a product, everything else is m × m.

    Args:
        pairs: steps s (row 0) and changes of the gradient y (row 1).
        steps_changes: s_i · y_j.
        changes_changes: y_i · y_j.
        born: when each slot was filled; −1 for an empty one.
        gamma: the scale γ of the matrix B starts from.
    """

    pairs: Float[Array, "2 m n"]
    steps_changes: Float[Array, "m m"]
    changes_changes: Float[Array, "m m"]
    born: Int[Array, " m"]
    gamma: Float[Array, ""]

    @classmethod
    def empty(cls, history: int, like: Vector, gamma: Float[Array, ""]) -> "Secants":
        """No pairs yet: B = γI."""
        square = jnp.zeros((history, history), like.dtype)
        pairs = jnp.zeros((2, history, like.size), like.dtype)
        return cls(pairs, square, square, jnp.full(history, -1), gamma)

    def remember(self, step: Vector, change: Vector, keep: Bool[Array, ""]) -> "Secants":
        """With one more pair in place of the oldest, if it is worth keeping."""
        slot = jnp.where(keep, jnp.argmin(self.born), 0)
        now = jnp.max(self.born) + 1
        new = jnp.stack([step, change])
        old = jax.lax.dynamic_index_in_dim(self.pairs, slot, axis=1, keepdims=False)
        pairs = jax.lax.dynamic_update_index_in_dim(
            self.pairs, jnp.where(keep, new, old), slot, axis=1
        )
        by_change = pairs @ change
        by_step = pairs[1] @ step
        products = self.steps_changes.at[:, slot].set(by_change[0]).at[slot].set(by_step)
        squares = self.changes_changes.at[:, slot].set(by_change[1]).at[slot].set(by_change[1])
        size = by_change[1, slot]
        return Secants(
            pairs,
            jnp.where(keep, products, self.steps_changes),
            jnp.where(keep, squares, self.changes_changes),
            jnp.where(keep, self.born.at[slot].set(now), self.born),
            jnp.where(keep, by_change[0, slot] / jnp.where(keep, size, 1.0), self.gamma),
        )

    def apply(self, vector: Vector) -> Vector:
        """``B · vector``."""
        # B = γI + [S γY] [[R⁻ᵀ(D + γYᵀY)R⁻¹, −R⁻ᵀ], [−R⁻¹, 0]] [S γY]ᵀ with R the upper
        # triangle of SᵀY in the order of birth and D its diagonal. An empty slot is a unit row
        # of R and zero elsewhere, and so adds nothing.
        order = jnp.argsort(self.born)
        filled = self.born[order] >= 0
        both = filled[:, None] & filled[None, :]
        sy = jnp.where(both, self.steps_changes[order][:, order], 0.0)
        yy = jnp.where(both, self.changes_changes[order][:, order], 0.0)
        diagonal = jnp.diagonal(sy)
        upper = jnp.triu(sy) + jnp.diag(jnp.where(filled, 0.0, 1.0).astype(sy.dtype))
        s_v, y_v = jnp.where(filled, (self.pairs @ vector)[:, order], 0.0)
        inner = solve_triangular(upper, s_v)
        outer = diagonal * inner + self.gamma * (yy @ inner - y_v)
        coefficients = jnp.stack([solve_triangular(upper, outer, trans=1), -self.gamma * inner])
        back = jnp.zeros_like(coefficients).at[:, order].set(coefficients)
        return self.gamma * vector + jnp.einsum("km,kmn->n", back, self.pairs)

    def __call__(self, vector: Params) -> Params:
        """``B · vector`` for a vector shaped like the parameters."""
        flat, unravel = trees.ravel(vector)
        return unravel(self.apply(flat))


class LBFGS(eqx.Module):
    """Limited-memory BFGS: a fixed number of gradients, every one of which teaches.

    Each step tries the full quasi-Newton step. A trial that lowers the objective is taken; one
    that does not is left, yet its gradient enters the memory, which shortens the next trial. So
    a step never needs tuning, the objective never rises, and the cost is known beforehand. The
    memory is handed on as a preconditioner of the meta-gradient's linear solve.

    Args:
        steps: number of trial steps, one gradient each, and two more at the start.
        history: how many secant pairs are kept; memory is ``2 · history`` parameter vectors.

    Raises:
        InputError: if a setting is not a positive whole number.
    """

    differentiable: ClassVar[bool] = False
    steps: int = eqx.field(static=True)
    history: int = eqx.field(static=True)

    def __init__(self, steps: int = 12, history: int = 8):
        check_steps("LBFGS", steps)
        check_steps("LBFGS", history)
        self.steps, self.history = steps, history

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""
        start, unravel = trees.ravel(theta)
        least = 1e-3 * problem.smallest_strength()
        eps = jnp.finfo(start.dtype).eps

        def evaluate(x: Vector) -> tuple[Float[Array, ""], Vector]:
            value, gradient = problem.value_and_gradient(unravel(x))
            return value, trees.ravel(gradient)[0]

        def worth_keeping(s: Vector, y: Vector) -> Bool[Array, ""]:
            floor = jnp.maximum(least * (s @ s), eps * jnp.sqrt((s @ s) * (y @ y)))
            return (s @ y > floor) & jnp.all(jnp.isfinite(y))

        def trial(carry, _):
            x, value, gradient, secants, share = carry
            step = -share * secants.apply(gradient)
            new_value, new_gradient = evaluate(x + step)
            change = new_gradient - gradient
            # Near the optimum two values differ by rounding only; there the gradient decides.
            shrinks = new_gradient @ new_gradient < gradient @ gradient
            level = new_value <= value + 100 * eps * jnp.abs(value)
            better = (new_value < value) | (level & shrinks)
            better = better & jnp.all(jnp.isfinite(new_gradient))
            keep = worth_keeping(step, change)
            secants = secants.remember(step, change, keep)
            share = jnp.where(better | keep, 1.0, 0.25 * share)
            x = jnp.where(better, x + step, x)
            value = jnp.where(better, new_value, value)
            gradient = jnp.where(better, new_gradient, gradient)
            return (x, value, gradient, secants, share), None

        value, gradient = evaluate(start)
        step, change, curvature = probe(problem, theta, unravel(gradient))
        step, change = trees.ravel(step)[0], trees.ravel(change)[0]
        secants = Secants.empty(self.history, start, 1.0 / curvature)
        secants = secants.remember(step, change, worth_keeping(step, change))
        first = (start, value, gradient, secants, jnp.ones_like(value))
        (x, _, _, secants, _), _ = jax.lax.scan(trial, first, length=self.steps)

        return Solution(unravel(x), jnp.sqrt(gradient @ gradient), secants)
