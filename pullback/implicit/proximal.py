"""The implicit gradient of a proximal problem: Rajeswaran, Finn, Kakade & Levine (2019).

For one task write L(φ) for the loss on its support set and

    φ*(θ) = argmin_φ  L(φ) + ½ (φ − θ)ᵀ Λ (φ − θ)                         (paper: eq. 3–4)

with Λ positive and diagonal (the paper has Λ = λI). Whatever optimiser found it, φ* satisfies

    ∇L(φ*) + Λ(φ* − θ) = 0.                                               (stationarity)

Differentiate by θ, with H = ∇²L(φ*):

    H dφ*/dθ + Λ(dφ*/dθ − I) = 0   ⟹   dφ*/dθ = (H + Λ)⁻¹ Λ             (paper: Lemma 1, eq. 6)

and for a cotangent v, in training v = ∇L(φ*, query), the transposed product is

    (dφ*/dθ)ᵀ v = Λ u   with   (H + Λ) u = v.                             (paper: eq. 7)

H and Λ are symmetric, so one solve with Hessian-vector products at the final point is all: no
inner step is remembered or differentiated. Divided by a scalar λ this is (I + H/λ)⁻¹ v.

Two errors remain, and both are reported: φ is only nearly stationary, u only nearly solved
(paper: Theorem 1). Damping, which solves (H + Λ + δI) u = v instead, is a third one, made on
purpose; it is zero unless asked for.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pullback.core import trees
from pullback.core.problem import InnerProblem, divide_by_strength
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.linear import CG
from pullback.linear.base import LinearSolution, LinearSolver, Operator, damped
from pullback.linear.dense import matrix


class Linearised(eqx.Module):
    """An inner problem at one point: its gradient, and products with its Hessian.

    Args:
        problem: the inner problem, with its proximal term.
        phi: the point.
        loss_gradient: ∇L(φ), without the proximal term.
        hvp: u ↦ H·u with H = ∇²L(φ), without the proximal term.
    """

    problem: InnerProblem
    phi: Params
    loss_gradient: Params
    hvp: Operator

    def residual(self) -> Float[Array, ""]:
        """The relative stationarity residual ‖∇L(φ) + Λ(φ − θ)‖ / ‖∇L(φ)‖; 0 is exact."""
        return stationarity(self.problem, self.phi, self.loss_gradient)

    def operator(self, damping: float = 0.0) -> Operator:
        """u ↦ (H + Λ + δI)·u."""

        def product(u: Params) -> Params:
            return trees.add(self.hvp(u), self.problem.pull(u))

        return damped(product, damping)


def linearise(problem: InnerProblem, phi: Params) -> Linearised:
    """Evaluate the gradient of the loss at ``phi`` once, for any number of products with H."""
    gradient, hvp = jax.linearize(problem.loss_gradient, phi)
    return Linearised(problem, phi, gradient, hvp)


def stationarity(
    problem: InnerProblem,
    phi: Params,
    loss_gradient: Params,
    start_norm: Float[Array, ""] | None = None,
) -> Float[Array, ""]:
    """How far ``phi`` is from stationary, as a share.

    Args:
        problem: the inner problem.
        phi: the adapted parameters.
        loss_gradient: ∇L(φ), without the proximal term.
        start_norm: ‖∇L(θ)‖, to divide by where there is no proximal term.

    Returns:
        ‖∇L(φ) + Λ(φ − θ)‖ / ‖∇L(φ)‖; without a proximal term ‖∇L(φ)‖ / ‖∇L(θ)‖.
    """
    whole = trees.norm(problem.add_pull(loss_gradient, phi))
    if problem.strength is not None:
        return trees.safe_divide(whole, trees.norm(loss_gradient))
    if start_norm is None:
        start_norm = trees.norm(problem.loss_gradient(problem.theta))
    return trees.safe_divide(whole, start_norm)


def vjp(
    point: Linearised,
    cotangent: Params,
    linear_solver: LinearSolver,
    *,
    damping: float = 0.0,
    approximate_inverse: Operator | None = None,
) -> tuple[Params, LinearSolution]:
    """(dφ*/dθ)ᵀ v = Λ(H + Λ)⁻¹ v, by one linear solve (paper: eq. 7, Algorithm 2).

    Args:
        point: the inner problem, linearised at its solution φ*.
        cotangent: v, shaped like the parameters.
        linear_solver: solves (H + Λ + δI)u = v.
        damping: δ ≥ 0, a deliberate bias; 0 for the true gradient.
        approximate_inverse: an SPD map near (H + Λ)⁻¹ for a solver that asks for one; Λ⁻¹
            if None.

    Returns:
        Λu, and the solve's report with u in it.
    """
    strength = point.problem.strength
    if approximate_inverse is None or not linear_solver.preconditioned:
        approximate_inverse = lambda v: divide_by_strength(strength, v)  # noqa: E731
    if isinstance(linear_solver, CG) and linear_solver.balance:
        linear_solver = linear_solver.balanced(point.residual())
    solution = linear_solver.solve(point.operator(damping), cotangent, approximate_inverse)
    return point.problem.pull(solution.value), solution


def jacobian(point: Linearised) -> Float[Array, "n n"]:
    """dφ*/dθ = (H + Λ)⁻¹Λ as a dense matrix over the raveled parameters, for small problems."""
    curved = matrix(point.operator(), point.phi)
    return jnp.linalg.solve(curved, matrix(point.problem.pull, point.phi))


def result_code(
    phi: Params, value: Float[Array, ""], residual: Float[Array, ""], solution: LinearSolution
) -> Int[Array, ""]:
    """One code for a whole meta-gradient: a number that is not finite outranks all else."""
    finite = jnp.isfinite(value) & jnp.isfinite(residual) & trees.all_finite(phi)
    return jnp.where(finite, solution.code, Verdict.NOT_FINITE)
