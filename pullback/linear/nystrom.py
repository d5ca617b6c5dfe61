"""CG preconditioned by a random sketch of the Hessian."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pullback.core import trees
from pullback.core.errors import InputError, check_seed
from pullback.core.trees import Params
from pullback.linear.base import (
    RTOL,
    STEPS,
    LinearSolution,
    Operator,
    Unpreconditioned,
    check_settings,
)
from pullback.linear.cg import CG


class Nystrom(Unpreconditioned):
    """Nyström-preconditioned CG (Frangella, Tropp & Udell 2023, Algorithms 2.1 and 5.1).

    ``rank`` products with A = H + Λ give Y = HΩ for a random Ω, and Y the approximation
    U diag(μ) Uᵀ of H in the coordinates in which Λ = I. Its inverse with Λ preconditions CG:

        B = U (diag(μ) + I)⁻¹ Uᵀ + (I − U Uᵀ)                          (paper: section 5)

    with 1 in place of the smallest μ + 1 there, which suits eigenvalues of H that scatter around
    zero. The paper has a positive semidefinite H; the Hessian of a network has negative
    eigenvalues. Directions of the sketch whose curvature ωᵀHω is not clearly above the most
    negative one are therefore left out, and μ is never negative: H is taken for zero there, and
    CG is left to find out what it really is. What CG reports is about A itself, so that a
    negative curvature is still a code.

    The sketch is drawn anew in every solve, from a fixed seed, because H is another one in every
    task. It pays where several right-hand sides share one H, or where CG would need many more
    products than ``rank``.

    Args:
        rank: products with A for the sketch; memory is as many parameter vectors, three times
            over while it is made.
        steps: the most products with A in all, those of the sketch included.
        rtol: stop once ‖A·u − v‖ ≤ rtol·‖v‖; 0 goes on to rounding.
        seed: of Ω.

    Raises:
        InputError: if a setting is out of range, or the sketch leaves no step for CG.
    """

    rank: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    rtol: float = eqx.field(static=True)
    seed: int = eqx.field(static=True)

    @classmethod
    def with_products(cls, steps: int, rtol: float) -> "Nystrom":
        """Half of the products for the sketch, the others for CG."""
        return cls(max(1, steps // 2), steps, rtol)

    def __init__(self, rank: int = 5, steps: int = STEPS, rtol: float = RTOL, seed: int = 0):
        check_settings("Nystrom", rtol, rank=rank, steps=steps)
        check_seed(seed, "Nystrom's seed")
        if rank >= steps:
            raise InputError(
                f"Nystrom(rank={rank}, steps={steps})",
                allowed="steps above rank, for the sketch takes rank of them",
            )
        self.rank, self.steps, self.rtol, self.seed = rank, steps, rtol, seed

    def solve(
        self, operator: Operator, rhs: Params, approximate_inverse: Operator
    ) -> LinearSolution:
        """Solve ``operator(u) = rhs``; the approximate inverse is Λ⁻¹, which is diagonal."""
        flat, unravel = trees.ravel(rhs)
        rank = min(self.rank, flat.size)
        ones = jax.tree.map(jnp.ones_like, rhs)
        diagonal = trees.ravel(approximate_inverse(ones))[0]
        # Whatever else an approximate inverse may be, the preconditioner must be positive.
        root = jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1.0))

        def shifted(vector: Float[Array, " n"]) -> Float[Array, " n"]:
            return root * trees.ravel(operator(unravel(root * vector)))[0]

        directions, values = sketch(shifted, flat, rank, self.seed)

        def inverse(vector: Params) -> Params:
            scaled = root * trees.ravel(vector)[0]
            along = directions @ scaled
            scaled = scaled - (along * values / (1.0 + values)) @ directions
            return unravel(root * scaled)

        cg = CG(self.steps - rank, self.rtol)
        solution = cg.solve(operator, rhs, inverse)
        return eqx.tree_at(lambda s: s.steps, solution, solution.steps + rank)


def sketch(
    shifted: Operator, like: Float[Array, " n"], rank: int, seed: int
) -> tuple[Float[Array, "k n"], Float[Array, " k"]]:
    """A randomised Nyström approximation U diag(μ) Uᵀ of H by k products with H + I.

    Args:
        shifted: u ↦ (H + I)·u on flat vectors.
        like: a vector.
        rank: k.
        seed: of the random directions.

    Returns:
        The rows of Uᵀ, orthonormal or zero, and μ ≥ 0.
    """
    drawn = jax.random.normal(jax.random.key(seed), (like.size, rank), like.dtype)
    test = jnp.linalg.qr(drawn)[0].T
    images = jax.lax.map(shifted, test) - test
    core = images @ test.T
    curvatures, turned = jnp.linalg.eigh(0.5 * (core + core.T))
    eps = jnp.finfo(like.dtype).eps
    size = jnp.max(jnp.abs(curvatures))
    # A core value near zero is a chance balance of curvatures of both signs, and dividing by it
    # would make a large eigenvalue of nothing.
    floor = jnp.maximum(-2.0 * curvatures[0], rank * eps * size)
    kept = curvatures > floor
    weights = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, curvatures, 1.0)), 0.0)
    half = weights[:, None] * (turned.T @ images)
    _, singular, directions = jnp.linalg.svd(half, full_matrices=False)
    values = singular * singular
    sound = jnp.isfinite(values) & (values > 0)
    return jnp.where(sound[:, None], directions, 0.0), jnp.where(sound, values, 0.0)
