"""The derivative of a solution by the implicit function theorem, and the check of it."""

import functools
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
from pullback.implicit._checks import as_arrays, convert, stop
from pullback.implicit._solve import Settings, answer_or_nan, complaint, magnitude
from pullback.linear.base import damped


def attach(optimality, x, args, shared, own, settings: Settings) -> Params:
    """``x`` itself, with the derivative of the implicit function theorem."""
    function, dynamic = convert(optimality, x, args, shared)

    @jax.custom_jvp
    def attached(x, dynamic, own):
        return x

    @functools.partial(attached.defjvp, symbolic_zeros=True)
    def derivative(primals, tangents):
        x, dynamic, own = as_arrays(primals)
        _, moved, own_moved = tangents
        for path, tangent in trees.leaf_paths(own_moved):
            if not isinstance(tangent, SymbolicZero):
                raise InputError(
                    f"A derivative was asked for by the keyword {path}, which optimality does "
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
        _, _, passed = measure(function, stop(x), stop(dynamic), settings)
        _, product = jax.linearize(lambda y: function(y, dynamic), x)
        raise_now(passed, settings)
        answer = functools.partial(answer_or_nan, passed=passed, settings=settings)
        tangent = jax.lax.custom_linear_solve(
            damped(product, settings.damping),
            jax.tree.map(jnp.negative, pushed),
            functools.partial(answer, transposed=False),
            functools.partial(answer, transposed=True),
        )
        return x, tangent

    return attached(x, dynamic, eqx.filter(own, eqx.is_inexact_array))


def opaque(aux: PyTree[Any], inputs: PyTree[Any]) -> PyTree[Any]:
    """``aux`` itself, with NaN as its derivative by ``inputs``.

    What a solver returns beside its solution is not covered by the theorem. A cotangent of zero
    stays zero, so that an ``aux`` that is only looked at does no harm.
    """
    floats, rest = eqx.partition(aux, eqx.is_inexact_array)

    @jax.custom_jvp
    def kept(floats, inputs):
        return floats

    @functools.partial(kept.defjvp, symbolic_zeros=True)
    def derivative(primals, tangents):
        floats = kept(*primals)
        moved = [t for t in jax.tree.leaves(tangents[1]) if not isinstance(t, SymbolicZero)]
        if not moved:
            return floats, trees.zeros_like(floats)
        unknown = jax.lax.custom_linear_solve(
            lambda v: v,
            functools.reduce(jnp.add, [jnp.sum(t).astype(jnp.float32) for t in moved]),
            lambda _, v: v * jnp.nan,
            lambda _, v: jnp.where(v == 0, v, jnp.nan),
        )
        return floats, jax.tree.map(
            lambda leaf: jnp.broadcast_to(unknown.astype(leaf.dtype), leaf.shape), floats
        )

    return eqx.combine(kept(floats, eqx.filter(inputs, eqx.is_inexact_array)), rest)


def measure(
    function, x: Params, dynamic: PyTree[Any], settings: Settings
) -> tuple[Float[Array, ""], Float[Array, ""], Bool[Array, ""]]:
    """‖F(x)‖, the same as a share of the terms it balances, and whether that will do."""
    value, along_x = jax.jvp(lambda y: function(y, dynamic), (x,), (x,))
    floats, rest = eqx.partition(dynamic, eqx.is_inexact_array)
    # An infinite bound is an argument too, and 0·∞ would void the denominator.
    tangents = jax.tree.map(lambda a: jnp.where(jnp.isfinite(a), a, 0), floats)
    _, along_args = jax.jvp(lambda a: function(x, eqx.combine(a, rest)), (floats,), (tangents,))
    residual = magnitude(value)
    terms = magnitude(along_x) + magnitude(along_args)
    relative = trees.safe_divide(residual, terms)
    return residual, relative, (relative <= settings.tolerance) | (residual <= settings.atol)


def raise_now(passed: Bool[Array, ""], settings: Settings) -> None:
    """The error of ``on_failure="raise"``, where it need not wait for run time.

    Raises:
        NumericalError: if F(x) is not zero.
    """
    if settings.on_failure == "raise" and not isinstance(passed, Tracer) and not bool(passed):
        raise NumericalError(complaint())
