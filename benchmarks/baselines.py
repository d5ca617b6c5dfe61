"""What ``benchmarks.own_data`` compares with: other ways to predict a new group from a few rows.

Each is fitted to columns, targets, names of groups and what is known of the table, and returns what
predicts more rows of a group from some of its own: a mean and a standard deviation for each.

"MixedLM" is statsmodels', fitted by REML, and the new group's effects are their best linear
prediction, with the uncertainty of the population's coefficients. "per group" is a line of the
first column, fitted to the new group's rows alone; its standard deviation is that of such lines
among the other groups. "Gaussian process" is scikit-learn's, of all columns, and of those that vary
within groups once more for rows of the same group. "boosting" is scikit-learn's gradient boosting
of the columns and of statistics of the group's rows, trained on groups whose first rows are taken
for all that is known of them; the iterations and the standard deviations are those of groups that
were left out. "GPBoost" and "MERF" are the packages of those names (Sigrist 2022; Hajjem et al.
2014): boosted trees and a random forest for the population, and an intercept and a slope of the
first column for each group; the rate and the rounds of GPBoost are the best on groups that were
left out. Both predict a group that they have not seen by the population alone, so its effects are
their best linear prediction here too. Their deviations leave out that the population's function is
an estimate.
"""

import logging
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import (
    RBF,
    ConstantKernel,
    DotProduct,
    GenericKernelMixin,
    Kernel,
    NormalizedKernelMixin,
    WhiteKernel,
)
from sklearn.model_selection import GroupKFold

from pullback.grouped.held_back import SHOTS, place_in_group, sample
from pullback.grouped.table import Encoder, columns_of

if TYPE_CHECKING:
    from benchmarks.own_data import Table

Predict = Callable[[pd.DataFrame, np.ndarray, pd.DataFrame], tuple[np.ndarray, np.ndarray]]
"""From a group's own rows and targets, and more of its rows, to means and deviations."""

LEAST_VARIANCE = 1e-12


def pooled(x, y, groups, table) -> Predict:
    """One linear regression for all groups."""
    build = design(x, groups, table, 1)
    fixed, _ = build(x)
    kept = _independent(fixed)
    beta = np.linalg.lstsq(fixed[:, kept], y, rcond=None)[0]
    noise = np.sqrt(((y - fixed[:, kept] @ beta) ** 2).sum() / (len(y) - len(kept)))

    def predict(xs, ys, xq):
        return build(xq)[0][:, kept] @ beta, np.full(len(xq), noise)

    return predict


def mixed_model(power: int) -> Callable[..., Predict]:
    """statsmodels' MixedLM with random slopes of the first column and its powers."""

    def fit(x, y, groups, table):
        import statsmodels.api as sm

        build = design(x, groups, table, power)
        centre, unit = y.mean(), y.std()
        fixed, random = build(x)
        kept = _independent(fixed)
        model = sm.MixedLM((y - centre) / unit, fixed[:, kept], groups, exog_re=random)
        found: Any = None
        for optimiser in ("lbfgs", "bfgs", "powell"):
            try:
                found = model.fit(reml=True, method=[optimiser])
            except (np.linalg.LinAlgError, ValueError):
                continue
            if np.isfinite(found.cov_re).all() and np.isfinite(found.scale):
                break
        spread, noise = np.asarray(found.cov_re), float(found.scale)
        beta = np.asarray(found.fe_params)
        doubt = np.asarray(found.cov_params())[: len(beta), : len(beta)]
        doubt = doubt if np.isfinite(doubt).all() else np.zeros_like(doubt)

        def predict(xs, ys, xq):
            (fs, zs), (fq, zq) = build(xs), build(xq)
            fs, fq = fs[:, kept], fq[:, kept]
            toward, variance = best_linear(zs, zq, spread, noise)
            mean = fq @ beta + toward @ ((ys - centre) / unit - fs @ beta)
            left = fq - toward @ fs
            variance += np.einsum("ij,jk,ik->i", left, doubt, left)
            return centre + unit * mean, unit * np.sqrt(variance)

        return predict

    return fit


def best_linear(
    zs: np.ndarray, zq: np.ndarray, spread: np.ndarray, noise: float
) -> tuple[np.ndarray, np.ndarray]:
    """Best linear prediction of rows of a group from some of its rows, the population known.

    Args:
        zs: columns of the effects, of the rows that are known [rows, effects].
        zq: the same of the rows asked for.
        spread: covariance of the effects between groups.
        noise: variance of it.

    Returns:
        The matrix that takes residuals of the rows known to those expected of the rows asked for,
        and the variance of the latter, noise included.
    """
    between = zs @ spread @ zq.T
    toward = np.linalg.solve(zs @ spread @ zs.T + noise * np.eye(len(zs)), between).T
    variance = noise + np.einsum("ij,jk,ik->i", zq, spread, zq)
    variance -= np.einsum("ij,ji->i", toward, between)
    return toward, np.maximum(variance, LEAST_VARIANCE)


def per_group(x, y, groups, table) -> Predict:
    """A line of the first column through the group's own rows, and nothing else of them.

    One row gives a constant, as many do that have one value of the column, and none the mean of
    all rows. The variance of the noise is pooled over such fits to the other groups.
    """
    _, group = np.unique(groups, return_inverse=True)
    spans = [x[table.numbers[0]].to_numpy(float), y]
    noise = {0: y.var(ddof=1)}
    for width in (1, 2):
        squares = degrees = 0.0
        for number in range(group.max() + 1):
            first, target = (values[group == number] for values in spans)
            basis = _line(first, first)[0][:, :width]
            beta, _, rank, _ = np.linalg.lstsq(basis, target, rcond=None)
            squares += ((target - basis @ beta) ** 2).sum()
            degrees += len(target) - rank
        noise[width] = squares / max(degrees, 1.0)

    def predict(xs, ys, xq):
        first, asked = (rows[table.numbers[0]].to_numpy(float) for rows in (xs, xq))
        width = min(2, len(np.unique(first)))
        if width == 0:
            return np.full(len(xq), y.mean()), np.full(len(xq), np.sqrt(noise[0]))
        basis, wanted = (b[:, :width] for b in _line(first, asked))
        weights = wanted @ np.linalg.pinv(basis)
        variance = noise[width] * (1 + np.sum(weights**2, 1))
        return weights @ ys, np.sqrt(np.maximum(variance, LEAST_VARIANCE))

    return predict


def _line(first: np.ndarray, asked: np.ndarray) -> list[np.ndarray]:
    """Columns of a line, whose origin is the mean of the rows that it is fitted to."""
    return [np.stack([np.ones(len(v)), v - first.mean()], 1) for v in (first, asked)]


class _Leading:
    """A kernel that looks at the first columns alone."""

    def __call__(self, X, Y=None, eval_gradient=False):
        Y = None if Y is None else Y[:, : self.columns]
        return super().__call__(X[:, : self.columns], Y, eval_gradient)

    def diag(self, X):
        return super().diag(X[:, : self.columns])


class Lines(_Leading, DotProduct):
    """A constant and lines of the first columns."""

    def __init__(self, columns=1, sigma_0=1.0, sigma_0_bounds=(1e-3, 1e3)):
        super().__init__(sigma_0, sigma_0_bounds)
        self.columns = columns


class Curves(_Leading, RBF):
    """Smooth functions of the first columns."""

    def __init__(self, columns=1, length_scale=1.0, length_scale_bounds=(5e-2, 1e2)):
        super().__init__(length_scale, length_scale_bounds)
        self.columns = columns


class SameGroup(NormalizedKernelMixin, GenericKernelMixin, Kernel):
    """1 for two rows of one group, whose number is in the last column, else 0."""

    def __init__(self):
        # scikit-learn reads a kernel's parameters from the signature of this method.
        super().__init__()

    def __call__(self, X, Y=None, eval_gradient=False):
        same = np.equal.outer(X[:, -1], (X if Y is None else Y)[:, -1]).astype(float)
        return (same, np.empty((*same.shape, 0))) if eval_gradient else same

    def is_stationary(self):
        return False


def group_kernel(columns: int, varying: int) -> Kernel:
    """Functions of all columns, and of those that vary within groups for each group, and noise.

    Args:
        columns: how many there are; the number of the group comes after them.
        varying: how many of them vary within groups; they come first.

    Returns:
        The kernel, on standardised columns and targets.
    """

    def functions(columns, variance):
        bounds = (1e-6, 1e3)
        return ConstantKernel(variance, bounds) * Lines(columns) + ConstantKernel(
            variance, bounds
        ) * Curves(columns, np.ones(columns))

    return functions(columns, 1.0) + SameGroup() * functions(varying, 0.1) + WhiteKernel(0.1)


def conditioned(
    kernel: Kernel, known: np.ndarray, y: np.ndarray
) -> Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """A Gaussian process given rows, and then given some of a group that none of them is of.

    Args:
        kernel: with the noise.
        known: columns of the rows, the number of the group last.
        y: their targets.

    Returns:
        From columns and targets of rows of one more group, and columns of others of it, to the
        means of the latter and their deviations with the noise.
    """
    factor: Any = cho_factor(kernel(known), lower=True)
    weights = cho_solve(factor, y)

    def predict(xs, ys, xq):
        rows, k = np.concatenate([xs, xq]), len(xs)
        between = kernel(known, rows)
        mean = between.T @ weights
        half = solve_triangular(factor[0], between, lower=True)
        left = kernel(rows) - half.T @ half
        toward = np.linalg.solve(left[:k, :k], left[:k, k:]).T
        variance = np.diag(left)[k:] - np.einsum("ij,ji->i", toward, left[:k, k:])
        return (
            mean[k:] + toward @ (ys - mean[:k]),
            np.sqrt(np.maximum(variance, LEAST_VARIANCE)),
        )

    return predict


def gaussian_process(x, y, groups, table) -> Predict:
    """A Gaussian process with a kernel of groups, by marginal likelihood of up to 500 rows."""
    encoder, inputs = _inputs(x, groups)
    _, group = np.unique(groups, return_inverse=True)
    centre, unit = y.mean(), y.std()
    target, rows = (y - centre) / unit, np.column_stack([inputs(x), group])
    chosen = sample(group, group.max() + 1, 500, np.random.default_rng(0))
    process = GaussianProcessRegressor(
        group_kernel(len(encoder.names), encoder.varying), n_restarts_optimizer=1, random_state=0
    ).fit(rows[chosen], target[chosen])
    of_one_more = conditioned(process.kernel_, rows, target)

    def predict(xs, ys, xq):
        new = [np.column_stack([inputs(rows), np.full(len(rows), -1)]) for rows in (xs, xq)]
        mean, deviation = of_one_more(new[0], (ys - centre) / unit, new[1])
        return centre + unit * mean, unit * deviation

    return predict


def statistics(first: np.ndarray, y: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """What boosting is told of the rows of a group that are known.

    Args:
        first: the first column of the rows that are known, in their order.
        y: their targets.
        asked: the first column of rows that are asked for.

    Returns:
        For each of these: how many rows are known, the mean, the last and the slope of their
        targets, and how far from the last of them it is; NaN for what they do not determine.
    """
    spread = np.sum((first - first.mean()) ** 2) if len(y) > 1 else 0.0
    found = np.full((len(asked), 5), np.nan)
    found[:, 0] = len(y)
    if len(y):
        found[:, 1:3], found[:, 4] = (y.mean(), y[-1]), asked - first[-1]
    if spread > 0:
        found[:, 3] = (first - first.mean()) @ y / spread
    return found


def simulated(
    first: np.ndarray, y: np.ndarray, group: np.ndarray, by_time: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Every group as one of which k rows are known, for each k of ``SHOTS``.

    Args:
        first: the first column.
        y: the targets.
        group: the number of each row's group.
        by_time: whether the first rows are known, or some that are drawn.

    Returns:
        The numbers of the rows that are asked for, and the statistics of each.
    """
    rng = np.random.default_rng(0)
    rows, told = [], []
    for k in SHOTS:
        drawn = np.arange(len(y)) if by_time else rng.permutation(len(y))
        place = np.empty(len(y), int)
        place[drawn] = place_in_group(group[drawn])
        for number in range(group.max() + 1):
            own = np.flatnonzero(group == number)
            own = own[np.argsort(place[own])]
            rows.append(own[k:])
            told.append(statistics(first[own[:k]], y[own[:k]], first[own[k:]]))
    return np.concatenate(rows), np.concatenate(told)


def boosting(x, y, groups, table) -> Predict:
    """Gradient boosting of the columns and of statistics of the group's rows."""
    _, inputs = _inputs(x, groups)
    _, group = np.unique(groups, return_inverse=True)
    first = x[table.numbers[0]].to_numpy(float)
    rows, told = simulated(first, y, group, table.by_time)
    columns, target = np.hstack([told, inputs(x)[rows]]), y[rows]

    def model(iterations):
        return HistGradientBoostingRegressor(
            max_iter=iterations, learning_rate=0.05, early_stopping=False, random_state=0
        )

    residuals = np.empty((300, len(rows)))
    for fitted, left in GroupKFold(5).split(columns, target, group[rows]):
        tried = model(len(residuals)).fit(columns[fitted], target[fitted])
        for number, predicted in enumerate(tried.staged_predict(columns[left])):
            residuals[number, left] = target[left] - predicted
    best = int(np.argmin(np.sum(residuals**2, 1)))
    shots = np.unique(told[:, 0])
    spread = [np.sqrt(np.mean(residuals[best, told[:, 0] == k] ** 2)) for k in shots]
    final = model(best + 1).fit(columns, target)

    def predict(xs, ys, xq):
        own, asked = (rows[table.numbers[0]].to_numpy(float) for rows in (xs, xq))
        mean = final.predict(np.hstack([statistics(own, ys, asked), inputs(xq)]))
        nearest = np.searchsorted(shots, len(ys), side="right") - 1
        return mean, np.full(len(xq), spread[nearest])

    return predict


def gp_boost(x, y, groups, table) -> Predict:
    """GPBoost: boosted trees beside an intercept and a slope of the first column for each group."""
    import gpboost

    _, inputs = _inputs(x, groups)
    _, group = np.unique(groups, return_inverse=True)
    centre, unit = y.mean(), y.std()
    columns, effects = np.ascontiguousarray(inputs(x)), _effects(x, x, table)
    params = {
        "objective": "regression_l2",
        "max_depth": 3,
        "min_data_in_leaf": 10,
        # Without it rounds swing, or hardly move what slopes of groups can take up.
        "leaves_newton_update": True,
        "num_threads": 1,
        "verbose": -1,
    }

    def data():
        return gpboost.Dataset(columns, (y - centre) / unit)

    def mixed():
        return gpboost.GPModel(
            group_data=group,
            group_rand_coef_data=effects[:, 1:],
            ind_effect_group_rand_coef=[1],
            matrix_inversion_method="cholesky",
        )

    folds = list(GroupKFold(5).split(columns, y, group))
    tried = []
    for rate in (0.1, 0.5):
        losses = gpboost.cv(
            params={**params, "learning_rate": rate},
            train_set=data(),
            gp_model=mixed(),
            num_boost_round=1000,
            early_stopping_rounds=100,
            folds=folds,
            use_gp_model_for_validation=False,
            metric="l2",
        )["l2-mean"]
        tried.append((min(losses), rate, int(np.argmin(losses)) + 1))
    _, rate, rounds = min(tried)
    random = mixed()
    trees = gpboost.train(
        params={**params, "learning_rate": rate},
        train_set=data(),
        gp_model=random,
        num_boost_round=rounds,
    )

    def fixed(rows):
        if len(rows) == 0:
            return np.zeros(0)
        return trees.predict(
            data=np.ascontiguousarray(inputs(rows)),
            group_data_pred=np.full(len(rows), -1),
            group_rand_coef_data_pred=_effects(x, rows, table)[:, 1:],
            pred_latent=True,
        )["fixed_effect"]

    noise, *variances = np.asarray(random.get_cov_pars(), float)[0]
    return _of_residuals(x, table, fixed, np.diag(variances), noise, centre, unit)


def random_forest(x, y, groups, table) -> Predict:
    """MERF: a random forest beside an intercept and a slope of the first column for each group."""
    from merf import MERF
    from sklearn.ensemble import RandomForestRegressor

    logging.getLogger("merf.merf").setLevel(logging.WARNING)
    _, inputs = _inputs(x, groups)
    centre, unit = y.mean(), y.std()
    model = MERF(RandomForestRegressor(random_state=0, n_jobs=1))
    model.fit(inputs(x), _effects(x, x, table), pd.Series(groups), (y - centre) / unit)

    def fixed(rows):
        return model.trained_fe_model.predict(inputs(rows)) if len(rows) else np.zeros(0)

    spread, noise = model.D_hat_history[-1], model.sigma2_hat_history[-1]
    return _of_residuals(x, table, fixed, spread, noise, centre, unit)


def _effects(x: pd.DataFrame, rows: pd.DataFrame, table: "Table") -> np.ndarray:
    """An intercept and the first column, standardised as it is in the rows of the fit."""
    known, asked = (r[table.numbers[0]].to_numpy(float) for r in (x, rows))
    return np.stack([np.ones(len(asked)), (asked - known.mean()) / known.std()], 1)


def _of_residuals(x, table, fixed, spread, noise, centre, unit) -> Predict:
    """Any regression of the population, and the best linear prediction of what it leaves."""

    def predict(xs, ys, xq):
        zs, zq = (_effects(x, rows, table) for rows in (xs, xq))
        toward, variance = best_linear(zs, zq, spread, noise)
        mean = fixed(xq) + toward @ ((ys - centre) / unit - fixed(xs))
        return centre + unit * mean, unit * np.sqrt(variance)

    return predict


def _inputs(x: pd.DataFrame, groups: np.ndarray):
    """Columns as standardised numbers, those that vary within groups first."""
    _, group = np.unique(groups, return_inverse=True)
    encoder = Encoder.fit(list(columns_of(x).items()), np.ones(len(x)), group)
    width = len(encoder.names)
    return encoder, lambda x: encoder(list(columns_of(x).items()))[0][:, :width]


def design(x, groups, table: "Table", power: int):
    """Fixed effects (columns, powers of the first, its products with the others) and random."""
    encoder, inputs = _inputs(x, groups)
    slope = encoder.names.index(table.numbers[0])

    def build(x):
        found = inputs(x)
        one, first = np.ones((len(found), 1)), found[:, [slope]]
        others = [j for j in range(found.shape[1]) if j != slope]
        powers = [first**p for p in range(1, power + 1)]
        crossed = [p * found[:, others] for p in powers] if table.by_time else []
        return np.hstack([one, found, *powers[1:], *crossed]), np.hstack([one, *powers])

    return build


def _independent(matrix: np.ndarray) -> list[int]:
    """Columns that are no combination of those before them."""
    triangle = np.abs(np.diag(np.linalg.qr(matrix)[1]))
    return [j for j in range(matrix.shape[1]) if triangle[j] > 1e-6 * len(matrix) ** 0.5]


METHODS: dict[str, Callable[..., Predict]] = {
    "pooled": pooled,
    "per group": per_group,
    "MixedLM": mixed_model(1),
    "MixedLM, quadratic": mixed_model(2),
    "Gaussian process": gaussian_process,
    "boosting": boosting,
    "GPBoost": gp_boost,
    "MERF": random_forest,
}

PACKAGES = {
    "MixedLM": "statsmodels",
    "MixedLM, quadratic": "statsmodels",
    "GPBoost": "gpboost",
    "MERF": "merf",
}
"""What a method needs that is not among the project's own requirements."""


def missing(methods: Iterable[str]) -> dict[str, str]:
    """Those of the methods whose package is not installed, and the package."""
    needed = {method: PACKAGES[method] for method in methods if method in PACKAGES}
    return {method: name for method, name in needed.items() if find_spec(name) is None}
