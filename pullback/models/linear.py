"""One linear layer."""

import functools
import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pullback.core.errors import check_counts
from pullback.core.trees import Params
from pullback.models.head import LinearHead
from pullback.models.mlp import flatten
from pullback.models.shapes import check_parameters


class Linear(eqx.Module):
    """One linear layer, whose loss is convex in its weights for every loss of this package.

    Args:
        inputs: number of input features.
        outputs: number of outputs.

    Raises:
        InputError: if one of them is not a positive whole number; from ``apply`` for parameters
            or examples of other shapes.
    """

    inputs: int = eqx.field(static=True)
    outputs: int = eqx.field(static=True)

    def __check_init__(self):
        check_counts("Linear", inputs=self.inputs, outputs=self.outputs)

    @classmethod
    def for_shape(cls, shape: tuple[int, ...], outputs: int) -> "Linear":
        """The layer for examples of any shape, which are flattened."""
        return cls(math.prod(shape), outputs)

    def init(self, key: PRNGKeyArray) -> Params:
        """All zero, whatever the key: from a convex loss there is nothing to be lost by it."""
        return {"weight": jnp.zeros((self.inputs, self.outputs)), "bias": jnp.zeros(self.outputs)}

    @property
    def apply(self) -> LinearHead:
        """``apply(params, x)``: the outputs; what of ``x`` is no batch axis is flattened."""
        return LinearHead(
            self.features,
            lambda params: (params["weight"], params["bias"]),
            check=functools.partial(check_parameters, self),
        )

    def features(
        self, params: Params, x: Float[Array, "batch *shape"]
    ) -> Float[Array, "batch inputs"]:
        """The examples themselves, flattened."""
        return flatten(x, self.inputs)
