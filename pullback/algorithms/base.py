"""What a meta-learning algorithm is, and what it reports."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from pullback import implicit
from pullback.core import trees
from pullback.core.checks import check_key, check_params, check_type, describe
from pullback.core.display import VerdictRecord
from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem
from pullback.core.results import UNKNOWN, Verdict
from pullback.core.trees import Params
from pullback.solvers.base import BlackBox, InnerSolver, Solution, run
from pullback.tasks.base import Task

Theta = PyTree[Any]
"""What is meta-learned: the parameters, or a record that holds them and more."""


class Report(VerdictRecord):
    """How one adaptation went.

    Args:
        inner_residual: relative stationarity residual ‖∇L(φ) + Λ(φ − θ)‖ / ‖∇L(φ)‖, with a
            share for each leaf (:func:`pullback.implicit.stationarity`); without a proximal term
            ‖∇L(φ)‖ / ‖∇L(θ)‖.
        code: a code of :mod:`pullback.core.results`.
        strength_factor: what Λ was multiplied by for this task; 1 unless asked for.
    """

    inner_residual: Float[Array, ""]
    code: Int[Array, ""]
    strength_factor: Float[Array, ""]


class Info(VerdictRecord):
    """What a meta-gradient was computed from, and how far to trust it.

    A number that the algorithm does not compute is infinite, the bound that says nothing: one
    without a linear solve has no ``linear_residual``, one without a certificate no
    ``inner_error``. ``largest_curvature`` is then −∞, the others ∞. None of them is NaN, so that
    ``JAX_DEBUG_NANS`` finds only what went wrong.

    Args:
        inner_residual: relative stationarity residual of the inner solution, as in ``Report``.
        linear_residual: ‖(H + Λ)u − v‖ / ‖v‖ of the linear solve.
        linear_steps: products with the Hessian that the solve used; 0 without a solve.
        smallest_curvature: least curvature of H + Λ seen; an upper bound of its smallest
            eigenvalue.
        largest_curvature: greatest curvature of H + Λ seen; a lower bound of its largest one.
        damping: δ added to H + Λ in the solve.
        inner_error: estimated relative error of the meta-gradient because the inner solution is
            only nearly stationary (:mod:`pullback.implicit.certificate`).
        linear_error: the same because the linear system is only nearly solved.
        code: the verdict, a code of :mod:`pullback.core.results`.
        strength_factor: what Λ was multiplied by for this task
            (:class:`pullback.algorithms.AdaptiveStrength`); 1 unless asked for.
    """

    inner_residual: Float[Array, ""]
    linear_residual: Float[Array, ""]
    linear_steps: Int[Array, ""]
    smallest_curvature: Float[Array, ""]
    largest_curvature: Float[Array, ""]
    damping: Float[Array, ""]
    inner_error: Float[Array, ""]
    linear_error: Float[Array, ""]
    code: Int[Array, ""]
    strength_factor: Float[Array, ""]


class _Functions(NamedTuple):
    init: Callable[[Params], Theta]
    adapt: Callable[[Theta, PyTree[Any], PRNGKeyArray], tuple[Params, Report]]
    meta_gradient: Callable[[Theta, Task, PRNGKeyArray], tuple[Float[Array, ""], Theta, Info]]
    adapted: Callable[[Theta, PyTree[Any], Params, Report], Any] | None


class MetaAlgorithm(_Functions):
    """An algorithm as three pure functions on a single task; the trainer does the averaging.

    ``init(params) -> theta`` starts what is meta-learned from a model's parameters.
    ``adapt(theta, support, key) -> (phi, report)`` solves a new task.
    ``meta_gradient(theta, task, key) -> (value, gradient, info)`` gives the outer loss and a
    gradient shaped like ``theta``.

    An algorithm with an inner problem may give a fourth: ``adapted(theta, support, phi, report)``
    is the :class:`pullback.algorithms.Adapted` of what ``adapt`` returned, for outer losses,
    metrics and users that look at the problem itself.

    ``adapt`` and ``meta_gradient`` refuse, by an ``InputError``, a ``theta`` that holds anything
    but float32 and float64 arrays, what is not a single key, and what is no
    :class:`pullback.tasks.Task` or, in ``adapt``, is one.
    """

    __slots__ = ()

    def __new__(cls, init, adapt, meta_gradient, adapted=None):
        """The functions, ``adapt`` and ``meta_gradient`` behind their checks."""
        doors = _adapt_door(adapt), _meta_gradient_door(meta_gradient)
        return super().__new__(cls, init, *doors, adapted)


def _adapt_door(adapt):
    @functools.wraps(adapt)
    def checked(theta, support, key):
        check_key("adapt", key)
        if isinstance(support, Task):
            raise InputError(
                "adapt was given a whole Task",
                allowed="the examples to adapt to: adapt(theta, support, key)",
                remedy="Give task.support",
            )
        return adapt(check_params(theta), support, key)

    return checked


def _meta_gradient_door(meta_gradient):
    @functools.wraps(meta_gradient)
    def checked(theta, task, key):
        check_key("meta_gradient", key)
        check_task("The task", task)
        return meta_gradient(check_params(theta), task, key)

    return checked


def check_task(what: str, task: Any) -> None:
    """What stands for a task must be one.

    Raises:
        InputError: if it is anything else, for instance a pair of batches.
    """
    if not isinstance(task, Task):
        raise InputError(
            f"{what} is {describe(task)}",
            allowed="a pullback.Task",
            remedy="Write pullback.Task(support, query); the order is (theta, task, key)",
        )


def check_algorithm(algorithm: Any) -> None:
    """What stands for an algorithm must be one.

    Raises:
        InputError: if it is anything else, for instance a loss.
    """
    check_type(
        "The algorithm",
        algorithm,
        MetaAlgorithm,
        "an algorithm, as from pullback.imaml(loss, strength=...)",
    )


def init_params(params: Params) -> Theta:
    """θ is the parameters themselves.

    Raises:
        InputError: if a leaf is not a floating-point array.
    """
    return check_params(params)


def adapt_with(
    problem: InnerProblem, solver: InnerSolver | BlackBox, key: PRNGKeyArray
) -> tuple[Params, Report]:
    """Solve one inner problem from its own θ, and report the residual reached."""
    solution = run(solver, problem, problem.theta, key)
    return solution.phi, report(problem, solution)


def report(
    problem: InnerProblem, solution: Solution, strength_factor: Float[Array, ""] | float = 1.0
) -> Report:
    """The report of an inner solution, at the price of one gradient."""
    start = start_value(problem, solution)
    value, gradient = jax.value_and_grad(problem.loss)(solution.phi, problem.support)
    residual = implicit.stationarity(problem, solution.phi, gradient, solution.start_norm)
    finite = trees.all_finite(solution.phi) & ~jnp.isnan(residual) & jnp.isfinite(value)
    finite &= trees.all_finite(gradient)
    rises = problem.rises(solution.phi, value, start)
    code = jnp.where(rises, Verdict.INNER_DIVERGED, Verdict.OK)
    code = jnp.where(finite, code, Verdict.NOT_FINITE)
    return Report(residual, code, jnp.asarray(strength_factor, residual.dtype))


def start_value(problem: InnerProblem, solution: Solution) -> Float[Array, ""]:
    """``L(θ, support)``, evaluated only where the solver did not."""
    if solution.start_value is not None:
        return solution.start_value
    return problem.loss(problem.theta, problem.support)


def info_without_solve(inner: Report, value: Float[Array, ""], gradient: Theta) -> Info:
    """The record of an algorithm that solves no linear system."""
    finite = jnp.isfinite(value) & trees.all_finite(gradient)
    none = jnp.full_like(inner.inner_residual, UNKNOWN)
    code = jnp.where(finite, inner.code, Verdict.NOT_FINITE)
    zero = jnp.zeros_like(none)
    inner = jax.lax.stop_gradient(inner)
    seen = (none, -none, zero, none, none)
    return Info(inner.inner_residual, none, jnp.asarray(0), *seen, code, inner.strength_factor)
