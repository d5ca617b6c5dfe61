"""What one's own data is compared with, against least squares and dense linear algebra."""

import numpy as np
import pandas as pd
import pytest
from sklearn.gaussian_process.kernels import ConstantKernel, WhiteKernel

from benchmarks import baselines
from benchmarks.own_data import TABLES

SLEEP = TABLES["sleepstudy"]


@pytest.fixture
def lines():
    """Twelve groups of six rows, each on a line of its own."""
    rng = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(12)], 6)
    own = np.repeat(rng.normal(size=(12, 2)), 6, axis=0)
    days = np.tile(np.arange(6.0), 12)
    y = 3 * own[:, 0] + (1 + own[:, 1]) * days + 0.1 * rng.normal(size=72)
    return pd.DataFrame({"Days": days}), y, groups


def with_ones(days):
    return np.stack([np.ones(len(days)), days], 1)


def test_best_linear_prediction_is_the_conditional_normal(rng):
    zs, zq, root = (rng.normal(size=shape) for shape in ((4, 2), (3, 2), (2, 2)))
    spread, noise = root @ root.T, 0.3
    toward, variance = baselines.best_linear(zs, zq, spread, noise)
    z = np.concatenate([zs, zq])
    # The precision of all rows gives the conditional mean and covariance of the last three.
    precision = np.linalg.inv(z @ spread @ z.T + noise * np.eye(7))
    covariance = np.linalg.inv(precision[4:, 4:])
    np.testing.assert_allclose(toward, -covariance @ precision[4:, :4], rtol=1e-9)
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=1e-9)


def test_per_group_is_least_squares_of_its_own_rows_and_the_pooled_noise(lines):
    x, y, groups = lines
    predict = baselines.per_group(x, y, groups, SLEEP)
    new, asked = pd.DataFrame({"Days": [0.0, 1.0, 4.0]}), pd.DataFrame({"Days": [2.0, 9.0]})
    targets = np.array([1.0, 3.5, 7.0])
    mean, deviation = predict(new, targets, asked)
    np.testing.assert_allclose(mean, np.polyval(np.polyfit(new.Days, targets, 1), asked.Days))
    left = [
        np.polynomial.Polynomial.fit(x.Days[own], y[own], 1, full=True)[1][0][0]
        for own in (groups == name for name in np.unique(groups))
    ]
    noise = sum(left) / (len(y) - 24)
    known, wanted = with_ones(new.Days), with_ones(asked.Days)
    leverage = np.diag(wanted @ np.linalg.inv(known.T @ known) @ wanted.T)
    np.testing.assert_allclose(deviation**2, noise * (1 + leverage))


def test_per_group_takes_the_mean_of_too_few_rows(lines):
    x, y, groups = lines
    predict = baselines.per_group(x, y, groups, SLEEP)
    mean, deviation = predict(x[:0], y[:0], x[:3])
    np.testing.assert_allclose(mean, y.mean())
    np.testing.assert_allclose(deviation, y.std(ddof=1))
    np.testing.assert_allclose(predict(x[:1], y[:1], x[:3])[0], y[0])
    one_day = pd.DataFrame({"Days": [2.0, 2.0]})
    np.testing.assert_allclose(predict(one_day, y[:2], x[:3])[0], y[:2].mean())


def test_a_gaussian_process_of_lines_is_the_mixed_model(lines):
    x, y, groups = lines
    _, group = np.unique(groups, return_inverse=True)
    own, noise, wide = 0.7, 0.2, 1e5
    kernel = (
        ConstantKernel(wide) * baselines.Lines(1, 1.0)
        + baselines.SameGroup() * ConstantKernel(own) * baselines.Lines(1, 2.0)
        + WhiteKernel(noise)
    )
    new, known, asked = np.full(6, -1), slice(0, 2), slice(2, 6)
    days, targets = np.arange(6.0), np.array([2.0, -1.0])
    rows = np.stack([days, new], 1)
    mean, deviation = baselines.conditioned(kernel, np.column_stack([x, group]), y)(
        rows[known], targets, rows[asked]
    )
    # Generalised least squares of all rows that are known, then the best linear prediction.
    spread = own * np.diag([4.0, 1.0])
    fixed = with_ones(np.concatenate([x.Days, days[known]]))
    same = np.equal.outer(*[np.concatenate([group, new[known]])] * 2)
    inverse = np.linalg.inv(same * (fixed @ spread @ fixed.T) + noise * np.eye(len(fixed)))
    doubt = np.linalg.inv(fixed.T @ inverse @ fixed)
    beta = doubt @ fixed.T @ inverse @ np.concatenate([y, targets])
    fs, fq = with_ones(days[known]), with_ones(days[asked])
    toward, variance = baselines.best_linear(fs, fq, spread, noise)
    left = fq - toward @ fs
    np.testing.assert_allclose(mean, fq @ beta + toward @ (targets - fs @ beta), rtol=1e-4)
    np.testing.assert_allclose(deviation**2, variance + np.diag(left @ doubt @ left.T), rtol=1e-4)


def test_the_kernel_of_groups_has_the_gradient_of_its_parameters(rng):
    kernel = baselines.group_kernel(3, 2)
    kernel = kernel.clone_with_theta(0.3 * rng.normal(size=kernel.n_dims))
    rows = np.column_stack([rng.normal(size=(6, 3)), np.repeat([0, 1], 3)])
    found, gradient = kernel(rows, eval_gradient=True)
    np.testing.assert_allclose(np.diag(found), kernel.diag(rows))
    for number in range(kernel.n_dims):
        step = 1e-6 * np.eye(kernel.n_dims)[number]
        ahead, behind = (kernel.clone_with_theta(kernel.theta + s)(rows) for s in (step, -step))
        np.testing.assert_allclose(gradient[:, :, number], (ahead - behind) / 2e-6, atol=1e-7)
    # What a row of another group has in common is a function of all columns alone.
    rows[:, -1] = np.arange(6)
    apart = kernel.clone_with_theta(kernel.theta)(rows) - found
    assert np.all(np.abs(apart[:3, 3:]) < 1e-12)
    assert np.all(np.abs(apart[:3, :3][~np.eye(3, dtype=bool)]) > 1e-3)


def test_boosting_is_told_the_statistics_of_the_rows_that_are_known(lines):
    first, y, asked = np.array([1.0, 2.0, 4.0]), np.array([3.0, 5.0, 4.0]), np.array([6.0, 8.0])
    slope = np.polyfit(first, y, 1)[0]
    np.testing.assert_allclose(
        baselines.statistics(first, y, asked), [[3, 4, 4, slope, 2], [3, 4, 4, slope, 4]]
    )
    none = baselines.statistics(first[:0], y[:0], asked)
    assert np.isnan(none[:, 1:]).all() and not none[:, 0].any()
    x, y, groups = lines
    _, group = np.unique(groups, return_inverse=True)
    rows, told = baselines.simulated(x.Days.to_numpy(), y, group, by_time=True)
    assert len(rows) == 12 * (6 + 5 + 4 + 3 + 1)
    at = np.flatnonzero((told[:, 0] == 2) & (groups[rows] == "g3"))
    np.testing.assert_array_equal(rows[at], 18 + np.arange(2, 6))
    assert y[18:20].mean() == pytest.approx(told[at, 1])
    rows, told = baselines.simulated(x.Days.to_numpy(), y, group, by_time=False)
    at = np.flatnonzero((told[:, 0] == 5) & (groups[rows] == "g3"))
    # One row of six is asked for, and the statistics are of the other five.
    assert told[at, 1] == pytest.approx((y[18:24].sum() - y[rows[at]]) / 5)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_gaussian_process_learns_that_groups_are_lines(lines):
    x, y, groups = lines
    held = np.isin(groups, ["g0", "g1"])
    predict = baselines.gaussian_process(x[~held], y[~held], groups[~held], SLEEP)
    for name in ("g0", "g1"):
        own = np.flatnonzero(groups == name)
        mean, deviation = predict(x.iloc[own[:3]], y[own[:3]], x.iloc[own[3:]])
        assert np.all(np.abs(mean - y[own[3:]]) < 4 * deviation)
        assert np.all(deviation < 1.0)
        unknown = predict(x[:0], y[:0], x.iloc[own[3:]])[1]
        assert np.all(unknown > 3 * deviation)


def test_boosting_learns_that_a_group_stays_near_its_mean():
    rng = np.random.default_rng(0)
    level = np.repeat(3 * rng.normal(size=30), 6)
    groups = np.repeat(np.arange(30), 6)
    y = level + 0.1 * rng.normal(size=180)
    x = pd.DataFrame({"Days": np.tile(np.arange(6.0), 30)})
    predict = baselines.boosting(x, y, groups, SLEEP)
    mean, deviation = predict(x[:3], np.full(3, 2.0), x[3:6])
    np.testing.assert_allclose(mean, 2.0, atol=0.7)
    assert deviation[0] < predict(x[:0], y[:0], x[:6])[1][0] / 2


@pytest.mark.parametrize(("method", "package"), [("GPBoost", "gpboost"), ("MERF", "merf")])
def test_packages_of_mixed_effects_learn_that_groups_are_lines(lines, method, package):
    pytest.importorskip(package)
    x, y, groups = lines
    held = np.isin(groups, ["g0", "g1", "g2"])
    predict = baselines.METHODS[method](x[~held], y[~held], groups[~held], SLEEP)
    apart = {0: [], 4: []}
    for name in ("g0", "g1", "g2"):
        own = np.flatnonzero(groups == name)
        for k, found in apart.items():
            mean, deviation = predict(x.iloc[own[:k]], y[own[:k]], x.iloc[own[4:]])
            found.append(np.stack([mean - y[own[4:]], deviation]))
    (before, wide), (after, narrow) = (np.concatenate(found, 1) for found in apart.values())
    assert np.std(after) < np.std(before) / 4
    assert np.all(narrow < wide / 3)


def test_what_a_regression_leaves_is_predicted_in_the_units_of_the_target(lines):
    x, _, _ = lines
    spread, noise, centre, unit = np.array([[2.0, 0.3], [0.3, 0.5]]), 0.4, 10.0, 3.0

    def fixed(rows):
        return 0.2 * rows.Days.to_numpy() - 1

    predict = baselines._of_residuals(x, SLEEP, fixed, spread, noise, centre, unit)
    known, asked, targets = x[:2], x[2:6], np.array([12.0, 5.0])
    mean, deviation = predict(known, targets, asked)
    z = with_ones((x.Days[:6] - x.Days.mean()) / x.Days.std(ddof=0))
    whole = unit**2 * (z @ spread @ z.T + noise * np.eye(6))
    middle = centre + unit * fixed(x[:6])
    toward = whole[2:, :2] @ np.linalg.inv(whole[:2, :2])
    np.testing.assert_allclose(mean, middle[2:] + toward @ (targets - middle[:2]))
    left = whole[2:, 2:] - toward @ whole[:2, 2:]
    np.testing.assert_allclose(deviation**2, np.diag(left))
