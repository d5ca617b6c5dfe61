"""Least-squares tasks, for which φ* and the meta-gradient have formulas.

With L(φ) = ½‖Xφ − y‖² and H = XᵀX, the proximal problem is solved by

    φ* = (H + Λ)⁻¹(Xᵀy + Λθ),

and the meta-gradient is Λ(H + Λ)⁻¹∇L(φ*, query) (Rajeswaran et al. 2019, eq. 3 and 7).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pullback.tasks import Task


class Exact(NamedTuple):
    """A task's answers by formula.

    Args:
        phi: φ*, the solution of the inner problem.
        gradient: the meta-gradient there.
    """

    phi: Float[Array, " n"]
    gradient: Float[Array, " n"]


def loss(phi: Float[Array, " n"], batch: tuple[Array, Array]) -> Float[Array, ""]:
    """Half the sum of squares, ½‖Xφ − y‖² with ``batch = (X, y)``."""
    x, y = batch
    residual = x @ phi - y
    return 0.5 * jnp.sum(residual * residual)


def sample(key: PRNGKeyArray, size: int, rows: int, spread: float) -> Task:
    """Draw a regression task: one weight vector, seen through two sets of random features.

    Args:
        key: draws the task.
        size: number of parameters n.
        rows: examples in the support set and in the query set each; fewer than ``size`` leave
            directions that the support set says nothing about.
        spread: ratio of the largest to the smallest variance of a feature.

    Returns:
        A task whose support and query losses both have 1 as their largest curvature.
    """
    weights, support, query = jax.random.split(key, 3)
    truth = jax.random.normal(weights, (size,))
    deviations = jnp.geomspace(1.0, spread**-0.5, size)

    def batch(key: PRNGKeyArray) -> tuple[Array, Array]:
        features, noise = jax.random.split(key)
        x = jax.random.normal(features, (rows, size)) * deviations
        x = x / jnp.linalg.norm(x, 2)
        return x, x @ truth + 0.1 * jax.random.normal(noise, (rows,))

    return Task(support=batch(support), query=batch(query))


def solve(task: Task, theta: Float[Array, " n"], strength: float) -> Exact:
    """φ* and the meta-gradient of one task, by two dense solves.

    Args:
        task: from :func:`sample`.
        theta: what the proximal term pulls toward.
        strength: λ.

    Returns:
        Both, exact but for rounding.
    """
    x, y = task.support
    curved = x.T @ x + strength * jnp.eye(theta.size, dtype=theta.dtype)
    phi = jnp.linalg.solve(curved, x.T @ y + strength * theta)
    cotangent = jax.grad(loss)(phi, task.query)
    return Exact(phi, strength * jnp.linalg.solve(curved, cotangent))
