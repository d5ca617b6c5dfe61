"""What a meta-gradient is worth: the estimated error of each approximation behind it.

Two errors remain in an implicit meta-gradient ĝ = Λu (Rajeswaran et al. 2019, Theorem 1): φ is
only nearly stationary, and (H + Λ)u = v is only nearly solved. One Newton correction

    φ⁺ = φ − (H + Λ)⁻¹ r,   r = ∇L(φ) + Λ(φ − θ)

is an order closer to φ*. At φ⁺ the same u leaves the remainder v(φ⁺) − (H(φ⁺) + Λ)u. Its change
from φ to φ⁺ is the inner solver's part, the remainder at φ itself the linear solver's. Either
part, times Λ(H + Λ)⁻¹, is an error of ĝ to first order.

Each of the three inverses is exact on the space of the directions that the linear solver took, in
which H + Λ is diagonal already. What a vector holds beyond them meets the inner solver's own
approximation of the inverse for the correction, and Λ⁻¹ for the two errors: the solve never went
that way, and where the loss curves upward Λ⁻¹ is too large rather than too small. All of that
takes no Hessian-vector product.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from pullback.core import trees
from pullback.core.errors import InputError, check_counts
from pullback.core.problem import Loss, divide_by_strength
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.implicit import Linearised
from pullback.linear import CG, LinearSolution, Operator


class Certify(eqx.Module):
    """How a meta-gradient is judged.

    Args:
        tolerance: the relative error of the meta-gradient, estimated for each source by itself,
            from which on the verdict is bad. Below 1 a gradient still points downhill.
        every: estimate by every so-manieth query example instead of all, for an outer loss that
            is a mean or a sum over the first axis of its batch; 1 for a loss that is neither. The
            estimate then has some noise of its own, and costs that much less. None leaves about
            as many query examples as there are support examples, or all where the two batches do
            not each have a common first axis.
        inverse_steps: steps of CG that stand in for (H + Λ)⁻¹, three times, after a linear solver
            that hands on no directions, or with damping; each costs a Hessian-vector product.
        reach: the longest Newton correction that is believed, as a share of the way from θ to
            φ*, which is ‖φ − θ‖ or ‖Λ⁻¹∇L(φ)‖, whichever is longer; both are once φ is
            stationary. A longer one is shortened, since the loss is not quadratic that far.
        share: the share of meta-gradients whose errors are estimated, drawn by their keys; the
            others have NaN for both errors, and a verdict without them. Saves time where tasks
            run one after the other, none under ``vmap``.

    Raises:
        InputError: if a setting is out of range.
    """

    tolerance: float = eqx.field(static=True)
    every: int | None = eqx.field(static=True)
    inverse_steps: int = eqx.field(static=True)
    share: float = eqx.field(static=True)
    reach: float = eqx.field(static=True)

    def __init__(
        self,
        tolerance: float = 0.5,
        every: int | None = None,
        inverse_steps: int = 5,
        share: float = 1.0,
        reach: float = 0.2,
    ):
        if not tolerance > 0:
            raise InputError(f"Certify(tolerance={tolerance!r})", allowed="numbers above 0")
        if not 0 < share <= 1:
            raise InputError(f"Certify(share={share!r})", allowed="numbers above 0, at most 1")
        if not reach > 0:
            raise InputError(f"Certify(reach={reach!r})", allowed="numbers above 0")
        check_counts("Certify", every=1 if every is None else every, inverse_steps=inverse_steps)
        self.tolerance, self.every, self.inverse_steps = tolerance, every, inverse_steps
        self.share, self.reach = share, reach


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
    query: PyTree[Any],
    cotangent: Params,
    gradient: Params,
    solution: LinearSolution,
    approximate_inverse: Operator | None = None,
    damping: float = 0.0,
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
        damping: δ of that solve.

    Returns:
        Both errors; exact zeros stay zero.

    Raises:
        InputError: if ``certify.every`` is above 1 and ``query`` has no common first axis.
    """
    correct, bound = _inverses(certify, point, solution, approximate_inverse, damping)
    size = trees.norm(gradient)

    def error(remainder: Params) -> Float[Array, ""]:
        return trees.safe_divide(trees.norm(point.problem.pull(bound(remainder))), size)

    residual = point.problem.add_pull(point.loss_gradient, point.phi)
    correction = correct(residual)
    moved = trees.norm(trees.subtract(point.phi, point.problem.theta))
    # A solver that has hardly moved is no reason to believe that φ* is near.
    pulled = divide_by_strength(point.problem.strength, point.loss_gradient)
    reach = certify.reach * jnp.maximum(moved, trees.norm(pulled))
    length = trees.norm(correction)
    share = jnp.where(length > reach, trees.safe_divide(reach, length), 1.0)
    corrected = trees.axpy(-share, correction, point.phi)

    every = _every(certify, query, point.problem.support)
    outer, judged, weight = jax.grad(loss), cotangent, 1.0
    if every > 1:
        weight = _weight(loss, point.phi, query, every)
        query = _thin(query, every)
        judged = outer(point.phi, query)
    changed = trees.scale(weight, trees.subtract(outer(corrected, query), judged))
    bent = jax.jvp(point.problem.loss_gradient, (corrected,), (solution.value,))[1]
    # H·u at φ itself is what the solve left over of v.
    left = trees.subtract(cotangent, solution.remainder)
    pulled = trees.axpy(damping, solution.value, point.problem.pull(solution.value))
    bent = trees.subtract(bent, trees.subtract(left, pulled))
    return Errors(error(trees.subtract(changed, bent)), error(solution.remainder))


def verdict(certify: Certify, errors: Errors, code: Int[Array, ""]) -> Int[Array, ""]:
    """The verdict on a meta-gradient: what is already wrong, or else the larger of two errors.

    Args:
        certify: the settings.
        errors: from :func:`estimate`.
        code: of the linear solve and of what led to it.

    Returns:
        A code of :mod:`pullback.core.results`.
    """
    # The negation also catches an estimate that is NaN.
    inner_bad = ~(errors.inner <= certify.tolerance)
    linear_bad = ~(errors.linear <= certify.tolerance)
    inner_first = inner_bad & ~(linear_bad & (errors.linear > errors.inner))
    slack = jnp.where(linear_bad, Verdict.SOLVE_NOT_CONVERGED, Verdict.OK)
    slack = jnp.where(inner_first, Verdict.INNER_NOT_CONVERGED, slack)
    return jnp.where(code == Verdict.OK, slack, code)


def _inverses(
    certify: Certify,
    point: Linearised,
    solution: LinearSolution,
    approximate_inverse: Operator | None,
    damping: float,
) -> tuple[Operator, Operator]:
    """Two stand-ins for (H + Λ)⁻¹: for the Newton correction, and for the errors."""
    strength, operator = point.problem.strength, point.operator()

    def bare(vector: Params) -> Params:
        return divide_by_strength(strength, vector)

    near = approximate_inverse or bare
    directions, curved = solution.directions, solution.curved
    if directions is None or curved is None or damping:
        solver = CG(certify.inverse_steps, rtol=0.0)

        def solve(vector: Params) -> Params:
            return solver.solve(operator, vector, near).value

        return solve, solve

    def inverse(beyond: Operator) -> Operator:
        def apply(vector: Params) -> Params:
            along = trees.rows_times(directions, vector)
            rest = trees.subtract(vector, trees.combine(along, curved))
            return trees.add(trees.combine(along, directions), beyond(rest))

        return apply

    return inverse(near), inverse(bare)


def _every(certify: Certify, query: PyTree[Any], support: PyTree[Any]) -> int:
    queries, supports = _length(query), _length(support)
    if certify.every is None:
        return 1 if queries is None or not supports else max(1, queries // supports)
    if certify.every > 1 and queries is None:
        raise InputError(
            f"Certify(every={certify.every}) on a query batch whose leaves begin with the axes "
            f"{sorted({jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(query)})}",
            allowed="batches of arrays with one common first axis",
            remedy="Set every to 1",
        )
    return certify.every


def _length(batch: PyTree[Any]) -> int | None:
    """The common first axis of a batch's leaves; None if they have none."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(batch)}
    return None if len(lengths) != 1 or lengths == {()} else lengths.pop()[0]


def _thin(query: PyTree[Any], every: int) -> PyTree[Any]:
    return jax.tree.map(lambda leaf: leaf[::every], query)


def _weight(loss: Loss, phi: Params, query: PyTree[Any], every: int) -> Float[Array, ""]:
    """What the loss of every so-manieth example must be multiplied by to stand for that of all."""
    one = jax.tree.map(lambda leaf: leaf[:1], query)
    two = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), one)
    # An example counted twice leaves a mean as it is, and doubles a sum.
    single, double = loss(phi, one), loss(phi, two)
    doubles = jnp.abs(double - 2 * single) < jnp.abs(double - single)
    return jnp.where(doubles, float(every), 1.0).astype(single.dtype)
