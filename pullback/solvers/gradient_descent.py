"""Gradient descent with momentum: the simplest inner solver, and MAML's own."""

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PRNGKeyArray

from pullback.core import trees
from pullback.core.errors import InputError, check_counts, check_number, check_positive
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Seen, Solution, at_start, nothing_seen

Point = tuple[Params, Params | None]
"""φ and its velocity; None for the velocity where there is no momentum."""

Carry = tuple[Point, Seen]
"""A point, and what was seen at the start."""


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

        def step(carry: Carry, first: Bool[Array, ""]) -> tuple[Carry, None]:
            (phi, velocity), seen = carry
            value, gradient = problem.value_and_gradient(phi)
            if velocity is None:
                move = gradient
            else:
                move = velocity = trees.axpy(self.momentum, velocity, gradient)
            seen = at_start(first, (trees.norm(gradient), value), seen)
            return ((trees.axpy(-self.learning_rate, move, phi), velocity), seen), None

        start = (theta, None if still else trees.zeros_like(theta))
        carry = (start, nothing_seen(problem, theta))
        first = jnp.arange(self.steps) == 0
        if self.checkpoint:
            carry = _in_blocks(step, carry, first)
        else:
            carry, _ = jax.lax.scan(step, carry, first)
        (phi, _), (start_norm, start_value) = carry
        return Solution(phi, start_norm, start_value)


def _in_blocks(step, carry: Carry, first: Bool[Array, " steps"]) -> Carry:
    """All steps, of which only the first point of each block of √T is kept."""

    @jax.checkpoint
    def block(carry: Carry, first: Bool[Array, " length"]) -> tuple[Carry, None]:
        return jax.lax.scan(step, carry, first)

    length = math.isqrt(first.size)
    whole = first.size - first.size % length
    carry, _ = jax.lax.scan(block, carry, first[:whole].reshape(-1, length))
    if whole < first.size:
        carry, _ = block(carry, first[whole:])
    return carry
