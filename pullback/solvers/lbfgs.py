"""L-BFGS with a fixed budget of gradients and no line search: the default inner solver."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pullback.core import trees
from pullback.core.errors import InputError, check_counts, check_number
from pullback.core.problem import InnerProblem, apply_strength, is_scalar
from pullback.core.trees import Params
from pullback.solvers.base import Solution, at_start

Vector = Float[Array, " n"]

SATURATED = 10.0
"""How many times the loss's gradient the pull may be at a point that is taken; at the optimum they
are equal, on the way to it the pull is smaller."""


class Secants(eqx.Module):
    """The last ``m`` secant pairs, in a ring that is written in place, and their inner products.

    Stands for the SPD matrix B ≈ (H + Λ)⁻¹ in its compact form (Byrd, Nocedal & Schnabel 1994,
    eq. 3.1): two passes over the pairs a product, everything else is m × m.

    Args:
        pairs: steps s_i (rows 2i) and changes of the gradient y_i (rows 2i + 1). The last two
            rows take pairs that are not kept, so that no write needs a read.
        steps_changes: s_i · y_j, where s_i is no younger than y_j.
        changes_changes: y_i · y_j.
        born: when each slot was filled; −1 for an empty one.
        gamma: the scale γ of the matrix B starts from.
    """

    pairs: Float[Array, "rows n"]
    steps_changes: Float[Array, "m m"]
    changes_changes: Float[Array, "m m"]
    born: Int[Array, " m"]
    gamma: Float[Array, ""]

    @classmethod
    def empty(cls, history: int, like: Vector, gamma: Float[Array, ""]) -> "Secants":
        """No pairs yet: B = γI."""
        square = jnp.zeros((history, history), like.dtype)
        pairs = jnp.zeros((2 * history + 2, like.size), like.dtype)
        return cls(pairs, square, square, jnp.full(history, -1), gamma)

    def remember(self, step: Vector, change: Vector, keep: Bool[Array, ""]) -> "Secants":
        """With one more pair in place of the oldest, if it is worth keeping."""
        history = self.born.size
        # A row that is not kept is multiplied by zero, which NaN would survive.
        change = jnp.where(jnp.isfinite(change @ change), change, 0.0)
        slot = jnp.argmin(self.born)
        row = 2 * jnp.where(keep, slot, history)
        pairs = jax.lax.dynamic_update_slice(self.pairs, jnp.stack([step, change]), (row, 0))
        # R needs s_i · y_j for i no younger than j only, so a new step meets no older change.
        by_change = (pairs @ change)[: 2 * history]
        products = self.steps_changes.at[:, slot].set(by_change[0::2])
        squares = self.changes_changes.at[:, slot].set(by_change[1::2])
        squares = squares.at[slot].set(by_change[1::2])
        now = jnp.max(self.born) + 1
        s_y, y_y, s_s = step @ change, change @ change, step @ step
        gamma = s_y / jnp.where(keep, y_y, 1.0)
        # Where the loss curves downward no pair is kept; the size of the curvature still tells
        # how far a first step may go.
        guess = jnp.sqrt(s_s / jnp.where(y_y > 0, y_y, 1.0))
        known = (now == 0) & (y_y > 0) & jnp.isfinite(y_y) & (s_s > 0)
        guess = jnp.where(known, guess, self.gamma)
        return Secants(
            pairs,
            jnp.where(keep, products, self.steps_changes),
            jnp.where(keep, squares, self.changes_changes),
            jnp.where(keep, self.born.at[slot].set(now), self.born),
            jnp.where(keep, gamma, guess),
        )

    def from_scale(self, gamma: Float[Array, ""]) -> "Secants":
        """The same pairs, with another γ."""
        return eqx.tree_at(lambda s: s.gamma, self, gamma)

    def apply(self, vector: Vector) -> Vector:
        """``B · vector``."""
        # B = γI + [S γY] [[R⁻ᵀ(D + γYᵀY)R⁻¹, −R⁻ᵀ], [−R⁻¹, 0]] [S γY]ᵀ with R the upper
        # triangle of SᵀY in the order of birth and D its diagonal. An empty slot is a unit row
        # of R and zero elsewhere, and so adds nothing.
        history = self.born.size
        order = jnp.argsort(self.born)
        filled = self.born[order] >= 0
        both = filled[:, None] & filled[None, :]
        sy = jnp.where(both, self.steps_changes[order][:, order], 0.0)
        yy = jnp.where(both, self.changes_changes[order][:, order], 0.0)
        upper = jnp.triu(sy) + jnp.diag(jnp.where(filled, 0.0, 1.0).astype(sy.dtype))
        products = (self.pairs @ vector)[: 2 * history].reshape(history, 2)[order]
        s_v, y_v = jnp.where(filled[:, None], products, 0.0).T
        inner = solve_triangular(upper, s_v)
        outer = jnp.diagonal(sy) * inner + self.gamma * (yy @ inner - y_v)
        coefficients = jnp.stack([solve_triangular(upper, outer, trans=1), -self.gamma * inner], 1)
        back = jnp.zeros((history + 1, 2), sy.dtype).at[order].set(coefficients)
        return self.gamma * vector + back.reshape(-1) @ self.pairs

    def __call__(self, vector: Params) -> Params:
        """``B · vector`` for a vector shaped like the parameters."""
        flat, unravel = trees.ravel(vector)
        return unravel(self.apply(flat))


class Scaled(eqx.Module):
    """The secants' B among the parameters, from the coordinates in which Λ is the identity.

    Args:
        secants: B in those coordinates.
        root: √Λ.
    """

    secants: Secants
    root: Vector

    def __call__(self, vector: Params) -> Params:
        """``Λ^(−½) B Λ^(−½) · vector`` for a vector shaped like the parameters."""
        flat, unravel = trees.ravel(vector)
        return unravel(self.secants.apply(flat / self.root) / self.root)


class LBFGS(eqx.Module):
    """Limited-memory BFGS: a fixed number of gradients, every one of which teaches.

    Each step tries the full quasi-Newton step. A trial that lowers the objective is taken; one
    that does not is left, yet its gradient enters the memory, which shortens the next trial. So
    a step never needs tuning, the objective never rises, and the cost is known beforehand. The
    memory is handed on as a preconditioner of the meta-gradient's linear solve.

    Where Λ is no scalar all this happens to √Λφ in place of φ: the proximal term then curves
    alike in every direction, and only the loss is left to learn about.

    Args:
        steps: number of gradients: one at θ, one a short way down it, then one a trial.
        history: how many secant pairs are kept; memory is ``2 · history`` parameter vectors.
        rtol: stop earlier, once ‖∇L(φ) + Λ(φ − θ)‖ ≤ rtol·‖∇L(φ)‖; None uses every step. Saves
            time where tasks run one after the other, under ``vmap`` all wait for the last.
        scale: what B starts from: ``"measured"`` curvatures, or ``"strength"`` for Λ⁻¹ until a
            trial fails, which needs no look along the gradient. While that works and gradients
            halve, the next trial is returned in place of the best point: nearer to the optimum by
            one step, at the price of none.

    Raises:
        InputError: if a number of steps is not a positive whole one, ``rtol`` is no share, or a
            name is unknown.
    """

    differentiable: ClassVar[bool] = False
    steps: int = eqx.field(static=True)
    history: int = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)
    scale: str = eqx.field(static=True)

    def __init__(
        self,
        steps: int = 16,
        history: int = 6,
        rtol: float | None = None,
        scale: str = "measured",
    ):
        check_counts("LBFGS", steps=steps, history=history)
        if rtol is not None:
            check_number("LBFGS", "0 < rtol < 1, or None", lambda x: 0 < x < 1, rtol=rtol)
        if scale not in ("measured", "strength"):
            raise InputError(f"LBFGS(scale={scale!r})", allowed="'measured', 'strength'")
        self.steps, self.history, self.rtol, self.scale = steps, history, rtol, scale

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""
        trees.check_attainable("LBFGS", self.rtol or 0.0, theta)
        start, unravel = trees.ravel(theta)
        root = _root(problem, theta)
        strength = problem.smallest_strength().astype(start.dtype)
        if root is not None:
            start, strength = start * root, jnp.ones_like(strength)
        # Where nothing is known of H, Λ is all there is of H + Λ.
        bare = 1.0 / jnp.where(strength > 0, strength, 1.0)
        eps = jnp.finfo(start.dtype).eps
        reach = eps**0.5 * jnp.maximum(1.0, jnp.linalg.norm(start))

        def inward(gradient: Vector) -> Vector:
            return gradient if root is None else gradient / root

        def outward(gradient: Vector) -> Vector:
            return gradient if root is None else gradient * root

        def point(x: Vector) -> Params:
            return unravel(inward(x))

        def step(carry, first):
            x, value, gradient, secants, share, trial, seen, trusted, _ = carry
            new_value, new_gradient = problem.value_and_gradient(point(trial))
            new_value = new_value.astype(start.dtype)
            new_gradient = inward(trees.ravel(new_gradient)[0])
            moved, change = trial - x, new_gradient - gradient
            s_s, y_y = moved @ moved, change @ change
            floor = jnp.maximum(1e-3 * strength * s_s, eps * jnp.sqrt(s_s * y_y))
            keep = (moved @ change > floor) & jnp.isfinite(y_y) & jnp.isfinite(new_value)
            secants = secants.remember(moved, change, keep)
            # Before there is a pair, the first step is a short look along the gradient.
            square = new_gradient @ new_gradient
            size = jnp.sqrt(square)
            look = reach / jnp.where(size > 0, size, reach)
            secants = secants.from_scale(jnp.where(first, look, secants.gamma))
            # Near the optimum two values differ by rounding only; there the gradient decides.
            level = new_value <= value + 100 * eps * jnp.abs(value)
            old_square = gradient @ gradient
            shrinks = square < old_square
            # Where the loss saturates its gradient and its curvature vanish, though the objective
            # may be lower; there the pull is no longer balanced by anything.
            pulled = strength * (trial - start)
            unpulled = new_gradient - pulled
            beyond = (pulled @ pulled) > SATURATED**2 * (unpulled @ unpulled)
            better = first | (((new_value < value) | (level & shrinks)) & ~beyond)
            better &= jnp.isfinite(square)
            share = jnp.where(better, jnp.minimum(1.0, 2.0 * share), 0.5 * share)
            new, old = (trial, new_value, new_gradient), (x, value, gradient)
            # On a CPU a select would work out ``better`` again for every element.
            x, value, gradient = jax.lax.cond(better, lambda: new, lambda: old)
            trusted &= better
            near = trusted & (first | (4 * square <= old_square))
            scale = jnp.where(trusted, bare, secants.gamma)
            trial = x - share * secants.from_scale(scale).apply(gradient)
            norm = size if root is None else jnp.linalg.norm(outward(new_gradient))
            seen = at_start(first, (norm, new_value), seen)
            return (x, value, gradient, secants, share, trial, seen, trusted, near), None

        one = jnp.ones((), start.dtype)
        # A pair more than there are steps between points would never be filled.
        pairs = min(self.history, max(self.steps - 1, 1))
        empty = Secants.empty(pairs, start, one)
        by_strength = jnp.asarray(self.scale == "strength")
        nowhere = (start, jnp.inf * one, jnp.zeros_like(start))
        carry = (*nowhere, empty, one, start, (one, one), by_strength, by_strength)
        if self.rtol is None:
            carry, _ = jax.lax.scan(step, carry, jnp.arange(self.steps) == 0)
        else:

            def unfinished(counted):
                count, (x, _, gradient, *_) = counted
                pulled = trees.ravel(problem.pull(point(x - start)))[0]
                whole = outward(gradient)
                enough = self.rtol * jnp.linalg.norm(whole - pulled)
                solved = (count > 0) & (jnp.linalg.norm(whole) <= enough)
                return (count < self.steps) & ~solved

            def iterate(counted):
                count, carry = counted
                return count + 1, step(carry, count == 0)[0]

            _, carry = jax.lax.while_loop(unfinished, iterate, (0, carry))
        x, _, _, secants, _, trial, (start_norm, start_value), trusted, near = carry
        if self.scale == "strength":
            x = jnp.where(near, trial, x)
        known = (jnp.max(secants.born) >= 0) & ~trusted
        secants = secants.from_scale(jnp.where(known, secants.gamma, bare))
        inverse = secants if root is None else Scaled(secants, root)
        return Solution(point(x), start_norm, start_value, inverse)


def _root(problem: InnerProblem, like: Params) -> Vector | None:
    """√Λ as a vector; None where Λ is a scalar or missing, and scaling would change nothing."""
    if problem.strength is None or is_scalar(problem.strength):
        return None
    whole = apply_strength(problem.strength, jax.tree.map(jnp.ones_like, like))
    return jnp.sqrt(trees.ravel(whole)[0])
