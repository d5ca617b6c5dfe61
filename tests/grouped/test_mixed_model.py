"""The mixed model is a Gaussian of all rows at once: compared with its dense covariance."""

import jax
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from pullback import grouped
from pullback.grouped import held_back, mixed, pooled
from pullback.grouped.basis import Basis, Rows, part

pytestmark = pytest.mark.usefixtures("tiny")

BASES = {
    "linear": Basis(1, 1),
    "linear without products": Basis(1, 0),
    "learned": Basis(1, 1, 1, hidden=3, rank=2),
    "no groups": Basis(1, 1, grouped=False),
}


def data(basis, seed=0, sizes=(4, 1, 3, 2)):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(group)
    inputs = rng.normal(size=(len(group), basis.varying + basis.constant + basis.extra))
    weight = rng.choice([1.0, 2.0], len(group))
    return Rows(inputs, rng.normal(size=len(group)), weight, group), len(sizes)


def params_of(basis):
    rng = np.random.default_rng(7)
    return {k: v + 0.1 * rng.normal(size=np.shape(v)) for k, v in basis.init(0).items()}


def dense(basis, params, rows):
    """F, Z in blocks of groups, and the noise of each row, as plain matrices."""
    f, z = basis.columns(params, rows.inputs)
    same = rows.group[:, None] == rows.group[None]
    variance = np.exp(2 * params["noise"]) + 1e-6
    return f, same * (z @ z.T), variance / rows.weight


def each_weight_once(rows):
    """The same rows, one of weight 2 written twice."""
    twice = np.repeat(np.arange(len(rows.y)), rows.weight.astype(int))
    return Rows(rows.inputs[twice], rows.y[twice], np.ones(len(twice)), rows.group[twice])


@pytest.mark.parametrize("name", BASES)
def test_the_evidence_is_the_density_of_all_rows_at_once(name):
    basis = BASES[name]
    rows, groups = data(basis)
    params = params_of(basis)
    repeated = each_weight_once(rows)
    f, between, noise = dense(basis, params, repeated)
    prior = (f / basis.precision(params)) @ f.T
    covariance = between + np.diag(noise) + prior
    wanted = -multivariate_normal.logpdf(repeated.y, cov=covariance)
    wanted -= 0.5 * len(repeated.y) * np.log(2 * np.pi)
    with jax.enable_x64(True):
        found = grouped.evidence(basis, params, rows, groups)
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


@pytest.mark.parametrize("name", BASES)
def test_predictions_are_those_of_the_joint_gaussian(name):
    basis = BASES[name]
    rows, groups = data(basis)
    params = params_of(basis)
    model = grouped.posterior(basis, params, rows, groups)
    heads = model.adapt(rows, groups + 1)
    new = data(basis, seed=1, sizes=(1, 1, 1, 1, 1))[0]
    mean, variance = model.predict(new.inputs, heads, new.group)
    f, between, noise = dense(basis, params, rows)
    g, z_new = basis.columns(params, new.inputs)
    _, z = basis.columns(params, rows.inputs)
    flat = 1 / basis.precision(params)
    inner = between + np.diag(noise) + (f * flat) @ f.T
    across = (new.group[:, None] == rows.group[None]) * (z_new @ z.T) + (g * flat) @ f.T
    toward = np.linalg.solve(inner, across.T).T
    own = (z_new**2).sum(1) + (g**2 * flat).sum(1) + model.noise**2
    np.testing.assert_allclose(mean, toward @ rows.y, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(variance, own - (toward * across).sum(1), rtol=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_blocks_change_nothing(name, monkeypatch):
    basis = BASES[name]
    rows, groups = data(basis)
    params = params_of(basis)
    whole = grouped.posterior(basis, params, rows, groups)
    monkeypatch.setattr(mixed, "BLOCK", 5)
    model = grouped.posterior(basis, params, rows, groups)
    np.testing.assert_allclose(model.mean, whole.mean, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(model.covariance, whole.covariance, rtol=1e-9, atol=1e-12)
    heads = whole.adapt(rows, groups)
    in_blocks = whole.predict(rows.inputs, heads, rows.group)
    monkeypatch.undo()
    for ours, theirs in zip(heads, whole.adapt(rows, groups), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(in_blocks, whole.predict(rows.inputs, heads, rows.group), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_a_fit_finds_the_spread_and_the_noise_of_its_own_samples():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(200), 6)
    x = rng.normal(size=(1200, 1))
    own = rng.normal(size=(200, 2)) * [0.8, 0.3]
    y = own[group, 0] + (0.5 + own[group, 1]) * x[:, 0] + 0.4 * rng.normal(size=1200)
    model = grouped.fit(Basis(1, 0), Rows(x, y, np.ones(1200), group), 200)
    spread = np.tril(model.params["spread"])
    found = np.sqrt(np.diag(spread @ spread.T))
    np.testing.assert_allclose(found, [0.8, 0.3], atol=0.08)
    np.testing.assert_allclose(model.noise, 0.4, atol=0.02)
    np.testing.assert_allclose(model.mean, [0.0, 0.5], atol=0.12)


def test_a_basis_starts_anywhere_and_ends_where_the_slope_of_the_evidence_is_zero():
    basis = Basis(1, 1)
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(12), 5)
    x = np.stack([rng.normal(size=60), rng.normal(size=12)[group]], 1)
    y = rng.normal(size=12)[group] + x[:, 0] * x[:, 1] + 0.3 * rng.normal(size=60)
    rows = Rows(x, y, np.ones(60), group)
    model = grouped.fit(basis, rows, 12)
    with jax.enable_x64(True):
        slope = jax.grad(lambda p: grouped.evidence(basis, p, rows, 12) + basis.penalty(p))(
            model.params
        )
    slope["spread"] = np.tril(slope["spread"])
    assert max(np.abs(v).max() for v in slope.values()) < 1e-2


def test_the_pool_takes_the_model_that_predicts_held_back_groups():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(20), 8)
    x = rng.uniform(-1.7, 1.7, size=(160, 1))
    bases = (Basis(1, 0), Basis(1, 0, hidden=8))
    bent = np.cos(3 * x[:, 0]) + 0.3 * rng.normal(size=20)[group]
    straight = x[:, 0] + rng.normal(size=20)[group]
    noise = 0.1 * rng.normal(size=160)
    found = {
        name: pooled.weigh(bases, Rows(x, y + noise, np.ones(160), group), 20, steps=60, seed=0)
        for name, y in {"bent": bent, "straight": straight}.items()
    }
    assert found["bent"][1] > 0.9
    assert found["straight"][0] > 0.4
    for weights in found.values():
        assert weights.sum() == pytest.approx(1.0)


def test_products_are_columns_of_a_linear_basis_while_they_are_few():
    assert Basis(4, 6).products == 24
    assert Basis(5, 5).products == 0
    assert Basis(4, 6, hidden=8).products == 0


def test_groups_are_numbered_anew_and_their_rows_keep_their_order():
    rows, _ = data(BASES["linear"])
    kept, count = part(rows, rows.group != 1)
    assert count == 3
    assert set(kept.group) == {0, 1, 2}
    np.testing.assert_array_equal(
        held_back.place_in_group(np.array([2, 0, 2, 2, 0])), [0, 0, 1, 2, 1]
    )
