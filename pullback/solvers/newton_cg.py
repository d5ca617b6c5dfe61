"""Newton's method without a Hessian: truncated CG inside a trust region."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from pullback.core import trees
from pullback.core.errors import check_counts, check_number, check_positive
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Solution

ACCEPT, POOR, GOOD = 1e-4, 0.25, 0.75


class NewtonCG(eqx.Module):
    """The paper's Hessian-free solver, made safe where the loss curves downward.

    Each step minimises the local quadratic model by conjugate gradients inside a trust region
    (Steihaug 1983). Along a direction of negative curvature it goes to the region's boundary.
    The drop of the objective, compared with the model's, sets the next radius; a step that does
    not lower the objective is not taken (Nocedal & Wright 2006, Algorithms 4.1 and 7.2). CG stops
    at the residual min(½, √(‖g‖/‖g₀‖))·‖g‖, loosely far from the optimum and tightly near it
    (Eisenstat & Walker 1996). The paper's iMAML-HF (Rajeswaran et al. 2019) takes plain Newton
    steps, which only a convex inner problem allows.

    Args:
        steps: outer steps: one linearisation and one evaluation of the objective each.
        linear_steps: the most Hessian-vector products an outer step.
        radius: the first trust radius; ten times the steepest-descent step of the local curvature
            if None.
        rtol: stop once the objective's gradient is at most ``rtol · ‖∇L(φ)‖``; all ``steps`` are
            taken if None.

    Raises:
        InputError: if a setting is out of range.
    """

    differentiable: ClassVar[bool] = False
    steps: int = eqx.field(static=True)
    linear_steps: int = eqx.field(static=True)
    radius: float | None = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)

    def __init__(
        self,
        steps: int = 8,
        linear_steps: int = 10,
        radius: float | None = None,
        rtol: float | None = None,
    ):
        check_counts("NewtonCG", steps=steps, linear_steps=linear_steps)
        if radius is not None:
            check_positive("NewtonCG", radius=radius)
        if rtol is not None:
            check_number("NewtonCG", "0 < rtol < 1, or None", lambda x: 0 < x < 1, rtol=rtol)
        self.steps, self.linear_steps = steps, linear_steps
        self.radius, self.rtol = radius, rtol

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""
        trees.check_attainable("NewtonCG", self.rtol or 0.0, theta)
        value, gradient = problem.value_and_gradient(theta)
        size = trees.norm(gradient)
        start_value = value = value.astype(size.dtype)
        loss_size = trees.norm(problem.loss_gradient(theta)) if self.rtol is not None else size
        eps = jnp.finfo(size.dtype).eps

        def step(carry):
            count, phi, value, square, radius, _ = carry
            loss_gradient, hvp = jax.linearize(problem.loss_gradient, phi)
            gradient = problem.add_pull(loss_gradient, phi)

            def product(u: Params) -> Params:
                return trees.add(hvp(u), problem.pull(u))

            radius = jax.lax.cond(
                count == 0, lambda: self._first_radius(product, gradient, phi), lambda: radius
            )
            length = trees.norm(gradient)
            share = jnp.minimum(0.5, jnp.sqrt(trees.safe_divide(length, size)))
            move, predicted, at_boundary = steihaug(
                product, gradient, radius, share * length, self.linear_steps
            )
            trial = trees.add(phi, move)
            new_value, new_gradient = problem.value_and_gradient(trial)
            new_value = new_value.astype(value.dtype)
            new_square = trees.dot(new_gradient, new_gradient)
            # Near the optimum two values differ by rounding only; there the gradient decides.
            level = jnp.abs(new_value - value) <= 100 * eps * jnp.abs(value)
            ratio = (value - new_value) / jnp.where(predicted > 0, predicted, 1.0)
            ratio = jnp.where(level, jnp.where(new_square < square, 1.0, -1.0), ratio)
            better = (ratio > ACCEPT) & (predicted > 0) & jnp.isfinite(new_square)
            wider = jnp.where(at_boundary & (ratio > GOOD), 2.0 * radius, radius)
            radius = jnp.where(better & (ratio >= POOR), wider, 0.25 * trees.norm(move))
            phi = trees.where(better, trial, phi)
            value = jnp.where(better, new_value, value)
            square = jnp.where(better, new_square, square)
            # The norm of ∇L at φ costs nothing: the pull is known.
            bare = trees.subtract(new_gradient, problem.pull(trees.subtract(trial, problem.theta)))
            bare = trees.where(better, bare, loss_gradient)
            return count + 1, phi, value, square, radius, trees.norm(bare)

        start = (jnp.zeros((), int), theta, value, size * size, jnp.ones_like(size), loss_size)
        if self.rtol is None:
            end, _ = jax.lax.scan(lambda carry, _: (step(carry), None), start, length=self.steps)
        else:

            def unfinished(carry):
                count, _, _, square, _, loss_size = carry
                return (count < self.steps) & (jnp.sqrt(square) > self.rtol * loss_size)

            end = jax.lax.while_loop(unfinished, step, start)
        return Solution(end[1], size, start_value)

    def _first_radius(self, product, gradient: Params, phi: Params) -> Float[Array, ""]:
        unit, size = trees.normalise(gradient)
        if self.radius is not None:
            return jnp.full_like(size, self.radius)
        curvature = jnp.abs(trees.dot(unit, product(unit)))
        most = jnp.maximum(1.0, trees.norm(phi))
        cauchy = 10.0 * size / jnp.where(curvature > 0, curvature, 1.0)
        return jnp.where(curvature > 0, jnp.minimum(cauchy, most), most)


def steihaug(
    product, gradient: Params, radius: Float[Array, ""], floor: Float[Array, ""], steps: int
) -> tuple[Params, Float[Array, ""], Bool[Array, ""]]:
    """Minimise gᵀp + ½pᵀBp over ‖p‖ ≤ radius by conjugate gradients (Steihaug 1983).

    Args:
        product: u ↦ B·u for a symmetric B, definite or not.
        gradient: g.
        radius: of the trust region.
        floor: stop at a residual of this norm.
        steps: the most products with B.

    Returns:
        p, how much it lowers the model, and whether it ends on the boundary.
    """
    # A gradient of unit length keeps its square from underflowing.
    unit, size = trees.normalise(gradient)
    scale = jnp.where(size > 0, size, 1.0)
    radius, floor = radius / scale, jnp.maximum(floor / scale, jnp.finfo(size.dtype).eps)

    def unfinished(carry):
        count, _, residual, _, at_boundary = carry
        return (count < steps) & ~at_boundary & (trees.norm(residual) > floor)

    def iterate(carry):
        count, p, residual, direction, _ = carry
        b_d = product(direction)
        curvature = trees.dot(direction, b_d)
        square = trees.dot(residual, residual)
        downward = ~(curvature > 0)
        alpha = square / jnp.where(downward, 1.0, curvature)
        outside = trees.norm(trees.axpy(alpha, direction, p)) >= radius
        at_boundary = downward | outside
        alpha = jnp.where(at_boundary, _to_boundary(p, direction, radius), alpha)
        p = trees.axpy(alpha, direction, p)
        residual = trees.axpy(alpha, b_d, residual)
        beta = trees.dot(residual, residual) / square
        direction = trees.subtract(trees.scale(beta, direction), residual)
        return count + 1, p, residual, direction, at_boundary

    zero = trees.zeros_like(unit)
    start = (0, zero, unit, trees.scale(-1.0, unit), jnp.asarray(False))
    _, p, residual, _, at_boundary = jax.lax.while_loop(unfinished, iterate, start)
    # B·p is the residual less the gradient, on the boundary too.
    drop = -0.5 * trees.dot(p, trees.add(unit, residual))
    return trees.scale(scale, p), scale * scale * drop, at_boundary


def _to_boundary(p: Params, direction: Params, radius: Float[Array, ""]) -> Float[Array, ""]:
    """The τ ≥ 0 with ‖p + τd‖ = radius, without cancellation."""
    a, b = trees.dot(direction, direction), trees.dot(p, direction)
    c = jnp.maximum(radius * radius - trees.dot(p, p), 0.0)
    root = jnp.sqrt(b * b + a * c)
    return jnp.where(b > 0, c / jnp.where(b > 0, b + root, 1.0), (root - b) / a)
