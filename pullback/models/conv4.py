"""The four-layer convolutional network of the few-shot literature, as matrix products."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from pullback.core.errors import InputError, check_counts, check_positive, unknown_name
from pullback.core.trees import Params
from pullback.models.activations import find_activation
from pullback.models.convolution import convolve
from pullback.models.head import LinearHead
from pullback.models.shapes import check_examples, check_parameters
from pullback.registries import NORMALISATIONS

_ONE_PLACE = 16
"""Four layers of stride 2 leave a single place of sides up to this."""


class Conv4(eqx.Module):
    """Four 3×3 convolutions with stride 2, normalised and smooth, and a linear layer.

    Args:
        ways: number of classes.
        width: channels of each layer.
        normalisation: a name in :data:`pullback.registries.NORMALISATIONS`.
        groups: groups of channels for ``"group"``.
        activation: a name in :data:`pullback.registries.ACTIVATIONS`.
        logit_scale: factor on the logits; above 1 the inner problem learns faster from one pull.
        size: height and width of the images in pixels; one number for square ones.
        channels: of the images: 1 for grey ones, 3 for colours.

    Raises:
        InputError: for an unknown name, a number that is not positive, or groups that do not
            divide the width or that are of one number each; from ``apply`` for parameters or
            images of other shapes.
    """

    ways: int = eqx.field(static=True)
    width: int = eqx.field(static=True, default=64)
    normalisation: str = eqx.field(static=True, default="group")
    groups: int = eqx.field(static=True, default=8)
    activation: str = eqx.field(static=True, default="silu")
    logit_scale: float = eqx.field(static=True, default=4.0)
    size: int | tuple[int, int] = eqx.field(static=True, default=28)
    channels: int = eqx.field(static=True, default=1)

    @classmethod
    def for_shape(
        cls,
        shape: tuple[int, ...],
        outputs: int,
        *,
        width: int = 64,
        normalisation: str = "group",
        groups: int = 8,
        activation: str = "silu",
        logit_scale: float = 4.0,
    ) -> "Conv4":
        """The network for examples of a shape.

        Args:
            shape: ``(height, width, channels)`` of an image.
            outputs: number of classes.
            width: channels of each layer.
            normalisation: as in :class:`Conv4`, like the others.
            groups: of channels.
            activation: by name.
            logit_scale: factor on the logits.

        Returns:
            The network.

        Raises:
            InputError: if the examples are no images, or a setting is wrong.
        """
        if len(shape) != 3:
            raise InputError(
                f"The model conv4 was asked for with examples of shape {list(shape)}",
                allowed="images of shape [height, width, channels]",
                remedy="Take --model mlp or --model linear",
            )
        height, across, channels = shape
        return cls(
            outputs,
            width,
            normalisation,
            groups,
            activation,
            logit_scale,
            (height, across),
            channels,
        )

    def __check_init__(self):
        find_activation(self.activation)
        check_counts("Conv4", ways=self.ways, width=self.width, groups=self.groups)
        check_counts("Conv4", channels=self.channels)
        check_positive("Conv4", logit_scale=self.logit_scale)
        sides = self.size if isinstance(self.size, tuple) else (self.size, self.size)
        if len(sides) != 2:
            raise InputError(f"Conv4(size={self.size!r})", allowed="(height, width), or one number")
        for side in sides:
            check_counts("Conv4", size=side)
        if self.normalisation not in NORMALISATIONS:
            raise unknown_name("normalisation", self.normalisation, NORMALISATIONS)
        if self.normalisation == "group" and self.width % self.groups:
            raise InputError(
                f"A width of {self.width} channels cannot be cut into {self.groups} equal groups",
                allowed="a width that is a multiple of groups",
            )
        if self.normalisation == "group" and self.width == self.groups and max(sides) <= _ONE_PLACE:
            raise InputError(
                f"Of images of {sides[0]}×{sides[1]} the last layer sees one place, and "
                f"{self.groups} groups of {self.width} channels have one number each, which "
                "normalisation makes 0",
                allowed=f"a side above {_ONE_PLACE}, or fewer groups than channels",
                remedy="Give larger images, a larger --width, or fewer --groups",
            )

    def init(self, key: PRNGKeyArray) -> Params:
        """Weights drawn with variance 2 / fan-in; the last layer and all biases zero."""
        keys = jax.random.split(key, 4)
        params, channels = {}, self.channels
        height, across = (self.size, self.size) if isinstance(self.size, int) else self.size
        for i in range(4):
            fan_in = 9 * channels
            weight = jax.random.normal(keys[i], (self.width, fan_in)) * (2.0 / fan_in) ** 0.5
            params[f"conv{i}"] = {
                "weight": weight,
                "scale": jnp.ones(self.width),
                "bias": jnp.zeros(self.width),
            }
            channels, height, across = self.width, (height + 1) // 2, (across + 1) // 2
        features = height * across * self.width
        params["linear"] = {
            "weight": jnp.zeros((features, self.ways)),
            "bias": jnp.zeros(self.ways),
        }
        return params

    @property
    def apply(self) -> LinearHead:
        """``apply(params, x)``: the logits."""
        return LinearHead(
            self.features,
            "linear",
            self.logit_scale,
            check=functools.partial(check_parameters, self),
        )

    def features(
        self, params: Params, x: Float[Array, "batch h w c"]
    ) -> Float[Array, "batch features"]:
        """What the linear layer is applied to; it is not read from ``params``."""
        height, across = (self.size, self.size) if isinstance(self.size, int) else self.size
        shape = (height, across, self.channels)
        check_examples(
            x, lambda given: given == shape, f"[examples, {height}, {across}, {self.channels}]"
        )
        activation = find_activation(self.activation)
        for i in range(4):
            layer = params[f"conv{i}"]
            x = convolve(x, layer["weight"])
            x = activation(self._normalise(x, layer["scale"], layer["bias"]))
        return x.reshape(x.shape[0], -1)

    def _normalise(self, x, scale, bias):
        if self.normalisation == "none":
            return x * scale[None, None, None] + bias[None, None, None]
        batch, height, width, channels = x.shape
        groups = self.groups if self.normalisation == "group" else channels
        over = (1,) if self.normalisation == "group" else (0, 1)
        # Sums and sums of squares in one pass, folded into one scale and one shift. The barriers
        # keep XLA from working out these few numbers again for every pixel, in this pass, in the
        # derivative's and in the Hessian's.
        flat = x.reshape(batch, height * width, channels)
        numbers = height * width * (channels // groups) * (1 if len(over) == 1 else batch)
        sums = jnp.sum(flat, axis=over), jnp.sum(flat * flat, axis=over)
        total, squares = jax.lax.optimization_barrier(sums)
        members = (-1, groups, channels // groups)
        mean = total.reshape(members).sum(-1) / numbers
        variance = squares.reshape(members).sum(-1) / numbers - mean * mean
        inverse = jax.lax.rsqrt(jnp.maximum(variance, 0.0) + 1e-5)
        # From groups to channels by a product, since XLA would fuse an indexed copy into the loops
        # over pixels, which then are no vector instructions any more.
        of_group = np.repeat(np.eye(groups), channels // groups, axis=1).astype(x.dtype)
        spread = of_group * scale[None]
        factor = inverse @ spread
        shift = bias[None] - (mean * inverse) @ spread
        factor, shift = jax.lax.optimization_barrier((factor, shift))
        return x * factor[:, None, None, :] + shift[:, None, None, :]
