"""Any Optax optimiser as an inner solver."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import PRNGKeyArray

from pullback.core import trees
from pullback.core.errors import InputError, check_counts, check_number, check_positive
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Solution, at_start, nothing_seen


class Optax(eqx.Module):
    """A fixed number of steps of an Optax gradient transformation.

    Args:
        optimizer: for instance ``optax.adam(1e-2)``.
        steps: number of steps, one gradient each.

    Raises:
        InputError: if ``optimizer`` is not a gradient transformation or ``steps`` is not positive.
    """

    differentiable: ClassVar[bool] = True
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def __init__(self, optimizer: optax.GradientTransformation, steps: int = 16):
        if not isinstance(optimizer, optax.GradientTransformation):
            raise InputError(
                f"Optax(optimizer={optimizer!r})",
                allowed="an optax.GradientTransformation, such as optax.adam(1e-2)",
            )
        check_counts("Optax", steps=steps)
        self.optimizer, self.steps = optimizer, steps

    @classmethod
    def adam(cls, steps: int, learning_rate: float, momentum: float = 0.9) -> "Optax":
        """Optax's Adam, its momentum being the decay of the first moment."""
        check_positive("Optax.adam", learning_rate=learning_rate)
        check_number("Optax.adam", "0 ≤ momentum < 1", lambda x: 0 <= x < 1, momentum=momentum)
        return cls(optax.adam(learning_rate, b1=momentum), steps)

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""

        def step(carry, first):
            phi, state, seen = carry
            value, gradient = problem.value_and_gradient(phi)
            updates, state = self.optimizer.update(gradient, state, phi)
            seen = at_start(first, (trees.norm(gradient), value), seen)
            return (optax.apply_updates(phi, updates), state, seen), None

        start = (theta, self.optimizer.init(theta))
        carry = (*start, nothing_seen(problem, theta))
        first = jnp.arange(self.steps) == 0
        (phi, _, (start_norm, start_value)), _ = jax.lax.scan(step, carry, first)
        return Solution(phi, start_norm, start_value)
