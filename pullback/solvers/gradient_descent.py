"""Gradient descent with momentum: the simplest inner solver, and MAML's own."""

import math
from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from pullback.core import trees
from pullback.core.errors import InputError, check_counts, check_number, check_positive
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Solution

Point = tuple[Params, Params | None]
"""φ and its velocity; None for the velocity where there is no momentum."""

Seen = tuple[Float[Array, ""], Float[Array, ""]]
"""The norm of the gradient before a step, and the objective."""


class GradientDescent(eqx.Module):
    """A fixed number of gradient steps of a fixed size, with optional heavy-ball momentum.

    A fixed step diverges once the curvature exceeds ``2 / learning_rate``; prefer
    :class:`~pullback.solvers.LBFGS` where the inner problem must really be solved.

    Args:
        steps: number of steps T, one gradient each.
        learning_rate: step size.
        momentum: share of the last step that is repeated, in [0, 1).
        checkpoint: for MAML: keep only about 2√T steps at a time instead of all T, and compute
            the others again on the way back, at most a third more computation for the same
            gradient. Changes nothing where no one differentiates through the steps.

    Raises:
        InputError: if a setting is out of range.
    """

    differentiable: ClassVar[bool] = True
    steps: int = eqx.field(static=True)
    learning_rate: float
    momentum: float
    checkpoint: bool = eqx.field(static=True)

    def __init__(
        self,
        steps: int = 5,
        learning_rate: float = 0.1,
        momentum: float = 0.0,
        *,
        checkpoint: bool = False,
    ):
        check_counts("GradientDescent", steps=steps)
        check_positive("GradientDescent", learning_rate=learning_rate)
        check_number("GradientDescent", "0 ≤ momentum < 1", lambda x: 0 <= x < 1, momentum=momentum)
        if not isinstance(checkpoint, bool):
            raise InputError(f"GradientDescent(checkpoint={checkpoint!r})", allowed="True, False")
        self.steps, self.learning_rate, self.momentum = steps, learning_rate, momentum
        self.checkpoint = checkpoint

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""
        # A velocity that is multiplied by zero would double what each checkpoint holds.
        still = isinstance(self.momentum, int | float) and self.momentum == 0

        def step(point: Point, _: None) -> tuple[Point, Seen]:
            phi, velocity = point
            value, gradient = problem.value_and_gradient(phi)
            if velocity is None:
                move = gradient
            else:
                move = velocity = trees.axpy(self.momentum, velocity, gradient)
            seen = (trees.norm(gradient), value)
            return (trees.axpy(-self.learning_rate, move, phi), velocity), seen

        start = (theta, None if still else trees.zeros_like(theta))
        if self.checkpoint:
            (phi, _), first = _in_blocks(step, start, self.steps)
        else:
            (phi, _), seen = jax.lax.scan(step, start, length=self.steps)
            first = jax.tree.map(lambda each: each[0], seen)
        start_norm, start_value = first
        return Solution(phi, start_norm, start_value)


def _in_blocks(step, start: Point, steps: int) -> tuple[Point, Seen]:
    """All steps, of which only the first point of each block of √T is kept."""

    def block(length: int):
        @jax.checkpoint
        def run(point: Point, _: None) -> tuple[Point, Seen]:
            point, seen = jax.lax.scan(step, point, length=length)
            return point, jax.tree.map(lambda each: each[0], seen)

        return run

    length = math.isqrt(steps)
    point, seen = jax.lax.scan(block(length), start, length=steps // length)
    if rest := steps % length:
        point, _ = block(rest)(point, None)
    return point, jax.tree.map(lambda each: each[0], seen)
