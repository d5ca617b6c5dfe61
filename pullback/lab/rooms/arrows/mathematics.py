"""Four arrows: the meta-gradients of four algorithms, what they cost, and the outer loss."""

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pullback import algorithms
from pullback.algorithms import MetaAlgorithm
from pullback.core.problem import InnerProblem
from pullback.lab import landscapes
from pullback.lab.landscapes import Point
from pullback.linear import CG
from pullback.solvers import GradientDescent, NewtonCG, run
from pullback.tasks import Task

NAMES = ("imaml", "maml", "fomaml", "reptile")

STEPS = (1, 2, 3, 5, 8, 12, 20, 32)
"""The inner steps to choose from: each number is compiled on its own."""

INNER_RATE = 1 / 8
"""From everywhere in the figure these steps go down. iMAML's inner loss is curved more, by λ, and
its steps are shorter: see :func:`inner_rate`."""

OUTER_RATE = 0.3


class Cost(NamedTuple):
    """What one meta-gradient of one task costs.

    Args:
        gradients: evaluations of the loss's gradient.
        products: Hessian-vector products.
        stored: numbers per parameter that are stored for the backward pass.
    """

    gradients: int
    products: int
    stored: float


class MetaGradients(NamedTuple):
    """The meta-gradient of each algorithm, each at its own θ.

    Args:
        gradients: means over the tasks, a row for each of :data:`NAMES`. NaN where there is
            nothing to follow: the inner loop diverged, or θ is outside of the figure.
        losses: the mean query loss after adaptation, likewise.
        diverged: whether the inner loop ends higher than it began on one of the tasks, likewise.
        left: whether θ is outside of the figure, likewise.
        codes: iMAML's verdict on each task.
        products: the Hessian-vector products of iMAML's linear solve, the most of any task.
    """

    gradients: Float[np.ndarray, "4 2"]
    losses: Float[np.ndarray, "4"]
    diverged: Bool[np.ndarray, "4"]
    left: Bool[np.ndarray, "4"]
    codes: Int[np.ndarray, " tasks"]
    products: int


@functools.cache
def stacked_tasks(kind: str) -> Task:
    """The three tasks of the room, stacked along a first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *landscapes.tasks(kind, 3))


def inner_rate(strength: Any) -> Any:
    """iMAML's inner rate: 1/(8 + λ), which is the others' 1/8 where λ is small."""
    return INNER_RATE / (1.0 + INNER_RATE * strength)


def make_algorithm(name: str, steps: int, strength: Any) -> MetaAlgorithm:
    """One algorithm, as the room uses it: all take plain gradient steps."""
    solver = GradientDescent(steps, INNER_RATE)
    if name == "imaml":
        solver = eqx.tree_at(lambda s: s.learning_rate, solver, inner_rate(strength))
        return algorithms.imaml(
            landscapes.loss, strength=strength, solver=solver, linear_solver=CG(20, rtol=1e-6)
        )
    if name == "maml":
        return algorithms.maml(landscapes.loss, solver=solver)
    if name == "fomaml":
        return algorithms.fomaml(landscapes.loss, solver=solver)
    return algorithms.reptile(landscapes.loss, solver=solver, fit="support")


def _rises(algorithm: MetaAlgorithm, strength: Any, theta: Point, task: Task) -> Bool[Array, ""]:
    """Whether the inner loop ends higher than it began."""
    problem = InnerProblem(landscapes.loss, task.support, theta, strength)
    phi, _ = algorithm.adapt(theta, task.support, jax.random.key(0))
    before = problem.value(theta)
    # Where there is nothing to descend, rounding may raise it.
    return ~(problem.value(phi) <= before + 1e-5 * (1.0 + before))


@functools.partial(jax.jit, static_argnames="steps")
def _meta_gradients(
    steps: int, thetas: Float[Array, "4 2"], strength: Float[Array, ""], tasks: Task
) -> Any:
    key = jax.random.key(0)
    values, gradients, diverged, infos = [], [], [], {}
    for name, theta in zip(NAMES, thetas, strict=True):
        algorithm = make_algorithm(name, steps, strength)
        each = jax.vmap(algorithm.meta_gradient, (None, 0, None))
        value, gradient, info = each(theta, tasks, key)
        pull = strength if name == "imaml" else None
        rises = jax.vmap(functools.partial(_rises, algorithm, pull), (None, 0))
        values.append(value.mean())
        gradients.append(gradient.mean(axis=0))
        diverged.append(rises(theta, tasks).any())
        infos[name] = info
    gradients, values, diverged = map(jnp.stack, (gradients, values, diverged))
    left = ~(jnp.abs(thetas) <= landscapes.REACH).all(axis=1)
    diverged |= ~(jnp.isfinite(values) & jnp.isfinite(gradients).all(axis=1))
    nowhere = left | diverged
    return (
        jnp.where(nowhere[:, None], jnp.nan, gradients),
        jnp.where(nowhere, jnp.nan, values),
        diverged,
        left,
        infos["imaml"].code,
        infos["imaml"].linear_steps.max(),
    )


def meta_gradients(
    kind: str, steps: int, thetas: Float[np.ndarray, "4 2"], strength: float
) -> MetaGradients:
    """The meta-gradient of each algorithm, averaged over the tasks, each at its own θ.

    Args:
        kind: a name in :data:`pullback.lab.landscapes.KINDS`.
        steps: one of :data:`STEPS`.
        thetas: a θ for each algorithm.
        strength: λ of iMAML; the others have none.

    Returns:
        The meta-gradients, losses and iMAML's verdicts.
    """
    found = _meta_gradients(
        steps,
        jnp.asarray(thetas, jnp.float32),
        jnp.asarray(strength, jnp.float32),
        stacked_tasks(kind),
    )
    gradients, losses, diverged, left, codes, products = jax.device_get(found)
    # In double precision the length of a gradient does not overflow before the gradient does.
    gradients, losses = np.asarray(gradients, float), np.asarray(losses, float)
    return MetaGradients(gradients, losses, diverged, left, codes, int(products))


def meta_step(thetas: Float[np.ndarray, "4 2"], found: MetaGradients) -> Float[np.ndarray, "4 2"]:
    """One meta-step of each algorithm; one that has nothing to follow stays where it is."""
    return thetas - OUTER_RATE * np.nan_to_num(found.gradients)


def angles(gradients: Float[np.ndarray, "4 2"]) -> Float[np.ndarray, "4 4"]:
    """The angle between each two directions in degrees; NaN where one has no length."""
    sizes = np.linalg.norm(gradients, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        units = gradients / sizes
    return np.degrees(np.arccos(np.clip(units @ units.T, -1.0, 1.0)))


def cost(name: str, steps: int, products: int) -> Cost:
    """What one meta-gradient of one task costs.

    Args:
        name: the algorithm.
        steps: inner steps.
        products: Hessian-vector products that iMAML's linear solve used.

    Returns:
        The counts. iMAML takes one more gradient, to linearise at φ.
    """
    outer = 0 if name == "reptile" else 1
    back = {"maml": steps, "imaml": products}.get(name, 0)
    extra = 1 if name == "imaml" else 0
    return Cost(steps + outer + extra, back, _stored(name, steps))


@functools.cache
def _stored(name: str, steps: int) -> float:
    """Numbers per parameter that JAX stores for the backward pass, through all steps or none."""
    if name in ("fomaml", "reptile"):
        return 0.0
    task, theta = landscapes.tasks("valley", 1)[0], jnp.zeros(2)

    def through_steps(start: Point) -> Point:
        problem = InnerProblem(landscapes.loss, task.support, start, None)
        return run(GradientDescent(steps, INNER_RATE), problem, start, jax.random.key(0)).phi

    def at_the_end(phi: Point) -> Point:
        return InnerProblem(landscapes.loss, task.support, theta, None).loss_gradient(phi)

    _, back = jax.vjp(through_steps if name == "maml" else at_the_end, theta)
    return sum(jnp.size(leaf) for leaf in jax.tree.leaves(back)) / theta.size


@functools.partial(jax.jit, static_argnames="steps")
def _outer_loss(
    steps: int | None, thetas: Float[Array, "n 2"], strength: Float[Array, ""], tasks: Task
) -> Float[Array, " n"]:
    def at(theta: Point, task: Task) -> Float[Array, ""]:
        key = jax.random.key(0)
        if steps is None:
            # Plain steps lead to the minimum that iMAML's lead to, and Newton's the rest of the
            # way: under a weak pull plain ones would take thousands.
            near, _ = make_algorithm("imaml", 60, strength).adapt(theta, task.support, key)
            problem = InnerProblem(landscapes.loss, task.support, theta, strength)
            phi = run(NewtonCG(20), problem, near, key).phi
        else:
            phi, _ = make_algorithm("maml", steps, None).adapt(theta, task.support, key)
        return landscapes.loss(phi, task.query)

    each = jax.vmap(jax.vmap(at, (None, 0)), (0, None))
    return each(thetas, tasks).mean(axis=1)


def outer_loss(
    kind: str, strength: float, axis: Float[np.ndarray, " n"], steps: int | None = None
) -> Float[np.ndarray, "n n"]:
    """The outer loss over a grid of θ: the mean query loss after adaptation from there.

    Args:
        kind: a name in :data:`pullback.lab.landscapes.KINDS`.
        strength: λ.
        axis: the coordinates along both axes.
        steps: adaptation takes this many plain gradient steps, as in MAML; None for φ*(θ), as in
            iMAML.

    Returns:
        The loss; its rows go with the second coordinate, its columns with the first.
    """
    first, second = np.meshgrid(axis, axis)
    points = np.stack([first.ravel(), second.ravel()], axis=1)
    pull = jnp.asarray(strength, jnp.float32)
    found = _outer_loss(steps, jnp.asarray(points), pull, stacked_tasks(kind))
    return np.asarray(found).reshape(first.shape)
