"""Linear solvers for (H + Λ)u = v, which know the matrix by its products only."""

from pullback.linear.base import LinearSolution, LinearSolver, Operator
from pullback.linear.bicgstab import BiCGStab
from pullback.linear.cg import CG, ECONOMICAL
from pullback.linear.dense import Dense
from pullback.linear.gmres import GMRES
from pullback.linear.lineax_solver import Lineax
from pullback.linear.minres import MINRES
from pullback.linear.neumann import Neumann
from pullback.linear.nystrom import Nystrom
from pullback.registries import LINEAR_SOLVERS

__all__ = [
    "CG",
    "ECONOMICAL",
    "GMRES",
    "LINEAR_SOLVERS",
    "MINRES",
    "BiCGStab",
    "Dense",
    "LinearSolution",
    "LinearSolver",
    "Lineax",
    "Neumann",
    "Nystrom",
    "Operator",
]
