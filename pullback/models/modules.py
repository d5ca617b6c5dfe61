"""Models of other libraries, split into parameters and a pure function."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array

from pullback.core.errors import InputError
from pullback.core.trees import Params
from pullback.models.losses import Apply


def functional(module: Any) -> tuple[Params, Apply]:
    """An Equinox module as ``(params, apply)`` with ``apply(params, x)`` over a batch.

    What is no floating-point array (sizes, functions, integer tables) stays with ``apply``.

    Args:
        module: a callable Equinox module that maps one example, as Equinox's own layers do.

    Returns:
        The module's floating-point arrays, and a function of them and a batch of inputs.

    Raises:
        InputError: if the module cannot be called or holds no floating-point array.
    """
    if not callable(module):
        raise InputError(f"{type(module).__name__} cannot be called", allowed="a callable module")
    params, rest = eqx.partition(module, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise InputError(f"{type(module).__name__} holds no floating-point array to train")

    def apply(params: Params, x: Array) -> Array:
        return jax.vmap(eqx.combine(params, rest))(x)

    return params, apply
