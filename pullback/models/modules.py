"""Models of other libraries, split into parameters and a pure function."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from pullback.core.checks import check_function, describe
from pullback.core.errors import InputError
from pullback.core.trees import Params
from pullback.models.head import LinearHead
from pullback.models.losses import Apply

BATCH_AXIS = "batch"
"""The name of the axis over which a module sees the other examples, for Equinox's BatchNorm."""


def functional(
    module: Any,
    *,
    keys: bool = False,
    state: eqx.nn.State | None = None,
    head: Callable[[Any], eqx.nn.Linear] | None = None,
) -> tuple[Params, Apply]:
    """An Equinox module as ``(params, apply)`` with ``apply(params, x)`` over a batch.

    What is no floating-point array (sizes, functions, integer tables) stays with ``apply``.

    Args:
        module: a callable Equinox module that maps one example, as Equinox's own layers do.
        keys: whether the module takes a ``key`` for each example, as dropout does. ``x`` is then
            a pair ``(examples, keys)`` with one key an example.
        state: of a module with ``eqx.nn.make_with_state``, which ``apply`` uses as it is and never
            changes. Batch statistics of a module that is not in inference mode are those of the
            examples at hand, over the axis ``"batch"``.
        head: ``head(module)`` is the linear layer that the module ends in, such as
            ``lambda module: module.layers[-1]``. A loss of this package over ``apply`` is then
            known to be convex in it, and iMAML eliminates it (docs/projected.md).

    Returns:
        The module's floating-point arrays, and a function of them and a batch of inputs.

    Raises:
        InputError: if the module cannot be called, holds no floating-point array, or needs a key
            or a state that it is not given; if ``head`` is no linear layer of it, and from
            ``apply`` if something follows on that layer.
    """
    name = type(module).__name__
    if isinstance(module, type) or not callable(module):
        raise InputError(
            f"{name if not isinstance(module, type) else module} cannot be called on an example",
            allowed="a callable module",
        )
    if not isinstance(keys, bool):
        raise InputError(f"functional(keys={keys!r})", allowed="True, False")
    params, rest = eqx.partition(module, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise InputError(f"{name} holds no floating-point array to train")
    _check_state(name, module, state)
    _check_keys(name, module, keys)

    leaves, structure = jax.tree.flatten(state)

    def apply(params: Params, x: Array) -> Array:
        return call(eqx.combine(params, rest), x)

    def call(whole: Any, x: Array) -> Array:
        # Equinox lets each copy of a state be used once.
        state = jax.tree.unflatten(structure, leaves)

        def one(example, key):
            options = {} if key is None else {"key": key}
            if state is None:
                return whole(example, **options)
            return whole(example, state, **options)[0]

        given = _examples_and_keys(name, x) if keys else (x, None)
        return jax.vmap(one, axis_name=BATCH_AXIS)(*given)

    if head is None:
        return params, apply
    layer = _find_head(name, module, head)

    def arrays(tree: Any) -> tuple[Array, Array | None]:
        return head(tree).weight, head(tree).bias

    def features(body: Params, x: Array) -> Array:
        # The layer is replaced as a whole, for which it has to be whole.
        filled = eqx.tree_at(
            lambda tree: arrays(tree)[: len(given)], body, given, is_leaf=lambda a: a is None
        )
        return call(eqx.tree_at(head, eqx.combine(filled, rest), eqx.nn.Identity()), x)

    given = tuple(jnp.zeros_like(a) for a in (layer.weight, layer.bias) if a is not None)
    return params, LinearHead(features, arrays, transposed=True, whole=apply)


def _find_head(name: str, module: Any, head: Callable[[Any], Any]) -> eqx.nn.Linear:
    check_function("head", head, "module")
    try:
        layer = head(module)
    except (AttributeError, LookupError, TypeError) as error:
        raise InputError(
            f"head fails on {name}: {type(error).__name__}: {error}",
            allowed="a function of the module that returns its last equinox.nn.Linear",
        ) from error
    if not isinstance(layer, eqx.nn.Linear):
        raise InputError(
            f"head({name}) is {describe(layer)}",
            allowed="the equinox.nn.Linear that the module ends in",
            remedy="For a layer of another kind say where the features are: LinearHead",
        )
    return layer


def _examples_and_keys(name: str, x: PyTree[Any]) -> tuple[Any, Any]:
    if not isinstance(x, tuple | list) or len(x) != 2:
        raise InputError(
            f"{name} with keys was given {describe(x)}",
            allowed="a pair (examples, keys) with one key an example",
            remedy="Draw them with the task: jax.random.split(key, len(examples)), or "
            "pullback.tasks.WithKeys(tasks)",
        )
    return x[0], x[1]


def _parts(module: Any, kinds: Any) -> list[Any]:
    found = jax.tree.leaves(module, is_leaf=lambda part: isinstance(part, kinds))
    return [part for part in found if isinstance(part, kinds)]


def _check_state(name: str, module: Any, state: Any) -> None:
    stateful = bool(_parts(module, eqx.nn.StateIndex))
    if state is not None and not isinstance(state, eqx.nn.State):
        raise InputError(
            f"functional(state={type(state).__name__})",
            allowed="an equinox.nn.State, as from equinox.nn.make_with_state",
        )
    if stateful and state is None:
        raise InputError(
            f"{name} keeps a state, which has to be given",
            allowed="functional(module, state=state)",
            remedy="Make both with equinox.nn.make_with_state; or take a layer without a state, "
            "such as equinox.nn.GroupNorm or LayerNorm",
        )


def _check_keys(name: str, module: Any, keys: bool) -> None:
    random = any(
        part.p > 0 and not part.inference
        for part in _parts(module, eqx.nn.Dropout)
        if isinstance(part.p, int | float)
    )
    try:
        parameter = inspect.signature(module).parameters.get("key")
    except (TypeError, ValueError):
        parameter = None
    needed = parameter is not None and parameter.default is inspect.Parameter.empty
    if (random or needed) and not keys:
        raise InputError(
            f"{name} draws random numbers, for which it needs keys",
            allowed="functional(module, keys=True), with one key an example: docs/models.md",
            remedy="Without dropout give functional(equinox.nn.inference_mode(module))"
            if random and not needed
            else None,
        )
