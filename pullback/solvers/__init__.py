"""Inner solvers: fixed-step optimisers of the proximal problem, and any callable."""

import optax

from pullback.core.registry import Entry
from pullback.solvers.base import BlackBox, InnerSolver, Solution, is_differentiable, run, solve
from pullback.solvers.callback import Callback
from pullback.solvers.gradient_descent import GradientDescent
from pullback.solvers.lbfgs import LBFGS
from pullback.solvers.nesterov import Nesterov
from pullback.solvers.newton_cg import NewtonCG
from pullback.solvers.optax_solver import Optax
from pullback.solvers.optimistix_solver import Optimistix
from pullback.solvers.scipy_solver import Scipy


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
        Entry(
            "newton-cg",
            "Newton steps by CG in a trust region, the paper's Hessian-free variant; tunes itself",
            lambda steps, learning_rate, momentum: NewtonCG(steps),
        ),
        Entry(
            "scipy",
            "SciPy's L-BFGS-B on the host, with at most --inner-steps iterations; tunes itself",
            lambda steps, learning_rate, momentum: Scipy(options={"maxiter": steps}),
        ),
    )
}
"""Solvers by name, each built by ``make(steps, learning_rate, momentum)``."""

__all__ = [
    "LBFGS",
    "SOLVERS",
    "BlackBox",
    "Callback",
    "GradientDescent",
    "InnerSolver",
    "Nesterov",
    "NewtonCG",
    "Optax",
    "Optimistix",
    "Scipy",
    "Solution",
    "is_differentiable",
    "run",
    "solve",
]
