"""The doors of the library: what its calls may be given.

Only shapes, types and signatures are looked at. Nothing is computed, and inside ``jit`` nothing
is left of it; outside, JAX remembers the shapes of a loss that it has seen before.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from pullback.core import trees
from pullback.core.errors import InputError, PullbackError, shorten

PRECISIONS = ("float32", "float64")
"""The types of numbers that parameters and losses may have."""

_OF_CALLERS = (TypeError, ValueError, LookupError, AttributeError)
"""What a function raises that is given shapes or structures it was not written for."""


def check_function(what: str, function: Any, arguments: str) -> None:
    """A function must be callable with so many positional arguments.

    Args:
        what: the function is, for the message.
        function: what was given.
        arguments: their names, as in ``"params, batch"``.

    Raises:
        InputError: if it is no function, or one of other arguments.
    """
    name = what.rpartition(" ")[2]
    call = f"{name}({arguments})"
    if isinstance(function, type):
        raise InputError(
            f"The {what} is the class {function.__name__}, not an instance of it",
            allowed=f"a callable {call}",
            remedy=f"Write {function.__name__}(...)",
        )
    if not callable(function):
        raise InputError(f"The {what} is {shorten(function)}", allowed=f"a callable {call}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments.split(", "))
    except TypeError as error:
        raise InputError(
            f"The {what} takes other arguments, {signature}: {error}",
            allowed=f"a callable {call}",
            remedy="What else it needs, such as random keys, can be a part of the batch: "
            "docs/models.md"
            if arguments == "params, batch"
            else None,
        ) from None


def check_value(function: Any, params: Any, batch: Any, what: str = "loss") -> None:
    """A loss must give one floating-point number for these parameters and this batch.

    Args:
        function: ``function(params, batch) -> scalar``.
        params: its parameters.
        batch: its batch.
        what: the function is, for the message.

    Raises:
        InputError: if it fails on their shapes, or returns anything else.
    """
    try:
        value = jax.eval_shape(function, params, batch)
    except PullbackError:
        raise
    except _OF_CALLERS as error:
        lines = str(error).strip().splitlines() or [""]
        raise InputError(
            f"The {what} fails on parameters {describe(params)} and a batch {describe(batch)}: "
            f"{type(error).__name__}: {lines[0]}",
            allowed=f"parameters and batches that {what}(params, batch) takes",
            remedy="Are the arguments in their order, of one model, and the examples as many as "
            "their targets?",
        ) from error
    check_scalar(value, what)


def check_scalar(value: Any, what: str = "loss") -> None:
    """What a loss returns must be one floating-point number.

    Raises:
        InputError: saying what it is instead, and how to mend that.
    """
    dtype = getattr(value, "dtype", None)
    given, remedy = describe(value), None
    if isinstance(value, tuple | list | dict):
        remedy = (
            "Give pullback.models.without_aux(loss) where the loss is the first of what it "
            "returns: docs/models.md"
        )
    elif dtype is None:
        given = type(value).__name__
    elif np.shape(value):
        remedy = "Take the mean over the examples, as jnp.mean does"
    elif jnp.issubdtype(dtype, jnp.floating) and dtype.name not in PRECISIONS:
        remedy = "Return value.astype(jnp.float32)"
    elif dtype.name in PRECISIONS:
        return
    raise InputError(
        f"The {what} returns {given}",
        allowed=f"one number, of type {' or '.join(PRECISIONS)}",
        remedy=remedy,
    )


def check_params(params: PyTree[Any]) -> PyTree[Array]:
    """Parameters as JAX arrays, once every leaf is known to be a floating-point array.

    Raises:
        InputError: naming the first leaf that gradients cannot reach, or that is too coarse.
    """
    leaves = trees.leaf_paths(params)
    if not any(np.size(leaf) for _, leaf in leaves):
        raise InputError(
            "The parameters hold no arrays", allowed="a pytree of floating-point arrays"
        )
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise InputError(
                f"The parameter at {path} is {type(leaf).__name__ if dtype is None else dtype}",
                allowed="floating-point arrays",
                remedy="Keep what is not trained out of the parameters, for instance with "
                "equinox.partition(model, equinox.is_inexact_array)",
            )
        if jnp.dtype(dtype).name not in PRECISIONS:
            raise InputError(
                f"The parameter at {path} is {dtype}, in which no inner problem can be solved",
                allowed=" and ".join(PRECISIONS),
                remedy="Keep parameters in float32 and make them coarser within the loss: "
                "docs/models.md",
            )
    return jax.tree.map(jnp.asarray, params)


def check_key(owner: str, key: PRNGKeyArray) -> None:
    """A random key must be one of JAX's, and a single one.

    Args:
        owner: whose ``key`` it is, for the message.
        key: what was given.

    Raises:
        InputError: for anything else.
    """
    dtype = getattr(key, "dtype", None)
    remedy = None
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        if not np.shape(key):
            return
        remedy = "Give one of them: more are split off it where they are needed"
    elif dtype == jnp.uint32 and np.shape(key) in ((2,), (4,)):
        return
    elif isinstance(key, int) and not isinstance(key, bool):
        remedy = f"Write jax.random.key({key})"
    raise InputError(
        f"{owner}(key={describe(key)})",
        allowed="one random key, as from jax.random.key(0)",
        remedy=remedy,
    )


def check_type(what: str, value: Any, kinds: Any, allowed: str) -> None:
    """A setting that is an object must be of a kind.

    Args:
        what: is given, for the message.
        value: what was given.
        kinds: a type, or several.
        allowed: in words.

    Raises:
        InputError: if it is of another one, or a class instead of its instance.
    """
    if isinstance(value, type) or not isinstance(value, kinds):
        raise InputError(f"{what} is {shorten(value)}", allowed=allowed)


def check_like(
    what: str,
    given: PyTree[Any],
    wanted: PyTree[Any],
    like: str,
    *,
    dtypes: bool = False,
    remedy: str | None = None,
) -> None:
    """Two pytrees must have one structure, and their leaves the same shapes.

    Args:
        what: is given, for the message.
        given: a pytree of arrays.
        wanted: one that it must be like.
        like: what that one is, for the message.
        dtypes: whether their types of numbers must be the same too.
        remedy: what to do about another structure.

    Raises:
        InputError: naming the first leaf that does not match, and both shapes.
    """
    structures = jax.tree.structure(given), jax.tree.structure(wanted)
    if structures[0] != structures[1]:
        raise InputError(
            f"The structure of {what} is {structures[0]}",
            allowed=f"that of {like}, {structures[1]}",
            remedy=remedy,
        )
    for (path, leaf), other in zip(trees.leaf_paths(given), jax.tree.leaves(wanted), strict=True):
        same = np.shape(leaf) == np.shape(other)
        if not same or (dtypes and jnp.result_type(leaf) != jnp.result_type(other)):
            raise InputError(
                f"The shape of {what}{place(path)} is {_shape(leaf)}",
                allowed=f"{_shape(other)}, as {like}",
            )


def place(path: str) -> str:
    """Where a leaf is, in words; none for one that is the whole tree."""
    return "" if path == trees.WHOLE else f" at {path}"


def _shape(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(np.shape(leaf))}"


def describe(tree: Any) -> str:
    """Shapes and types in place of the numbers, as in ``{'w': float32[3]}``."""

    def leaf_text(leaf: Any) -> Any:
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            return _Text(f"{leaf.dtype}{list(leaf.shape)}")
        return _Text(shorten(leaf))

    return shorten(jax.tree.map(leaf_text, tree), 300)


class _Text(str):
    """A text that prints without quotes."""

    def __repr__(self) -> str:
        return str(self)
