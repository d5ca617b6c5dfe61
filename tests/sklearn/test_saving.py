"""Fitted estimators saved and loaded: the same to the bit, and nothing of a stranger's is run."""

import datetime
import json
import pickle

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LinearRegression

from pullback.core.errors import InputError
from pullback.sklearn import CurveRegressor, FewShotClassifier, MetaClassifier, MetaRegressor
from pullback.sklearn.saving import load, save

pytestmark = pytest.mark.usefixtures("tiny")


def shops(names):
    rng = np.random.default_rng(0)
    each = 5
    group = np.repeat(np.arange(len(names)), each)
    price = rng.uniform(1, 9, len(group))
    day = np.datetime64("2031-03-01") + rng.integers(0, 90, len(group)).astype("timedelta64[D]")
    kind = rng.choice(["café", 'bar, "old"'], len(names))[group]
    y = 50 + rng.normal(size=len(names))[group] - 3 * price + rng.normal(size=len(group))
    table = pd.DataFrame({"price": price, "day": day, "kind": kind, "open": price > 5})
    return table, y, np.array(names, object)[group]


@pytest.fixture(scope="module")
def fitted(tiny):
    """With learned features, so that every part has something in it."""
    X, y, groups = shops([f"s{i}" for i in range(6)])
    settings = {"members": 2, "hidden": 3, "rank": 2, "steps": 60}
    model = MetaRegressor("learned", **settings).fit(X, y, groups=groups)
    return model, X, y, groups


@pytest.fixture
def folder(fitted, tmp_path):
    save(fitted[0], tmp_path)
    return tmp_path


def test_predictions_are_the_same_to_the_bit(fitted, folder):
    model, X, y, groups = fitted
    back = load(folder)
    for known in (groups, None):
        for ours, theirs in zip(
            back.predict(X, groups=known, return_std=True),
            model.predict(X, groups=known, return_std=True),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    new = [each.adapt(X[:3], y[:3]).predict(X) for each in (back, model)]
    np.testing.assert_array_equal(*new)
    assert back.get_params() == model.get_params()
    assert back.summary() == model.summary()
    assert vars(back).keys() == vars(model).keys()
    pd.testing.assert_frame_equal(back.group_effects_, model.group_effects_)
    pd.testing.assert_frame_equal(back.prior_, model.prior_)
    assert back.feature_names_in_.tolist() == list(X.columns)


@pytest.mark.parametrize("count", [2, 3])
def test_a_classifiers_probabilities_are_the_same_to_the_bit(fitted, tmp_path, count):
    _, X, y, groups = fitted
    bounds = np.quantile(y, np.arange(1, count) / count)
    classes = np.array(["low", "middle", "high"])[np.searchsorted(bounds, y)]
    model = MetaClassifier("linear").fit(X, classes, groups=groups)
    save(model, tmp_path)
    back = load(tmp_path)
    np.testing.assert_array_equal(
        back.predict_proba(X, groups=groups), model.predict_proba(X, groups=groups)
    )
    np.testing.assert_array_equal(back.classes_, model.classes_)
    assert back.summary() == model.summary()
    few = back.adapt(X[:3], classes[:3]), model.adapt(X[:3], classes[:3])
    np.testing.assert_array_equal(*(one.predict_proba(X) for one in few))


@pytest.mark.parametrize("method", ["auto", "centroid"])
def test_what_new_classes_are_adapted_from_is_the_same_to_the_bit(tmp_path, method):
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(8), 4)
    X = rng.normal(size=(8, 5))[label] + 0.3 * rng.normal(size=(32, 5))
    model = FewShotClassifier(method).fit(X, label)
    save(model, tmp_path)
    back = load(tmp_path)
    np.testing.assert_array_equal(back.predict_proba(X), model.predict_proba(X))
    assert back.summary() == model.summary()
    for answer in ("predict_proba", "probability_of_none"):
        new = (getattr(one.adapt(X[:12], label[:12]), answer)(X) for one in (back, model))
        np.testing.assert_array_equal(*new)


def decay(row, start, rate):
    return start * jnp.exp(-rate * row["x0"])


def other(row, start, rate):
    return start


def test_a_curve_is_code_and_is_given_again(tmp_path):
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(6), 5)
    X = np.tile(np.arange(5.0), 6)[:, None]
    y = np.exp(0.3 * rng.normal(size=6))[group] * np.exp(-0.4 * X[:, 0])
    y += 0.02 * rng.normal(size=30)
    model = CurveRegressor(decay, ["start>0", "rate>0"]).fit(X, y, groups=group)
    save(model, tmp_path)
    with pytest.raises(InputError, match="'decay' is code, which no file holds"):
        load(tmp_path)
    with pytest.raises(InputError, match="The curve 'other' was given"):
        load(tmp_path, other)
    back = load(tmp_path, decay)
    for known in (group, None):
        pairs = (one.predict(X, known, return_std=True) for one in (back, model))
        np.testing.assert_array_equal(*pairs)
    assert back.summary() == model.summary()
    assert vars(back).keys() == vars(model).keys()
    pd.testing.assert_frame_equal(back.group_parameters_, model.group_parameters_)
    again = back.with_groups(X[:10], y[:10], group[:10])
    np.testing.assert_allclose(again.predict(X[:10], group[:10]), model.predict(X[:10], group[:10]))
    assert again.groups_ == [0, 1]
    np.testing.assert_array_equal(again.predict(X[10:], group[10:]), model.predict(X[10:]))
    save(MetaRegressor("linear").fit(X, y), tmp_path)
    with pytest.raises(InputError, match="A curve was given"):
        load(tmp_path, decay)


@pytest.mark.parametrize(
    "names",
    [
        list(range(6)),
        [0.5, 1.5, -2.0, 1e300, 3.0, 4.0],
        ["001", "1", "ä", "", "a\nb", "\x00"],
        [datetime.date(2031, 1, day) for day in range(1, 7)],
        [datetime.datetime(2031, 1, 1, hour, tzinfo=datetime.UTC) for hour in range(6)],
        [("a", 1), ("a", 2), ("b", 1), 1, "1", True],
    ],
    ids=["whole", "numbers", "texts", "dates", "times", "mixed"],
)
def test_names_of_groups_stay_what_they_are(names, fitted, tmp_path):
    model, X, y, _ = fitted
    groups = np.empty(len(X), object)
    groups[:] = [name for name in names for _ in range(5)]
    other = model.with_groups(X, y, groups)
    save(other, tmp_path)
    back = load(tmp_path)
    assert back.groups_ == other.groups_
    assert list(map(type, back.groups_)) == list(map(type, other.groups_))
    np.testing.assert_array_equal(back.predict(X, groups=groups), other.predict(X, groups=groups))


def test_an_array_without_groups_or_names_is_saved_too(tmp_path):
    X = np.random.default_rng(0).normal(size=(30, 2))
    model = MetaRegressor("linear").fit(X, X[:, 0])
    save(model, tmp_path)
    np.testing.assert_array_equal(load(tmp_path).predict(X), model.predict(X))


def test_groups_are_adapted_side_by_side_as_one_by_one(fitted):
    model, X, y, groups = fitted
    other = model.with_groups(X[:12], y[:12], groups[:12])
    assert other.groups_ == ["s0", "s1", "s2"]
    assert model.groups_ == [f"s{i}" for i in range(6)]
    for name in other.groups_:
        own = groups[:12] == name
        alone = model.adapt(X[:12][own], y[:12][own])
        found = other.predict(X, groups=np.full(len(X), name), return_std=True)
        for ours, theirs in zip(found, alone.predict(X, return_std=True), strict=True):
            np.testing.assert_allclose(ours, theirs)
    nobody = model.with_groups(X[:0], y[:0], groups[:0])
    np.testing.assert_allclose(nobody.predict(X, groups=groups), model.predict(X))


def test_what_cannot_be_saved_is_said(fitted, tmp_path):
    model, X, y, _ = fitted
    with pytest.raises(NotFittedError):
        save(MetaRegressor(), tmp_path)
    with pytest.raises(InputError, match=r"LinearRegression.*MetaRegressor"):
        save(LinearRegression(), tmp_path)
    odd = model.with_groups(X, y, np.repeat(np.array([b"a", *"bcdef"], object), 5))
    with pytest.raises(InputError, match="A bytes cannot be saved: b'a'"):
        save(odd, tmp_path)
    assert not list(tmp_path.iterdir())


def changed(change):
    def spoil(folder):
        record = json.loads((folder / "model.json").read_text())
        change(record)
        (folder / "model.json").write_text(json.dumps(record))

    return spoil


def pickled(folder):
    """Arrays in which a stranger has put an object, with the right checksum beside them."""
    import hashlib

    class Harm:
        def __reduce__(self):
            return (pytest.fail, ("a stranger's code was run",))

    names = np.load(folder / "model.npz").files
    np.savez(folder / "model.npz", **dict.fromkeys(names, np.array([Harm()], object)))
    found = hashlib.sha256((folder / "model.npz").read_bytes()).hexdigest()
    changed(lambda record: record.update(checksum=found))(folder)


def cut(folder):
    whole = (folder / "model.npz").read_bytes()
    (folder / "model.npz").write_bytes(whole[:-100])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "model.json").unlink(), "is missing"),
        (lambda folder: (folder / "model.npz").unlink(), "is missing"),
        (lambda folder: (folder / "model.json").write_text("[]"), "is broken"),
        (lambda folder: (folder / "model.json").write_text("[" * 10**5), "is broken"),
        (lambda folder: (folder / "model.json").write_bytes(b"\xff"), "no UTF-8"),
        (lambda folder: (folder / "model.json").write_bytes(pickle.dumps(1)), "no UTF-8"),
        (changed(lambda record: record.update(format=2)), "of format 2. Allowed: format 1"),
        (changed(lambda record: record.pop("checksum")), "is broken"),
        (changed(lambda record: record.update(model=[1])), "holds no estimator"),
        (changed(lambda record: record.update(model={"Popen": {"args": "x"}})), "is broken"),
        (changed(lambda record: record.update(model={"array": "zz"})), "is broken"),
        (cut, "is damaged"),
        (pickled, "is broken"),
    ],
)
def test_what_is_damaged_or_a_stranger_s_is_refused(spoil, words, folder):
    spoil(folder)
    with pytest.raises(InputError, match=words):
        load(folder)
