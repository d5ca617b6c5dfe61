"""Linear solvers for (H + Λ)u = v, which know the matrix by its products only."""

from pullback.linear.base import LinearSolution, LinearSolver, Operator
from pullback.linear.cg import CG
from pullback.linear.lineax_solver import Dense, Lineax

__all__ = ["CG", "Dense", "LinearSolution", "LinearSolver", "Lineax", "Operator"]
