"""Inexact meta-gradients: how wrong one is, how wrong it says it is, and where it breaks.

One task over sixteen parameters: a stretched bowl, but for one direction in which the loss has a
ridge between two valleys, and θ lies near the ridge. Where λ is below the ridge's curvature, an
inner solver that has not left the ridge yet stands at a point where H + Λ is not positive
definite.
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
MOST = 80
"""The most inner steps."""

LINEAR_STEPS = (1, 2, 3, 4, 6, 8, 12, 16)
"""The numbers of CG steps there are: each is a program of its own."""

RIDGE = 1.0
"""How strongly the loss curves downward on the ridge."""

Vector = Float[Array, " n"]


class Terrain(eqx.Module):
    """The data of the room's loss.

    Args:
        centre: the middle of the bowl, on the ridge.
        turn: an orthogonal matrix; its rows are the bowl's axes.
        spectrum: the curvature along each axis; 0 along the first, which has the ridge.
    """

    centre: Vector
    turn: Float[Array, "n n"]
    spectrum: Vector


def loss(params: Vector, batch: Terrain) -> Float[Array, ""]:
    """The loss of sixteen parameters: ``loss(params, batch) -> scalar``."""
    along = batch.turn @ (params - batch.centre)
    ridge = along[0] ** 2
    return 0.5 * jnp.sum(batch.spectrum * along**2) + RIDGE * (0.25 * ridge**2 - 0.5 * ridge)


@functools.cache
def task() -> Task:
    """The room's one task; θ is the origin."""
    rng = np.random.default_rng(7)
    turn, _ = np.linalg.qr(rng.normal(size=(SIZE, SIZE)))
    spectrum = np.concatenate([[0.0], np.geomspace(0.2, 12.0, SIZE - 1)])
    along = rng.normal(size=SIZE)
    along[0] = -0.15
    centre = turn.T @ along
    shift = 0.4 * turn.T @ rng.normal(size=SIZE)

    def terrain(place: np.ndarray) -> Terrain:
        return Terrain(*(jnp.asarray(x, jnp.float32) for x in (place, turn, spectrum)))

    return Task(terrain(centre), terrain(centre + shift))


class Judged(NamedTuple):
    """The meta-gradient after 0, 1, 2, … inner steps, with one number of CG steps.

    Args:
        errors: ‖ĝ − g‖ / ‖g‖ against the true one.
        sizes: ‖ĝ‖.
        info: what the library says of each.
    """

    errors: Float[np.ndarray, " k"]
    sizes: Float[np.ndarray, " k"]
    info: Info


class Truth(NamedTuple):
    """What does not depend on the CG steps.

    Args:
        path: φ after 0, 1, 2, … inner steps.
        gradient: the true meta-gradient, at the minimum that the path leads to.
        residuals: relative stationarity along the path.
        curvatures: the eigenvalues of H + Λ along the path, each row rising.
    """

    path: Float[Array, "k n"]
    gradient: Float[Array, " n"]
    residuals: Float[np.ndarray, " k"]
    curvatures: Float[np.ndarray, "k n"]


@jax.jit
def _truth(strength: Float[Array, ""], data: Task) -> Any:
    theta, key = jnp.zeros(SIZE), jax.random.key(0)
    problem = InnerProblem(loss, data.support, theta, strength)
    # The step is known only inside the compiled function.
    one = eqx.tree_at(
        lambda s: s.learning_rate,
        GradientDescent(1),
        1.0 / (data.support.spectrum.max() + strength),
    )

    def descend(phi: Vector, _: None) -> tuple[Vector, Vector]:
        new = run(one, problem, phi, key).phi
        return new, new

    # Plain steps have no memory, so that k of them are one of them k times.
    far, path = jax.lax.scan(descend, theta, length=4 * MOST)
    path = jnp.concatenate([theta[None], path[:MOST]])
    optimum = run(NewtonCG(25, linear_steps=SIZE), problem, far, key).phi
    exact = algorithms.imaml(
        loss,
        strength=strength,
        solver=lambda *_: optimum,
        linear_solver=Dense(),
        certify=None,
    )
    _, gradient, _ = exact.meta_gradient(theta, data, key)

    def look(phi: Vector) -> tuple[Float[Array, ""], Vector]:
        point = implicit.linearise(problem, phi)
        return point.residual(), jnp.linalg.eigvalsh(matrix(point.operator(), phi))

    residuals, curvatures = jax.lax.map(look, path)
    return path, gradient, residuals, curvatures


def truth(strength: float) -> Truth:
    """The inner path and the true meta-gradient for one λ."""
    path, gradient, residuals, curvatures = _truth(jnp.asarray(strength, jnp.float32), task())
    return Truth(path, gradient, np.asarray(residuals), np.asarray(curvatures))


@functools.partial(jax.jit, static_argnames="steps")
def _judged(
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


def judged(steps: int, strength: float, known: Truth) -> Judged:
    """The meta-gradient along the path, and what the library says of it.

    Args:
        steps: CG steps, one of :data:`LINEAR_STEPS`.
        strength: λ.
        known: from :func:`truth`, of the same λ.

    Returns:
        The errors and the records.
    """
    value = jnp.asarray(strength, jnp.float32)
    found = _judged(steps, value, task(), known.path, known.gradient)
    return Judged(*jax.device_get(found))


def needed(curvatures: Float[np.ndarray, " n"], strength: float) -> float:
    """The λ above which H + Λ is positive definite at a point, at least zero."""
    return max(0.0, strength - float(curvatures[0]))
