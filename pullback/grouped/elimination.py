"""Every group's own head, eliminated from the linear system of all of them and the population's."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Eliminated(NamedTuple):
    """What is left of w's system: (curved + P) w = slope.

    Args:
        curved: FᵀSF less what the groups take of it.
        slope: Fᵀs, likewise.
        square: what the groups take of sᵀS⁻¹s.
        log_curved: the sum of log|ZᵀSZ + I| over groups.
        factor: the Cholesky factor C of each group's ZᵀSZ + I.
        across: C⁻¹ZᵀSF of each.
        along: C⁻¹Zᵀs of each.
    """

    curved: Float[Array, "f f"]
    slope: Float[Array, " f"]
    square: Float[Array, ""]
    log_curved: Float[Array, ""]
    factor: Float[Array, "groups r r"]
    across: Float[Array, "groups r f"]
    along: Float[Array, "groups r"]

    def own(self, w: Float[Array, " f"]) -> Float[Array, "groups r"]:
        """Every δ that goes with w."""
        solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True, trans=1)
        return jax.vmap(solve)(self.factor, self.along - self.across @ w)


def eliminate(
    f: Float[Array, "n f"],
    z: Float[Array, "n r"],
    share: Float[Array, " n"],
    pull: Float[Array, " n"],
    group: Int[Array, " n"],
    groups: int,
) -> Eliminated:
    """Minimise ½ηᵀSη − sᵀη + ½‖δ‖² over every δ, where η = Fw + Zδ.

    Args:
        f: F.
        z: Z.
        share: the diagonal S.
        pull: s.
        group: the number of each row's group.
        groups: how many there are.

    Returns:
        The system of w that is left.
    """
    curved, slope = f.T @ (f * share[:, None]), f.T @ pull
    width = z.shape[1]
    if not width:
        zero = jnp.zeros((), f.dtype)
        shapes = ((groups, 0, 0), (groups, 0, f.shape[1]), (groups, 0))
        return Eliminated(curved, slope, zero, zero, *(jnp.zeros(s, f.dtype) for s in shapes))
    total = functools.partial(jax.ops.segment_sum, segment_ids=group, num_segments=groups)
    weighted = z * share[:, None]
    factor = jnp.linalg.cholesky(total(weighted[:, :, None] * z[:, None, :]) + jnp.eye(width))
    whole = jnp.concatenate(
        [total(weighted[:, :, None] * f[:, None, :]), total(z * pull[:, None])[:, :, None]], 2
    )
    solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True)
    whole = jax.vmap(solve)(factor, whole)
    across, along = whole[:, :, :-1], whole[:, :, -1]
    return Eliminated(
        curved - jnp.einsum("gri,grj->ij", across, across),
        slope - jnp.einsum("gri,gr->i", across, along),
        jnp.sum(along**2),
        2.0 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2))),
        factor,
        across,
        along,
    )
