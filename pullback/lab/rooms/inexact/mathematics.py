"""Inexact meta-gradients: their true errors, the estimated ones, and where they break down.

One task over sixteen parameters: a quadratic bowl, except in one direction, along which the loss
has a ridge between two valleys; θ lies near the ridge. If λ is smaller than the ridge's downward
curvature, H + Λ is not positive definite at the points of the inner path that are still on the
ridge.
"""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pullback import algorithms, implicit
from pullback.algorithms import Info
from pullback.core.problem import InnerProblem
from pullback.linear import CG, Dense
from pullback.linear.dense import matrix
from pullback.solvers import GradientDescent, NewtonCG, run
from pullback.tasks import Task

SIZE = 16
MAX_INNER_STEPS = 80

LINEAR_STEPS = (1, 2, 3, 4, 6, 8, 12, 16)
"""The CG steps to choose from: each number is compiled on its own."""

RIDGE = 1.0
"""The downward curvature of the loss on the ridge."""

Vector = Float[Array, " n"]


class Terrain(eqx.Module):
    """The data of the room's loss.

    Args:
        centre: the middle of the bowl, on the ridge.
        axes: an orthogonal matrix; its rows are the bowl's axes.
        spectrum: the curvature along each axis; 0 along the first, which leads over the ridge.
    """

    centre: Vector
    axes: Float[Array, "n n"]
    spectrum: Vector


def loss(params: Vector, batch: Terrain) -> Float[Array, ""]:
    """The loss of sixteen parameters: ``loss(params, batch) -> scalar``."""
    along = batch.axes @ (params - batch.centre)
    ridge = along[0] ** 2
    return 0.5 * jnp.sum(batch.spectrum * along**2) + RIDGE * (0.25 * ridge**2 - 0.5 * ridge)


@functools.cache
def task() -> Task:
    """The room's one task; θ is the origin."""
    rng = np.random.default_rng(7)
    axes, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    spectrum = np.concatenate([[0.0], np.geomspace(0.2, 12.0, SIZE - 1)])
    along = rng.normal(size=SIZE)
    along[0] = -0.15
    centre = axes.T @ along
    shift = 0.4 * axes.T @ rng.normal(size=SIZE)

    def terrain(place: np.ndarray) -> Terrain:
        return Terrain(*(jnp.asarray(x, jnp.float32) for x in (place, axes, spectrum)))

    return Task(terrain(centre), terrain(centre + shift))


class Estimates(NamedTuple):
    """The computed meta-gradients ĝ after 0, 1, 2, … inner steps, with one number of CG steps.

    Args:
        errors: ‖ĝ − g‖ / ‖g‖, where g is the true meta-gradient.
        lengths: ‖ĝ‖.
        info: the library's record of each.
    """

    errors: Float[np.ndarray, " k"]
    lengths: Float[np.ndarray, " k"]
    info: Info


class Reference(NamedTuple):
    """The inner path and the true meta-gradient, which do not depend on the CG steps.

    Args:
        path: φ after 0, 1, 2, … inner steps.
        gradient: the true meta-gradient, at the minimum that the path leads to.
        residuals: relative stationarity residuals along the path.
        eigenvalues: of H + Λ along the path, each row in ascending order.
    """

    path: Float[Array, "k n"]
    gradient: Float[Array, " n"]
    residuals: Float[np.ndarray, " k"]
    eigenvalues: Float[np.ndarray, "k n"]


@jax.jit
def _reference(strength: Float[Array, ""], data: Task) -> Any:
    theta, key = jnp.zeros(SIZE), jax.random.key(0)
    problem = InnerProblem(loss, data.support, theta, strength)
    # The step size is known only inside the compiled function.
    one = eqx.tree_at(
        lambda s: s.learning_rate,
        GradientDescent(1),
        1.0 / (data.support.spectrum.max() + strength),
    )

    def descend(phi: Vector, _: None) -> tuple[Vector, Vector]:
        new = run(one, problem, phi, key).phi
        return new, new

    # Plain gradient steps have no state, so that k steps are one step k times.
    far, path = jax.lax.scan(descend, theta, length=4 * MAX_INNER_STEPS)
    path = jnp.concatenate([theta[None], path[:MAX_INNER_STEPS]])
    optimum = run(NewtonCG(25, linear_steps=SIZE), problem, far, key).phi
    exact = algorithms.imaml(
        loss,
        strength=strength,
        solver=lambda *_: optimum,
        linear_solver=Dense(),
        certify=None,
    )
    _, gradient, _ = exact.meta_gradient(theta, data, key)

    def linearise(phi: Vector) -> tuple[Float[Array, ""], Vector]:
        point = implicit.linearise(problem, phi)
        return point.residual(), jnp.linalg.eigvalsh(matrix(point.operator(), phi))

    residuals, eigenvalues = jax.lax.map(linearise, path)
    return path, gradient, residuals, eigenvalues


def reference(strength: float) -> Reference:
    """The inner path and the true meta-gradient for one λ."""
    path, gradient, residuals, eigenvalues = _reference(jnp.asarray(strength, jnp.float32), task())
    return Reference(path, gradient, np.asarray(residuals), np.asarray(eigenvalues))


@functools.partial(jax.jit, static_argnames="steps")
def _estimates(
    steps: int,
    strength: Float[Array, ""],
    data: Task,
    path: Float[Array, "k n"],
    gradient: Vector,
) -> Any:
    def at(phi: Vector) -> tuple[Any, ...]:
        algorithm = algorithms.imaml(
            loss,
            strength=strength,
            solver=lambda *_: phi,
            linear_solver=CG(steps, rtol=0.0),
        )
        _, found, info = algorithm.meta_gradient(jnp.zeros(SIZE), data, jax.random.key(0))
        error = jnp.linalg.norm(found - gradient) / jnp.linalg.norm(gradient)
        return error, jnp.linalg.norm(found), info

    return jax.lax.map(at, path)


def estimates(steps: int, strength: float, known: Reference) -> Estimates:
    """The computed meta-gradient at each point of the inner path.

    Args:
        steps: CG steps, one of :data:`LINEAR_STEPS`.
        strength: λ.
        known: from :func:`reference`, for the same λ.

    Returns:
        The true errors, the lengths, and the library's records.
    """
    value = jnp.asarray(strength, jnp.float32)
    found = _estimates(steps, value, task(), known.path, known.gradient)
    return Estimates(*jax.device_get(found))


def sufficient_strength(eigenvalues: Float[np.ndarray, " n"], strength: float) -> float:
    """The λ above which H + Λ is positive definite at a point; never negative.

    Args:
        eigenvalues: of H + Λ at that point, in ascending order.
        strength: the λ in them.
    """
    return max(0.0, strength - float(eigenvalues[0]))
