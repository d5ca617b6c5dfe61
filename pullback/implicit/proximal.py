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
from pullback.implicit._derivative import attach
from pullback.implicit._solve import Settings
from pullback.implicit.elimination import Elimination, eliminate
from pullback.linear import CG
from pullback.linear.base import LinearSolution, LinearSolver, Operator, damped
from pullback.linear.dense import matrix


class Linearised(eqx.Module):
    """An inner problem at one point: its gradient, and products with its Hessian.

    Args:
        problem: the inner problem, with its proximal term.
        phi: the point.
        loss_value: L(φ), without the proximal term.
        loss_gradient: ∇L(φ), without the proximal term.
        hvp: u ↦ H·u with H = ∇²L(φ), without the proximal term.
        elimination: of the linear head, for a loss that is convex in one.
    """

    problem: InnerProblem
    phi: Params
    loss_value: Float[Array, ""]
    loss_gradient: Params
    hvp: Operator
    elimination: Elimination | None = None

    def residual(self) -> Float[Array, ""]:
        """The relative stationarity residual, as in :func:`stationarity`; 0 is exact."""
        return stationarity(self.problem, self.phi, self.loss_gradient)

    def operator(self, damping: float = 0.0) -> Operator:
        """u ↦ (H + Λ + δI)·u."""

        def product(u: Params) -> Params:
            return trees.add(self.hvp(u), self.problem.pull(u))

        return damped(product, damping)


def linearise(
    problem: InnerProblem, phi: Params, *, eliminate_head: bool = False, damping: float = 0.0
) -> Linearised:
    """Evaluate the gradient of the loss at ``phi`` once, for any number of products with H.

    Args:
        problem: the inner problem.
        phi: the point.
        eliminate_head: take a head out that the loss is convex in, where there is one
            (docs/projected.md): :func:`vjp` then solves for the body alone.
        damping: δ of that solve.

    Returns:
        The problem at ``phi``.
    """
    taken = eliminate(problem, phi, damping) if eliminate_head else None
    if taken is not None:
        value, gradient, elimination = taken

        def product(u: Params) -> Params:
            return jax.jvp(problem.loss_gradient, (phi,), (u,))[1]

        return Linearised(problem, phi, value, gradient, product, elimination)
    evaluate = jax.value_and_grad(lambda phi: problem.loss(phi, problem.support))
    (value, gradient), linear = jax.linearize(evaluate, phi)
    return Linearised(problem, phi, value, gradient, lambda u: linear(u)[1])


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
        ‖∇L(φ) + Λ(φ − θ)‖ / ‖∇L(φ)‖, or the root mean square over the leaves of each one's
        share of the larger of its ∇L(φ) and its Λ(φ − θ), whichever is more, so that no leaf
        hides another; without a proximal term ‖∇L(φ)‖ / ‖∇L(θ)‖.
    """
    whole = problem.add_pull(loss_gradient, phi)
    if problem.strength is not None:
        pull = trees.subtract(whole, loss_gradient)
        left, slope, pulled = map(trees.leaf_norms, (whole, loss_gradient, pull))
        together = trees.safe_divide(trees.norm(left), trees.norm(slope))
        each = trees.share_of_norms(left, jnp.maximum(slope, pulled), whole)
        return jnp.maximum(together, each)
    if start_norm is None:
        start_norm = trees.norm(problem.loss_gradient(problem.theta))
    return trees.safe_divide(trees.norm(whole), start_norm)


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
    if point.elimination is not None:
        point.elimination.check_damping(damping)
        linear_solver = _balanced(linear_solver, point)
        solution = point.elimination.solve(cotangent, linear_solver)
        return point.problem.pull(solution.value), solution
    strength = point.problem.strength
    if approximate_inverse is None or not linear_solver.preconditioned:
        approximate_inverse = lambda v: divide_by_strength(strength, v)  # noqa: E731
    linear_solver = _balanced(linear_solver, point)
    solution = linear_solver.solve(point.operator(damping), cotangent, approximate_inverse)
    return point.problem.pull(solution.value), solution


def _balanced(linear_solver: LinearSolver, point: Linearised) -> LinearSolver:
    if isinstance(linear_solver, CG) and linear_solver.balance:
        return linear_solver.balanced(point.residual())
    return linear_solver


UNSOLVED = 0.5
"""Above this residual φ is no solution. At θ it is 1: nothing of ∇L(φ) is balanced by the pull."""

ATTACHED = 0.1
"""The largest residual at which :func:`attach_derivative` gives derivatives."""


def attach_derivative(
    problem: InnerProblem, phi: Params, residual: Float[Array, ""], damping: float = 0.0
) -> Params:
    """φ with the derivatives of φ* by θ, by Λ and by the support set (paper: Lemma 1).

    Args:
        problem: the inner problem.
        phi: its solution, as a constant.
        residual: the stationarity residual there.
        damping: δ ≥ 0, as for :func:`vjp`.

    Returns:
        φ. Derivatives of any order and in both modes are those of the implicit function theorem,
        each by one linear solve to 1e-3, and NaN where that fails, where the residual is above
        0.1, or where it is NaN.
    """

    def stationary(phi, theta, support, strength, residual):
        return InnerProblem(problem.loss, support, theta, strength).gradient(phi)

    def near(function, leaves, dynamic):
        # The last argument; a rule must not close over it.
        return dynamic[1][-1] <= ATTACHED

    args = (problem.theta, problem.support, problem.strength, jax.lax.stop_gradient(residual))
    settings = Settings(None, True, damping, 1e-3, 0.0)
    return attach(stationary, phi, args, settings, judge=near)


def jacobian(point: Linearised) -> Float[Array, "n n"]:
    """dφ*/dθ = (H + Λ)⁻¹Λ as a dense matrix over the raveled parameters, for small problems."""
    curved = matrix(point.operator(), point.phi)
    return jnp.linalg.solve(curved, matrix(point.problem.pull, point.phi))


def result_code(
    point: Linearised,
    value: Float[Array, ""],
    residual: Float[Array, ""],
    start: Float[Array, ""],
    solution: LinearSolution,
) -> Int[Array, ""]:
    """One code for a whole meta-gradient, from its inner solution and its linear solve.

    Args:
        point: the inner problem, linearised where the solver stopped.
        value: the outer loss there.
        residual: the stationarity residual there.
        start: ``L(θ, support)``.
        solution: the linear solve.

    Returns:
        A number that is not finite outranks all else, and a failed solve what follows from the
        inner solution: a higher objective than at θ, or a residual above 0.5.
    """
    phi, loss = point.phi, point.loss_value
    # Where ∇L(φ) vanished the residual is infinite, which is far and not undefined.
    finite = jnp.isfinite(value) & ~jnp.isnan(residual) & trees.all_finite(phi)
    finite &= jnp.isfinite(loss) & trees.all_finite(point.loss_gradient)
    inner = jnp.where(residual > UNSOLVED, Verdict.INNER_NOT_CONVERGED, Verdict.OK)
    inner = jnp.where(point.problem.rises(phi, loss, start), Verdict.INNER_DIVERGED, inner)
    code = jnp.where(solution.code == Verdict.OK, inner, solution.code)
    return jnp.where(finite, code, Verdict.NOT_FINITE)
