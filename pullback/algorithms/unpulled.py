"""Leaves with λ = 0: they adapt, and nothing pulls them toward θ.

Write φ = (a, f) with f unpulled. What the support set says of f is solved for at every a:

    R(a) = min over f of L(a, f; D_support),
    φ* = (a*, f*(a*)),   a* = argmin over a of R(a) + ½‖a − a₀‖²_Λ,

a proximal problem again, with Λ positive, so that its solvers, its linear system and its
certificate are those of any other. By the envelope theorem R's gradient is ∂L/∂a at f*(a); its
Hessian is H_aa − H_af H_ff⁻¹ H_fa. θ's leaf is where Newton's method starts, and the gradient by it
is zero: the row of Λ(H + Λ)⁻¹ that belongs to it.

In a mixed model these are the effects that each group has for itself, without a prior.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from pullback.core import trees
from pullback.core.checks import check_value
from pullback.core.errors import InputError
from pullback.core.problem import Loss
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.implicit import without_derivatives

LIMIT = 256
"""The most numbers in unpulled leaves: H_ff is a dense matrix."""

STEPS = 50
"""The most Newton steps."""

SHORTEST = 2.0**-20
"""The shortest part of a Newton step that is tried."""

Vector = Float[Array, " n"]


class Spectrum(NamedTuple):
    """The eigenvalues of a symmetric matrix whose unknowns are each in a unit of their own.

    Args:
        scale: the roots of the diagonal, ones where it is zero.
        values: eigenvalues of the matrix in these units, ascending.
        vectors: its eigenvectors.
    """

    scale: Vector
    values: Vector
    vectors: Float[Array, "n n"]

    @classmethod
    def of(cls, matrix: Float[Array, "n n"]) -> "Spectrum":
        """The spectrum of a matrix."""
        scale = jnp.sqrt(jnp.abs(jnp.diag(matrix)))
        scale = jnp.where(scale > 0, scale, 1.0)
        return cls(scale, *jnp.linalg.eigh(matrix / (scale[:, None] * scale)))

    @property
    def floor(self) -> float:
        """What rounding may make of an eigenvalue that is zero."""
        return 10.0 * self.values.size * float(jnp.finfo(self.values.dtype).eps)

    @property
    def definite(self) -> Bool[Array, ""]:
        """Whether the matrix is positive definite, to rounding."""
        return self.values[0] > self.floor

    @property
    def shift(self) -> Float[Array, ""]:
        """What makes it positive definite, added to its diagonal in these units."""
        lacking = 2.0 * (self.floor - jnp.minimum(self.values[0], 0.0))
        return jnp.where(self.definite, 0.0, lacking)

    def descent(self, slope: Vector) -> Vector:
        """|matrix|⁻¹ · slope, with no part along what is singular."""
        known = jnp.abs(self.values) > self.floor
        inverse = jnp.where(known, 1.0 / jnp.where(known, jnp.abs(self.values), 1.0), 0.0)
        return self.vectors @ (inverse * (self.vectors.T @ (slope / self.scale))) / self.scale


class Unpulled:
    """R, a loss of the pulled leaves whose batch is the support set and all other leaves.

    Args:
        loss: ``loss(params, batch) -> scalar``, of all leaves.
        unpulled: for each leaf whether it is unpulled.
    """

    def __init__(self, loss: Loss, unpulled: PyTree[bool]):
        self._loss, self._unpulled = loss, unpulled

        @jax.custom_jvp
        def value(pulled, rest, support):
            f, _ = self._minimum(pulled, rest, support)
            return self._value(f, pulled, rest, support)

        @value.defjvp
        def _(primals, tangents):
            f = self._minimum_with_derivative(*primals)[0]
            return jax.jvp(lambda *inputs: self._value(f, *inputs), primals, tangents)

        # The solution is an argument, so that its derivative is taken at the solution.
        @jax.custom_jvp
        def moving(f, pulled, rest, support):
            return f

        @moving.defjvp
        def _(primals, tangents):
            f, inputs = primals[0], primals[1:]
            _, pushed = jax.jvp(lambda *inputs: self._slope(f, *inputs), inputs, tangents[1:])
            matrix = self._hessian(f, *inputs)
            seen = Spectrum.of(jax.lax.stop_gradient(matrix))
            matrix = matrix + jnp.diag(seen.shift * seen.scale**2)
            return moving(*primals), -jnp.linalg.solve(matrix, pushed)

        self._reduced, self._moving = value, moving

    def __call__(self, pulled: Params, batch: tuple[PyTree[Any], Params]) -> Float[Array, ""]:
        """R, at the support set and the leaves that are not pulled."""
        support, rest = batch
        check_value(self._loss, eqx.combine(pulled, rest), support)
        return self._reduced(pulled, rest, support)

    def check_size(self, params: Params) -> None:
        """The unpulled leaves must be few numbers.

        Raises:
            InputError: if they are none or too many.
        """
        size = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(params, self._unpulled)))
        if not 0 < size <= LIMIT:
            raise InputError(
                f"The leaves with λ = 0 hold {size} numbers",
                allowed=f"1 to {LIMIT}",
                remedy="Give the large ones a λ, however small",
            )

    def complete(
        self, pulled: Params, rest: Params, support: PyTree[Any]
    ) -> tuple[Params, Int[Array, ""]]:
        """f* in place of the start of f.

        Args:
            pulled: the leaves that are pulled.
            rest: all others.
            support: the support set.

        Returns:
            The others, with the derivatives of f*; and ``NEGATIVE_CURVATURE`` where the support
            set does not determine f, ``INNER_NOT_CONVERGED`` where no minimum was found.
        """
        f, found = self._minimum_with_derivative(pulled, rest, support)
        seen = Spectrum.of(self._hessian(*without_derivatives((f, pulled, rest, support))))
        code = jnp.where(found, Verdict.OK, Verdict.INNER_NOT_CONVERGED)
        code = jnp.where(seen.definite, code, Verdict.NEGATIVE_CURVATURE)
        return self._with(f, rest), code

    def _with(self, f: Vector, rest: Params) -> Params:
        start, frozen = eqx.partition(rest, self._unpulled)
        return eqx.combine(trees.ravel_wide(start)[1](f), frozen)

    def _value(self, f: Vector, pulled: Params, rest: Params, support: Any) -> Float[Array, ""]:
        return self._loss(eqx.combine(pulled, self._with(f, rest)), support)

    def _slope(self, f: Vector, *inputs: Any) -> Vector:
        return jax.grad(self._value)(f, *inputs)

    def _hessian(self, f: Vector, *inputs: Any) -> Float[Array, "n n"]:
        return jax.jacfwd(self._slope)(f, *inputs)

    def _minimum_with_derivative(self, *inputs: Any) -> tuple[Vector, Bool[Array, ""]]:
        f, found = self._minimum(*without_derivatives(inputs))
        return self._moving(f, *inputs), found

    def _minimum(self, *inputs: Any) -> tuple[Vector, Bool[Array, ""]]:
        """f*, by Newton's method with steps that lower the loss, and whether it is a minimum."""
        start = trees.ravel_wide(eqx.filter(inputs[1], self._unpulled))[0]
        eps = jnp.finfo(start.dtype).eps

        def value(f):
            return self._value(f, *inputs).astype(start.dtype)

        first = value(start)

        def step(carry):
            count, f, lowest, before, _, _ = carry
            slope = self._slope(f, *inputs)
            move = Spectrum.of(self._hessian(f, *inputs)).descent(slope)
            # Twice what the step lowers the loss by, as far as the loss is quadratic.
            gain = slope @ move
            size = jnp.maximum(jnp.abs(lowest), first - lowest)
            # Close to the minimum values differ by rounding only. The step squares the error, and
            # where gains no longer shrink they are rounding themselves.
            near = gain <= jnp.sqrt(eps) * size
            found = (gain <= eps * size) | (near & (gain > 0.25 * before))

            def too_long(tried):
                share, reached = tried
                return ~near & ~(reached < lowest) & (share > SHORTEST)

            def shorter(tried):
                share = 0.5 * tried[0]
                return share, value(f - share * move)

            one = jnp.ones_like(first)
            share, reached = jax.lax.while_loop(too_long, shorter, (one, value(f - move)))
            stuck = ~near & ~(reached < lowest)
            f = jnp.where(stuck, f, f - share * move)
            lowest = jnp.where(stuck, lowest, reached)
            return count + 1, f, lowest, gain, found, stuck

        def unfinished(carry):
            count, _, _, _, found, stuck = carry
            return (count < STEPS) & ~found & ~stuck

        no = jnp.asarray(False)
        carry = (jnp.asarray(0), start, first, jnp.full_like(first, jnp.inf), no, no)
        _, f, _, _, found, _ = jax.lax.while_loop(unfinished, step, carry)
        return f, found


@jax.custom_jvp
def derivative_where(sound: Bool[Array, ""], x: PyTree[Any]) -> PyTree[Any]:
    """``x``, whose derivative is NaN unless it is sound."""
    return x


@derivative_where.defjvp
def _(primals, tangents):
    sound, x = primals
    factor = jnp.where(sound, 1.0, jnp.nan)
    return derivative_where(sound, x), trees.scale(factor, tangents[1])
