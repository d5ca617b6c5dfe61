"""Binary targets: Laplace's approximation beside a dense one, and beside the integral itself."""

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


def dense(basis, params, rows, groups):
    """One design matrix for w and every δ, its prior precisions, and the mode by SciPy."""
    f, z = basis.columns(params, rows.inputs)
    blocks = (rows.group[:, None] == np.arange(groups))[:, :, None] * z[:, None, :]
    design = np.hstack([f, blocks.reshape(len(f), -1)])
    precision = np.concatenate([basis.precision(params), np.ones(groups * z.shape[1])])

    def objective(heads):
        logits = design @ heads
        value = rows.weight @ (np.logaddexp(0, logits) - rows.y * logits)
        slope = design.T @ (rows.weight * (expit(logits) - rows.y)) + precision * heads
        return value + 0.5 * precision @ heads**2, slope

    found = minimize(
        objective,
        np.zeros(len(precision)),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 1000},
    )
    one = expit(design @ found.x)
    curved = design.T @ (design * (rows.weight * one * (1 - one))[:, None]) + np.diag(precision)
    return design, precision, found.x, found.fun, curved


@pytest.mark.parametrize("name", BASES)
def test_the_evidence_is_that_of_a_gaussian_about_the_joint_mode(name):
    basis = BASES[name]
    rows, groups = data(basis)
    params = params_of(basis)
    _, precision, _, value, curved = dense(basis, params, rows, groups)
    wanted = value + 0.5 * np.linalg.slogdet(curved)[1] - 0.5 * np.log(precision).sum()
    with jax.enable_x64(True):
        found = grouped.evidence(basis, params, rows, groups)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


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


@pytest.mark.parametrize("name", BASES)
def test_logits_are_predicted_by_that_gaussian(name):
    basis = BASES[name]
    rows, groups = data(basis)
    params = params_of(basis)
    model = grouped.posterior(basis, params, rows, groups)
    heads = model.adapt(rows, groups).with_unknown()
    new = data(basis, seed=1, sizes=(1, 1, 1, 1, 1))[0]
    mean, variance = model.predict(new.inputs, heads, new.group)
    _, _, mode, _, curved = dense(basis, params, rows, groups)
    f, z = basis.columns(params, new.inputs)
    blocks = (new.group[:, None] == np.arange(groups))[:, :, None] * z[:, None, :]
    design = np.hstack([f, blocks.reshape(len(f), -1)])
    own = np.where(new.group == groups, (z**2).sum(1), 0.0)
    np.testing.assert_allclose(mean, design @ mode, rtol=1e-6, atol=1e-7)
    wanted = np.einsum("ij,ji->i", design, np.linalg.solve(curved, design.T)) + own
    np.testing.assert_allclose(variance, wanted, rtol=1e-6)


def test_groups_that_say_yes_alone_and_rows_far_out_are_adapted_to():
    basis = Basis(1, 0, binary=True)
    params = {"spread": np.array([[30.0, 0.0], [0.0, 30.0]])}
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
