"""Implicit differentiation of any solver, by the conditions that its solution satisfies.

If F(x*, θ) = 0, F is smooth there and ∂ₓF is invertible, the implicit function theorem gives

    dx* = −(∂ₓF)⁻¹ ∂_θF dθ                   (Blondel et al. 2022, "Efficient and Modular
                                              Implicit Differentiation")

whatever found x*. The solver is never differentiated, so it may be any code. One linear solve with
∂ₓF gives a directional derivative, one with its transpose a gradient.

The theorem needs a solution, and a solve that succeeded. Both are checked whenever a derivative is
taken, and where a check fails the derivative is NaN, never zero and never a plausible number.
"""

from pullback.optimality.doors import (
    RootCertificate,
    certify,
    displacement,
    fixed_point,
    root,
)

__all__ = ["RootCertificate", "certify", "displacement", "fixed_point", "root"]
