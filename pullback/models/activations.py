"""Activations by name, with derivatives that cost one array each."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from pullback.core.errors import unknown_name

Activation = Callable[[Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "silu": jax.nn.silu,
    "softplus": lambda x: jax.nn.softplus(10.0 * x) / 10.0,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "relu": jax.nn.relu,
}
"""Activations by name. All but ``relu`` are smooth, and so have an inner optimum to converge to."""


def find_activation(name: str) -> Activation:
    """An activation by name, applied to each number of an array.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    if name not in ACTIVATIONS:
        raise unknown_name("activation", name, ACTIVATIONS)
    return elementwise(ACTIVATIONS[name])


def elementwise(function: Activation) -> Activation:
    """A function of each number by itself, whose derivatives of any order are of the same kind.

    JAX differentiates a formula term by term: for second derivatives of SiLU it keeps five arrays
    as large as the input, and reads them again in every Hessian-vector product. Here each order
    keeps one.

    Args:
        function: takes an array number by number, and is smooth enough for what is asked of it.

    Returns:
        The same function.
    """

    def slope(x: Array) -> Array:
        return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]

    @jax.custom_jvp
    def same(x: Array) -> Array:
        return function(x)

    @same.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        return same(*primals), elementwise(slope)(*primals) * tangents[0]

    return same
