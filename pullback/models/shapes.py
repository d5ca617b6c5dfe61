"""What a model's ``apply`` may be given."""

import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import Array

from pullback.core.checks import check_like, describe
from pullback.core.errors import InputError
from pullback.core.trees import Params


def check_parameters(model: Any, params: Params) -> None:
    """Parameters must be shaped as those that the model itself draws.

    Raises:
        InputError: naming the first leaf that is not, as in a state of another model.
    """
    check_like(
        "the parameters", params, _parameters(model), f"a {type(model).__name__} of its sizes"
    )


@functools.lru_cache(64)
def _parameters(model: Any) -> Params:
    return jax.eval_shape(model.init, jax.random.key(0))


def check_examples(x: Array, fits: Callable[[tuple[int, ...]], bool], allowed: str) -> None:
    """Examples must be an array of one example a row, each of the model's shape.

    Args:
        x: the examples.
        fits: whether the shape of one of them will do.
        allowed: the shape of all, for the message.

    Raises:
        InputError: if they are of another shape.
    """
    shape = getattr(x, "shape", None)
    if not shape or not fits(tuple(shape[1:])):
        raise InputError(f"The examples are {describe(x)}", allowed=f"an array of shape {allowed}")
