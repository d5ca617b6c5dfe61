"""A one-dimensional inner problem with several optima, and noisy descents on it."""

from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from pullback.core.errors import check_counts, check_positive
from pullback.core.problem import InnerProblem
from pullback.solvers import Solution

WAVE = 2.0 * np.pi


class Batch(NamedTuple):
    """What one loss is made of; the support and the query set have one each.

    Args:
        curvature: of a wave with a well at every whole number.
        tilt: slope added to it.
        square: curvature of a parabola added to it.
        target: where the parabola has its minimum.
    """

    curvature: float = 0.0
    tilt: float = 0.0
    square: float = 0.0
    target: float = 0.0


def loss(phi: Float[Array, "*points"], batch: Batch) -> Float[Array, "*points"]:
    """``c(1 − cos 2πφ)/(2π)² + tilt·φ + ½ square·(φ − target)²``."""
    wave = batch.curvature * (1.0 - jnp.cos(WAVE * phi)) / WAVE**2
    return wave + batch.tilt * phi + 0.5 * batch.square * (phi - batch.target) ** 2


class NoisyDescent(eqx.Module):
    """Stochastic gradient descent: every gradient has Gaussian noise added to it.

    Args:
        steps: number of steps.
        learning_rate: size η of the first step; step t has size η / (1 + t / decay).
        decay: the number of steps after which the size is halved.
        noise: standard deviation of a gradient's noise.

    Raises:
        InputError: if a setting is out of range.
    """

    differentiable: ClassVar[bool] = True
    steps: int = eqx.field(static=True)
    learning_rate: float
    decay: float
    noise: float

    def __init__(self, steps: int, learning_rate: float, decay: float, noise: float):
        check_counts("NoisyDescent", steps=steps)
        check_positive("NoisyDescent", learning_rate=learning_rate, decay=decay, noise=noise)
        self.steps, self.learning_rate = steps, learning_rate
        self.decay, self.noise = decay, noise

    def solve(self, problem: InnerProblem, theta: Float[Array, ""], key: PRNGKeyArray) -> Solution:
        """Descend from ``theta`` with the noise that ``key`` draws."""
        sizes = self.learning_rate / (1.0 + jnp.arange(self.steps) / self.decay)
        noise = self.noise * jax.random.normal(key, (self.steps,), theta.dtype)

        def step(phi: Float[Array, ""], now: tuple[Array, Array]) -> tuple[Array, None]:
            size, kick = now
            return phi - size * (problem.gradient(phi) + kick), None

        phi, _ = jax.lax.scan(step, theta, (sizes.astype(theta.dtype), noise))
        return Solution(phi)


def polish(problem: InnerProblem, phi: Float[Array, ""], learning_rate: float) -> Float[Array, ""]:
    """Follow the gradient down from ``phi``, then Newton's method to rounding.

    Args:
        problem: the inner problem.
        phi: where the noisy descent stopped.
        learning_rate: of the descent, which decides in which well it ends.

    Returns:
        The optimum of that well.
    """

    def descend(_: Array, phi: Float[Array, ""]) -> Float[Array, ""]:
        return phi - learning_rate * problem.gradient(phi)

    def newton(_: Array, phi: Float[Array, ""]) -> Float[Array, ""]:
        # Newton's method alone would as soon go to a maximum.
        return phi - problem.gradient(phi) / jax.grad(problem.gradient)(phi)

    return jax.lax.fori_loop(0, 6, newton, jax.lax.fori_loop(0, 80, descend, phi))


def optima(problem: InnerProblem, low: float, high: float) -> np.ndarray:
    """All optima of the inner problem between two points, in order.

    Args:
        problem: the inner problem.
        low: lower end of the search.
        high: upper end.

    Returns:
        φ where the gradient goes from negative to positive, to rounding.
    """
    grid = jnp.linspace(low, high, 4001)
    values = np.asarray(_slopes(problem, grid))
    rising = np.flatnonzero((values[:-1] < 0) & (values[1:] >= 0))
    return np.asarray(_polish_all(problem, 0.5 * (grid[rising] + grid[rising + 1])))


@jax.jit
def _slopes(problem: InnerProblem, phis: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.vmap(problem.gradient)(phis)


@jax.jit
def _polish_all(problem: InnerProblem, phis: Float[Array, " n"]) -> Float[Array, " n"]:
    return jax.vmap(lambda phi: polish(problem, phi, 0.01))(phis)
