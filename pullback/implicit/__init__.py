"""Implicit differentiation: of the proximal problem, and of any optimality condition.

If F(x*, θ) = 0, F is smooth there and ∂ₓF is invertible, the implicit function theorem gives

    dx* = −(∂ₓF)⁻¹ ∂_θF dθ                   (Blondel et al. 2022, "Efficient and Modular
                                              Implicit Differentiation")

whatever found x*. The solver is never differentiated, so it may be any code. One linear solve with
∂ₓF gives a directional derivative, one with its transpose a gradient.

The theorem needs a solution, and a solve that succeeded. Both are checked whenever a derivative is
taken, and where a check fails the derivative is NaN, never zero and never a plausible number.
"""

from pullback.implicit._checks import without_derivatives
from pullback.implicit.laplace import Evidence, Laplace, Prediction, posterior
from pullback.implicit.optimality import (
    RootCertificate,
    certify,
    displacement,
    fixed_point,
    root,
    root_jvp,
    root_vjp,
)
from pullback.implicit.proximal import (
    UNSOLVED,
    Linearised,
    attach_derivative,
    jacobian,
    linearise,
    result_code,
    stationarity,
    vjp,
)

__all__ = [
    "UNSOLVED",
    "Evidence",
    "Laplace",
    "Linearised",
    "Prediction",
    "RootCertificate",
    "attach_derivative",
    "certify",
    "displacement",
    "fixed_point",
    "jacobian",
    "linearise",
    "posterior",
    "result_code",
    "root",
    "root_jvp",
    "root_vjp",
    "stationarity",
    "vjp",
    "without_derivatives",
]
