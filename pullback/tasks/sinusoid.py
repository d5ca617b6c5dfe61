"""Regression of sine waves, the smallest few-shot problem."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, PRNGKeyArray

from pullback.core.errors import InputError
from pullback.tasks.base import Task

AMPLITUDES = (0.1, 5.0)
PHASES = (0.0, math.pi)
INPUTS = (-5.0, 5.0)


class Sinusoid(eqx.Module):
    """Tasks ``y = a·sin(x − p)``: amplitude a in [0.1, 5], phase p in [0, π], x in [−5, 5].

    All three are drawn uniformly. Finn, Abbeel, Levine (2017), "Model-Agnostic
    Meta-Learning for Fast Adaptation of Deep Networks", section 5.1.

    Args:
        shots: number of support points.
        queries: number of query points.

    Raises:
        InputError: if a number is not positive.
    """

    shots: int = eqx.field(static=True, default=10)
    queries: int = eqx.field(static=True, default=10)

    def __check_init__(self):
        for name, value in (("shots", self.shots), ("queries", self.queries)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError(f"{name} is {value!r}", allowed="a whole number, 1 or more")

    def sample(self, key: PRNGKeyArray) -> Task:
        """One sine wave, seen at ``shots`` support points and ``queries`` query points.

        Support and query are pairs ``(x, y)``, each ``Float32[n, 1]``.

        Args:
            key: the same key gives the same task.

        Returns:
            The task.
        """
        amplitude_key, phase_key, input_key = jax.random.split(key, 3)
        amplitude = _uniform(amplitude_key, (), AMPLITUDES)
        phase = _uniform(phase_key, (), PHASES)
        x = _uniform(input_key, (self.shots + self.queries, 1), INPUTS)
        y = amplitude * jnp.sin(x - phase)
        return Task(
            support=(x[: self.shots], y[: self.shots]),
            query=(x[self.shots :], y[self.shots :]),
        )


def _uniform(
    key: PRNGKeyArray, shape: tuple[int, ...], limits: tuple[float, float]
) -> Float32[Array, "..."]:
    return jax.random.uniform(key, shape, jnp.float32, *limits)
