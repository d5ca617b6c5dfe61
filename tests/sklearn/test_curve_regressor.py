"""CurveRegressor: a curve of the user's own, by patients known, unknown and new."""

import pickle
import warnings

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GroupKFold, cross_val_score

from pullback.core.errors import InputError, NumericalError
from pullback.sklearn import CurveRegressor

pytestmark = pytest.mark.usefixtures("tiny")

NAMES = ["ka>0", "cl>0", "v>0"]
COVARIATES = {"cl": ["weight"]}


def concentration(row, ka, cl, v):
    ke = cl / v
    gone = jnp.exp(-ke * row["time"]) - jnp.exp(-ka * row["time"])
    return row["dose"] * ka / v / (ka - ke) * gone


def at(table, **values):
    """The curve on the rows of a table."""
    row = {name: table[name].to_numpy() for name in ("time", "dose")}
    return np.asarray(concentration(row, **values))


def in_other_units(row, ka, cl, v):
    return 1e6 * concentration({"time": row["time"] / 60, "dose": row["dose"]}, 60 * ka, cl, v)


def patients(count=12, each=6, seed=0):
    rng = np.random.default_rng(seed)
    weight = rng.normal(70, 10, size=count)
    phi = np.log([1.5, 0.04, 0.5]) + rng.normal(size=(count, 3)) * [0.4, 0.15, 0.15]
    phi[:, 1] += 0.02 * (weight - 70)
    names = np.repeat([f"p{i}" for i in range(count)], each)
    table = pd.DataFrame(
        {
            "time": np.tile(np.geomspace(0.3, 24.0, each), count),
            "dose": np.repeat(rng.uniform(3.5, 5.5, count), each),
            "weight": np.repeat(weight, each),
            "name": names,
        }
    )
    ka, cl, v = np.exp(np.repeat(phi, each, axis=0)).T
    y = at(table, ka=ka, cl=cl, v=v)
    return table, y + 0.2 * rng.normal(size=len(y)), names, np.exp(phi)


@pytest.fixture(scope="module")
def fitted(tiny):
    X, y, groups, _ = patients()
    return CurveRegressor(concentration, NAMES, covariates=COVARIATES).fit(X, y, groups=groups)


def test_what_was_learned_is_near_what_was_drawn_and_read_by_name(fitted):
    _, _, _, phi = patients()
    table = fitted.group_parameters_
    assert list(table.columns) == ["ka", "cl", "v"]
    assert list(table.index) == [f"p{i}" for i in range(12)]
    assert np.median(np.abs(np.log(table.to_numpy() / phi)), 0).max() < 0.15
    slope, error = fitted.coefficients_["cl × weight"]
    assert abs(slope - 0.02) < 3 * error
    assert fitted.noise_["additive"] == pytest.approx(0.2, rel=0.3)
    assert list(fitted.prior_.columns) == ["ka", "cl", "v"]
    assert list(fitted.population_) == ["ka", "cl", "v"]
    for part in ("72 rows in 12 groups", "of its logarithm", "cl × weight", "Noise, additive"):
        assert part in fitted.summary()


def test_known_groups_are_predicted_better_than_unknown_ones(fitted):
    X, y, groups, _ = patients()
    assert fitted.score(X, y, groups=groups) > fitted.score(X, y) + 0.02
    np.testing.assert_array_equal(fitted.known_groups(["p3", "nobody"]), [True, False])
    strangers = np.full(len(X), "nobody")
    np.testing.assert_allclose(fitted.predict(X, groups=strangers), fitted.predict(X))
    lower, upper = fitted.predict_interval(X, groups=groups, coverage=0.9)
    assert 0.8 < np.mean((lower <= y) & (y <= upper)) <= 1
    _, own = fitted.predict(X, groups=groups, return_std=True)
    _, stranger = fitted.predict(X, return_std=True)
    assert own.mean() < stranger.mean()


def test_a_group_that_adapts_on_its_rows_is_the_group_of_fit(fitted):
    X, y, groups, _ = patients()
    rows = groups == "p4"
    new = fitted.adapt(X[rows], y[rows])
    np.testing.assert_allclose(
        new.predict(X[rows]), fitted.predict(X[rows], groups=groups[rows]), rtol=1e-6
    )
    np.testing.assert_allclose(
        list(new.phi_.values()), fitted.group_parameters_.loc["p4"], rtol=1e-6
    )
    nothing = fitted.adapt(X[:0], y[:0])
    assert nothing.phi_ == pytest.approx(fitted.population_)
    np.testing.assert_allclose(nothing.predict(X), fitted.predict(X))
    once = fitted.adapt(X[rows][:1], y[rows][:1])
    assert np.isfinite(once.predict(X[rows], return_std=True)).all()
    assert once.fit(X[rows], y[rows]).phi_ == new.phi_


def test_the_covariate_of_a_stranger_moves_his_curve(fitted):
    X, _, _, _ = patients()
    late = X[X["time"] > 20]
    light, heavy = (fitted.predict(late.assign(weight=w)) for w in (50.0, 90.0))
    assert (heavy < light).all()


def test_a_change_of_units_changes_only_units(fitted):
    X, y, groups, _ = patients()
    moved = X.assign(time=60 * X["time"], weight=1000 * X["weight"])
    other = CurveRegressor(in_other_units, NAMES, covariates=COVARIATES, start={"ka": 1 / 60}).fit(
        moved, 1e6 * y, groups=groups
    )
    for ours, theirs in zip(
        fitted.predict(X, groups=groups, return_std=True),
        other.predict(moved, groups=groups, return_std=True),
        strict=True,
    ):
        np.testing.assert_allclose(theirs, 1e6 * ours, rtol=1e-4)
    for name, factor in {"ka": 1 / 60, "cl": 1.0, "v": 1.0}.items():
        assert other.population_[name] == pytest.approx(factor * fitted.population_[name], rel=1e-4)


def test_it_is_cloned_and_pickled_and_is_the_same_each_time(fitted):
    X, y, groups, _ = patients()
    again = clone(fitted).fit(X, y, groups=groups)
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    back = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(back.predict(X, groups=groups), fitted.predict(X, groups=groups))


def test_weights_count_rows_and_a_row_of_weight_zero_is_not_there(fitted):
    X, y, groups, _ = patients()
    weight = np.where(groups == "p0", 0.0, 1.0)
    wild = np.where(groups == "p0", 1e6, y)
    there = weight > 0
    weighted = clone(fitted).fit(X, wild, groups=groups, sample_weight=weight)
    without = clone(fitted).fit(X[there], y[there], groups=groups[there])
    np.testing.assert_allclose(weighted.predict(X), without.predict(X))
    rows = groups == "p1"
    twice = fitted.adapt(pd.concat([X[rows]] * 2), np.tile(y[rows], 2))
    heavy = fitted.adapt(X[rows], y[rows], sample_weight=np.full(6, 2.0))
    assert heavy.phi_ == pytest.approx(twice.phi_, rel=1e-6)


def saturating(row, top, share, rate):
    return top * (1 - share * jnp.exp(-rate * row["x0"]))


def test_bounded_and_shared_parameters_stay_what_they_are():
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(10), 5)
    x = np.tile(np.arange(5.0), 10)[:, None]
    top = 100 + 10 * rng.normal(size=10)[group]
    y = saturating({"x0": x[:, 0]}, top, 0.97, 0.5) + rng.normal(size=50)
    model = CurveRegressor(
        saturating, ["top", "0<share<1", "rate>0"], shared=["rate"], correlated=True
    ).fit(x, np.asarray(y), groups=group)
    found = model.group_parameters_
    assert ((found["share"] > 0) & (found["share"] < 1)).all()
    assert found["rate"].nunique() == 1
    assert list(model.prior_.columns) == ["top", "share"]
    assert model.population_["top"] == pytest.approx(100, abs=10)
    assert model.prior_.loc["top", "top"] ** 0.5 == pytest.approx(10, rel=0.5)
    low = model.adapt(x[:3], np.array([80.0, 90.0, 95.0]))
    assert 0 < low.phi_["share"] < 1
    assert low.phi_["rate"] == pytest.approx(model.population_["rate"])


def test_without_groups_it_is_least_squares():
    X, y, _, _ = patients()
    model = CurveRegressor(concentration, NAMES).fit(X, y)
    ours = np.sum((y - at(X, **model.population_)) ** 2)
    for name in ("ka", "cl", "v"):
        for factor in (0.98, 1.02):
            other = model.population_ | {name: factor * model.population_[name]}
            assert np.sum((y - at(X, **other)) ** 2) > ours
    with pytest.raises(InputError, match="fit was given no groups"):
        model.adapt(X, y)
    with pytest.raises(InputError, match="covariates move the parameters of groups"):
        CurveRegressor(concentration, NAMES, covariates=COVARIATES).fit(X, y)
    assert "Curve of 72 rows" in model.summary()


def test_groups_go_through_folds(fitted):
    X, y, groups, _ = patients()
    with sklearn.config_context(enable_metadata_routing=True):
        model = clone(fitted).set_fit_request(groups=True).set_score_request(groups=True)
        found = cross_val_score(model, X, y, params={"groups": groups}, cv=GroupKFold(12))
    assert np.median(found) > 0.6


def unused(row, a, b):
    return a * row["x0"]


def test_what_is_not_determined_or_not_ended_is_said(fitted):
    X, y, groups, _ = patients()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(24, 1))
    with pytest.warns(ConvergenceWarning, match="do not determine the parameter 'b'"):
        CurveRegressor(unused, ["a", "b"]).fit(x, x[:, 0], groups=np.repeat(np.arange(6), 4))
    with pytest.warns(ConvergenceWarning, match="do not determine the parameter 'cl × weight'"):
        clone(fitted).fit(X.assign(weight=70.0), y, groups=groups)
    with pytest.warns(ConvergenceWarning, match="after 1 steps: raise steps"):
        CurveRegressor(concentration, NAMES, covariates=COVARIATES, steps=1).fit(
            X, y, groups=groups
        )
    with pytest.warns(ConvergenceWarning, match="not finite for 1 of 2 rows"):
        fitted.predict(X[:2].assign(time=[1.0, -1e9]))


def test_degenerate_tables_have_finite_predictions():
    X, y, groups, _ = patients(6, 4)
    model = CurveRegressor(concentration, NAMES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for target, names in (
            (y, np.arange(len(y))),
            (y, np.zeros(len(y))),
            (np.zeros(len(y)), groups),
        ):
            again = clone(model).fit(X, target, groups=names)
            for numbers in again.predict(X, groups=names, return_std=True):
                assert np.isfinite(numbers).all()


class Unhashable:
    __hash__ = None

    def __call__(self, row, ka, cl, v):
        return ka


def three(row, ka, cl, v):
    return jnp.stack([ka, cl, v])


def branching(row, ka, cl, v):
    return ka if row["time"] > 1 else cl


def misspelt(row, ka, cl, v):
    return row["tiem"] * ka


def of_texts(row, ka, cl, v):
    return row["name"] * ka


def logarithm(row, ka, cl, v):
    return jnp.log(row["time"] - 1.0) + ka


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curve": three}, r"gives .*for one row.*one number"),
        ({"curve": branching}, "cannot trace the curve.*jnp.where"),
        ({"curve": misspelt}, "Unknown column 'tiem'.*Did you mean 'time'"),
        ({"curve": of_texts}, "reads the column 'name', which holds texts"),
        ({"curve": 3}, "a function of"),
        ({"curve": Unhashable()}, "unhashable Unhashable"),
        ({"parameters": ["ka>0", "cl>0"]}, "would be given .row, ka, cl."),
        ({"parameters": [*NAMES, "w"]}, "would be given .row, ka, cl, v, w."),
        ({"parameters": ["ka>0", "ka", "v"]}, "two have one name"),
        ({"parameters": "ka>0"}, "a list such as"),
        ({"shared": ["w"]}, "Unknown parameter 'w'"),
        ({"shared": "v"}, "a list: ..v"),
        ({"start": {"ka": -1.0}}, "'ka' starts at -1.0.*between 0 and inf"),
        ({"covariates": {"clear": ["weight"]}}, "Unknown parameter 'clear'"),
        ({"covariates": {"cl": ["wieght"]}}, "Unknown column 'wieght'.*'weight'"),
        ({"covariates": {"cl": "weight"}}, "a list: ..weight"),
        ({"covariates": {"cl": ["time"]}}, "'time' varies within the group 'p0'"),
        ({"noise": "aditive"}, "'aditive'.*additive"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_what_cannot_be_is_refused_before_any_fit(change, message):
    X, y, groups, _ = patients(6, 4)
    model = CurveRegressor(concentration, NAMES).set_params(**change)
    with pytest.raises(InputError, match=message):
        model.fit(X, y, groups=groups)


def test_a_curve_that_is_not_finite_names_the_row():
    X, y, groups, _ = patients(6, 4)
    with pytest.raises(NumericalError, match=r"not finite for 6 of 24 rows.*time=0\.3"):
        CurveRegressor(logarithm, NAMES).fit(X, y, groups=groups)
    with pytest.raises(InputError, match="'time' misses 1 of 24"):
        CurveRegressor(concentration, NAMES).fit(
            X.assign(time=[np.nan, *X["time"][1:]]), y, groups=groups
        )
