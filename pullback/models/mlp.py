"""A multi-layer perceptron with smooth activations."""

import functools
import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pullback.core.checks import check_type
from pullback.core.errors import check_counts
from pullback.core.trees import Params
from pullback.models.activations import find_activation
from pullback.models.head import LinearHead
from pullback.models.shapes import check_examples, check_parameters


def _as_tuple(widths: Any) -> Any:
    return tuple(widths) if isinstance(widths, list) else widths


class MLP(eqx.Module):
    """A multi-layer perceptron as a pair of pure functions over a dictionary of weights.

    Args:
        inputs: number of input features.
        outputs: number of outputs.
        hidden: widths of the hidden layers; Finn et al. (2017) use (40, 40) for the sinusoid.
        activation: a name in :data:`pullback.registries.ACTIVATIONS`.

    Raises:
        InputError: for an unknown name, or a width that is not a positive whole number; from
            ``apply`` for parameters or examples of other shapes.
    """

    inputs: int = eqx.field(static=True, default=1)
    outputs: int = eqx.field(static=True, default=1)
    hidden: tuple[int, ...] = eqx.field(static=True, default=(40, 40), converter=_as_tuple)
    activation: str = eqx.field(static=True, default="silu")

    @classmethod
    def for_shape(
        cls,
        shape: tuple[int, ...],
        outputs: int,
        *,
        hidden: tuple[int, ...] = (40, 40),
        activation: str = "silu",
    ) -> "MLP":
        """The network for examples of any shape, which are flattened."""
        return cls(math.prod(shape), outputs, tuple(hidden), activation)

    def __check_init__(self):
        find_activation(self.activation)
        check_counts("MLP", inputs=self.inputs, outputs=self.outputs)
        check_type("MLP(hidden=...)", self.hidden, tuple, "widths, as in (40, 40)")
        for width in self.hidden:
            check_counts("MLP", hidden=width)

    def init(self, key: PRNGKeyArray) -> Params:
        """Weights drawn with variance 2 / fan-in, biases zero."""
        widths = (self.inputs, *self.hidden, self.outputs)
        keys = jax.random.split(key, len(widths) - 1)
        params = {}
        for i, (n, m) in enumerate(itertools.pairwise(widths)):
            weight = jax.random.normal(keys[i], (n, m)) * (2.0 / n) ** 0.5
            params[f"layer{i}"] = {"weight": weight, "bias": jnp.zeros(m)}
        return params

    @property
    def apply(self) -> LinearHead:
        """``apply(params, x)``: the outputs; what of ``x`` is no batch axis is flattened."""
        return LinearHead(
            self.features,
            f"layer{len(self.hidden)}",
            check=functools.partial(check_parameters, self),
        )

    def features(
        self, params: Params, x: Float[Array, "batch *shape"]
    ) -> Float[Array, "batch features"]:
        """What the last layer is applied to; it is not read from ``params``."""
        x = flatten(x, self.inputs)
        activation = find_activation(self.activation)
        for i in range(len(self.hidden)):
            layer = params[f"layer{i}"]
            x = activation(x @ layer["weight"] + layer["bias"][None])
        return x


def flatten(x: Float[Array, "batch *shape"], inputs: int) -> Float[Array, "batch inputs"]:
    """Each example as one vector.

    Args:
        x: the examples.
        inputs: how many numbers an example must have.

    Raises:
        InputError: if it has another number of them.
    """
    check_examples(x, lambda shape: math.prod(shape) == inputs, f"[examples, {inputs}]")
    return x if x.ndim == 2 else x.reshape(x.shape[0], -1)
