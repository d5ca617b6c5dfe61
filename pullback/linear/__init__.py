"""Linear solvers for (H + Λ)u = v, which know the matrix by its products only."""

from pullback.core.registry import Entry
from pullback.linear.base import LinearSolution, LinearSolver, Operator
from pullback.linear.bicgstab import BiCGStab
from pullback.linear.cg import CG
from pullback.linear.dense import Dense
from pullback.linear.gmres import GMRES
from pullback.linear.lineax_solver import Lineax
from pullback.linear.minres import MINRES
from pullback.linear.neumann import Neumann
from pullback.linear.nystrom import Nystrom

LINEAR_SOLVERS: dict[str, Entry] = {
    line.name: line
    for line in (
        Entry(
            "cg",
            "conjugate gradients, preconditioned by the inner L-BFGS's own pairs",
            lambda steps, rtol: CG(steps, rtol),
        ),
        Entry(
            "minres",
            "smallest residual, for matrices that need not be definite; no preconditioner",
            MINRES,
        ),
        Entry("gmres", "Lineax's GMRES, in whole cycles of at most 20 products", GMRES),
        Entry("bicgstab", "Lineax's BiCGStab, two products a step", BiCGStab),
        Entry("neumann", "a Neumann series with a scale it measures itself; slow", Neumann),
        Entry(
            "nystrom",
            "CG preconditioned by a random sketch, which takes half of --linear-steps",
            lambda steps, rtol: Nystrom(max(1, steps // 2), steps, rtol),
        ),
        Entry(
            "dense",
            "the whole matrix, for small networks; --linear-steps does not matter",
            lambda steps, rtol: Dense(),
        ),
    )
}
"""Linear solvers by name, each built by ``make(steps, rtol)``."""

__all__ = [
    "CG",
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
