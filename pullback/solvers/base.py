"""What an inner solver is, and the functions through which every one is called."""

import functools
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from pullback.core import trees
from pullback.core.checks import check_function, check_key, check_like, check_params, check_type
from pullback.core.derivatives import refuse_derivative
from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem, Proximal
from pullback.core.trees import Params

BlackBox = Callable[[InnerProblem, Params, PRNGKeyArray], Params]
"""``solver(problem, theta, key) -> phi``: a user's own callable, never differentiated."""


class Solution(eqx.Module):
    """Where an inner solver stopped, and what it can hand on.

    Args:
        phi: the adapted parameters.
        start_norm: norm of the loss's gradient at the start, if the solver saw it.
        start_value: the loss at the start, likewise.
        inverse: an SPD approximation of (H + Λ)⁻¹ as a function of a vector shaped like the
            parameters, if the solver has gathered one.
    """

    phi: Params
    start_norm: Float[Array, ""] | None = None
    start_value: Float[Array, ""] | None = None
    inverse: Callable[[Params], Params] | None = None


@runtime_checkable
class InnerSolver(Protocol):
    """An optimiser of the inner problem with a fixed number of steps; ``jit``- and ``vmap``-safe.

    ``differentiable`` says whether MAML may differentiate through the steps.
    """

    differentiable: ClassVar[bool]

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""
        ...


def run(
    solver: InnerSolver | BlackBox, problem: InnerProblem, theta: Params, key: PRNGKeyArray
) -> Solution:
    """Solve one inner problem with a solver of this package or with a black box.

    Args:
        solver: an :class:`InnerSolver`, or a callable ``solver(problem, theta, key) -> phi``.
        problem: the task's inner problem.
        theta: where the solver starts.
        key: for solvers that draw random numbers.

    Returns:
        The solution.

    Raises:
        InputError: if the solver is neither, if a black box returns parameters of another
            structure, shape or dtype than it was given, or if a derivative is taken through a
            solver that has none.
    """
    check_solver(solver)
    if isinstance(solver, InnerSolver) and solver.differentiable:
        return solver.solve(problem, theta, key)
    name = describe(solver)
    refuse = functools.partial(
        refuse_derivative,
        problem=f"A derivative through the inner solver {name} was asked for, which has none",
        remedy="Use imaml's adapt, whose result is differentiated implicitly, or an inner solver "
        "that can be differentiated through, or jax.lax.stop_gradient for a constant",
    )
    problem, theta = refuse((problem, theta))
    if isinstance(solver, InnerSolver):
        return refuse(solver.solve(problem, theta, key))
    phi = jax.tree.map(jnp.asarray, solver(problem, theta, key))
    check_like("what the inner solver returned", phi, theta, "θ", dtypes=True)
    return Solution(refuse(phi))


def solve(
    inner: Proximal,
    theta: Params,
    support: Any,
    *,
    solver: InnerSolver | BlackBox,
    key: PRNGKeyArray,
) -> Solution:
    """Adapt ``theta`` to one support set.

    Args:
        inner: the loss and its proximal term.
        theta: what the proximal term pulls toward, and where the solver starts.
        support: the batch to adapt on.
        solver: an inner solver or a black box.
        key: for solvers that draw random numbers.

    Returns:
        The solution; :func:`pullback.implicit.linearise` tells how good it is.

    Raises:
        InputError: if the solver or what it returns cannot be used.
    """
    check_type("inner", inner, Proximal, "a pullback.Proximal(loss, strength)")
    check_key("solve", key)
    theta = check_params(theta)
    return run(solver, inner.problem(theta, support), theta, key)


def check_solver(solver: Any) -> None:
    """A solver must be one of the package's or a callable.

    Raises:
        InputError: if it is neither, for instance a class that was not instantiated.
    """
    if isinstance(solver, type):
        raise InputError(
            f"The inner solver is the class {solver.__name__}, not an instance of it",
            remedy=f"Write {solver.__name__}(...)",
        )
    if isinstance(solver, InnerSolver):
        return
    if not callable(solver):
        raise InputError(
            f"{solver!r} is no inner solver",
            allowed="a solver of pullback.solvers or a callable solver(problem, theta, key) -> phi",
        )
    check_function("inner solver", solver, "problem, theta, key")


Seen = tuple[Float[Array, ""], Float[Array, ""]]
"""The norm of a gradient, and the objective."""


def at_start(first: Bool[Array, ""], now: Seen, seen: Seen) -> Seen:
    """What a solver sees in its first step, in the others what it saw then.

    Carried from step to step, it needs no memory that grows with them.
    """
    return jax.tree.map(lambda new, old: jnp.where(first, new, old), now, seen)


def nothing_seen(problem: InnerProblem, theta: Params) -> Seen:
    """Zeros in place of what a solver is going to see."""

    def look():
        value, gradient = problem.value_and_gradient(theta)
        return trees.norm(gradient), value

    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(look))


def is_differentiable(solver: InnerSolver | BlackBox) -> bool:
    """Whether the solver's steps can be differentiated through."""
    return isinstance(solver, InnerSolver) and solver.differentiable


def describe(solver: InnerSolver | BlackBox) -> str:
    """The solver's name, for messages."""
    return getattr(solver, "__name__", type(solver).__name__)


def probe(problem: InnerProblem, theta: Params, gradient: Params) -> Float[Array, ""]:
    """A first look at the curvature: one more gradient, a short way down the first one.

    Args:
        problem: the inner problem.
        theta: the starting point.
        gradient: the objective's gradient there.

    Returns:
        L̂, the change of the gradient over the length of the step; positive even where the
        loss is flat.
    """
    size = trees.norm(gradient)
    epsilon = jnp.finfo(size.dtype).eps ** 0.5 * jnp.maximum(1.0, trees.norm(theta))
    step = trees.scale(-epsilon * trees.safe_divide(jnp.ones_like(size), size), gradient)
    step = trees.where(size > 0, step, trees.zeros_like(step))
    change = trees.subtract(problem.gradient(trees.add(theta, step)), gradient)
    curvature = trees.norm(change) / epsilon
    floor = jnp.finfo(size.dtype).tiny ** 0.5
    return jnp.maximum(curvature, floor)
