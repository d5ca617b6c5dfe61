"""Maps, heads and densities of vectors: compared with dense Gaussians and with scikit-learn."""

import numpy as np
import pytest
import scipy.linalg
from scipy.special import softmax
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression

from pullback.grouped import vectors
from pullback.grouped.vectors import Calibration, Head, Played

pytestmark = pytest.mark.usefixtures("tiny")


def drawn(classes, each, dimensions, seed=0, noise=1.0, rank=None):
    """Vectors of classes that differ in the first few directions only."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(classes, dimensions))
    if rank is not None:
        means[:, rank:] = 0.0
    label = np.repeat(np.arange(classes), each)
    return means[label] + noise * rng.normal(size=(len(label), dimensions)), label


def gram(learned, x):
    z = learned(x)
    return z @ z.T


def test_the_map_of_what_separates_classes_is_that_of_dense_covariances():
    x, label = drawn(12, 4, 20)
    learned = vectors.learn_map("between", x, label)
    centre = np.array([x[label == c].mean(0) for c in range(12)]).mean(0)
    z = x - centre
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    means = np.array([z[label == c].mean(0) for c in range(12)])
    within = ((z - means[label]) ** 2).sum() / (48 - 12) / 20
    values, along = np.linalg.eigh(np.cov(means.T) - within / 4 * np.eye(20))
    # Of the covariance less the noise of its own, what is not negative.
    between = (along * np.maximum(values, 0)) @ along.T
    b = vectors.BETWEEN_SHRINKAGE
    between = (1 - b) * between + b * np.trace(between) / 20 * np.eye(20)
    form = between @ np.linalg.inv(within * np.eye(20) + 2 * between)
    wanted = z @ form @ z.T
    unit = np.sqrt(np.diag(wanted))
    np.testing.assert_allclose(gram(learned, x), wanted / np.outer(unit, unit), atol=1e-9)


def test_the_whitened_map_is_that_of_dense_covariances():
    x, label = drawn(12, 4, 5)
    learned = vectors.learn_map("whitened", x, label)
    means = np.array([x[label == c].mean(0) for c in range(12)])
    left, z = x - means[label], x - means.mean(0)

    def shrunk(covariance, by):
        return (1 - by) * covariance + by * np.trace(covariance) / 5 * np.eye(5)

    within = shrunk(left.T @ left / 36, vectors.WITHIN_SHRINKAGE)
    between = shrunk(np.cov(means.T), vectors.BETWEEN_SHRINKAGE)
    # W⁻¹B(W + 2B)⁻¹, but for a factor: that of v / (w (w + 2v)) in the basis of both.
    form = scipy.linalg.inv(within) @ between @ scipy.linalg.inv(within + 2 * between)
    wanted = z @ form @ z.T
    np.testing.assert_allclose(gram(learned, x), wanted * 48 / np.trace(wanted), rtol=1e-9)


def test_one_example_of_each_class_is_compared_by_the_form_that_the_map_has():
    rng = np.random.default_rng(0)
    w, v = 0.7, rng.uniform(0.1, 3, size=4)
    examples, query = rng.normal(size=(2, 4)), rng.normal(size=4)
    # log p(query | example) = log p(both) − log p(example), each under the model's own Gaussian.
    joint = np.block([[np.diag(v + w), np.diag(v)], [np.diag(v), np.diag(v + w)]])
    own = [
        multivariate_normal.logpdf(np.r_[query, e], cov=joint)
        - multivariate_normal.logpdf(e, cov=np.diag(v + w))
        for e in examples
    ]
    form = v / (w * (w + 2 * v))
    # What is left beside the form is of one example alone.
    centre = v / (v + w) * examples
    alone = -0.5 * (centre**2 / (w + v * w / (v + w))).sum(1)
    wanted = (examples * form) @ query + alone
    np.testing.assert_allclose(own[0] - own[1], wanted[0] - wanted[1], rtol=1e-9)


def test_the_density_ratio_is_that_of_the_joint_gaussian():
    rng = np.random.default_rng(0)
    w, v, counts = 0.5, 1.3, np.array([3, 1])
    support = [rng.normal(size=(n, 2)) for n in counts]
    query = rng.normal(size=(5, 2))
    wanted = np.empty((5, 2))
    for c, examples in enumerate(support):
        n = len(examples)
        inner, both = v + w * np.eye(n), v + w * np.eye(n + 1)
        for i, q in enumerate(query):
            wanted[i, c] = sum(
                multivariate_normal.logpdf(np.r_[examples[:, j], q[j]], cov=both)
                - multivariate_normal.logpdf(examples[:, j], cov=inner)
                - multivariate_normal.logpdf(q[j], cov=v + w)
                for j in range(2)
            )
    means = np.array([examples.mean(0) for examples in support])
    found = vectors.density_ratio(query, means, counts, w, v)
    np.testing.assert_allclose(2 * found, wanted.max(1), rtol=1e-9)


def test_the_variances_are_those_of_their_own_samples():
    x, label = drawn(400, 3, 10, noise=0.5)
    np.testing.assert_allclose(vectors.two_variances(x, label), (0.25, 1.0), rtol=0.05)


@pytest.mark.parametrize("dimensions", [4, 60])
def test_the_logistic_head_is_logistic_regression(dimensions):
    x, label = drawn(4, 6, dimensions)
    head = vectors.logistic_head(x, label, 3.0)
    theirs = LogisticRegression(C=3.0, tol=1e-8, max_iter=1000).fit(x, label)
    np.testing.assert_allclose(softmax(head(x), axis=1), theirs.predict_proba(x), atol=2e-3)


def test_classes_of_unequal_counts_weigh_the_same():
    x, label = drawn(3, 4, 6)
    more = np.concatenate([x, x[label == 0]]), np.append(label, np.zeros(4, int))
    one = vectors.logistic_head(x, label, 2.0)
    # Sixteen rows in place of twelve: as strong a head has three quarters of the strength.
    other = vectors.logistic_head(*more, 1.5)
    np.testing.assert_allclose(one(x), other(x), atol=5e-3)
    np.testing.assert_allclose(vectors.centroid_head(*more)(x), vectors.centroid_head(x, label)(x))


def test_the_centroid_head_is_the_nearest_mean():
    x, label = drawn(5, 3, 4)
    means = np.array([x[label == c].mean(0) for c in range(5)])
    apart = ((x[:, None] - means[None]) ** 2).sum(2)
    found = vectors.centroid_head(x, label)(x)
    np.testing.assert_allclose(found - found[:, :1], -0.5 * (apart - apart[:, :1]), atol=1e-12)


def test_a_head_has_one_scale_whatever_its_strength():
    x, label = drawn(4, 2, 6)
    for strength in (0.01, 10.0):
        head = vectors.make_head("logistic", x, label, strength)
        left = head.weight - head.weight.mean(0)
        assert (left**2).sum(1).mean() == pytest.approx(1.0)
    single = vectors.make_head("logistic", x[:2], np.zeros(2, int), 1.0)
    np.testing.assert_array_equal(single(x), np.zeros((8, 1)))


def test_the_temperature_has_its_own_derivative_and_is_found_again():
    rng = np.random.default_rng(0)
    true = np.array([1.0, -0.5, 0.3])
    played = []
    for number in range(40):
        ways, shots = (3, 12)[number % 2], (1, 4)[number // 2 % 2]
        of = np.array([1.0, shots**-0.5, np.log(ways)])
        logits = 2 * rng.normal(size=(60, ways))
        chance = softmax(np.exp(of @ true) * logits, axis=1)
        label = np.array([rng.choice(ways, p=p) for p in chance])
        played.append(Played(logits, label, of, shots))
    at = np.array([0.3, 0.1, 0.2])
    _, slope = vectors._log_loss(played, at)
    for j in range(3):
        step = 1e-6 * np.eye(3)[j]
        up, down = (vectors._log_loss(played, at + s)[0] for s in (step, -step))
        np.testing.assert_allclose(slope[j], (up - down) / 2e-6, rtol=1e-5)
    found, _ = vectors._temper(played)
    for one in played[:4]:
        assert one.situation @ found == pytest.approx(one.situation @ true, abs=0.25)


def test_strengths_lie_between_those_that_were_measured():
    strengths = np.array([1.0, 4.0, 100.0])
    assert vectors.strength_at(strengths, np.array([1, 1])) == pytest.approx(1)
    assert vectors.strength_at(strengths, np.array([1, 4])) == pytest.approx(4)
    assert vectors.strength_at(strengths, np.array([50])) == pytest.approx(100)


def test_classes_that_are_alike_are_held_back_together():
    rng = np.random.default_rng(0)
    kinds = 100 * rng.normal(size=(16, 5))
    means = (kinds[:, None] + rng.normal(size=(16, 2, 5))).reshape(32, 5)
    fold = vectors.groups_of_classes(means, 2).reshape(16, 2)
    assert np.mean(fold[:, 0] == fold[:, 1]) > 0.8
    assert np.bincount(fold.ravel()).tolist() == [16, 16]
    uneven = vectors.groups_of_classes(rng.normal(size=(24, 5)), 2)
    assert np.ptp(np.bincount(uneven)) <= 2


def test_episodes_have_their_examples_apart_from_their_queries():
    label = np.repeat(np.arange(6), [4, 4, 4, 4, 2, 1])
    rng = np.random.default_rng(0)
    found = vectors.episodes(label, np.arange(6), 3, 2, 5, rng)
    assert len(found) == 5
    for one in found:
        assert not set(one.support) & set(one.query)
        names = label[one.support].reshape(3, 2)[:, 0]
        np.testing.assert_array_equal(label[one.support], names[one.label])
        of_class = len(one.query_label)
        np.testing.assert_array_equal(label[one.query[:of_class]], names[one.query_label])
        assert not set(names) & set(label[one.query[of_class:]])
    assert vectors.episodes(label, np.arange(6), 5, 2, 5, rng) == []


def test_methods_are_weighed_on_the_same_episodes_and_the_best_is_taken():
    x, label = drawn(24, 8, 40, noise=0.6, rank=3)
    model, losses = vectors.fit(("centroid", "between"), x, label)
    assert losses["between"] < losses["centroid"] - 0.05
    assert model.method == "between"
    alone, loss = vectors.fit(("centroid",), x, label)
    assert alone.method == "centroid"
    assert loss["centroid"] == losses["centroid"]


def test_heads_are_tempered_and_linear():
    x, label = drawn(4, 2, 6)
    learned = vectors.learn_map("centroid", x, label)
    calibration = Calibration(np.full(3, 10.0), np.array([np.log(3.0), 0.0, 0.0]))
    model = vectors.BaseClasses("centroid", learned, 1.0, 1.0, calibration)
    head = vectors.make_head("centroid", learned(x), label, 10.0)
    wanted = softmax(3 * Head(*head)(learned(x)), axis=1)
    np.testing.assert_allclose(model.adapt(x, label).probabilities(x), wanted)


def test_the_odds_and_the_prior_make_bayes_rule():
    odds = np.array([-2.0, 0.0, 3.0])
    found = vectors.probability_of_none(odds, 0.2)
    np.testing.assert_allclose(found, 0.2 / (0.2 + 0.8 * np.exp(odds)))
