"""MetaClassifier: two classes and three, groups known, unknown and new."""

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pullback.core.errors import InputError
from pullback.grouped import mixed
from pullback.sklearn import MetaClassifier

pytestmark = pytest.mark.usefixtures("tiny")


def clinics(count=30, each=12, seed=0):
    rng = np.random.default_rng(seed)
    names = np.repeat([f"c{i}" for i in range(count)], each)
    dose = rng.uniform(0, 4, size=count * each)
    sex = rng.choice(["f", "m"], count * each)
    own = np.repeat(rng.normal(size=count) * 2.0, each)
    logits = own + 1.0 * (dose - 2) + 0.8 * (sex == "m")
    y = np.where(rng.uniform(size=len(dose)) < expit(logits), "well", "ill")
    return pd.DataFrame({"dose": dose, "sex": sex}), y, names


@pytest.fixture(scope="module")
def fitted(tiny):
    X, y, groups = clinics()
    return MetaClassifier("linear").fit(X, y, groups=groups)


@pytest.fixture(scope="module")
def of_three(tiny):
    X, y, groups = clinics()
    y = np.where(X["dose"] > 3.5, "gone", y)
    return MetaClassifier("linear").fit(X, y, groups=groups), y


def test_probabilities_of_known_groups_are_better_than_of_strangers(fitted):
    X, y, groups = clinics()
    own, strangers = fitted.predict_proba(X, groups=groups), fitted.predict_proba(X)
    np.testing.assert_array_equal(fitted.classes_, ["ill", "well"])
    np.testing.assert_allclose(own.sum(1), 1.0)
    assert log_loss(y, own) < log_loss(y, strangers) - 0.1
    assert fitted.score(X, y, groups=groups) > fitted.score(X, y) + 0.05
    np.testing.assert_array_equal(fitted.predict(X, groups=groups), fitted.classes_[own.argmax(1)])
    np.testing.assert_array_equal(fitted.known_groups(["c0", "nobody"]), [True, False])


def test_a_stranger_is_the_average_group_and_not_the_group_in_the_middle(fitted):
    """Its own intercept is integrated out: probabilities are nearer to one half for it."""
    X, y, _ = clinics()
    middle = fitted.adapt(X[:0], y[:0]).predict_proba(X)
    np.testing.assert_allclose(middle, fitted.predict_proba(X))
    marginal = LogisticRegression(C=100).fit(np.column_stack([X["dose"], X["sex"] == "m"]), y)
    slope = fitted._readings[0].population["dose"][0]
    assert slope > marginal.coef_[0, 0]
    wanted = marginal.predict_proba(np.column_stack([X["dose"], X["sex"] == "m"]))
    np.testing.assert_allclose(middle, wanted, atol=0.12)


def test_a_group_that_adapts_on_its_rows_is_the_group_of_fit(fitted):
    X, y, groups = clinics()
    rows = groups == "c3"
    new = fitted.adapt(X[rows], y[rows])
    wanted = fitted.predict_proba(X, groups=np.full(len(X), "c3"))
    np.testing.assert_allclose(new.predict_proba(X), wanted, rtol=1e-6)
    np.testing.assert_array_equal(new.classes_, fitted.classes_)
    assert new.score(X[rows], y[rows]) == fitted.score(X[rows], y[rows], groups=groups[rows])
    np.testing.assert_array_equal(new.predict(X), new.classes_[wanted.argmax(1)])
    again = new.fit(X[:0], y[:0])
    np.testing.assert_allclose(again.predict_proba(X), fitted.predict_proba(X))


def test_new_groups_are_predicted_as_well_as_they_can_be_known(fitted):
    X, y, groups = clinics(count=60, seed=5)
    losses = {}
    for shots in (0, 2, 8):
        found = [], []
        for name in np.unique(groups):
            rows = np.flatnonzero(groups == name)
            new = fitted.adapt(X.iloc[rows[:shots]], y[rows[:shots]])
            found[0].append(new.predict_proba(X.iloc[rows[8:]])[:, 1])
            found[1].append(y[rows[8:]] == "well")
        chance, right = (np.concatenate(part) for part in found)
        losses[shots] = log_loss(right, chance)
        assert abs(chance.mean() - right.mean()) < 0.08
    assert losses[8] < losses[2] < losses[0] - 0.05


def test_what_was_learned_is_read_by_name_in_logits(fitted):
    effects = fitted.group_effects_
    assert list(effects.columns) == ["Intercept", "dose", "sex=m"]
    assert list(effects.index) == fitted.groups_
    assert fitted.prior_.loc["Intercept", "Intercept"] > 0.5
    text = fitted.summary()
    for part in (
        "Logits of well",
        "Logistic mixed model: 360 rows in 30 groups",
        "sex=m of a group",
    ):
        assert part in text
    assert "Noise" not in text


def test_each_of_three_classes_has_a_model_and_they_add_up(of_three):
    model, y = of_three
    X, _, groups = clinics()
    chance = model.predict_proba(X, groups=groups)
    np.testing.assert_allclose(chance.sum(1), 1.0)
    assert list(model.prior_) == list(model.group_effects_) == ["gone", "ill", "well"]
    assert list(model.weights_) == ["gone", "ill", "well"]
    assert model.score(X, y, groups=groups) > 0.75
    few = model.adapt(X[:3], np.array(["ill", "ill", "ill"]))
    assert few.predict_proba(X)[:, 1].mean() > model.predict_proba(X)[:, 1].mean()
    assert "Logits of gone" in model.summary()


def test_the_default_pools_and_is_the_same_each_time():
    X, y, groups = clinics(count=8, each=3)
    settings = {"members": 1, "hidden": 4, "steps": 50}
    first, second = (MetaClassifier(**settings).fit(X, y, groups=groups) for _ in range(2))
    np.testing.assert_array_equal(first.predict_proba(X), second.predict_proba(X))
    assert first.weights_.sum() == pytest.approx(1.0)
    back = pickle.loads(pickle.dumps(first))
    np.testing.assert_array_equal(
        back.predict_proba(X, groups=groups), first.predict_proba(X, groups=groups)
    )


def test_a_row_of_weight_two_is_there_twice():
    X, y, groups = clinics(count=8, each=3)
    weight = np.where(groups == "c1", 2.0, 1.0)
    weight[groups == "c2"] = 0.0
    twice = np.repeat(np.arange(len(y)), weight.astype(int))
    weighted = MetaClassifier("linear").fit(X, y, groups=groups, sample_weight=weight)
    written = MetaClassifier("linear").fit(X.iloc[twice], y[twice], groups=groups[twice])
    np.testing.assert_allclose(
        weighted.predict_proba(X, groups=groups),
        written.predict_proba(X, groups=groups),
        rtol=1e-3,
    )


def test_groups_go_through_pipelines_and_folds():
    X, y, groups = clinics()
    with sklearn.config_context(enable_metadata_routing=True):
        model = MetaClassifier("linear").set_fit_request(groups=True)
        model = model.set_score_request(groups=True)
        pipeline = make_pipeline(StandardScaler(), model)
        found = cross_validate(
            pipeline, X[["dose"]].to_numpy(), y, params={"groups": groups}, cv=GroupKFold(3)
        )
    assert found["test_score"].mean() > 0.6


def test_without_groups_it_is_one_logistic_regression():
    X, y, _ = clinics()
    model = MetaClassifier().fit(X, y)
    design = np.column_stack([X["dose"], X["sex"] == "m"])
    wanted = LogisticRegression(C=1e4, tol=1e-8).fit(design, y).predict_proba(design)
    np.testing.assert_allclose(model.predict_proba(X), wanted, atol=5e-3)
    with pytest.raises(InputError, match="fit was given no groups"):
        model.adapt(X, y)
    assert "Logistic model of 360 rows" in model.summary()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_degenerate_tables_have_probabilities():
    X, y, groups = clinics(count=8, each=3)
    for table, target, names in (
        (X, np.where(X["dose"] > 2, "well", "ill"), groups),
        (X, np.where(groups < "c4", "well", "ill"), groups),
        (X, y, np.arange(len(X))),
    ):
        chance = MetaClassifier("linear").fit(table, target, groups=names).predict_proba(table)
        assert np.isfinite(chance).all()
        assert (chance > 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y, g: (X, np.full(len(y), "well"), g), "y has one class, 'well'"),
        (lambda X, y, g: (X, np.where(y == "ill", None, y), g), "y misses .* classes"),
        (lambda X, y, g: (X, np.linspace(0, 1, len(y)), g), "continuous"),
        (lambda X, y, g: (X, None, g), "requires y"),
        (lambda X, y, g: (X, y[1:], g), "inconsistent"),
    ],
)
def test_bad_input_is_refused_before_any_fit(change, message):
    X, y, groups = change(*clinics(count=8, each=3))
    with pytest.raises(ValueError, match=message):
        MetaClassifier().fit(X, y, groups=groups)


def test_a_class_that_fit_has_not_seen_is_named(fitted):
    X, y, _ = clinics()
    with pytest.raises(InputError, match=r"not there in fit: dead.*ill, well"):
        fitted.adapt(X[:2], np.array(["well", "dead"]))
    with pytest.raises(InputError, match=r"'lineer'.*linear"):
        MetaClassifier("lineer").fit(X, y)


def test_a_number_is_another_class_than_the_text_of_it():
    X, y, groups = clinics(count=8, each=3)
    texts = np.where(y == "ill", "0", "1")
    model = MetaClassifier("linear").fit(X, texts, groups=groups)
    with pytest.raises(InputError, match=r"0, 1 \(int here, str in fit\)"):
        model.adapt(X[:2], np.array([0, 1]))


def test_blocks_of_rows_change_no_groups_model_and_weights_are_then_of_the_sample(monkeypatch):
    X, y, groups = clinics(count=8, each=3)
    whole = MetaClassifier("linear").fit(X, y, groups=groups)
    found = whole.predict_proba(X, groups=groups)
    monkeypatch.setattr(mixed, "BLOCK", 7)
    in_blocks = MetaClassifier("linear").fit(X, y, groups=groups)
    np.testing.assert_allclose(in_blocks.predict_proba(X, groups=groups), found, rtol=1e-6)
    sampled = MetaClassifier("linear", max_rows=20).fit(X, y, groups=groups)
    assert sampled.groups_ == whole.groups_
    assert np.isfinite(sampled.predict_proba(X, groups=groups)).all()
    monkeypatch.undo()
    of_all = MetaClassifier("linear", max_rows=20).fit(X, y, groups=groups)
    assert not np.allclose(
        of_all._pools[0].models[0].mean, sampled._pools[0].models[0].mean, rtol=1e-3
    )
