"""Models of other libraries, split into parameters and a pure function."""

import inspect
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from pullback.core.checks import describe
from pullback.core.errors import InputError
from pullback.core.trees import Params
from pullback.models.losses import Apply

BATCH_AXIS = "batch"
"""The name of the axis over which a module sees the other examples, for Equinox's BatchNorm."""


def functional(
    module: Any, *, keys: bool = False, state: eqx.nn.State | None = None
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

    Returns:
        The module's floating-point arrays, and a function of them and a batch of inputs.

    Raises:
        InputError: if the module cannot be called, holds no floating-point array, or needs a key
            or a state that it is not given.
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
        whole = eqx.combine(params, rest)
        # Equinox lets each copy of a state be used once.
        state = jax.tree.unflatten(structure, leaves)

        def one(example, key):
            options = {} if key is None else {"key": key}
            if state is None:
                return whole(example, **options)
            return whole(example, state, **options)[0]

        given = _examples_and_keys(name, x) if keys else (x, None)
        return jax.vmap(one, axis_name=BATCH_AXIS)(*given)

    return params, apply


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
