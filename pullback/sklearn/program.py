"""Estimators of rows in groups as programs: their ``adapt`` and ``predict`` in one, or adapted.

A row is given as one number for each column. A number stands for itself, a category is its place
among the values of fit (any other number for a value that was not there), and a time is the days
since the first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from sklearn.utils.validation import check_is_fitted

from pullback.core.errors import InputError
from pullback.core.program import Input, Program
from pullback.grouped.basis import Rows
from pullback.grouped.mixed import Adapted
from pullback.grouped.pooled import Pool
from pullback.grouped.table import Column, Encoder
from pullback.sklearn.base import AdaptedRegressor
from pullback.sklearn.regressor import MetaRegressor

EXPORTED = (MetaRegressor, AdaptedRegressor)
"""Estimators that there is a program of."""

Predict = Callable[..., tuple[Any, ...]]


def adapting(model: Any) -> Program:
    """The program that adapts to rows of new groups, and predicts others of theirs.

    Args:
        model: a fitted ``MetaRegressor``.

    Returns:
        The program, for any number of groups, of rows and of rows to predict.

    Raises:
        InputError: for another estimator, and if fit was given no groups.
        NotFittedError: before fit.
    """
    _check(model, (MetaRegressor,))
    if not model._grouped:
        raise InputError(
            "The estimator cannot adapt: fit was given no groups",
            remedy="Write fit(X, y, groups=...)",
        )
    answer = _answer(model)

    def one(x, y, weight, query):
        # Padding may hold anything, which times its weight of 0 might still be no number.
        x, y = jnp.where(weight[:, None] > 0, x, 0.0), jnp.where(weight > 0, y, 0.0)
        group = jnp.zeros(y.shape, int)
        rows = Rows(*[_inputs(model, x), (y - model._centre) / model._unit, weight, group])

        def total(each):
            return jnp.sum(each, 0)[None]

        heads = [each.adapt_by(total, rows, jnp) for each in _used(model._pool).models]
        return answer(query, jnp.zeros(query.shape[0], int), heads)

    columns = len(model._encoder.columns)
    inputs = {
        "x": Input(("groups", "rows", columns), "float64", "the rows of each group"),
        "y": Input(("groups", "rows"), "float64", "their targets"),
        "weight": Input(
            ("groups", "rows"), "float64", "what each row counts for; 0 for padding", (0, None)
        ),
        "query": Input(("groups", "queries", columns), "float64", "the rows to predict"),
    }
    return Program(jax.vmap(one), inputs, _OUTPUTS, _about(model), x64=True)


def adapted(model: Any) -> Program:
    """The program that predicts rows of groups that are known already.

    Args:
        model: a fitted ``MetaRegressor``, of whose groups it is, or what its ``adapt`` returned.

    Returns:
        The program, for any number of rows.

    Raises:
        InputError: for another estimator.
        NotFittedError: before fit.
    """
    _check(model, EXPORTED)
    if isinstance(model, AdaptedRegressor):
        population, heads = model.population, model.heads
        inputs, about = {}, {}
    else:
        population, heads = model, model._pool.heads
        last = len(model.groups_)
        about = {"groups": [str(name) for name in model.groups_]}
        what = "the place of each row's group among groups; their number for any other group"
        inputs = {"group": Input(("queries",), "int32", what, (0, last))}
    columns = len(population._encoder.columns)
    inputs["query"] = Input(("queries", columns), "float64", "the rows to predict")
    answer = _answer(population)
    heads = _used(population._pool, heads).heads

    def function(*given):
        query = given[-1]
        group = given[0] if len(given) > 1 else jnp.zeros(query.shape[0], int)
        return answer(query, group, jax.tree.map(jnp.asarray, heads))

    return Program(function, inputs, _OUTPUTS, _about(population) | about, x64=True)


_OUTPUTS = {
    "mean": "the expected target of each row to predict",
    "std": "its standard deviation",
}


def _check(model: Any, kinds: tuple[type, ...]) -> None:
    if not isinstance(model, kinds):
        raise InputError(
            f"A {type(model).__name__} cannot be exported",
            allowed=", ".join(kind.__name__ for kind in kinds),
        )
    check_is_fitted(model)


def _used(pool: Pool, heads: Sequence[Adapted] | None = None) -> Pool:
    """The models of a pool that take part in predictions, with their heads."""
    heads = pool.heads if heads is None else heads
    kept = [k for k, share in enumerate(pool.shares) if share]
    models, heads = [pool.models[k] for k in kept], [heads[k] for k in kept]
    return Pool(tuple(models), pool.shares[kept], tuple(heads))


def _answer(model: MetaRegressor) -> Predict:
    """The predictions of rows, in units of the table, from heads of their groups."""
    pool = _used(model._pool)

    def answer(query, group, heads):
        mean, variance = pool.predict(_inputs(model, query), group, heads, jnp)
        return model._centre + model._unit * mean, model._unit * jnp.sqrt(variance)

    return answer


def _inputs(model: MetaRegressor, x: Any) -> Any:
    """The inputs of a basis; NaN for a row with a number that is missing."""
    encoder: Encoder = model._encoder
    parts = [_numbers(column, x[:, j : j + 1]) for j, column in enumerate(encoder.columns)]
    inputs = encoder.scale(jnp.concatenate(parts, 1), jnp)
    numeric = [j for j, column in enumerate(encoder.columns) if column.kind != "category"]
    missing = jnp.isnan(x[:, np.array(numeric, int)]).any(1)
    return jnp.where(missing[:, None], jnp.nan, inputs)


def _numbers(column: Column, x: Float[Array, "rows 1"]) -> Float[Array, "rows width"]:
    if column.kind != "category":
        return x
    places = np.arange(len(column.values))
    known = (x == places).any(1, keepdims=True)
    return jnp.where(known, x == places[1:], jnp.nan)


def _about(model: MetaRegressor) -> dict[str, Any]:
    columns = [
        {"name": each.name, "kind": each.kind, "values": [str(value) for value in each.values]}
        for each in model._encoder.columns
    ]
    return {"model": type(model).__name__, "columns": columns}
