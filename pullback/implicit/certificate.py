"""The certificate of a meta-gradient: its estimated error, by source, and a verdict.

An implicit meta-gradient ĝ = Λu has two errors (Rajeswaran et al. 2019, Theorem 1): the inner
solution φ is not exactly stationary, and (H + Λ)u = v is not exactly solved. One Newton step

    φ⁺ = φ − (H + Λ)⁻¹ r,   r = ∇L(φ) + Λ(φ − θ)

gives a point φ⁺ that is closer to φ* by an order. Take the remainder v − (H + Λ)u of the linear
system, with the same u, at both points:

- at φ it is what the linear solver left, the linear error;
- its change from φ to φ⁺ is what the inner solver left, the inner error.

Λ(H + Λ)⁻¹ times either one is that error of ĝ, to first order.

A second Newton step, from φ⁺, tells whether the first one led toward φ* and how much of the way it
went. At a kink, or far away, it did not, and the inner error is infinite.

So (H + Λ)⁻¹ is applied four times. None of them costs a Hessian-vector product. The directions
that the linear solver searched are conjugate, so the inverse is known exactly on their span. For
the rest of a vector it is approximated: in the Newton steps by the inner solver's own
approximation, in the two errors by Λ⁻¹, which is an upper bound wherever the loss is convex, and
is enlarged where a curvature below Λ was seen. Where the linear head was eliminated all this is
done to the body alone, and what belongs to the head follows from it exactly (docs/projected.md).
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from pullback.core import trees
from pullback.core.display import Record
from pullback.core.errors import InputError, check_counts, check_number
from pullback.core.problem import Loss, Strength, divide_by_strength
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.implicit import Linearised
from pullback.linear import CG, LinearSolution, Operator
from pullback.linear.base import rounding
from pullback.models.losses import MeanLoss

ASTRAY = 0.9
"""Where a second correction is this share of the first one, corrections lead nowhere."""

LARGEST_EXCESS = 1e3
"""The most that (H + Λ)⁻¹ is taken to exceed Λ⁻¹ by."""

SOLVED = 1e-3
"""Up to this residual of the linear solve the smallest curvature seen is the smallest there is."""

NEAR = 0.02
"""Up to this residual corrections may consist of rounding."""


class Certify(eqx.Module):
    """How a meta-gradient is judged.

    Args:
        tolerance: the relative error of the meta-gradient, estimated for each source by itself,
            from which on the verdict is bad. Below 1 a gradient still points downhill.
        every: estimate from every ``every``-th query example, which is cheaper and adds some
            noise. Use 1 if the outer loss is neither a mean nor a sum over the first axis of its
            batch. None keeps about as many query examples as there are support examples, or all
            of them if a batch has no common first axis.
        inverse_steps: steps of CG for each of the four inverses, if the linear solver returns no
            directions or the solve was damped. Each step costs a Hessian-vector product.
        reach: the longest Newton step, as a share of max(‖φ − θ‖, ‖Λ⁻¹∇L(φ)‖), the distance from
            θ to φ*; the two are equal at a stationary φ. A longer step says nothing, since the
            loss is not quadratic that far out, and the inner error is infinite.
        share: the share of meta-gradients that get an estimate, drawn by their keys. The others
            have ∞ for both errors and a verdict from the residuals and curvatures alone. This
            saves time where tasks run one after the other, none under ``vmap``.

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
        reach: float = 0.5,
    ):
        check_number(
            "Certify", "numbers above 0", lambda x: x > 0, tolerance=tolerance, reach=reach
        )
        check_number("Certify", "numbers above 0, at most 1", lambda x: 0 < x <= 1, share=share)
        check_counts("Certify", every=1 if every is None else every, inverse_steps=inverse_steps)
        self.tolerance, self.every, self.inverse_steps = tolerance, every, inverse_steps
        self.share, self.reach = share, reach


class Errors(Record):
    """The estimated relative error of a meta-gradient, by source.

    It is that of each leaf by itself, and of these the root mean square: so neither the size of a
    leaf nor its unit matters.

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
    """Estimate the relative error of an implicit meta-gradient, by source.

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
    problem = point.problem
    space = _Space.of(point, damping)
    residual = problem.add_pull(point.loss_gradient, point.phi)
    reduced = space.reduce(residual)
    correct, bound = _inverses(
        certify, point, space, solution, approximate_inverse, damping, reduced
    )

    step = correct(reduced)
    correction = space.expand(residual, step)
    moved = trees.norm(trees.subtract(point.phi, problem.theta))
    # A solver that hardly moved away from θ may still be far from φ*.
    pulled = divide_by_strength(problem.strength, point.loss_gradient)
    reach = certify.reach * jnp.maximum(moved, trees.norm(pulled))
    length = trees.norm(correction)
    share = jnp.where(length > reach, trees.safe_divide(reach, length), 1.0)
    corrected = trees.axpy(-share, correction, point.phi)

    changed = _outer_change(certify, loss, query, cotangent, point, corrected)
    slope, bent = jax.jvp(problem.loss_gradient, (corrected,), (solution.value,))
    # H·u at φ costs no product: it follows from the remainder of the solve.
    solved = trees.subtract(cotangent, solution.remainder)
    pulled = trees.axpy(damping, solution.value, problem.pull(solution.value))
    bent = trees.subtract(bent, trees.subtract(solved, pulled))

    def error(pair: tuple[Params, Params]) -> Float[Array, ""]:
        remainder, reduced = pair
        found = space.expand(remainder, bound(reduced))
        return trees.mean_share(problem.pull(found), gradient)

    # Mapped over, a pass through the network is compiled once.
    left_behind = _stack(
        solution.remainder, trees.subtract(changed, bent), problem.add_pull(slope, corrected)
    )
    reduced = jax.lax.map(space.reduce, left_behind)
    linear, change = jax.lax.map(error, jax.tree.map(lambda rows: rows[:2], (left_behind, reduced)))
    # A second correction, from φ⁺, tells how much of the way to φ* the first one went.
    still = correct(jax.tree.map(lambda rows: rows[2], reduced))
    left = trees.safe_divide(trees.norm(still), trees.norm(step))
    inner = _whole_way(change, share, left, point.residual())
    return Errors(inner, linear + _rounding_error(point, solution, gradient))


def _stack(*vectors: Params) -> Params:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *vectors)


def _outer_change(
    certify: Certify,
    loss: Loss,
    query: PyTree[Any],
    cotangent: Params,
    point: Linearised,
    corrected: Params,
) -> Params:
    """How the gradient of the outer loss changes on the way from φ to φ⁺."""
    every = _every(certify, query, point.problem.support)
    outer = jax.grad(loss)
    if every == 1:
        return trees.subtract(outer(corrected, query), cotangent)
    weight = _weight(loss, point.phi, query, every)
    query = _thin(query, every)
    both = jax.lax.map(lambda phi: outer(phi, query), _stack(point.phi, corrected))
    return trees.scale(weight, jax.tree.map(lambda rows: rows[1] - rows[0], both))


def verdict(certify: Certify, errors: Errors, code: Int[Array, ""]) -> Int[Array, ""]:
    """The verdict on a meta-gradient: a failure that is known already, or the larger bad error.

    Args:
        certify: the settings.
        errors: from :func:`estimate`.
        code: the verdict on the inner solution and the linear solve.

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


def _whole_way(
    change: Float[Array, ""],
    share: Float[Array, ""],
    left: Float[Array, ""],
    residual: Float[Array, ""],
) -> Float[Array, ""]:
    """The error from φ to φ*, from the one that the first correction removed.

    Args:
        change: what the gradient changes by on the first correction.
        share: how much of the first correction was made.
        left: the length of the second correction, as a share of the first one's.
        residual: the stationarity residual at φ.

    Returns:
        The sum of a geometric series. Infinite where corrections do not shrink: then H says
        nothing about where φ* is, as at a kink; unless what is left is rounding.
    """
    astray = ~(left < ASTRAY) & (residual > NEAR) | (share < 1.0)
    whole = change / (1.0 - jnp.minimum(left, ASTRAY))
    return jnp.where(astray, jnp.inf, whole)


def _rounding_error(
    point: Linearised, solution: LinearSolution, gradient: Params
) -> Float[Array, ""]:
    """What rounding in the products with H may change: (H + Λ)u is known to ε‖H + Λ‖‖u‖."""
    precision = rounding(solution.value)
    largest, smallest = solution.largest_curvature, jnp.abs(solution.smallest_curvature)
    known = jnp.isfinite(largest) & jnp.isfinite(smallest) & (smallest > 0)
    condition = jnp.where(known, largest, 1.0) / jnp.where(known, smallest, 1.0)
    return jnp.where(trees.norm(gradient) > 0, precision * condition, 0.0)


class _Space(eqx.Module):
    """Where the inverses are approximated: among all parameters, or among the body's.

    Args:
        operator: (H + Λ), or its Schur complement S.
        strength: Λ there.
        reduce: takes a right-hand side there.
        expand: ``expand(right_side, solution there)``, the solution of all parameters.
        restrict: makes an approximation of (H + Λ)⁻¹ one of the operator's inverse.
    """

    operator: Operator
    strength: Strength
    reduce: Operator
    expand: Callable[[Params, Params], Params]
    restrict: Callable[[Operator], Operator]

    @classmethod
    def of(cls, point: Linearised, damping: float) -> "_Space":
        """The body's where the head was eliminated without damping."""
        eliminated, strength = point.elimination, point.problem.strength
        if eliminated is None or damping or not jax.tree.leaves(eliminated.body):
            assert strength is not None
            return cls(point.operator(), strength, lambda v: v, lambda _, u: u, lambda b: b)
        return cls(
            eliminated.operator(),
            eliminated.strength,
            eliminated.right_side,
            eliminated.complete,
            eliminated.body_inverse,
        )


def _inverses(
    certify: Certify,
    point: Linearised,
    space: _Space,
    solution: LinearSolution,
    approximate_inverse: Operator | None,
    damping: float,
    residual: Params,
) -> tuple[Operator, Operator]:
    """Two stand-ins for the inverse in a space: for the Newton correction, and for the errors."""
    excess = _excess(point, solution)

    def bare(vector: Params) -> Params:
        return trees.scale(excess, divide_by_strength(space.strength, vector))

    given = None if approximate_inverse is None else space.restrict(approximate_inverse)
    directions, curved = solution.directions, solution.curved
    if directions is None or curved is None or damping:
        solver = CG(certify.inverse_steps, rtol=0.0)

        def solve(vector: Params) -> Params:
            return solver.solve(space.operator, vector, given or bare).value

        return solve, solve

    def beyond(vector: Params) -> tuple[Params, Params]:
        flat, unravel = trees.ravel_wide(vector)
        along = directions @ flat
        return unravel(along @ directions), unravel(flat - along @ curved)

    def inverse(outside: Operator) -> Operator:
        def apply(vector: Params) -> Params:
            inside, rest = beyond(vector)
            return trees.add(inside, outside(rest))

        return apply

    near = given or _along(space.operator, beyond(residual)[1], bare)
    return inverse(near), inverse(bare)


def _along(operator: Operator, direction: Params, bare: Operator) -> Operator:
    """Λ⁻¹, shortened to what minimises along one direction, at the price of one product."""
    step = bare(direction)
    slope, curvature = trees.dot(direction, step), trees.dot(step, operator(step))
    usable = (curvature > slope) & jnp.isfinite(curvature)
    share = jnp.where(usable, slope, 1.0) / jnp.where(usable, curvature, 1.0)
    return lambda vector: trees.scale(share, bare(vector))


def _excess(point: Linearised, solution: LinearSolution) -> Float[Array, ""]:
    """By how much (H + Λ)⁻¹ may exceed Λ⁻¹; 1 where no curvature below Λ was seen.

    A curvature below Λ shows that the loss curves downward somewhere. The smallest one seen is an
    upper bound of the smallest one there is. Until the solve has converged that one is taken to
    lie as far below the one seen as this lies below Λ.
    """
    least, seen = point.problem.smallest_strength(), solution.smallest_curvature
    below = (seen > 0) & (seen < least)
    excess = jnp.where(below, least, 1.0) / jnp.where(below, seen, 1.0)
    excess = jnp.where(solution.residual > SOLVED, excess * excess, excess)
    return jnp.minimum(excess, LARGEST_EXCESS)


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
    if isinstance(loss, MeanLoss):
        return jnp.ones(())
    one = jax.tree.map(lambda leaf: leaf[:1], query)
    two = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), one)
    # An example counted twice leaves a mean as it is, and doubles a sum.
    single, double = loss(phi, one), loss(phi, two)
    doubles = jnp.abs(double - 2 * single) < jnp.abs(double - single)
    return jnp.where(doubles, float(every), 1.0).astype(single.dtype)
