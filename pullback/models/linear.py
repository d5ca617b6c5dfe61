"""One linear layer."""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pullback.core.trees import Params
from pullback.models.mlp import flatten


class Linear(eqx.Module):
    """One linear layer, whose loss is convex in its weights for every loss of this package.

    Args:
        inputs: number of input features.
        outputs: number of outputs.
    """

    inputs: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)

    @classmethod
    def for_shape(cls, shape: tuple[int, ...], outputs: int) -> "Linear":
        """The layer for examples of any shape, which are flattened."""
        return cls(math.prod(shape), outputs)

    def init(self, key: PRNGKeyArray) -> Params:
        """All zero, whatever the key: from a convex loss there is nothing to be lost by it."""
        return {"weight": jnp.zeros((self.inputs, self.outputs)), "bias": jnp.zeros(self.outputs)}

    def apply(
        self, params: Params, x: Float[Array, "batch *shape"]
    ) -> Float[Array, "batch outputs"]:
        """The layer's outputs; what of ``x`` is no batch axis is flattened."""
        return flatten(x) @ params["weight"] + params["bias"]
