"""What a meta-gradient is worth: the estimated error of each approximation behind it.

Two errors remain in an implicit meta-gradient ĝ = Λu (Rajeswaran et al. 2019, Theorem 1): φ is
only nearly stationary, and (H + Λ)u = v is only nearly solved. One Newton correction

    φ⁺ = φ − (H + Λ)⁻¹ r,   r = ∇L(φ) + Λ(φ − θ)

is an order closer to φ*. At φ⁺ the same u leaves the remainder v(φ⁺) − (H(φ⁺) + Λ)u. Its change
from φ to φ⁺ is the inner solver's part, the remainder at φ itself the linear solver's. Either
part, times Λ(H + Λ)⁻¹, is an error of ĝ to first order. A few steps of CG stand in for these
inverses, preconditioned where the inner solver hands on an approximation. The approximation alone
will not do: in directions that the solver never took it is far too small.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from pullback import codes, trees
from pullback.errors import InputError, check_counts
from pullback.implicit import Linearised
from pullback.linear import CG, LinearSolution, Operator
from pullback.problem import Loss, divide_by_strength
from pullback.trees import Params


class Certify(eqx.Module):
    """How a meta-gradient is judged.

    Args:
        tolerance: the relative error of the meta-gradient, estimated for each source by itself,
            from which on the verdict is bad. Below 1 a gradient still points downhill.
        every: estimate by every so-manieth query example instead of all, for a loss that is a
            mean over the first axis of its batch. The estimate then has some noise of its own,
            and costs that much less.
        inverse_steps: steps of CG that stand in for (H + Λ)⁻¹, three times; each costs a
            Hessian-vector product.
        share: the share of meta-gradients whose errors are estimated, drawn by their keys; the
            others have NaN for both errors, and a verdict without them. Saves time where tasks
            run one after the other, none under ``vmap``.

    Raises:
        InputError: if a setting is out of range.
    """

    tolerance: float = eqx.field(static=True)
    every: int = eqx.field(static=True)
    inverse_steps: int = eqx.field(static=True)
    share: float = eqx.field(static=True)

    def __init__(
        self, tolerance: float = 0.5, every: int = 1, inverse_steps: int = 5, share: float = 1.0
    ):
        if not tolerance > 0:
            raise InputError(f"Certify(tolerance={tolerance!r})", allowed="numbers above 0")
        if not 0 < share <= 1:
            raise InputError(f"Certify(share={share!r})", allowed="numbers above 0, at most 1")
        check_counts("Certify", every=every, inverse_steps=inverse_steps)
        self.tolerance, self.every, self.inverse_steps = tolerance, every, inverse_steps
        self.share = share


class Errors(eqx.Module):
    """The estimated relative error of a meta-gradient, by source.

    Args:
        inner: from an inner solution that is only nearly stationary.
        linear: from a linear system that is only nearly solved.
    """

    inner: Float[Array, ""]
    linear: Float[Array, ""]


def estimate(
    certify: Certify,
    point: Linearised,
    loss: Loss,
    query: PyTree[Array],
    cotangent: Params,
    gradient: Params,
    solution: LinearSolution,
    approximate_inverse: Operator | None = None,
) -> Errors:
    """Estimate the relative error ‖ĝ − g‖ / ‖ĝ‖ of an implicit meta-gradient, by source.

    Args:
        certify: the settings.
        point: the inner problem, linearised where the inner solver stopped.
        loss: the outer loss, ``loss(params, batch) -> scalar``.
        query: the batch of the outer loss.
        cotangent: v = ∇L(φ, query), which the solve was for.
        gradient: ĝ = Λu.
        solution: the linear solve that gave u.
        approximate_inverse: an SPD map near (H + Λ)⁻¹, if the inner solver gathered one.

    Returns:
        Both errors; exact zeros stay zero.

    Raises:
        InputError: if ``certify.every`` is above 1 and ``query`` has no common first axis.
    """
    inverse = _inverse(certify, point, approximate_inverse)
    size = trees.norm(gradient)

    def error(remainder: Params) -> Float[Array, ""]:
        return trees.safe_divide(trees.norm(point.problem.pull(inverse(remainder))), size)

    residual = point.problem.add_pull(point.loss_gradient, point.phi)
    corrected = trees.subtract(point.phi, inverse(residual))
    outer = jax.grad(loss)
    if certify.every > 1:
        query = _thin(query, certify.every)
        cotangent = outer(point.phi, query)
    moved = trees.subtract(outer(corrected, query), cotangent)
    bent = jax.jvp(point.problem.loss_gradient, (corrected,), (solution.value,))[1]
    bent = trees.subtract(bent, point.hvp(solution.value))
    return Errors(error(trees.subtract(moved, bent)), error(solution.remainder))


def verdict(certify: Certify, errors: Errors, code: Int[Array, ""]) -> Int[Array, ""]:
    """The verdict on a meta-gradient: what is already wrong, or else the larger of two errors.

    Args:
        certify: the settings.
        errors: from :func:`estimate`.
        code: of the linear solve and of what led to it.

    Returns:
        A code of :mod:`pullback.codes`.
    """
    # The negation also catches an estimate that is NaN.
    inner_bad = ~(errors.inner <= certify.tolerance)
    linear_bad = ~(errors.linear <= certify.tolerance)
    inner_first = inner_bad & ~(linear_bad & (errors.linear > errors.inner))
    slack = jnp.where(linear_bad, codes.SOLVE_NOT_CONVERGED, codes.OK)
    slack = jnp.where(inner_first, codes.INNER_NOT_CONVERGED, slack)
    return jnp.where(code == codes.OK, slack, code)


def _inverse(certify: Certify, point: Linearised, approximate_inverse: Operator | None) -> Operator:
    solver, operator = CG(certify.inverse_steps, rtol=0.0), point.operator()
    strength = point.problem.strength
    near = approximate_inverse or (lambda v: divide_by_strength(strength, v))

    def inverse(vector: Params) -> Params:
        return solver.solve(operator, vector, near).value

    return inverse


def _thin(query: PyTree[Array], every: int) -> PyTree[Array]:
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(query)}
    if len(lengths) != 1 or lengths == {()}:
        raise InputError(
            f"Certify(every={every}) on a query batch whose leaves begin with the axes "
            f"{sorted(lengths)}",
            allowed="batches of arrays with one common first axis",
            remedy="Leave every at 1",
        )
    return jax.tree.map(lambda leaf: leaf[::every], query)
