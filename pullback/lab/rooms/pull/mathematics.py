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

MOMENTUM = 0.7


class Values(NamedTuple):
    """What belongs to one φ, be it φ* or where the solver stopped.

    Args:
        phi: φ.
        loss: the support loss there.
        pull: the proximal term there.
        outer: the query loss there.
        meta_gradient: Λ(H + Λ)⁻¹ times the query loss's gradient, with H there: at φ* the
            derivative of the query loss with respect to θ.
    """

    phi: Float[np.ndarray, "2"]
    loss: float
    pull: float
    outer: float
    meta_gradient: Float[np.ndarray, "2"]


class TaskSolution(NamedTuple):
    """One task's inner solution, and how it depends on θ.

    Args:
        path: where the solver evaluated the loss, from θ to where it stopped.
        stopped: where the solver stopped, with the meta-gradient as iMAML computes it from there.
        solved: φ*, the minimum that it was on its way to.
        jacobian: dφ*/dθ.
        info: the library's record of the meta-gradient computed where the solver stopped.
    """

    path: Float[np.ndarray, "t 2"]
    stopped: Values
    solved: Values
    jacobian: Float[np.ndarray, "2 2"]
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


def largest_curvature(theta: Point, strength: Point, task: Task) -> Float[Array, ""]:
    """A bound on the eigenvalues of H + Λ at θ, and anywhere but for a valley's bend.

    Gradient descent whose steps are shorter than its inverse never rises from θ in the figure,
    which tests hold it to.
    """
    hessian = jax.hessian(landscapes.loss)(theta, task.support)
    # The sum of a row bounds the largest eigenvalue.
    here = jnp.max(jnp.sum(jnp.abs(hessian + jnp.diag(strength)), axis=1))
    return jnp.maximum(here, landscapes.curvature_bound(task.support) + jnp.max(strength))


def make_solver(name: str, curvature: Float[Array, ""] | float) -> InnerSolver:
    """An inner solver of the room.

    Args:
        name: a name in :data:`SOLVERS`.
        curvature: from :func:`largest_curvature`, from which a fixed step size follows.

    Returns:
        The solver.
    """
    if name == "lbfgs":
        return LBFGS(STEPS[name])
    if name == "newton-cg":
        return NewtonCG(STEPS[name])
    solver = GradientDescent(STEPS[name], momentum=MOMENTUM if name == "momentum" else 0.0)
    # The step is known only inside the compiled function.
    return eqx.tree_at(lambda s: s.learning_rate, solver, 0.8 / curvature)


def minimum(problem: InnerProblem, phi: Point) -> Point:
    """φ*, found from φ: in 64 bits to rounding."""
    # On the axis of a valley Newton's method could stay on its ridge.
    beside = phi + 1e-3 * jnp.array([1.0, 0.6])
    return run(NewtonCG(30, rtol=1e-12), problem, beside, jax.random.key(0)).phi


@functools.partial(jax.jit, static_argnames="solver")
def _solve(solver: str, theta: Point, strength: Point, task: Task, number: Int[Array, ""]) -> Point:
    problem = InnerProblem(recorded_loss, RecordedLandscape(task.support, number), theta, strength)
    made = make_solver(solver, largest_curvature(theta, strength, task))
    return run(made, problem, theta, jax.random.key(0)).phi


# Apart from the solvers, of which each is compiled on its own: this is the same for all of them.
@jax.jit
def _differentiate(phi: Point, theta: Point, strength: Point, task: Task) -> Any:
    problem = InnerProblem(landscapes.loss, task.support, theta, strength)
    optimum = minimum(problem, phi)
    jacobian = implicit.jacobian(implicit.linearise(problem, optimum))

    def values(at: Any, outer: Any, gradient: Any) -> Values:
        support: Any = landscapes.loss(at, task.support)
        return Values(at, support, problem.value(at) - support, outer, gradient)

    outer, slope = jax.value_and_grad(landscapes.loss)(optimum, task.query)
    algorithm = imaml(
        landscapes.loss, strength=strength, solver=lambda *_: phi, linear_solver=CG(10, rtol=0.0)
    )
    there, gradient, info = algorithm.meta_gradient(theta, task, jax.random.key(0))
    stopped, solved = values(phi, there, gradient), values(optimum, outer, jacobian.T @ slope)
    return stopped, solved, jacobian, info


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
        phi = np.asarray(_solve(solver, start, diagonal, task, jnp.asarray(number)))
    finally:
        del _paths[number]
    with jax.enable_x64(True):
        doubled = jax.tree.map(lambda x: np.asarray(x, np.float64), (phi, start, diagonal, task))
        stopped, solved, jacobian, info = jax.device_get(_differentiate(*doubled))
    return TaskSolution(np.stack([*points, phi]), stopped, solved, jacobian, info)
