"""A model that ends in a linear map, and says where."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pullback.core import trees
from pullback.core.checks import check_function, describe
from pullback.core.errors import InputError, PullbackError, check_positive
from pullback.core.trees import Params

Features = Callable[[Params, Array], Float[Array, "examples features"]]
"""``features(body, x)``: what the linear map is applied to. ``body`` is the parameters with None in
place of the head, so that it cannot be read."""


class Head(NamedTuple):
    """A linear map from features to outputs, or anything shaped like it.

    Args:
        weight: one column for each output.
        bias: one number for each output; None for none.
    """

    weight: Any
    bias: Any = None


@dataclass(frozen=True, eq=False)
class LinearHead:
    """``apply(params, x)`` of a model whose outputs are ``scale · (features · weight + bias)``.

    A loss of this package over it knows that it is convex in the head, and the inner problem's
    head is then eliminated exactly (docs/projected.md). The parameters keep their form.

    Args:
        features: ``features(body, x) -> [examples, features]`` of the parameters without the head.
        head: where the head is: the key of a dictionary ``{"weight": ..., "bias": ...}`` in the
            parameters, or a function of the parameters that returns ``weight``, or
            ``(weight, bias)``.
        scale: a positive factor on the outputs.
        transposed: the weight is ``[outputs, features]``, as in Equinox and PyTorch.
        check: called with the parameters, for errors of their shapes.
        whole: the model's own ``apply``, with which this one is compared once.

    Raises:
        InputError: if a setting is out of range; when called, if the parameters have no such head
            or ``whole`` gives other outputs.
    """

    features: Features
    head: str | Callable[[Params], Any]
    scale: float = 1.0
    transposed: bool = False
    check: Callable[[Params], None] | None = None
    whole: Callable[[Params, Array], Array] | None = None
    _compared: set[str] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self):
        check_function("features", self.features, "params, x")
        check_positive("LinearHead", scale=self.scale)
        if not isinstance(self.head, str):
            check_function("head", self.head, "params")

    def __call__(self, params: Params, x: Array) -> Float[Array, "examples outputs"]:
        """The outputs."""
        if self.check is not None:
            self.check(params)
        body, head = self.split(params)
        outputs = self.outputs(self._features(body, x), head)
        if self.whole is not None:
            self._compare(params, x)
        return outputs

    def outputs(
        self, features: Float[Array, "examples features"], head: Head
    ) -> Float[Array, "examples outputs"]:
        """``scale · (features · weight + bias)``."""
        weight, bias = head
        if jnp.ndim(features) != 2 or jnp.shape(features)[1] != jnp.shape(weight)[0]:
            raise InputError(
                f"The features are {describe(features)} and the head's weight is "
                f"{describe(weight)}",
                allowed="features of shape [examples, features] and a weight of shape "
                "[features, outputs]",
                remedy="Is the weight transposed? LinearHead(..., transposed=True)",
            )
        plain = features @ weight
        return self.scale * (plain if bias is None else plain + bias[None])

    def split(self, params: Params) -> tuple[Params, Head]:
        """The body and the head of parameters, or of a tree like them.

        Returns:
            The tree with None in place of the head's leaves, and the head with its weight as
            ``[features, outputs]``.

        Raises:
            InputError: if there is no such head; says which leaves there are.
        """
        weight, bias = self._find(params)
        count = 1 if bias is None else 2
        body = eqx.tree_at(
            lambda tree: self._leaves(tree)[:count], params, replace_fn=lambda _: None
        )
        return body, Head(self._turn(weight), bias)

    def join(self, body: Params, head: Head) -> Params:
        """The tree of a body and a head, the inverse of :meth:`split`."""
        weight, bias = head
        leaves = [self._turn(weight), *([] if bias is None else [bias])]
        return eqx.tree_at(
            lambda tree: self._leaves(tree)[: len(leaves)],
            body,
            leaves,
            is_leaf=lambda x: x is None,
        )

    def _turn(self, weight: Any) -> Any:
        return weight.T if self.transposed and jnp.ndim(weight) == 2 else weight

    def _find(self, params: Params) -> tuple[Any, Any]:
        try:
            found = params[self.head] if isinstance(self.head, str) else self.head(params)
            if isinstance(found, dict):
                found = (found["weight"], found.get("bias"))
            weight, bias = found if isinstance(found, tuple | list) else (found, None)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise self._missing(params) from error
        leaves = jax.tree.leaves(params)
        given = [weight, *([] if bias is None else [bias])]
        if not all(any(leaf is known for known in leaves) for leaf in given):
            raise self._missing(params)
        return weight, bias

    def _missing(self, params: Params) -> InputError:
        known = ", ".join(f"{path} {describe(leaf)}" for path, leaf in trees.leaf_paths(params))
        return InputError(
            f"The parameters have no head at {self.head!r}",
            allowed="a dictionary's key, or a function of the parameters that returns (weight, "
            f"bias) of these: {known}",
        )

    def _leaves(self, tree: Params) -> list[Any]:
        found = tree[self.head] if isinstance(self.head, str) else self.head(tree)
        if isinstance(found, dict):
            found = [found["weight"], *([found["bias"]] if "bias" in found else [])]
        return list(found) if isinstance(found, tuple | list) else [found]

    def _features(self, body: Params, x: Array) -> Float[Array, "examples features"]:
        try:
            return self.features(body, x)
        except PullbackError:
            raise
        except (TypeError, AttributeError, LookupError, ValueError) as error:
            raise InputError(
                f"The features fail on a body without its head, {describe(body)}, and "
                f"examples {describe(x)}: {type(error).__name__}: {error}",
                allowed="features(body, x) that does not read the head, which is None there",
            ) from error

    def _compare(self, params: Params, x: Array) -> None:
        """Whether ``whole`` is this very map, on numbers drawn once for these shapes.

        Raises:
            InputError: if it is not.
        """
        assert self.whole is not None
        shapes = jax.tree.map(lambda a: (jnp.shape(a), jnp.result_type(a)), (params, x))
        seen = repr(jax.tree.flatten(shapes))
        if seen in self._compared:
            return
        draw = np.random.default_rng(0)

        def like(a):
            if jnp.issubdtype(jnp.result_type(a), jax.dtypes.prng_key):
                return jax.random.split(jax.random.key(0), jnp.shape(a))
            if jnp.issubdtype(jnp.result_type(a), jnp.floating):
                return jnp.asarray(draw.normal(size=jnp.shape(a)), jnp.result_type(a))
            return jnp.zeros(jnp.shape(a), jnp.result_type(a))

        with jax.ensure_compile_time_eval():
            drawn, examples = jax.tree.map(like, (params, x))
            body, head = self.split(drawn)
            ours = np.asarray(self.outputs(self._features(body, examples), head))
            theirs = np.asarray(self.whole(drawn, examples))
        alike = ours.shape == theirs.shape
        if not alike or not np.allclose(ours, theirs, atol=1e-2 * np.max(np.abs(theirs))):
            by = np.max(np.abs(ours - theirs), initial=0.0) if alike else ours.shape
            raise InputError(
                "The model is no linear head on these features: on numbers drawn at random "
                f"{self.scale:g}·(features·weight + bias) differs from its outputs "
                f"{describe(theirs)}" + (f" by {by:.3g}" if alike else f", in its shape {by}"),
                remedy="Let the features be what the last linear layer is applied to, with "
                "nothing behind that layer; or give the loss the model's own apply",
            )
        self._compared.add(seen)
