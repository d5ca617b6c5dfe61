"""Gradient descent with momentum: the simplest inner solver, and MAML's own."""

from typing import ClassVar

import equinox as eqx
import jax
from jaxtyping import PRNGKeyArray

from pullback import trees
from pullback.errors import InputError, check_counts, check_positive
from pullback.problem import InnerProblem
from pullback.solvers.base import Solution
from pullback.trees import Params


class GradientDescent(eqx.Module):
    """A fixed number of gradient steps of a fixed size, with optional heavy-ball momentum.

    A fixed step diverges once the curvature exceeds ``2 / learning_rate``; prefer
    :class:`~pullback.solvers.LBFGS` where the inner problem must really be solved.

    Args:
        steps: number of steps, one gradient each.
        learning_rate: step size.
        momentum: share of the last step that is repeated, in [0, 1).

    Raises:
        InputError: if a setting is out of range.
    """

    differentiable: ClassVar[bool] = True
    steps: int = eqx.field(static=True)
    learning_rate: float
    momentum: float

    def __init__(self, steps: int = 5, learning_rate: float = 0.1, momentum: float = 0.0):
        check_counts("GradientDescent", steps=steps)
        check_positive("GradientDescent", learning_rate=learning_rate)
        if not 0 <= momentum < 1:
            raise InputError(f"GradientDescent(momentum={momentum!r})", allowed="0 ≤ momentum < 1")
        self.steps, self.learning_rate, self.momentum = steps, learning_rate, momentum

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""

        def step(carry, _):
            phi, velocity = carry
            gradient = problem.gradient(phi)
            velocity = trees.axpy(self.momentum, velocity, gradient)
            phi = trees.axpy(-self.learning_rate, velocity, phi)
            return (phi, velocity), trees.norm(gradient)

        start = (theta, trees.zeros_like(theta))
        (phi, _), norms = jax.lax.scan(step, start, length=self.steps)
        return Solution(phi, start_norm=norms[0])
