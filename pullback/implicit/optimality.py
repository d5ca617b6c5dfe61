"""The derivative of a solution by its optimality condition: decorators for any solver."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Int

from pullback.core import trees
from pullback.core.checks import check_like, describe
from pullback.core.display import VerdictRecord
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.implicit._checks import (
    Optimality,
    check_image,
    check_solution,
    convert,
    keywords,
    without_derivatives,
)
from pullback.implicit._derivative import attach, measure, opaque
from pullback.implicit._solve import Settings, flat_operator, solve_system
from pullback.linear import LinearSolver
from pullback.linear.base import rounding

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
        relative: the largest share that a single equation Fᵢ leaves of the terms that should
            cancel in it: ``|Fᵢ(x)|`` over the size of
            ∂ₓFᵢ·x and ∂_argsFᵢ·args. Units do not matter.
        linear_residual: what the solve for the cotangent v leaves: ‖(∂ₓF)ᵀu − v‖ / ‖v‖, or the
            largest share of a single equation where that is more.
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
        tolerance: the most that each equation Fᵢ(x) may leave of its terms ∂ₓFᵢ·x and
            ∂_argsFᵢ·args, and the same for each equation of a linear solve; ten roundings of
            the numbers at least.
        atol: ``|Fᵢ(x)|`` up to this much passes too; for solutions at or near zero.
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
            fixed_init, fixed_args, fixed_kwargs = without_derivatives((init, args, kwargs))
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
            x = attach(optimality, x, args, settings, shared=shared, own=own)
            return (x, opaque(without_derivatives(aux), (init, args, kwargs))) if has_aux else x

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


def root_vjp(
    optimality: Optimality, x: Params, *args: Any, cotangent: Params, **settings: Any
) -> tuple[Any, ...]:
    """The gradient of ``⟨cotangent, x(args)⟩`` by each argument, at a solution that is given.

    With ``(∂ₓF)ᵀu = cotangent`` it is ``−(∂_argsF)ᵀu`` (Blondel et al. 2022, section 2.1).

    Args:
        optimality: F, as :func:`root` takes it.
        x: the solution, however it was found.
        *args: the arguments of F.
        cotangent: shaped like ``x``.
        **settings: those of :func:`root`.

    Returns:
        A gradient for each argument, shaped like it; None for a leaf that is no floating-point
        array.

    Raises:
        InputError: as :func:`root` does, and if ``cotangent`` does not fit.
        NumericalError: if ``on_failure="raise"`` and a check fails.
    """
    check_like("the cotangent", cotangent, x, "x")
    solution, floats = _of_floats(optimality, x, args, settings)
    _, pull = jax.vjp(solution, floats)
    x = check_solution(x, None, True)
    (found,) = pull(jax.tree.map(lambda v, y: jnp.asarray(v).astype(y.dtype), cotangent, x))
    return found


def root_jvp(
    optimality: Optimality, x: Params, *args: Any, tangents: tuple[Any, ...], **settings: Any
) -> Params:
    """How a given solution moves when its arguments move along ``tangents``.

    It is the solution of ``∂ₓF·dx = −∂_argsF·tangents`` (Blondel et al. 2022, section 2.1).

    Args:
        optimality: F, as :func:`root` takes it.
        x: the solution, however it was found.
        *args: the arguments of F.
        tangents: one for each argument, shaped like it; None for an argument that stays.
        **settings: those of :func:`root`.

    Returns:
        dx, shaped like ``x``.

    Raises:
        InputError: as :func:`root` does, and if ``tangents`` does not fit.
        NumericalError: if ``on_failure="raise"`` and a check fails.
    """
    if not isinstance(tangents, tuple) or len(tangents) != len(args):
        raise InputError(
            f"root_jvp(tangents=...) is {describe(tangents)}",
            allowed=f"a tuple of {len(args)}, one for each argument",
        )
    solution, floats = _of_floats(optimality, x, args, settings)
    moved = []
    for number, (arg, tangent) in enumerate(zip(floats, tangents, strict=True)):
        if tangent is None:
            tangent = trees.zeros_like(arg)
        check_like(f"the tangent of argument {number}", tangent, arg, "the argument")
        moved.append(jax.tree.map(lambda t, a: jnp.asarray(t).astype(a.dtype), tangent, arg))
    return jax.jvp(solution, (floats,), (tuple(moved),))[1]


def _of_floats(
    optimality: Optimality, x: Params, args: tuple[Any, ...], settings: dict[str, Any]
) -> tuple[Callable[[tuple[Any, ...]], Params], tuple[Any, ...]]:
    """A given solution as a function of the floating-point arrays among its arguments."""
    args = tuple(jax.tree.map(_as_array, args))
    floats, rest = eqx.partition(args, eqx.is_inexact_array)
    given = root(optimality, **settings)(lambda init, *args: x)
    return lambda floats: given(None, *eqx.combine(floats, rest)), floats


def _as_array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, float | np.ndarray | np.floating) else leaf


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
    check_like("the cotangent", cotangent, x, "x")
    leaves = jax.tree.leaves(x)
    function, dynamic = convert(optimality, x, args, {})
    residual, relative, passed = measure(function, leaves, dynamic, settings)
    _, transposed = jax.vjp(lambda y: function(y, dynamic), leaves)
    operator = flat_operator(lambda u: transposed(u)[0], leaves, damping)
    pairs = zip(jax.tree.leaves(cotangent), leaves, strict=True)
    rhs, _ = trees.ravel_wide([jnp.asarray(v).astype(y.dtype) for v, y in pairs])
    _, linear_residual = solve_system(operator, rhs, settings, rounding(leaves))
    solved = linear_residual <= settings.attainable(rounding(leaves))
    code = jnp.where(solved, Verdict.OK, Verdict.SOLVE_NOT_CONVERGED)
    code = jnp.where(jnp.isfinite(linear_residual), code, Verdict.SOLVE_FAILED)
    code = jnp.where(passed, code, Verdict.INNER_NOT_CONVERGED)
    finite = trees.all_finite(x) & jnp.isfinite(residual)
    return RootCertificate(
        residual, relative, linear_residual, jnp.where(finite, code, Verdict.NOT_FINITE)
    )
