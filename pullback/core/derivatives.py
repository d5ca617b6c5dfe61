"""Values that cannot be differentiated, which is said where it is tried."""

import functools
from typing import Any

import equinox as eqx
import jax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import PyTree

from pullback.core.errors import InputError


def refuse_derivative(tree: PyTree[Any], problem: str, remedy: str) -> PyTree[Any]:
    """The same values, through which no derivative can be taken.

    Args:
        tree: any values.
        problem: what cannot be differentiated, for the message.
        remedy: what to do instead.

    Returns:
        The values. Where JAX differentiates through them, an ``InputError`` is raised as the
        program is traced; a derivative of zero would be silent.
    """
    leaves, structure = jax.tree.flatten(tree)
    floats = [leaf for leaf in leaves if eqx.is_inexact_array(leaf)]

    @jax.custom_jvp
    def same(floats):
        return floats

    @functools.partial(same.defjvp, symbolic_zeros=True)
    def derivative(primals, tangents):
        (tangents,) = tangents
        if not all(isinstance(tangent, SymbolicZero) for tangent in tangents):
            raise InputError(problem, remedy=remedy)
        return same(*primals), tangents

    kept = iter(same(floats))
    return structure.unflatten(
        [next(kept) if eqx.is_inexact_array(leaf) else leaf for leaf in leaves]
    )
