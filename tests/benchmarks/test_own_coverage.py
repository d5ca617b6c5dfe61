"""What coverage is put down to, on models whose intervals are known."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import own_coverage
from pullback.grouped.held_back import place_in_group
from pullback.sklearn import MetaRegressor


class Walk:
    """A model that expects the sum of a group's rows so far and one more, with no doubt."""

    def __init__(self, sums=()):
        self.sums = dict(sums)

    def with_groups(self, x, y, groups):
        return Walk({g: y[groups == g].sum() for g in np.unique(groups)})

    def predict(self, x, groups=None, return_std=True):
        if groups is None:
            return np.zeros(len(x)), np.full(len(x), 1.0)
        return np.array([self.sums[g] + 1 for g in groups]), np.zeros(len(x))


def test_targets_are_drawn_from_the_predictions_of_the_model(tiny, rng):
    group = np.repeat(np.arange(12), 6)
    own = rng.normal(size=(12, 2))[group]
    x = pd.DataFrame({"Days": np.tile(np.arange(6.0), 12)})
    y = 5 + own[:, 0] + (1 + own[:, 1]) * x.Days.to_numpy() + 0.3 * rng.normal(size=72)
    model = MetaRegressor("linear").fit(x, y, groups=group)
    draws = np.stack([own_coverage.drawn(model, x, group, rng) for _ in range(400)])
    mean, deviation = model.predict(x, return_std=True)
    # Twelve groups of the same six rows: the same mean, and 4,800 draws of it.
    drawn = draws.reshape(-1, 6)
    np.testing.assert_allclose(drawn.mean(0), mean[:6], atol=0.1 * deviation.max())
    np.testing.assert_allclose(drawn.std(0), deviation[:6], rtol=0.05)
    fold = np.zeros(12, int)
    known = [
        own_coverage.covered(lambda *_: model, (x, y, group), place_in_group(group), fold, (0, 2))
        for y in draws[:60]
    ]
    for k in (0, 2):
        assert np.mean([own_coverage.share(one[k]) for one in known]) == pytest.approx(
            0.9, abs=0.02
        )


def test_rows_that_intervals_hold_are_counted_by_group():
    group = np.repeat([0, 1, 2], 3)
    # Expected are 0 of an unknown group, give or take 1.64, and the sum so far and one more.
    y = np.array([0.0, 1.0, 2.0, 2.0, 2.0, 1.0, 5.0, 6.0, 6.0])
    data = pd.DataFrame({"Days": np.arange(9.0)}), y, group
    fold = np.array([0, 1, 0])
    found = own_coverage.covered(lambda *_: Walk(), data, place_in_group(group), fold, (0, 1, 2))
    np.testing.assert_array_equal(found[0], [[2, 3], [1, 3], [0, 3]])
    np.testing.assert_array_equal(found[1], [[1, 2], [0, 2], [2, 2]])
    np.testing.assert_array_equal(found[2], [[1, 1], [0, 1], [0, 1]])
    assert own_coverage.share(found[1]) == 0.5


def test_the_interval_over_groups_is_that_of_a_mean_of_independent_groups(rng):
    rows = 10.0 * np.ones(200)
    alike = np.stack([0.9 * rows, rows], 1)
    np.testing.assert_allclose(own_coverage.spread(alike), (0.9, 0.9))
    # Groups that are held as a whole or not at all: the binomial of 200.
    whole = np.stack([rows * (np.arange(200) < 160), rows], 1)
    low, high = own_coverage.spread(whole)
    error = 1.96 * np.sqrt(0.8 * 0.2 / 200)
    assert low == pytest.approx(0.8 - error, abs=0.01)
    assert high == pytest.approx(0.8 + error, abs=0.01)


def test_reasons_are_told_apart():
    record = {"table": "Milk", "k": 5, "groups": 79, "model known": [0.9], "coverage": 0.8}
    draws = list(np.linspace(0.75, 0.9, 20))

    def of(interval, again):
        return own_coverage.reason({**record, "over groups": interval, "fitted anew": again})

    assert of([0.7, 0.92], draws).startswith("chance")
    assert of([0.7, 0.85], draws).startswith("few groups")
    assert of([0.7, 0.85], [0.9] * 20).startswith("the model")
    table = own_coverage.as_table([{**record, "over groups": [0.7, 0.85], "fitted anew": draws}])
    assert "| Milk | 5 | 79 | 80 | 70 to 85 | 90 | 82 | 76 to 89 | few groups" in table
