"""The derivative of a solution by its optimality condition: decorators for any solver."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int

from pullback.core import trees
from pullback.core.display import VerdictRecord
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.implicit._checks import (
    Optimality,
    check_image,
    check_match,
    check_solution,
    convert,
    describe,
    keywords,
    stop,
)
from pullback.implicit._derivative import attach, measure, opaque
from pullback.implicit._solve import Settings, solve_system
from pullback.linear import LinearSolver
from pullback.linear.base import damped

_MESSAGES = {
    Verdict.NOT_FINITE: (
        "x or F(x) is NaN or infinite: look for logarithms and divisions in F that can leave "
        "their domain"
    ),
    Verdict.INNER_NOT_CONVERGED: (
        "F(x) is not zero, so x is no solution: run the solver longer, or raise tolerance or atol"
    ),
    Verdict.SOLVE_FAILED: (
        "∂F/∂x is singular to rounding, so the solution has no derivative: add damping, or state "
        "the problem so that its solution is isolated"
    ),
    Verdict.SOLVE_NOT_CONVERGED: (
        "the linear solve stopped above the tolerance: give a linear solver with more steps or a "
        "smaller tolerance of its own"
    ),
}


class RootCertificate(VerdictRecord):
    """How far to trust an implicit derivative at one point.

    Args:
        residual: ‖F(x)‖.
        relative: ‖F(x)‖ / (‖∂ₓF·x‖ + ‖∂_argsF·args‖), the share that is left of the terms that
            should cancel.
        linear_residual: ‖(∂ₓF)ᵀu − v‖ / ‖v‖ of the solve for the cotangent v.
        code: a :class:`~pullback.core.results.Verdict`: OK, NOT_FINITE (x or F),
            INNER_NOT_CONVERGED (F(x) is not zero), SOLVE_FAILED (∂ₓF is singular) or
            SOLVE_NOT_CONVERGED.
    """

    residual: Float[Array, ""]
    relative: Float[Array, ""]
    linear_residual: Float[Array, ""]
    code: Int[Array, ""]

    def _message(self, verdict: Verdict, fields: Mapping[str, Any]) -> str:
        return _MESSAGES[verdict]


def root(
    optimality: Optimality,
    *,
    has_aux: bool = False,
    linear_solver: LinearSolver | lx.AbstractLinearSolver | None = None,
    symmetric: bool = False,
    damping: float = 0.0,
    tolerance: float = 1e-3,
    atol: float = 0.0,
    on_failure: str = "nan",
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorate a solver so that its solution can be differentiated by its arguments.

    The solver is ``solve(init, *args, **kwargs) -> x``. Derivatives of any order and in both modes
    go to every floating-point array in ``args``; other leaves are constants, and so is ``init``.
    A keyword that ``optimality`` names is passed to it too and can be differentiated; any other
    keyword is the solver's own, and differentiating by it is an error.

    Args:
        optimality: F with ``F(x, *args) = 0`` at the solution; same structure and shapes as x. It
            may close over traced values.
        has_aux: the solver returns ``(x, aux)``. The derivative of ``aux`` is NaN; put it behind
            ``jax.lax.stop_gradient`` to use it as a constant.
        linear_solver: solves with ∂ₓF and its transpose. None is a singular value decomposition of
            the equilibrated matrix up to 256 unknowns and restarted GMRES beyond, both for any
            matrix. Any Lineax solver will do; those of :mod:`pullback.linear` if ``symmetric``.
        symmetric: ∂ₓF is symmetric. Untrue, it shows in the residual of the solve.
        damping: δ ≥ 0: ∂ₓF + δI in the place of ∂ₓF, a deliberate bias.
        tolerance: the most that ‖F(x)‖ may be of ‖∂ₓF·x‖ + ‖∂_argsF·args‖, and the residual of a
            linear solve of its right-hand side.
        atol: ‖F(x)‖ up to this much passes too; for solutions at or near zero.
        on_failure: of either check. ``"nan"``: NaN as the derivative. ``"raise"``: an error of
            Equinox at run time, and where numbers are at hand outside ``jit`` a
            ``NumericalError``.

    Returns:
        A decorator for the solver.

    Raises:
        InputError: if a setting is out of range; from the decorated function, if the solver or
            ``optimality`` returns something that does not fit.
        NumericalError: from a derivative, if ``on_failure="raise"``.
    """
    settings = Settings(linear_solver, symmetric, damping, tolerance, atol, on_failure)
    names = keywords(optimality)

    def decorate(solver: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(solver)
        def solve(init, *args, **kwargs):
            shared = {k: v for k, v in kwargs.items() if names is None or k in names}
            own = {k: v for k, v in kwargs.items() if k not in shared}
            fixed_init, fixed_args, fixed_kwargs = stop((init, args, kwargs))
            found = solver(fixed_init, *fixed_args, **fixed_kwargs)
            aux = None
            if has_aux:
                if not (isinstance(found, tuple) and len(found) == 2):
                    raise InputError(
                        f"The solver returned {describe(found)}",
                        allowed="a pair (x, aux), as has_aux=True says",
                    )
                found, aux = found
            x = check_solution(found, init, has_aux)
            x = attach(optimality, x, args, shared, own, settings)
            return (x, opaque(stop(aux), (init, args, kwargs))) if has_aux else x

        return solve

    return decorate


def fixed_point(
    mapping: Optimality, **settings: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """:func:`root` for a solver of ``x = mapping(x, *args)``.

    Args:
        mapping: one step of any iteration that the solution stands still under, for instance
            projected or proximal gradient.
        **settings: those of :func:`root`.

    Returns:
        A decorator for the solver.

    Raises:
        InputError: as :func:`root` does.
    """
    return root(displacement(mapping), **settings)


def displacement(mapping: Optimality) -> Optimality:
    """``F(x, *args) = x − mapping(x, *args)``, zero at a fixed point; for :func:`certify`."""

    # This sign makes ∂ₓF positive definite for a gradient step on a convex function.
    @functools.wraps(mapping)
    def optimality(x, *args, **kwargs):
        image = mapping(x, *args, **kwargs)
        check_image(image, x)
        return trees.subtract(x, image)

    return optimality


def certify(
    optimality: Optimality,
    x: Params,
    *args: Any,
    cotangent: Params | None = None,
    linear_solver: LinearSolver | lx.AbstractLinearSolver | None = None,
    symmetric: bool = False,
    damping: float = 0.0,
    tolerance: float = 1e-3,
    atol: float = 0.0,
) -> RootCertificate:
    """Measure what the implicit gradient at ``x`` rests on; works inside ``jit`` and ``vmap``.

    Args:
        optimality: F, as :func:`root` takes it.
        x: the solution to judge.
        *args: the arguments of F.
        cotangent: v of the solve (∂ₓF)ᵀu = v, shaped like ``x``; ones if None.
        linear_solver: as for :func:`root`.
        symmetric: as for :func:`root`.
        damping: as for :func:`root`.
        tolerance: as for :func:`root`.
        atol: as for :func:`root`.

    Returns:
        The certificate.

    Raises:
        InputError: if F, ``x`` or ``cotangent`` does not fit, or a setting is out of range.
    """
    settings = Settings(linear_solver, symmetric, damping, tolerance, atol)
    x = check_solution(x, None, True)
    if cotangent is None:
        cotangent = jax.tree.map(jnp.ones_like, x)
    check_match("The cotangent", cotangent, x)
    function, dynamic = convert(optimality, x, args, {})
    residual, relative, passed = measure(function, x, dynamic, settings)
    _, transposed = jax.vjp(lambda y: function(y, dynamic), x)
    operator = damped(lambda u: transposed(u)[0], damping)
    cotangent = jax.tree.map(lambda v, y: jnp.asarray(v, y.dtype), cotangent, x)
    _, linear_residual = solve_system(operator, cotangent, settings)
    code = jnp.where(linear_residual <= tolerance, Verdict.OK, Verdict.SOLVE_NOT_CONVERGED)
    code = jnp.where(jnp.isfinite(linear_residual), code, Verdict.SOLVE_FAILED)
    code = jnp.where(passed, code, Verdict.INNER_NOT_CONVERGED)
    finite = trees.all_finite(x) & jnp.isfinite(residual)
    return RootCertificate(
        residual, relative, linear_residual, jnp.where(finite, code, Verdict.NOT_FINITE)
    )
