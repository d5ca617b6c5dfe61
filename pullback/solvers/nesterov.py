"""Nesterov's method with a step it measures itself and adaptive restarts."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray

from pullback.core import trees
from pullback.core.errors import check_counts
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Solution, probe


class Nesterov(eqx.Module):
    """Accelerated gradient descent without a step size to tune; no memory beyond one vector.

    The step is 1/L̂, where L̂ is the largest curvature ‖Δg‖/‖Δy‖ seen along the method's own
    path, forgotten by 3 % a step. Momentum k/(k+3) starts again from zero whenever the last
    step went uphill (O'Donoghue & Candès 2015, gradient scheme).

    Args:
        steps: number of steps, one gradient each, and one more for the first look.

    Raises:
        InputError: if ``steps`` is not a positive whole number.
    """

    differentiable: ClassVar[bool] = True
    steps: int = eqx.field(static=True)

    def __init__(self, steps: int = 16):
        check_counts("Nesterov", steps=steps)
        self.steps = steps

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""
        start_value, first = problem.value_and_gradient(theta)
        curvature = probe(problem, theta, first)

        def step(carry, _):
            phi, point, last_point, last_gradient, curvature, age = carry
            gradient = problem.gradient(point)
            moved = trees.norm(trees.subtract(point, last_point))
            turned = trees.norm(trees.subtract(gradient, last_gradient))
            seen = jnp.where(moved > 0, turned / jnp.where(moved > 0, moved, 1.0), 0.0)
            curvature = jnp.maximum(0.97 * curvature, seen)
            new = trees.axpy(-1.0 / curvature, gradient, point)
            step = trees.subtract(new, phi)
            uphill = trees.dot(gradient, step) > 0
            age = jnp.where(uphill, 0.0, age + 1.0)
            ahead = trees.axpy(age / (age + 3.0), step, new)
            return (new, ahead, point, gradient, curvature, age), None

        start = (theta, theta, theta, first, curvature, jnp.zeros_like(curvature))
        (phi, *_), _ = jax.lax.scan(step, start, length=self.steps)
        return Solution(phi, start_norm=trees.norm(first), start_value=start_value)
