"""Binary targets: the evidence and the groups' heads beside integrals on a grid."""

import jax
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from pullback import grouped
from pullback.grouped import logistic
from pullback.grouped.basis import Basis, Rows

pytestmark = pytest.mark.usefixtures("tiny")

BASES = {
    "linear": Basis(1, 1, binary=True),
    "learned": Basis(1, 1, 1, hidden=3, rank=2, binary=True),
    "no groups": Basis(1, 1, grouped=False, binary=True),
}


def data(basis, seed=0, sizes=(5, 1, 4, 3)):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(group)
    inputs = rng.normal(size=(len(group), basis.varying + basis.constant + basis.extra))
    weight = rng.choice([1.0, 2.0], len(group))
    return Rows(inputs, rng.choice([0.0, 1.0], len(group)), weight, group), len(sizes)


def params_of(basis):
    rng = np.random.default_rng(7)
    return {k: v + 0.3 * rng.normal(size=np.shape(v)) for k, v in basis.init(0).items()}


def at_the_mode(basis, params, rows, groups):
    """What is integrated out at its mode, by SciPy, with the curvature there."""
    f, z = basis.columns(params, rows.inputs)
    flat = 1 + basis.varying + basis.constant
    offset = f[:, :flat] @ params["population"]
    blocks = (rows.group[:, None] == np.arange(groups))[:, :, None] * z[:, None, :]
    design = np.hstack([f[:, flat:], blocks.reshape(len(f), -1)])
    own = np.ones(groups * z.shape[1])
    precision = np.concatenate([basis.precision(params)[flat:], own])

    def objective(heads):
        logits = offset + design @ heads
        value = rows.weight @ (np.logaddexp(0, logits) - rows.y * logits)
        slope = design.T @ (rows.weight * (expit(logits) - rows.y)) + precision * heads
        return value + 0.5 * precision @ heads**2, slope

    settings = {"gtol": 1e-9, "maxiter": 1000}
    heads = np.zeros(len(precision))
    if len(heads):
        heads = minimize(objective, heads, jac=True, method="BFGS", options=settings).x
    one = expit(offset + design @ heads)
    curved = design.T @ (design * (rows.weight * one * (1 - one))[:, None]) + np.diag(precision)
    w = heads[: f.shape[1] - flat]
    return f, z, np.concatenate([params["population"], w]), curved, len(w)


def integrals(f, z, w, rows, groups):
    """Of each group −log ∫ p(y | w, δ) p(δ) dδ, and the mean and covariance of δ, on a grid."""
    axis = np.linspace(-8, 8, 161)
    grid = np.stack(np.meshgrid(*[axis] * z.shape[1]), -1).reshape(-1, z.shape[1])
    share = np.exp(-0.5 * (grid**2).sum(1))
    share /= share.sum()
    found = []
    for number in range(groups):
        own = rows.group == number
        logits = f[own] @ w + grid @ z[own].T
        each = np.logaddexp(0, logits) - rows.y[own] * logits
        density = share * np.exp(-each @ rows.weight[own])
        mean = density @ grid / density.sum()
        left = grid - mean
        around = (left * density[:, None]).T @ left / density.sum()
        found.append((-np.log(density.sum()), mean, around))
    return [np.array(part) for part in zip(*found, strict=True)]


@pytest.mark.parametrize("name", BASES)
def test_the_evidence_integrates_every_group_and_the_products_weights(name):
    basis = BASES[name]
    rows, groups = data(basis)
    params = params_of(basis)
    f, z, w, curved, products = at_the_mode(basis, params, rows, groups)
    precision = basis.precision(params)
    flat = len(w) - products
    left = curved[:products, :products]
    if products and z.shape[1]:
        across, own = curved[:products, products:], curved[products:, products:]
        left = left - across @ np.linalg.solve(own, across.T)
    logits = f @ w
    wanted = rows.weight @ (np.logaddexp(0, logits) - rows.y * logits)
    if z.shape[1]:
        wanted = integrals(f, z, w, rows, groups)[0].sum()
    wanted += 0.5 * precision @ w**2
    wanted += 0.5 * (np.linalg.slogdet(left)[1] - np.log(precision[flat:]).sum())
    with jax.enable_x64(True):
        found = grouped.evidence(basis, params, rows, groups)
    np.testing.assert_allclose(found, wanted, rtol=2e-3)


def test_more_numbers_than_are_integrated_are_laplaces():
    basis = Basis(4, 0, binary=True)
    assert basis.widths[1] > logistic.MOST_INTEGRATED
    rows, groups = data(basis)
    params = params_of(basis)
    _, _, w, curved, _ = at_the_mode(basis, params, rows, groups)
    f, z = basis.columns(params, rows.inputs)
    blocks = (rows.group[:, None] == np.arange(groups))[:, :, None] * z[:, None, :]

    def value(own):
        logits = f @ w + blocks.reshape(len(f), -1) @ own
        return rows.weight @ (np.logaddexp(0, logits) - rows.y * logits) + 0.5 * own @ own

    lowest = minimize(value, np.zeros(groups * 5), options={"gtol": 1e-7}).fun
    wanted = lowest + 0.5 * basis.precision(params) @ w**2 + 0.5 * np.linalg.slogdet(curved)[1]
    with jax.enable_x64(True):
        found = grouped.evidence(basis, params, rows, groups)
    np.testing.assert_allclose(found, wanted, rtol=1e-7)


@pytest.mark.parametrize("name", BASES)
def test_the_gradient_of_the_evidence_sees_the_mode_move(name):
    basis = BASES[name]
    rows, groups = data(basis)
    params = params_of(basis)
    with jax.enable_x64(True):
        flat, restore = jax.flatten_util.ravel_pytree(params)
        value = jax.jit(lambda flat: grouped.evidence(basis, restore(flat), rows, groups))
        slope = np.asarray(jax.jit(jax.grad(value))(flat))
        ahead = np.random.default_rng(1).normal(size=(4, len(flat)))
        for direction in ahead:
            wanted = (value(flat + 1e-4 * direction) - value(flat - 1e-4 * direction)) / 2e-4
            np.testing.assert_allclose(slope @ direction, wanted, rtol=1e-5, atol=1e-7)


def test_the_weights_of_the_population_are_those_of_the_greatest_evidence():
    basis = BASES["linear"]
    rows, groups = data(basis)
    params = params_of(basis)
    model = grouped.posterior(basis, params, rows, groups)
    np.testing.assert_array_equal(model.mean[:3], model.params["population"])
    assert model.params["reach"] == params["reach"]
    with jax.enable_x64(True):
        slope = jax.grad(lambda p: grouped.evidence(basis, p, rows, groups))(model.params)
    np.testing.assert_allclose(slope["population"], 0.0, atol=1e-3)


def test_a_group_is_known_by_the_mean_of_its_posterior_and_not_the_mode():
    basis = BASES["linear"]
    rows, groups = data(basis)
    rows = rows._replace(y=np.where(rows.group == 0, 1.0, rows.y))
    params = params_of(basis)
    params["spread"] = 2.0 * np.eye(2)
    model = grouped.posterior(basis, params, rows, groups)
    f, z = basis.columns(model.params, rows.inputs)
    _, mean, covariance = integrals(f, z, model.mean, rows, groups)
    heads = model.adapt(rows, groups + 1)
    np.testing.assert_allclose(heads.mean[:-1], mean, atol=0.05)
    np.testing.assert_allclose(heads.covariance[:-1], covariance, atol=0.08)
    np.testing.assert_array_equal(heads.mean[-1], 0.0)
    np.testing.assert_array_equal(heads.covariance[-1], np.eye(2))


def test_what_is_not_known_of_the_population_is_part_of_the_variance():
    basis = BASES["no groups"]
    rows, _ = data(basis)
    model = grouped.posterior(basis, basis.init(0), rows, 1)
    f, _ = basis.columns(model.params, rows.inputs)
    one = expit(f @ model.mean)
    curved = f.T @ (f * (rows.weight * one * (1 - one))[:, None]) + 0.01 * np.eye(3)
    nobody = model.adapt(Rows(*[part[:0] for part in rows]), 1)
    mean, variance = model.predict(rows.inputs, nobody, np.zeros(len(f), int))
    np.testing.assert_allclose(mean, f @ model.mean)
    np.testing.assert_allclose(variance, np.diag(f @ np.linalg.solve(curved, f.T)), rtol=1e-6)


def test_groups_that_say_yes_alone_and_rows_far_out_are_adapted_to():
    basis = Basis(1, 0, binary=True)
    params = {"spread": 30.0 * np.eye(2), "population": np.zeros(2)}
    inputs = np.array([[1e3], [-1e3], [0.0], [2.0], [1e-3]])
    rows = Rows(inputs, np.array([1.0, 0.0, 1.0, 1.0, 0.0]), np.ones(5), np.array([0, 0, 1, 1, 2]))
    with jax.enable_x64(True):
        assert np.isfinite(grouped.evidence(basis, params, rows, 3))
    model = grouped.posterior(basis, params, rows, 3)
    heads = model.adapt(rows, 3)
    assert all(np.isfinite(part).all() for part in heads)
    mean, variance = model.predict(rows.inputs, heads, rows.group)
    np.testing.assert_array_equal(mean > 0, rows.y > 0.5)
    assert (model.density(rows.y, mean, variance) >= 0.5).all()


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 0.1), (1.5, 1.0), (-4.0, 3.0), (2.0, 8.0)])
def test_a_probability_is_the_integral_of_the_sigmoid(mean, deviation):
    wanted = quad(lambda t: expit(mean + deviation * t) * norm.pdf(t), -12, 12, points=[-mean])[0]
    found = logistic.probability(np.array([mean]), np.array([deviation**2]))
    np.testing.assert_allclose(found, wanted, atol=2e-3)


def test_a_fit_finds_the_spread_of_its_own_samples():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(300), 30)
    x = rng.normal(size=(9000, 1))
    own = rng.normal(size=(300, 2)) * [1.2, 0.6]
    logits = own[group, 0] + 0.5 + (1.0 + own[group, 1]) * x[:, 0]
    y = (rng.uniform(size=9000) < expit(logits)).astype(float)
    model = grouped.fit(Basis(1, 0, binary=True), Rows(x, y, np.ones(9000), group), 300)
    spread = np.tril(model.params["spread"])
    np.testing.assert_allclose(np.sqrt(np.diag(spread @ spread.T)), [1.2, 0.6], atol=0.15)
    np.testing.assert_allclose(model.mean, [0.5, 1.0], atol=0.2)
    assert model.converged
