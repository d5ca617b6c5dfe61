"""Inner solvers: fixed-step optimisers of the proximal problem, and any callable."""

import optax

from pullback.registry import Entry
from pullback.solvers.base import BlackBox, InnerSolver, Solution, is_differentiable, run, solve
from pullback.solvers.gradient_descent import GradientDescent
from pullback.solvers.lbfgs import LBFGS
from pullback.solvers.nesterov import Nesterov
from pullback.solvers.optax_solver import Optax


def _optax_adam(steps: int, learning_rate: float, momentum: float) -> Optax:
    return Optax(optax.adam(learning_rate, b1=momentum), steps)


SOLVERS: dict[str, Entry] = {
    line.name: line
    for line in (
        Entry(
            "lbfgs",
            "L-BFGS without a line search; tunes itself, and preconditions the linear solve",
            lambda steps, learning_rate, momentum: LBFGS(steps),
        ),
        Entry(
            "nesterov",
            "accelerated gradients with restarts; tunes itself; little memory; MAML can use it",
            lambda steps, learning_rate, momentum: Nesterov(steps),
        ),
        Entry(
            "gradient-descent",
            "fixed steps of --inner-learning-rate with --inner-momentum; MAML can use it",
            GradientDescent,
        ),
        Entry(
            "adam",
            "Optax's Adam with --inner-learning-rate; MAML can use it",
            _optax_adam,
        ),
    )
}
"""Solvers by name, each built by ``make(steps, learning_rate, momentum)``."""

__all__ = [
    "LBFGS",
    "SOLVERS",
    "BlackBox",
    "GradientDescent",
    "InnerSolver",
    "Nesterov",
    "Optax",
    "Solution",
    "is_differentiable",
    "run",
    "solve",
]
