"""The derivative of a solution by the implicit function theorem, and the check of it."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float, PyTree

from pullback.core import trees
from pullback.core.errors import InputError, NumericalError
from pullback.core.trees import Params
from pullback.implicit._checks import Leaves, Optimality, as_arrays, convert, without_derivatives
from pullback.implicit._solve import (
    Settings,
    answer_or_nan,
    complaint,
    flat_operator,
    row_shares,
    row_sizes,
    typical_sizes,
)
from pullback.linear.base import rounding

Judge = Callable[[Callable, Leaves, Any], Bool[Array, ""]]
"""``judge(function, x, dynamic)``: whether the theorem may be used at x."""


def attach(
    optimality: Optimality,
    x: Params,
    args: PyTree[Any],
    settings: Settings,
    *,
    shared: dict[str, Any] | None = None,
    own: dict[str, Any] | None = None,
    judge: Judge | None = None,
) -> Params:
    """``x`` itself, with the derivative of the implicit function theorem.

    Args:
        optimality: F.
        x: the solution, of which no derivative is wanted.
        args: the arguments of F by position.
        settings: how to solve and to judge.
        shared: its keywords.
        own: keywords of the solver alone, by which there is no derivative.
        judge: whether x will do; :func:`measure` if None.

    Returns:
        The same numbers.
    """
    leaves, structure = jax.tree.flatten(x)
    function, dynamic = convert(optimality, x, args, shared or {})
    named = [(n, leaf) for n, leaf in trees.leaf_paths(own or {}) if eqx.is_inexact_array(leaf)]

    def sound(x, dynamic):
        if judge is not None:
            return judge(function, x, dynamic)
        return measure(function, x, dynamic, settings)[2]

    @jax.custom_jvp
    def attached(x, dynamic, own):
        return x

    @functools.partial(attached.defjvp, symbolic_zeros=True)
    def derivative(primals, tangents):
        x, dynamic, own = as_arrays(primals)
        _, moved, own_moved = tangents
        for (name, _), tangent in zip(named, own_moved, strict=True):
            if not isinstance(tangent, SymbolicZero):
                raise InputError(
                    f"A derivative was asked for by the keyword {name}, which optimality does "
                    "not take",
                    remedy="Pass it by position, or let optimality name it too",
                )
        # The solution of the next outer derivative, if there is one, is this very function.
        x = attached(x, dynamic, own)
        varied = jax.tree.map(lambda t: not isinstance(t, SymbolicZero), moved)
        if not any(jax.tree.leaves(varied)):
            return x, trees.zeros_like(x)
        varying, constant = eqx.partition(dynamic, varied)
        moved = eqx.filter(moved, varied)
        _, pushed = jax.jvp(
            lambda part: function(x, eqx.combine(part, constant)), (varying,), (moved,)
        )
        passed = sound(without_derivatives(x), without_derivatives(dynamic))
        _, product = jax.linearize(lambda y: function(y, dynamic), x)
        raise_now(passed, settings)
        answer = functools.partial(
            answer_or_nan, passed=passed, settings=settings, precision=rounding(x)
        )
        # As one vector: JAX cannot transpose a solve of whose right-hand side only some leaves
        # depend on the tangents.
        rhs, unravel = trees.ravel_wide(trees.scale(-1.0, pushed))
        tangent = jax.lax.custom_linear_solve(
            flat_operator(product, x, settings.damping),
            rhs,
            functools.partial(answer, transposed=False),
            functools.partial(answer, transposed=True),
        )
        return x, unravel(tangent)

    return structure.unflatten(attached(leaves, dynamic, [leaf for _, leaf in named]))


def _sum(arrays: list[Array]) -> Float[Array, ""]:
    return functools.reduce(jnp.add, [jnp.sum(x).astype(jnp.float32) for x in arrays])


def opaque(aux: PyTree[Any], inputs: PyTree[Any]) -> PyTree[Any]:
    """``aux`` itself, with NaN as its derivative by ``inputs``.

    What a solver returns beside its solution is not covered by the theorem. A cotangent of zero
    stays zero, so that an ``aux`` that is only looked at does no harm.
    """
    leaves, structure = jax.tree.flatten(aux)
    given = [leaf for leaf in jax.tree.leaves(inputs) if eqx.is_inexact_array(leaf)]

    @jax.custom_jvp
    def kept(floats, inputs):
        return floats

    @functools.partial(kept.defjvp, symbolic_zeros=True)
    def derivative(primals, tangents):
        floats = kept(*primals)
        moved = [t for t in tangents[1] if not isinstance(t, SymbolicZero)]
        if not moved:
            return floats, trees.zeros_like(floats)
        unknown = jax.lax.custom_linear_solve(
            lambda v: v,
            _sum(moved),
            lambda _, v: v * jnp.nan,
            lambda _, v: jnp.where(v == 0, v, jnp.nan),
        )
        return floats, [jnp.broadcast_to(unknown.astype(x.dtype), x.shape) for x in floats]

    floats = iter(kept([leaf for leaf in leaves if eqx.is_inexact_array(leaf)], given))
    return structure.unflatten(
        [next(floats) if eqx.is_inexact_array(leaf) else leaf for leaf in leaves]
    )


def measure(
    function: Callable, x: Leaves, dynamic: PyTree[Any], settings: Settings
) -> tuple[Float[Array, ""], Float[Array, ""], Bool[Array, ""]]:
    """‖F(x)‖, the largest share of the terms that an equation balances, and whether that will do.

    Each equation is compared with its own terms, and these with each other by probes in which
    every unknown and every argument is as large as it is, and of a random sign. So neither the
    units of equations nor those of unknowns matter.
    """
    floats, rest = eqx.partition(dynamic, eqx.is_inexact_array)
    # An infinite bound is an argument too, and 0·∞ would void the terms.
    sizes = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), jnp.abs(a), 0), floats)
    value, along = jax.linearize(lambda x, a: function(x, eqx.combine(a, rest)), x, floats)
    terms = row_sizes(lambda moved: along(*moved), (typical_sizes(x), sizes))
    shares = row_shares(value, terms)
    tolerance = settings.attainable(rounding(x))
    passed = [
        jnp.all((share <= tolerance) | (jnp.abs(leaf) <= settings.atol))
        for share, leaf in zip(shares, value, strict=True)
    ]
    largest = trees.peak([jnp.where(jnp.isnan(s), jnp.inf, s) for s in shares])
    return trees.norm(value), largest, functools.reduce(jnp.logical_and, passed)


def raise_now(passed: Bool[Array, ""], settings: Settings) -> None:
    """The error of ``on_failure="raise"``, where it need not wait for run time.

    Raises:
        NumericalError: if F(x) is not zero.
    """
    if settings.on_failure == "raise" and not isinstance(passed, Tracer) and not bool(passed):
        raise NumericalError(complaint())
