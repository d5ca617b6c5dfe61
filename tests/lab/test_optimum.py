"""Which optimum? What the room computes, against the study and in extremes."""

import jax
import numpy as np
import pytest

from pullback.lab.rooms.optimum import mathematics
from pullback.lab.rooms.optimum import view as room
from pullback.lab.rooms.optimum.mathematics import Settings, descend
from pullback.study import noise
from pullback.study.wells import optima

SETTINGS = Settings(theta=0.55, strength=1.0, noise=6.0, steps=20, seed=0)


@pytest.fixture(scope="module")
def descents(tiny):
    return descend(SETTINGS)


def test_descents_end_in_the_studys_optima(descents):
    with jax.enable_x64(True):
        there = optima(noise.inner_problem(noise.FULL, 0.55), *noise.RANGE)
    found = [well.phi for well in descents.wells]
    assert len(found) >= 2
    assert all(np.abs(there - phi).min() < 1e-8 for phi in found)
    assert sum(well.runs for well in descents.wells) == mathematics.RUNS
    assert (descents.well >= 0).all()


def test_all_runs_of_a_well_have_its_implicit_gradient(descents):
    for well in descents.wells:
        curvature = 10.0 * np.cos(2 * np.pi * well.phi)
        by_hand = 1.0 / (curvature + 1.0) * (well.phi - 1.5)
        assert well.gradient == pytest.approx(by_hand, rel=1e-6)
    mean = sum(w.runs * w.gradient for w in descents.wells) / mathematics.RUNS
    assert descents.implicit["mean"] == pytest.approx(mean)


def test_with_several_wells_the_average_is_not_the_derivative(descents):
    gap = descents.true["mean"] - descents.implicit["mean"]
    assert abs(gap) > 2 * (descents.true["interval"] + descents.implicit["interval"])


def test_with_one_well_it_is(tiny):
    found = descend(SETTINGS._replace(strength=30.0))
    assert len(found.wells) == 1
    assert found.true["mean"] == pytest.approx(found.implicit["mean"], rel=0.02)


@pytest.mark.parametrize("theta", [-1.0, 0.5, 2.0])
@pytest.mark.parametrize("strength", [0.1, 10.0, 100.0])
@pytest.mark.parametrize("noise_", [0.01, 20.0])
def test_extremes_are_said_in_words(tiny, theta, strength, noise_):
    computed = room.compute(Settings(theta, strength, noise_, 20, 1))
    found = computed.descents
    text = room.readings(found).lower()
    assert "nan" not in text and "inf<" not in text
    assert all(np.isfinite(line).all() for line in computed.curves)
    bars = room.histogram(found)
    inside = (found.raw >= room.X_RANGE[0]) & (found.raw <= room.X_RANGE[1])
    heights = np.subtract(bars["top"], bars["bottom"])
    assert heights.sum() == inside.sum()
