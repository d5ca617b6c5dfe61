"""FewShotClassifier: new classes from a few examples, on arrays, frames and odd shapes."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from pullback.core.errors import InputError
from pullback.grouped import vectors
from pullback.sklearn import FewShotClassifier
from pullback.sklearn.few_shot import _sample

pytestmark = pytest.mark.usefixtures("tiny")

BASE = 24
"""Of 40 classes, those with many examples; the others are new."""


def embedded(classes=40, each=16, dimensions=30, rank=6, noise=0.6, seed=0):
    """Vectors of unit length whose classes differ in a few directions."""
    rng = np.random.default_rng(seed)
    means = np.zeros((classes, dimensions))
    means[:, :rank] = rng.normal(size=(classes, rank))
    label = np.repeat(np.arange(classes), each)
    x = means[label] + noise * rng.normal(size=(len(label), dimensions)) + 0.3
    return x / np.linalg.norm(x, axis=1, keepdims=True), np.array([f"c{i:02}" for i in label])


def parts(shots=1, seed=0):
    x, y = embedded()
    number = np.repeat(np.arange(40), 16)
    place = np.tile(np.arange(16), 40)
    new = number >= BASE
    base = ~new & (place < 6)
    support, query = new & (place < shots), new & (place >= shots)
    return (x[base], y[base]), (x[support], y[support]), (x[query], y[query])


@pytest.fixture(scope="module")
def fitted(tiny):
    return FewShotClassifier().fit(*parts()[0])


def test_base_classes_help_new_ones_and_the_method_is_said(fitted):
    _, support, (x, y) = parts()
    new = fitted.adapt(*support)
    assert list(new.classes_) == [f"c{i}" for i in range(BASE, 40)]
    plain = LogisticRegression(C=10, max_iter=1000).fit(*support)
    assert new.score(x, y) > plain.score(x, y) + 0.05
    assert fitted.method_ == "between" == min(fitted.losses_, key=fitted.losses_.get)
    assert set(fitted.losses_) == set(vectors.METHODS)
    text = fitted.summary()
    assert "24 base classes; new ones by between" in text
    assert f"{fitted.losses_['logistic']:.4f}" in text


@pytest.mark.parametrize("shots", [1, 5])
def test_probabilities_are_nearer_to_what_is_right_than_those_of_logistic_regression(fitted, shots):
    _, support, (x, y) = parts(shots)

    def apart(model):
        chance = model.predict_proba(x)
        np.testing.assert_allclose(chance.sum(1), 1)
        return abs(chance.max(1).mean() - np.mean(model.predict(x) == y))

    plain = LogisticRegression(C=10, max_iter=1000).fit(*support)
    assert apart(fitted.adapt(*support)) < min(0.15, apart(plain) / 3)


def test_strangers_are_of_none_of_the_classes(fitted):
    _, support, (x, y) = parts(5)
    few = np.isin(support[1], ["c30", "c31", "c32", "c33"])
    new = fitted.adapt(support[0][few], support[1][few])
    chance, stranger = new.probability_of_none(x), ~np.isin(y, new.classes_)
    assert roc_auc_score(stranger, chance) > 0.8
    assert chance[stranger].mean() > 0.5 > chance[~stranger].mean()
    np.testing.assert_array_equal(new.known(x), chance < 0.5)
    odds = chance / (1 - chance)
    rare = new.probability_of_none(x, prior=0.1)
    np.testing.assert_allclose(rare / (1 - rare), odds / 9, rtol=1e-6)
    with pytest.raises(InputError, match="0 < prior < 1"):
        new.probability_of_none(x, prior=1)


def test_base_classes_are_predicted_too(fitted):
    (x, y), _, _ = parts()
    assert list(fitted.classes_) == [f"c{i:02}" for i in range(BASE)]
    assert fitted.score(x, y) > 0.85
    assert fitted.predict_proba(x).shape == (len(x), BASE)


def test_units_and_offsets_do_not_matter():
    x, y = embedded(12, 4, 10)
    support, q = (x[:4], np.arange(4)), x
    model = FewShotClassifier("between")
    one = model.fit(x, y).adapt(*support).predict_proba(q)
    other = model.fit(1000 * x - 50, y).adapt(1000 * support[0] - 50, support[1])
    np.testing.assert_allclose(other.predict_proba(1000 * q - 50), one, atol=1e-3)


def test_a_frame_is_its_numbers_and_a_fit_is_the_same_each_time():
    x, y = embedded(10, 3, 8)
    frame = pd.DataFrame(x).rename(columns=str)
    model = FewShotClassifier("logistic")
    found = [clone(model).fit(x, y).adapt(x[:6], y[:6]).predict_proba(x) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    new = model.fit(frame, y).adapt(frame[:6], y[:6])
    np.testing.assert_allclose(new.predict_proba(frame), found[0], rtol=1e-9)
    assert list(model.feature_names_in_) == [str(j) for j in range(8)]
    back = pickle.loads(pickle.dumps(new))
    np.testing.assert_array_equal(back.predict_proba(frame), new.predict_proba(frame))


def test_counts_may_differ_and_labels_be_numbers(fitted):
    _, (x, _), _ = parts(4)
    y = np.repeat(np.arange(16), 4)
    kept = (np.arange(64) % 4 == 0) | (y < 8)
    new = fitted.adapt(x[kept], y[kept])
    assert new.classes_.dtype.kind == "i"
    assert new.score(x[kept], y[kept]) > 0.9
    swapped = new.fit(x[:8], y[:8])
    assert swapped is new
    assert list(new.classes_) == [0, 1]


def test_one_example_of_each_of_many_classes_is_nothing_to_warn_of(fitted):
    x, _ = embedded()
    # From 21 rows on scikit-learn takes so many classes for numbers.
    new = fitted.adapt(x[::16], np.arange(40))
    assert new.score(x[::16], np.arange(40)) == 1


def test_one_new_class_is_certain_unless_it_is_none(fitted):
    _, (x, y), (q, names) = parts(5)
    one = fitted.adapt(x[:5], y[:5])
    np.testing.assert_array_equal(one.predict_proba(q), 1.0)
    chance = one.probability_of_none(q)
    assert chance[names == y[0]].mean() < chance[names != y[0]].mean() - 0.3


@pytest.mark.parametrize(
    ("classes", "each", "dimensions"), [(2, 6, 2), (5, 3, 1), (7, 2, 40), (8, 3, 2)]
)
def test_odd_shapes_have_finite_answers(classes, each, dimensions):
    x, y = embedded(classes + 3, each, dimensions, rank=min(dimensions, 6))
    base = y < f"c{classes:02}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        model = FewShotClassifier().fit(x[base], y[base])
    new = model.adapt(x[~base], y[~base])
    for found in (new.predict_proba(x), model.predict_proba(x)):
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found.sum(1), 1)


def test_what_does_not_vary_is_no_obstacle():
    y = np.repeat(np.arange(6), 3)
    for method in ("between", "whitened"):
        with pytest.warns(UserWarning, match="hardly tell"):
            found = (
                FewShotClassifier(method).fit(np.ones((18, 3)), y).predict_proba(np.ones((1, 3)))
            )
        np.testing.assert_allclose(found, 1 / 6, rtol=1e-6)
    x = np.eye(6)[y]
    assert (FewShotClassifier("between").fit(x, y).predict(x) == y).all()


def test_classes_that_cannot_be_held_back_are_said():
    x, y = embedded(10, 1)
    with pytest.warns(UserWarning, match="not calibrated; the method is 'logistic'"):
        model = FewShotClassifier().fit(x, y)
    with pytest.raises(InputError, match="Give fit more base classes"):
        model.adapt(x[:3], y[:3]).probability_of_none(x)
    x, y = embedded(4, 3)
    with pytest.warns(UserWarning, match="needs 6 base classes or more, and there are 4"):
        assert FewShotClassifier("between").fit(x, y).method_ == "logistic"


@pytest.mark.parametrize(
    "spoil",
    [lambda x, rng: np.ones_like(x), lambda x, rng: rng.permutation(x)],
    ids=["all alike", "another order"],
)
def test_vectors_that_hardly_tell_classes_apart_are_said(spoil, rng):
    x, y = embedded(12, 6)
    with pytest.warns(UserWarning, match="hardly tell held-back classes apart"):
        model = FewShotClassifier().fit(spoil(x, rng), y)
    shown = model.predict_proba(x)
    assert np.isfinite(shown).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x, np.full(len(y), "one")), "y has 1 class, 'one'"),
        (lambda x, y: (x, None), "requires y"),
        (lambda x, y: (np.where(x == x[0, 0], np.nan, x), y), "X contains NaN"),
        (lambda x, y: (x, np.where(y == "c00", None, y)), "NoneType, str"),
        (lambda x, y: (x, np.linspace(0, 1, len(y))), "Unknown label type"),
        (lambda x, y: (x[:-1], y), "inconsistent"),
        (lambda x, y: (x[:0], y[:0]), "0 sample"),
    ],
)
def test_bad_input_is_refused_before_any_fit(change, message):
    with pytest.raises(ValueError, match=message):
        FewShotClassifier().fit(*change(*embedded(8, 2)))


def test_other_mistakes_are_named(fitted):
    _, (x, y), _ = parts()
    with pytest.raises(InputError, match=r"'betwen'.*between"):
        FewShotClassifier("betwen").fit(x, y)
    with pytest.raises(InputError, match="max_rows=0"):
        FewShotClassifier(max_rows=0).fit(x, y)
    with pytest.raises(ValueError, match="29 features"):
        fitted.adapt(x[:, :-1], y)
    with pytest.raises(ValueError, match="0 sample"):
        fitted.adapt(x[:0], y[:0])


def test_a_sample_has_its_part_of_each_class():
    label = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [60, 30, 1]))
    kept = _sample(label, 30, np.random.RandomState(0))
    assert np.bincount(label[kept]).tolist() == [19, 9, 1]
    np.testing.assert_array_equal(_sample(label, 91, None), np.arange(91))
