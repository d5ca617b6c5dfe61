"""The protocol of held-back groups, on methods whose predictions are known."""

import numpy as np
import pytest
from scipy.stats import norm

from pullback.grouped import held_back

GROUP = np.array([0, 0, 0, 1, 2, 2, 2, 2, 3, 4, 4, 5, 5, 5])
Y = np.arange(14.0)


def mean_of_what_is_seen(train):
    """The mean of a group's own rows, and that of all others where there is none."""
    elsewhere = Y[train].mean()

    def of_one_group(seen, asked):
        mean = Y[seen].mean() if len(seen) else elsewhere
        return np.column_stack([np.full(len(asked), mean), np.ones(len(asked))])

    return held_back.group_by_group(of_one_group, GROUP)


def test_a_group_shows_its_first_rows_and_is_scored_on_the_others():
    place, fold = held_back.place_in_group(GROUP), held_back.deal(6, 0, 3)
    assert sorted(fold.tolist()) == [0, 0, 1, 1, 2, 2]
    asked = []

    def fit(train):
        # All groups of one fold are held back, and no others.
        assert len(set(fold[GROUP[~train]])) == 1
        assert not set(GROUP[train]) & set(GROUP[~train])
        return mean_of_what_is_seen(train)

    def measure(y, predicted):
        asked.append(y)
        return held_back.regression(y, predicted)

    scores = held_back.score(fit, measure, Y, GROUP, place, fold)
    # No group has a sixth row.
    assert list(scores) == [0, 1, 2, 3]
    assert [scores[k]["rows"] for k in scores] == [14, 8, 4, 1]
    for k, found in zip(scores, asked, strict=True):
        np.testing.assert_array_equal(np.sort(found), Y[place >= k])
    # By hand: with two rows seen, each row is off the mean of those.
    means = {0: 0.5, 2: 4.5, 5: 11.5}
    off = [Y[i] - means[GROUP[i]] for i in np.flatnonzero(place >= 2)]
    assert scores[2]["error"] == pytest.approx(np.sqrt(np.mean(np.square(off))))


def test_scores_of_a_regression_by_hand():
    y, predicted = np.array([0.0, 2.0]), np.array([[0.0, 1.0], [0.0, 1.0]])
    found = held_back.regression(y, predicted)
    assert found["error"] == pytest.approx(2**0.5)
    assert found["coverage"] == 0.5
    assert found["width"] == pytest.approx(2 * norm.ppf(0.95))
    assert found["nll"] == pytest.approx(0.5 * np.log(2 * np.pi) + 1)


def test_scores_of_a_classification_by_hand():
    y = np.array([0, 1, 1])
    predicted = np.array([[0.8, 0.2], [0.8, 0.2], [0.0, 1.0]])
    found = held_back.classification(y, predicted)
    assert found["log_loss"] == pytest.approx(-(np.log(0.8) + np.log(0.2)) / 3)
    assert found["accuracy"] == pytest.approx(2 / 3)
    # Two predictions of 80 % of which one is right, and one of 100 % that is.
    assert found["calibration_error"] == pytest.approx(2 / 3 * 0.3)


def test_probabilities_of_the_right_frequencies_are_calibrated():
    rng = np.random.default_rng(0)
    sure = rng.uniform(size=20_000)
    y = (rng.uniform(size=20_000) < sure).astype(int)
    found = held_back.classification(y, np.column_stack([1 - sure, sure]))
    assert found["calibration_error"] < 0.02
    assert found["accuracy"] == pytest.approx(0.75, abs=0.01)
