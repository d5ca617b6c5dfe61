"""MetaRegressor: groups known, unknown and new, on arrays and frames."""

import importlib
import pickle
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pullback.core.errors import InputError
from pullback.grouped import held_back, mixed
from pullback.sklearn import MetaRegressor
from pullback.sklearn.inputs import warn_about_groups

pytestmark = pytest.mark.usefixtures("tiny")


def machines(count=15, each=6, seed=0):
    rng = np.random.default_rng(seed)
    names = np.repeat([f"m{i}" for i in range(count)], each)
    load = rng.uniform(0, 10, size=count * each)
    kind = np.repeat(rng.choice(["old", "new"], count), each)
    own = np.repeat(rng.normal(size=(count, 2)) * [4.0, 0.5], each, axis=0)
    y = 20 + own[:, 0] + (2 + own[:, 1]) * load + 3 * (kind == "old")
    y = y + rng.normal(size=len(y))
    return pd.DataFrame({"load": load, "kind": kind}), y, names


@pytest.fixture(scope="module")
def fitted(tiny):
    X, y, groups = machines()
    return MetaRegressor("linear").fit(X, y, groups=groups)


def test_known_groups_are_predicted_better_than_unknown_ones(fitted):
    X, y, groups = machines()
    assert fitted.score(X, y, groups=groups) > fitted.score(X, y) + 0.05
    known = fitted.known_groups(["m0", "nobody"])
    np.testing.assert_array_equal(known, [True, False])
    strangers = np.full(len(X), "nobody")
    np.testing.assert_allclose(fitted.predict(X, groups=strangers), fitted.predict(X))


def test_intervals_hold_what_they_say_and_are_wider_for_strangers(fitted):
    X, y, groups = machines()
    lower, upper = fitted.predict_interval(X, groups=groups, coverage=0.9)
    assert 0.83 < np.mean((lower <= y) & (y <= upper)) < 0.99
    _, own = fitted.predict(X, groups=groups, return_std=True)
    _, stranger = fitted.predict(X, return_std=True)
    assert (stranger > own).all()
    with pytest.raises(InputError, match="coverage"):
        fitted.predict_interval(X, coverage=90)


def test_a_group_that_adapts_on_its_rows_is_the_group_of_fit(fitted):
    X, y, groups = machines()
    rows = groups == "m3"
    new = fitted.adapt(X[rows], y[rows])
    np.testing.assert_allclose(new.predict(X), fitted.predict(X, groups=np.full(len(X), "m3")))
    nothing = fitted.adapt(X[:0], y[:0])
    for ours, theirs in zip(
        nothing.predict(X, return_std=True), fitted.predict(X, return_std=True), strict=True
    ):
        np.testing.assert_allclose(ours, theirs)
    lower, upper = new.predict_interval(X)
    assert (lower < new.predict(X)).all()
    assert (new.predict(X) < upper).all()


def test_what_was_learned_is_read_by_name_in_units_of_the_table(fitted):
    X, _, groups = machines()
    effects = fitted.group_effects_
    assert list(effects.columns) == ["Intercept", "load"]
    assert list(effects.index) == [f"m{i}" for i in range(15)]
    moved = fitted.predict(X, groups=groups) - fitted.predict(X)
    own = effects.loc[groups]
    np.testing.assert_allclose(moved, own["Intercept"] + own["load"] * X["load"].to_numpy())
    assert fitted.noise_ == pytest.approx(1.0, abs=0.25)
    assert fitted.prior_.loc["load", "load"] ** 0.5 == pytest.approx(0.5, abs=0.25)
    text = fitted.summary()
    for part in ("90 rows in 15 groups", "kind=old", "load × kind=old", "Noise"):
        assert part in text


def test_the_population_is_the_sum_of_its_coefficients(fitted):
    X, _, _ = machines()
    old = (X["kind"] == "old").to_numpy(float)
    load = X["load"].to_numpy()
    c = {name: weight for name, (weight, _) in fitted._population.items()}
    by_hand = c["Intercept"] + c["load"] * load + c["kind=old"] * old
    by_hand += c["load × kind=old"] * load * old
    np.testing.assert_allclose(fitted.predict(X), by_hand)


def test_units_of_columns_and_targets_do_not_matter(fitted):
    X, y, groups = machines()
    other = X.assign(load=1000 * X["load"] - 7)
    moved = MetaRegressor("linear").fit(other, 1e-3 * y + 5, groups=groups)
    np.testing.assert_allclose(
        moved.predict(other, groups=groups), 1e-3 * fitted.predict(X, groups=groups) + 5, rtol=1e-6
    )


def test_the_default_is_the_pool_and_is_the_same_each_time():
    X, y, groups = machines(each=4)
    settings = {"members": 2, "hidden": 4}
    first, second = (MetaRegressor(**settings).fit(X, y, groups=groups) for _ in range(2))
    np.testing.assert_array_equal(first.predict(X), second.predict(X))
    assert first.weights_.sum() == pytest.approx(1.0)
    back = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(back.predict(X, groups=groups), first.predict(X, groups=groups))
    assert "of one with learned features" in first.summary() or first.weights_[1] == 0


def test_few_groups_are_not_held_back():
    X, y, groups = machines(count=5)
    model = MetaRegressor().fit(X, y, groups=groups)
    np.testing.assert_array_equal(model.weights_, [1.0, 0.0])


def test_a_row_of_weight_zero_is_not_there():
    X, y, groups = machines(count=8)
    weight = np.ones(len(y))
    weight[groups == "m2"] = 0
    there = weight > 0
    wild = np.where(there, y, 1e6)
    weighted = MetaRegressor("linear").fit(X, wild, groups=groups, sample_weight=weight)
    without = MetaRegressor("linear").fit(X[there], y[there], groups=groups[there])
    assert "m2" not in weighted.groups_
    np.testing.assert_allclose(weighted.predict(X), without.predict(X))


def test_a_sample_is_of_whole_groups_where_that_is_many_and_of_rows_where_not():
    group = np.repeat(np.arange(300), 4)
    whole = held_back.sample(group, 300, 601, np.random.RandomState(0))
    assert whole.sum() == 600
    assert set(np.bincount(group[whole])) == {0, 4}
    some = held_back.sample(group, 300, 200, np.random.RandomState(0))
    assert some.sum() == 200
    assert set(np.bincount(group[some])) > {0, 1}


def test_more_rows_than_are_fitted_to_still_count_for_the_groups():
    X, y, groups = machines()
    sampled = MetaRegressor("linear", max_rows=60).fit(X, y, groups=groups)
    assert sampled.groups_ == [f"m{i}" for i in range(15)]
    assert sampled.score(X, y, groups=groups) > 0.97


def test_groups_go_through_pipelines_searches_and_folds():
    X, y, groups = machines()
    X = X[["load"]].to_numpy()
    with sklearn.config_context(enable_metadata_routing=True):
        model = MetaRegressor("linear").set_fit_request(groups=True)
        model = model.set_score_request(groups=True)
        pipeline = make_pipeline(StandardScaler(), model)
        search = GridSearchCV(
            pipeline, {"metaregressor__method": ["linear", "learned"]}, cv=GroupKFold(3)
        )
        search.fit(X, y, groups=groups)
        assert len(search.best_estimator_[-1].groups_) == 15
        found = cross_validate(pipeline, X, y, params={"groups": groups}, cv=GroupKFold(3))
        assert (found["test_score"] > 0.3).all()


def test_without_groups_it_is_one_linear_regression():
    X, y, _ = machines()
    model = MetaRegressor().fit(X, y)
    design = np.column_stack([np.ones(len(X)), X["load"], X["kind"] == "old"]).astype(float)
    wanted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(model.predict(X), wanted, rtol=1e-4)
    with pytest.raises(InputError, match="fit was given no groups"):
        model.adapt(X, y)
    assert len(model.group_effects_) == 0
    assert "Linear model of 90 rows" in model.summary()


@pytest.mark.parametrize("method", ["linear", "learned"])
def test_degenerate_tables_have_finite_predictions(method):
    X, y, groups = machines(count=8, each=3)
    settings = {"method": method, "steps": 10, "members": 1, "hidden": 3}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table, target, names in (
            (X, np.full(len(X), 3.0), groups),
            (X.assign(load=1.0), y, groups),
            (X, y, np.arange(len(X))),
            (X, y, np.zeros(len(X))),
        ):
            model = MetaRegressor(**settings).fit(table, target, groups=names)
            for numbers in model.predict(table, groups=names, return_std=True):
                assert np.isfinite(numbers).all()


def test_a_linear_model_that_is_not_fitted_is_said():
    X, y, groups = machines()
    with pytest.warns(ConvergenceWarning, match="after 2 steps: raise steps"):
        MetaRegressor("linear", steps=2).fit(X, y, groups=groups)


def test_what_looks_like_a_mistake_is_said():
    X, y, groups = machines(count=8, each=3)
    model = MetaRegressor("linear")
    with pytest.warns(UserWarning, match="number of a row"):
        clone(model).fit(X, y, groups=np.arange(len(X)))
    with pytest.warns(UserWarning, match="one group"):
        clone(model).fit(X, y, groups=np.zeros(len(X)))
    with pytest.warns(UserWarning, match="'name' names the group"):
        clone(model).fit(X.assign(name=groups), y, groups=groups)
    model.fit(X, y, groups=groups)
    with pytest.warns(UserWarning, match="are int here and were str in fit"):
        model.predict(X, groups=np.arange(len(X)))
    with pytest.warns(UserWarning, match="1 of 1 rows have a category"):
        model.predict(pd.DataFrame({"load": [1.0], "kind": ["brand new"]}))


@pytest.mark.parametrize(
    ("numbers", "count", "said"),
    [
        (lambda i: i + 1001, 8, True),
        (lambda i: 17 * i % 40, 20, True),
        # Ages, which differ between eight people more often than not.
        (lambda i: 17 * i % 40, 8, False),
        # The mean of a school.
        (lambda i: 0.1 * i, 20, False),
        # Two schools in each town.
        (lambda i: i // 2, 20, False),
    ],
)
def test_whole_numbers_that_identify_the_group_are_said(numbers, count, said):
    group = np.repeat(np.arange(count), 3)
    columns = [("n", np.array([numbers(i) for i in group])), ("x", np.arange(3 * count))]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_about_groups(group, count, columns, stacklevel=1)
    assert ["'n' is a whole number that is the same" in str(w.message) for w in caught] == (
        [True] if said else []
    )


def test_many_groups_of_one_row_end_with_a_warning(monkeypatch):
    monkeypatch.setattr(mixed, "BLOCK", 4096)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20_000, 2))
    y = X @ [1.0, 2.0] + 0.1 * rng.normal(size=20_000)
    with pytest.warns(UserWarning, match="Each of the 20000 groups has one row"):
        model = MetaRegressor("linear", max_rows=200).fit(X, y, groups=np.arange(20_000))
    assert len(model.groups_) == 20_000
    np.testing.assert_allclose(model.predict(np.eye(2)), [1.0, 2.0], atol=0.01)


def test_a_function_is_told_what_is_being_done():
    X, y, groups = machines(count=5)
    told = []
    MetaRegressor("linear", verbose=told.append).fit(X, y, groups=groups)
    assert told == ["the linear model"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y, g: (X, y, g[:-1]), "inconsistent"),
        (lambda X, y, g: (X, y, np.where(g == "m1", None, g)), "misses 3 of 24"),
        (lambda X, y, g: (X[:0], y[:0], g[:0]), "0 rows"),
        (lambda X, y, g: (X.assign(load=np.nan), y, g), "'load' misses 24 of 24"),
        (lambda X, y, g: (X, np.where(y > 0, np.nan, y), g), "y contains NaN"),
        (lambda X, y, g: (X, np.full(len(y), "high"), g), "y is of type"),
        (lambda X, y, g: (X, None, g), "requires y"),
    ],
)
def test_bad_input_is_refused_before_any_fit(change, message):
    X, y, groups = change(*machines(count=8, each=3))
    with pytest.raises(ValueError, match=message):
        MetaRegressor().fit(X, y, groups=groups)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("pullback.sklearn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pullback\[sklearn\]'"):
        importlib.import_module("pullback.sklearn")


def test_other_mistakes_are_named(fitted):
    X, y, _ = machines()
    with pytest.raises(InputError, match=r"'lineer'.*linear"):
        MetaRegressor("lineer").fit(X, y)
    with pytest.raises(InputError, match="hidden=0"):
        MetaRegressor(hidden=0).fit(X, y)
    with pytest.raises(ValueError, match="non-zero"):
        MetaRegressor().fit(X, y, sample_weight=np.zeros(len(y)))
    with pytest.raises(ValueError, match="feature names"):
        fitted.predict(X[["load"]])
