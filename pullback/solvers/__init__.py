"""Inner solvers: fixed-step optimisers of the proximal problem, and any callable."""

from pullback.registries import SOLVERS
from pullback.solvers.base import BlackBox, InnerSolver, Solution, is_differentiable, run, solve
from pullback.solvers.gradient_descent import GradientDescent
from pullback.solvers.host import Callback
from pullback.solvers.lbfgs import LBFGS
from pullback.solvers.nesterov import Nesterov
from pullback.solvers.newton_cg import NewtonCG
from pullback.solvers.optax_solver import Optax
from pullback.solvers.optimistix_solver import Optimistix
from pullback.solvers.projected import Projected
from pullback.solvers.scipy_solver import Scipy

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
    "Projected",
    "Scipy",
    "Solution",
    "is_differentiable",
    "run",
    "solve",
]
