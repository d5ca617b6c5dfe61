"""A linear mixed model in units of its table."""

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import norm

from pullback.grouped.mixed import Adapted, Mixed
from pullback.grouped.table import Encoder

Coefficients = dict[str, tuple[float, float]]
"""By name, each coefficient and its standard error."""


class Reading(NamedTuple):
    """What a linear model says.

    Args:
        population: its coefficients.
        prior: the covariance of the groups' intercept and slopes.
        noise: the standard deviation within groups; 0 for logits.
        names: of the intercept and the slopes.
        effects: of each group, in the same order.
    """

    population: Coefficients
    prior: Any
    noise: float
    names: list[str]
    effects: Float[np.ndarray, "groups names"]

    def effects_of(self, groups: Sequence[Hashable]) -> Any:
        """The effects as a table: a data frame where pandas is there, else a dictionary."""
        return as_table(self.effects, list(groups), self.names)


def in_units_of_the_table(
    model: Mixed, heads: Adapted, encoder: Encoder, centre: float, unit: float
) -> Reading:
    """Read a linear model.

    Args:
        model: without learned features.
        heads: of its groups, and of an unknown one at the end.
        encoder: of the table.
        centre: what was taken from y.
        unit: what y was then divided by.

    Returns:
        The same model, of the columns as they were given.
    """
    basis = model.basis
    mean, deviation = encoder.mean, encoder.deviation
    v, c = basis.varying, basis.constant
    names = ["Intercept", *encoder.names]
    # Each scaled column is a combination of columns as given; a product is one of four.
    width = 1 + v + c + basis.products
    raw = np.zeros((width, width))
    raw[0, 0] = 1.0
    for j in range(v + c):
        raw[1 + j, 1 + j], raw[0, 1 + j] = 1 / deviation[j], -mean[j] / deviation[j]
    if basis.products:
        for number in range(basis.products):
            i, j = number // c, v + number % c
            at, scale = 1 + v + c + number, deviation[i] * deviation[j]
            raw[at, at] = 1 / scale
            raw[1 + i, at], raw[1 + j, at] = -mean[j] / scale, -mean[i] / scale
            raw[0, at] = mean[i] * mean[j] / scale
            names.append(f"{encoder.names[i]} × {encoder.names[j]}")
    weights = unit * (raw @ model.mean)
    weights[0] += centre
    errors = unit * np.sqrt(np.diag(raw @ model.covariance @ raw.T))
    population = {n: (float(w), float(e)) for n, w, e in zip(names, weights, errors, strict=True)}
    within = names[: 1 + v]
    if basis.grouped:
        spread = unit * raw[: 1 + v, : 1 + v] @ np.tril(model.params["spread"])
    else:
        spread = np.zeros((1 + v, 0))
    prior = as_table(spread @ spread.T, within, within)
    return Reading(population, prior, unit * model.noise, within, heads.mean[:-1] @ spread.T)


def as_table(values: np.ndarray, rows: list[Any], columns: list[str]) -> Any:
    """Numbers with names for rows and columns.

    Args:
        values: the numbers.
        rows: names of the rows.
        columns: names of the columns.

    Returns:
        A data frame where pandas is there, else a dictionary.
    """
    try:
        import pandas as pd
    except ModuleNotFoundError:
        lines = [dict(zip(columns, line, strict=True)) for line in values.tolist()]
        return dict(zip(rows, lines, strict=True))
    index = pd.Index(np.array(rows, object), dtype=object).infer_objects()
    return pd.DataFrame(values, index=index, columns=columns)


def report(
    population: Coefficients,
    prior: Any,
    noise: float,
    rows: int,
    groups: int,
    weights: Float[np.ndarray, " models"],
) -> str:
    """A model as text.

    Args:
        population: coefficients.
        prior: covariance of the groups' intercept and slopes.
        noise: within groups; 0 for a logistic model.
        rows: how many it was fitted to.
        groups: how many there were.
        weights: of the linear and of the learned model.

    Returns:
        A few lines.
    """
    width = max(map(len, population)) + len(" of a group") + 1
    kind, way = ("Linear", " by REML") if noise else ("Logistic", "")
    lines = [f"{kind} model of {rows} rows"]
    if groups:
        lines = [f"{kind} mixed model{way}: {rows} rows in {groups} groups"]
    if weights[1]:
        lines.append(
            f"Predictions: {weights[0]:.0%} of this model, {weights[1]:.0%} of one with learned "
            "features"
        )
    lines += ["", f"{'Population':<{width}}{'coef.':>12}{'std. err.':>12}{'z':>9}{'P>|z|':>8}"]
    for name, (weight, error) in population.items():
        z = weight / error if error else np.inf
        chance = 2 * norm.sf(abs(z))
        lines.append(f"{name:<{width}}{weight:>12.4g}{error:>12.4g}{z:>9.2f}{chance:>8.3f}")
    deviations = {f"{name} of a group": prior[name][name] ** 0.5 for name in prior if groups}
    if noise:
        deviations["Noise"] = noise
    if deviations:
        lines += ["", f"{'Deviations':<{width}}{'std. dev.':>12}"]
        lines += [f"{name:<{width}}{value:>12.4g}" for name, value in deviations.items()]
    return "\n".join(lines)
