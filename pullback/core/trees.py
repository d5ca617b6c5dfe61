"""Vector-space arithmetic on pytrees of arrays."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from pullback.core.errors import InputError

Params = PyTree[Any]
"""A pytree of floating-point arrays: parameters, or anything shaped like them."""

WHOLE = "the parameters"
"""The path to a leaf that is the whole tree."""


def add(a: Params, b: Params) -> Params:
    """``a + b``, leaf by leaf."""
    return jax.tree.map(jnp.add, a, b)


def subtract(a: Params, b: Params) -> Params:
    """``a − b``, leaf by leaf."""
    return jax.tree.map(jnp.subtract, a, b)


def times(c: Any, x: Array) -> Array:
    """``c·x`` in the wider of their dtypes, which is spelled out for strict promotion."""
    if isinstance(c, int | float):
        return c * x
    kind = jnp.promote_types(c.dtype, x.dtype)
    return c.astype(kind) * x.astype(kind)


def scale(c: Float[Array, ""] | float, a: Params) -> Params:
    """``c·a``, keeping each leaf's dtype."""
    return jax.tree.map(lambda x: times(c, x).astype(x.dtype), a)


def axpy(c: Float[Array, ""] | float, a: Params, b: Params) -> Params:
    """``c·a + b``, keeping each leaf's dtype."""

    def leaf(x, y):
        product = times(c, x)
        return (product + y.astype(product.dtype)).astype(y.dtype)

    return jax.tree.map(leaf, a, b)


def dot(a: Params, b: Params) -> Float[Array, ""]:
    """Inner product over all leaves, in single precision at least."""
    return _total(jax.tree.map(lambda x, y: jnp.sum(times(x, y), dtype=_wide(x, y)), a, b))


def _wide(*arrays: Array) -> Any:
    return functools.reduce(jnp.promote_types, [x.dtype for x in arrays], jnp.float32)


def _total(numbers: PyTree[Any]) -> Float[Array, ""]:
    leaves = jax.tree.leaves(numbers)
    return functools.reduce(jnp.add, [x.astype(_wide(*leaves)) for x in leaves])


def peak(a: Params) -> Float[Array, ""]:
    """The greatest absolute value in any leaf; zero for none."""
    peaks = [_peak(x) for x in jax.tree.leaves(a)]
    return functools.reduce(jnp.maximum, [x.astype(_wide(*peaks)) for x in peaks])


def _peak(x: Array) -> Array:
    return jnp.max(jnp.abs(x), initial=0.0)


def norm(a: Params) -> Float[Array, ""]:
    """Euclidean norm over all leaves, differentiable with gradient zero at the origin.

    The squares of tiny numbers do not underflow, nor do those of large ones overflow.
    """
    unit, size = _by_peak(a)
    return size * safe_sqrt(dot(unit, unit))


def normalise(a: Params) -> tuple[Params, Float[Array, ""]]:
    """``a / ‖a‖`` and ``‖a‖``, without underflow for tiny numbers; zero stays zero."""
    scaled, size = _by_peak(a)
    length = safe_sqrt(dot(scaled, scaled))
    return _divide(scaled, length), size * length


def _by_peak(a: Params) -> tuple[Params, Float[Array, ""]]:
    size = jax.lax.stop_gradient(peak(a))
    # A product of an infinity is an infinity; a quotient of two would be no number.
    size = jnp.where(jnp.isfinite(size), size, 1.0)
    return _divide(a, size), jnp.where(size == 0, 1.0, size)


def _divide(a: Params, size: Float[Array, ""]) -> Params:
    divisor = jnp.where(size == 0, 1.0, size)

    def leaf(x):
        kind = _wide(x, divisor)
        return (x.astype(kind) / divisor.astype(kind)).astype(x.dtype)

    return jax.tree.map(leaf, a)


def safe_sqrt(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """``sqrt(x)``, whose derivative at zero is zero instead of infinite."""
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1.0)), x)


def safe_divide(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """``a / b``, and zero where both are zero; a NaN or an infinity is passed on."""
    kind = _wide(a, b)
    a, b = a.astype(kind), b.astype(kind)
    both_zero = (a == 0) & (b == 0)
    return jnp.where(both_zero, 0.0, a / jnp.where(both_zero, 1.0, b))


def where(condition: Bool[Array, ""], a: Params, b: Params) -> Params:
    """``a`` if the condition holds, else ``b``."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def all_finite(a: Params) -> Bool[Array, ""]:
    """Whether every number in every leaf is finite."""
    parts = jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), a)
    return jax.tree.reduce(jnp.logical_and, parts, jnp.asarray(True))


def check_attainable(owner: str, rtol: float, like: Params) -> None:
    """A relative tolerance must not be finer than the numbers themselves.

    Args:
        owner: whose ``rtol`` it is, for the message.
        rtol: the tolerance; 0 means as far as rounding allows.
        like: what it applies to.

    Raises:
        InputError: saying what is attainable, and with which numbers more is.
    """
    coarsest = max(jax.tree.leaves(like), key=lambda leaf: float(jnp.finfo(leaf.dtype).eps))
    eps = float(jnp.finfo(coarsest.dtype).eps)
    if 0 < rtol < eps:
        raise InputError(
            f"{owner}(rtol={rtol!r}) cannot be reached in {coarsest.dtype} numbers",
            allowed=f"rtol from {eps:.1e}",
            remedy='For more, work in float64: jax.config.update("jax_enable_x64", True)',
        )


def mean_share(a: Params, of: Params) -> Float[Array, ""]:
    """‖a‖ / ‖of‖ of all leaves, each in its own unit: their root mean square.

    So no leaf hides another by its size or its unit. A leaf of ``of`` below 100 roundings of the
    whole is rounding itself, and counts as that much.

    Args:
        a: a vector.
        of: another one of its structure.

    Returns:
        The share; zero where both are zero.
    """
    return share_of_norms(leaf_norms(a), leaf_norms(of), of)


def leaf_norms(a: Params) -> Float[Array, " leaves"]:
    """The Euclidean norm of each leaf, which neither underflows nor overflows, as :func:`norm`."""
    leaves = jax.tree.leaves(a)
    wide = _wide(*leaves)
    size = jax.lax.stop_gradient(jnp.stack([_peak(x).astype(wide) for x in leaves]))
    size = jnp.where(jnp.isfinite(size) & (size > 0), size, 1.0)
    squares = [jnp.sum((x.astype(wide) / peak) ** 2) for x, peak in zip(leaves, size, strict=True)]
    return size * safe_sqrt(jnp.stack(squares))


def share_of_norms(
    norms: Float[Array, " leaves"], of: Float[Array, " leaves"], like: Params
) -> Float[Array, ""]:
    """:func:`mean_share` of vectors whose :func:`leaf_norms` are known.

    Args:
        norms: those of a.
        of: those of the other vector.
        like: a tree of their structure, for its dtypes.
    """
    eps = np.array([float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(like)])
    least = 100 * norm(of) * jnp.asarray(eps, of.dtype)
    return norm(safe_divide(norms, jnp.maximum(of, least))) / len(eps) ** 0.5


def zeros_like(a: Params) -> Params:
    """Zeros of the same structure."""
    return jax.tree.map(jnp.zeros_like, a)


def leaf_paths(a: Params) -> list[tuple[str, Any]]:
    """Each leaf beside a readable path to it."""
    flat, _ = jax.tree_util.tree_flatten_with_path(a)
    return [(jax.tree_util.keystr(path) or WHOLE, leaf) for path, leaf in flat]


def ravel(a: Params) -> tuple[Float[Array, " n"], Callable[[Float[Array, " n"]], Params]]:
    """All leaves in one flat vector, and the function that takes one apart again."""
    flat, unravel = jax.flatten_util.ravel_pytree(a)
    # Without the barrier XLA fuses a slice of the vector into the matrix product that uses it,
    # and on a CPU that product is then a naive loop, several times slower.
    return flat, lambda vector: jax.lax.optimization_barrier(unravel(vector))


def ravel_wide(a: Params) -> tuple[Float[Array, " n"], Callable[[Float[Array, " n"]], Params]]:
    """As :func:`ravel`, in single precision at least; the way back restores each leaf's dtype."""
    flat, unravel = ravel(a)
    return flat.astype(_wide(flat)), lambda vector: unravel(vector.astype(flat.dtype))


def mean_of_known(values: np.ndarray, axis: int = 0) -> np.ndarray:
    """The mean of what is finite along one axis; infinite where there is nothing else."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(axis)
    return np.where(known.any(axis), total / np.maximum(known.sum(axis), 1), np.inf)
