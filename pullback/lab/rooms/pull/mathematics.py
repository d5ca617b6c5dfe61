"""The pull: inner solutions over two parameters, and how they depend on θ.

A path is where a solver evaluated the loss: the loss itself reports each evaluation to the host.
So any solver has a path, and it is what the solver really did: L-BFGS's rejected trials are among
its points.
"""

import functools
import itertools
import threading
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pullback import implicit
from pullback.algorithms import Info, imaml
from pullback.core.problem import InnerProblem
from pullback.lab import landscapes
from pullback.lab.landscapes import Landscape, Point
from pullback.linear import CG
from pullback.solvers import LBFGS, GradientDescent, InnerSolver, NewtonCG, run
from pullback.tasks import Task

SOLVERS = {
    "lbfgs": "L-BFGS",
    "gradient-descent": "Gradient descent",
    "momentum": "Momentum",
    "newton-cg": "Newton-CG",
}
"""The inner solvers by name, with the text that the page shows."""

STEPS = {"lbfgs": 10, "gradient-descent": 12, "momentum": 12, "newton-cg": 5}
"""The number of steps of each."""


class TaskSolution(NamedTuple):
    """One task's inner solution, and how it depends on θ.

    Args:
        path: where the solver evaluated the loss, from θ to ``phi``.
        phi: where it stopped.
        optimum: φ*, found from there by Newton-CG.
        jacobian: dφ*/dθ at the optimum.
        loss: the support loss at ``phi``.
        pull: the proximal term at ``phi``.
        outer: the query loss at ``phi``.
        meta_gradient: the derivative of the query loss with respect to θ.
        info: how the meta-gradient was computed.
    """

    path: Float[np.ndarray, "t 2"]
    phi: Float[np.ndarray, "2"]
    optimum: Float[np.ndarray, "2"]
    jacobian: Float[np.ndarray, "2 2"]
    loss: float
    pull: float
    outer: float
    meta_gradient: Float[np.ndarray, "2"]
    info: Info


class RecordedLandscape(NamedTuple):
    """A landscape, and the number of the path that its evaluations are recorded in."""

    landscape: Landscape
    number: Int[Array, ""]


_paths: dict[int, list[np.ndarray]] = {}
_numbers = itertools.count(1)
_lock = threading.Lock()


def _record(number: Any, params: Any) -> None:
    points = _paths.get(int(number))
    if points is not None:
        points.append(np.array(params))


def recorded_loss(params: Point, batch: RecordedLandscape) -> Float[Array, ""]:
    """The loss, which reports each evaluation to the host."""
    jax.debug.callback(_record, batch.number, jax.lax.stop_gradient(params), ordered=True)
    return landscapes.loss(params, batch.landscape)


def make_solver(name: str, curvature: Float[Array, ""]) -> InnerSolver:
    """An inner solver of the room.

    Args:
        name: a name in :data:`SOLVERS`.
        curvature: a bound on the eigenvalues of H + Λ at θ, from which a fixed step size follows.

    Returns:
        The solver.
    """
    if name == "lbfgs":
        return LBFGS(STEPS[name])
    if name == "newton-cg":
        return NewtonCG(STEPS[name])
    solver = GradientDescent(STEPS[name], momentum=0.7 if name == "momentum" else 0.0)
    # The step is known only inside the compiled function.
    return eqx.tree_at(lambda s: s.learning_rate, solver, 0.8 / curvature)


@functools.partial(jax.jit, static_argnames="solver")
def _solve(solver: str, theta: Point, strength: Point, task: Task, number: Int[Array, ""]) -> Point:
    hessian = jax.hessian(landscapes.loss)(theta, task.support)
    # The sum of a row bounds the largest eigenvalue.
    curvature = jnp.max(jnp.sum(jnp.abs(hessian + jnp.diag(strength)), axis=1))
    problem = InnerProblem(recorded_loss, RecordedLandscape(task.support, number), theta, strength)
    return run(make_solver(solver, curvature), problem, theta, jax.random.key(0)).phi


# Apart from the solvers, of which each is compiled on its own: this is the same for all of them.
@jax.jit
def _differentiate(phi: Point, theta: Point, strength: Point, task: Task) -> Any:
    key = jax.random.key(0)
    problem = InnerProblem(landscapes.loss, task.support, theta, strength)
    optimum = run(NewtonCG(12), problem, phi, key).phi
    jacobian = implicit.jacobian(implicit.linearise(problem, optimum))
    algorithm = imaml(
        landscapes.loss, strength=strength, solver=lambda *_: phi, linear_solver=CG(10, rtol=0.0)
    )
    outer, gradient, info = algorithm.meta_gradient(theta, task, key)
    support = landscapes.loss(phi, task.support)
    return optimum, jacobian, support, problem.value(phi) - support, outer, gradient, info


def solve_task(
    solver: str, theta: Float[np.ndarray, "2"], strength: Float[np.ndarray, "2"], task: Task
) -> TaskSolution:
    """Solve one task's inner problem, and differentiate the solution.

    Args:
        solver: a name in :data:`SOLVERS`.
        theta: θ.
        strength: the diagonal of Λ.
        task: from :func:`pullback.lab.landscapes.tasks`.

    Returns:
        The solution and its derivatives.
    """
    start, diagonal = jnp.asarray(theta, jnp.float32), jnp.asarray(strength, jnp.float32)
    with _lock:
        number = next(_numbers)
    points = _paths[number] = []
    try:
        phi = _solve(solver, start, diagonal, task, jnp.asarray(number))
        found = jax.device_get(_differentiate(phi, start, diagonal, task))
    finally:
        del _paths[number]
    optimum, jacobian, support, proximal, outer, gradient, info = found
    phi = np.asarray(phi)
    path = np.stack([*points, phi])
    return TaskSolution(
        path, phi, optimum, jacobian, float(support), float(proximal), float(outer), gradient, info
    )
