"""The linear head eliminated from (H + Λ)u = v, at any φ and behind any inner solver.

Of a loss that is convex in a linear head the head's own block A = ∂²L/∂head² + Λ is known in closed
form, with its inverse (:mod:`pullback.solvers.head`). Write b for the body and C = ∂²L/∂b ∂head, so
that

    [ H_b + Λ   C ] [u_b]   [v_b]
    [ Cᵀ        A ] [u_h] = [v_h]

and eliminate the second row, u_h = A⁻¹(v_h − Cᵀu_b):

    S u_b = v_b − C A⁻¹ v_h,   S = H_b + Λ − C A⁻¹ Cᵀ.                       (Schur complement)

S is the Hessian of R(b) + ½‖b − b₀‖²_Λ, the inner problem with its head solved for, and has lost
the large eigenvalues that belong to the head. A product with S costs what one with H does: it is
the derivative of ∇_b L along b while the head moves by −A⁻¹Cᵀ of that. H + Λ and S have equally
many negative eigenvalues, since A is positive definite.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pullback.core import trees
from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem, Strength, apply_strength, divide_by_strength
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.linear.base import LinearSolution, LinearSolver, Operator, damped
from pullback.models.head import Head, LinearHead
from pullback.models.losses import separable, split_batch
from pullback.solvers.head import CurvedHead, HeadProblem
from pullback.solvers.projected import pose, split_strength


class Elimination(eqx.Module):
    """An inner problem at one point, with its head eliminated.

    Args:
        apply: where the head is.
        body: b.
        curved: A.
        strength: Λ of the body.
        damping: δ, in A and in S.
        product: p ↦ (H_b − C A⁻¹ Cᵀ)·p.
        across: p ↦ Cᵀ·p.
        cross: w ↦ C·w.
    """

    apply: LinearHead = eqx.field(static=True)
    body: Params
    curved: CurvedHead
    strength: Strength
    damping: float = eqx.field(static=True)
    product: Operator
    across: Callable[[Params], Head]
    cross: Callable[[Head], Params]

    def check_damping(self, damping: float) -> None:
        """A solve must have the damping that the head was eliminated with.

        Raises:
            InputError: if it has another.
        """
        if damping != self.damping:
            raise InputError(
                f"vjp(damping={damping!r}) at a point whose head was eliminated with "
                f"{self.damping!r}",
                remedy="Give linearise the same damping",
            )

    def operator(self) -> Operator:
        """p ↦ S·p, with δ."""

        def product(p: Params) -> Params:
            return trees.add(self.product(p), apply_strength(self.strength, p))

        return damped(product, self.damping)

    def right_side(self, vector: Params) -> Params:
        """v_b − C A⁻¹ v_h, a vector of the body."""
        body, head = self.apply.split(vector)
        return trees.subtract(body, self.cross(self.curved.inverse(head)))

    def complete(self, vector: Params, body: Params) -> Params:
        """(u_b, A⁻¹(v_h − Cᵀu_b)), from v and u_b."""
        left = jax.tree.map(jnp.subtract, self.apply.split(vector)[1], self.across(body))
        return self.apply.join(body, self.curved.inverse(left))

    def solve(self, vector: Params, linear_solver: LinearSolver) -> LinearSolution:
        """Solve (H + Λ + δI)u = v.

        Args:
            vector: v, shaped like the parameters.
            linear_solver: solves with S, which Λ⁻¹ is a good preconditioner of.

        Returns:
            The solution. Its steps, residual and curvatures are those of the solve with S, its
            directions are of the body alone.
        """
        rhs = self.right_side(vector)
        if not jax.tree.leaves(self.body):
            return self._of_head_alone(vector)
        found = linear_solver.solve(
            self.operator(), rhs, lambda v: divide_by_strength(self.strength, v)
        )
        nothing = jax.tree.map(jnp.zeros_like, self.apply.split(vector)[1])
        return eqx.tree_at(
            lambda s: (s.value, s.remainder),
            found,
            (self.complete(vector, found.value), self.apply.join(found.remainder, nothing)),
        )

    def _of_head_alone(self, vector: Params) -> LinearSolution:
        value = self.complete(vector, self.body)
        zero = jnp.zeros(())
        infinity = jnp.full((), jnp.inf)
        return LinearSolution(
            value,
            zero,
            trees.zeros_like(vector),
            jnp.asarray(0),
            infinity,
            -infinity,
            jnp.asarray(Verdict.OK),
        )

    def body_inverse(self, inverse: Operator) -> Operator:
        """The body's block of a map near (H + Λ)⁻¹; that of the inverse itself is S⁻¹."""
        nothing = jax.tree.map(jnp.zeros_like, self.curved.problem.start)
        return lambda body: self.apply.split(inverse(self.apply.join(body, nothing)))[0]


def eliminate(
    problem: InnerProblem, phi: Params, damping: float = 0.0
) -> tuple[Float[Array, ""], Params, Elimination] | None:
    """Take the head out of an inner problem, linearised at φ.

    Args:
        problem: the inner problem, with its proximal term.
        phi: the point.
        damping: δ ≥ 0 added to H + Λ.

    Returns:
        L(φ), ∇L(φ) and the elimination; None where the loss has no head to eliminate.
    """
    parts = separable(problem.loss)
    if parts is None or problem.strength is None:
        return None
    loss, apply = parts
    body, head = apply.split(phi)
    of_body, of_head = split_strength(apply, problem.strength, head)
    of_head = jax.tree.map(lambda s: s + damping, of_head)
    x = split_batch("The loss", problem.support)[0]

    def posed(features) -> HeadProblem:
        return pose(loss, apply, features, problem.support, head, of_head)

    def by_head(features, head) -> Head:
        own = posed(features)
        return own.gradient(own.slopes(own.outputs(head)))

    def by_features(features, head):
        own = posed(features)
        return jax.value_and_grad(lambda f: _value(own, f, head))(features)

    def head_change(features, head, change) -> Head:
        return jax.jvp(lambda features: by_head(features, head), (features,), (change,))[1]

    @jax.custom_jvp
    def moving(features, head, curved):
        return head

    @moving.defjvp
    def _(primals, tangents):
        features, head, curved = primals
        moved = curved.inverse(head_change(features, head, tangents[0]))
        return head, jax.tree.map(jnp.negative, moved)

    def evaluate(body):
        features, pull = jax.vjp(lambda body: apply.features(body, x), body)
        curved = jax.lax.stop_gradient(posed(features).curved(head))
        value, slope = by_features(features, moving(features, head, curved))
        return (value, pull(slope)[0], features), curved

    (value, gradient, features), along, curved = jax.linearize(evaluate, body, has_aux=True)

    def across(p: Params) -> Head:
        return head_change(features, head, along(p)[2])

    def cross(w: Head) -> Params:
        _, slope = jax.jvp(lambda head: by_features(features, head)[1], (head,), (w,))
        return jax.linear_transpose(lambda p: along(p)[2], body)(slope)[0]

    found = Elimination(apply, body, curved, of_body, damping, lambda p: along(p)[1], across, cross)
    return value, apply.join(gradient, by_head(features, head)), found


def _value(problem: HeadProblem, features: Float[Array, "n d"], head: Head) -> Float[Array, ""]:
    problem = eqx.tree_at(lambda p: p.features, problem, features)
    return problem.value(problem.outputs(head))
