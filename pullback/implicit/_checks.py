"""What a solver and its optimality condition may take and return."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from pullback.core import trees
from pullback.core.checks import check_like, place
from pullback.core.errors import InputError
from pullback.core.trees import Params

Optimality = Callable[..., Params]
"""``optimality(x, *args)``, shaped like ``x`` and zero at the solution."""


Leaves = list[Array]
"""A pytree by its leaves: a node of the user's own may not take anything but its arrays."""


def convert(
    optimality: Optimality, x: Params, args: PyTree[Any], shared: dict[str, Any]
) -> tuple[Callable[[Leaves, Any], Leaves], tuple[PyTree[Any], Leaves]]:
    """F on the leaves of x and on arrays alone, closed-over values among them."""
    leaves, structure = jax.tree.flatten(x)
    given = jax.tree.map(_as_jax, (args, shared))
    for path, leaf in trees.leaf_paths(given):
        if eqx.is_array(leaf):
            reject_complex(f"The argument{place(path)}", leaf)
    every, given_structure = jax.tree.flatten(given)
    dynamic = [leaf for leaf in every if eqx.is_array(leaf)]

    def plain(leaves, dynamic):
        remaining = iter(dynamic)
        merged = [next(remaining) if eqx.is_array(leaf) else leaf for leaf in every]
        inputs, keywords = given_structure.unflatten(merged)
        x = structure.unflatten(leaves)
        image = _call(optimality, x, inputs, keywords)
        check_image(image, x)
        pairs = zip(jax.tree.leaves(image), leaves, strict=True)
        return [jnp.asarray(leaf).astype(like.dtype) for leaf, like in pairs]

    closed = eqx.filter_closure_convert(plain, leaves, dynamic)
    arrays, rest = eqx.partition(closed, eqx.is_array)
    return lambda leaves, both: eqx.combine(both[0], rest)(leaves, both[1]), (arrays, dynamic)


def _call(function: Callable, x: Params, args: tuple, keywords: dict[str, Any]) -> Any:
    """``function(x, *args, **keywords)``, keywords by position where its signature has one.

    A function may have the signature of another one (``functools.wraps``) and take positions only.
    """
    try:
        bound = inspect.signature(function).bind(x, *args, **keywords)
    except (TypeError, ValueError):
        return function(x, *args, **keywords)
    return function(*bound.args, **bound.kwargs)


def _as_jax(leaf: Any) -> Any:
    numbers = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "biufc"
    return jnp.asarray(leaf) if numbers else leaf


def keywords(optimality: Optimality) -> set[str] | None:
    """The keywords that ``optimality`` takes; None for any at all."""
    try:
        parameters = list(inspect.signature(optimality).parameters.values())
    except (TypeError, ValueError):
        return set()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return None
    return {p.name for p in parameters[1:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}


def without_derivatives(tree: PyTree[Any]) -> PyTree[Any]:
    """The same values, without derivatives; leaves that have none anyway stay untouched."""

    def stopped(leaf):
        return _as_array(jax.lax.stop_gradient(leaf)) if eqx.is_inexact_array(leaf) else leaf

    return jax.tree.map(stopped, tree)


def as_arrays(tree: PyTree[Any]) -> PyTree[Any]:
    """Python scalars and NumPy arrays, which JAX hands to a rule as they are, as its arrays."""
    return jax.tree.map(_as_array, tree)


def _as_array(leaf: Any) -> Array:
    return leaf if isinstance(leaf, Array) else jnp.asarray(leaf, getattr(leaf, "dtype", None))


def check_solution(x: Params, init: PyTree[Any], has_aux: bool) -> Params:
    """The solution as arrays, once it is known to be floating and like the start."""
    leaves = trees.leaf_paths(x)
    if not any(np.size(leaf) for _, leaf in leaves):
        raise InputError("The solution holds no numbers", allowed="floating-point arrays")
    for path, leaf in leaves:
        reject_complex(f"The solution{place(path)}", leaf)
        if not jnp.issubdtype(_dtype(leaf), jnp.floating):
            raise InputError(
                f"The solution{place(path)} is {_dtype(leaf)}",
                allowed="floating-point arrays; whole numbers have no derivative",
            )
    if any(jnp.issubdtype(_dtype(leaf), jnp.inexact) for leaf in jax.tree.leaves(init)):
        hint = None if has_aux else "A solver that returns (x, aux) needs has_aux=True"
        check_like("the solution", x, init, "the start", dtypes=True, remedy=hint)
    return without_derivatives(jax.tree.map(lambda leaf: jnp.asarray(leaf, _dtype(leaf)), x))


def check_image(image: Params, x: Params) -> None:
    """What an optimality condition or a mapping returns must be shaped like x."""
    check_like("optimality(x, ...)", image, x, "x")
    for path, leaf in trees.leaf_paths(image):
        reject_complex(f"optimality(x, ...){place(path)}", leaf)


def _dtype(leaf: Any) -> Any:
    try:
        return jnp.result_type(leaf)
    except TypeError:
        return type(leaf).__name__


def reject_complex(what: str, leaf: Any) -> None:
    """The theorem is stated for real numbers.

    Raises:
        InputError: if ``leaf`` is complex.
    """
    if jnp.issubdtype(_dtype(leaf), jnp.complexfloating):
        raise InputError(
            f"{what} is complex",
            allowed="real numbers",
            remedy="Pass the real and the imaginary parts as two arrays",
        )
