"""Which optimum? What the room computes, against the study and an independent computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.ndimage import gaussian_filter1d
from scipy.special import ndtr

from pullback.lab.rooms.optimum import mathematics
from pullback.lab.rooms.optimum import view as room
from pullback.lab.rooms.optimum.mathematics import RUNS, Settings, descend
from pullback.study import noise
from pullback.study.wells import loss, optima

SETTINGS = room.START
RIDGE = 0.53
"""θ at the top of a ridge of the support loss; at λ = 10 the inner loss has no curvature there."""


@pytest.fixture(scope="module")
def descents(tiny):
    return descend(SETTINGS)


# In NumPy alone, from the formulas of docs/study.md.


def slope(phi, theta, strength):
    return 10.0 / (2 * np.pi) * np.sin(2 * np.pi * phi) + 0.3 + strength * (phi - theta)


def curvature(phi, strength):
    return 10.0 * np.cos(2 * np.pi * phi) + strength


def rates(settings):
    return 0.55 / (10.0 + settings.strength) / (1.0 + np.arange(settings.steps) / 20.0)


def stationary(settings):
    """Optima and ridges: the gradient is monotone between the points where it has no slope."""
    theta, strength = settings.theta, settings.strength
    reach = 2.0 / strength
    turns = np.zeros(0)
    if strength < 10:
        turn = np.arccos(-strength / 10.0) / (2 * np.pi)
        whole = np.arange(np.floor(theta - reach), np.ceil(theta + reach) + 1)
        turns = np.sort(np.concatenate([whole - turn, whole + turn]))
        turns = turns[np.abs(turns - theta) < reach]
    ends = np.concatenate([[theta - reach], turns, [theta + reach]])
    low, high = ends[:-1], ends[1:]
    signs = np.sign(slope(ends, theta, strength))
    crossed = signs[:-1] != signs[1:]
    low, high, rising = low[crossed], high[crossed], signs[1:][crossed]
    for _ in range(80):
        middle = 0.5 * (low + high)
        above = slope(middle, theta, strength) * rising > 0
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return low[rising > 0], low[rising < 0]


def distribution(settings):
    """The distribution function of where the noisy steps stop, on a grid: step by step, φ moves
    by the gradient and is blurred by the noise."""
    theta, strength = settings.theta, settings.strength
    eta = rates(settings)
    blur = eta * settings.noise
    reach = 1.2 + 9 * np.linalg.norm(blur)
    grid = np.linspace(theta - reach, theta + reach, max(2000, int(5 * reach / blur.min())))
    spacing = grid[1] - grid[0]
    below = ndtr((grid - theta + eta[0] * slope(theta, theta, strength)) / blur[0])
    for rate, width in zip(eta[1:], blur[1:], strict=True):
        moved = grid - rate * slope(grid, theta, strength)
        inside = CubicSpline(moved, below)(grid)
        below = np.where(grid < moved[0], 0.0, np.where(grid > moved[-1], 1.0, inside))
        below = gaussian_filter1d(below, width / spacing, mode="nearest", truncate=8)
    return lambda phi: np.interp(phi, grid, below, left=0.0, right=1.0)


def exact(settings):
    """The odds of each well, its implicit gradient, and the derivative of the expected loss."""
    wells, ridges = stationary(settings)
    strength = settings.strength
    gradients = strength / curvature(wells, strength) * (wells - 1.5)
    if not len(ridges):
        return np.ones(1), gradients, gradients[0]
    odds = np.clip(np.diff(distribution(settings)(ridges), prepend=0.0, append=1.0), 0.0, 1.0)
    motions = strength / curvature(ridges, strength)
    h = min(0.01, rates(settings)[0] * settings.noise / 20) / max(1.0, np.abs(motions).max())
    below = [
        distribution(settings._replace(theta=settings.theta + move))(ridges + move * motions)
        for move in (h, -h)
    ]
    steps = np.diff(0.5 * (wells - 1.5) ** 2)
    return odds, gradients, odds @ gradients - steps @ (below[0] - below[1]) / (2 * h)


def plain_descents(settings):
    """Where the shown runs stop and their gradients through the noise, from the same noise."""
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(settings.seed), mathematics.MANY)[:RUNS]
        draws = np.asarray(jax.vmap(lambda key: jax.random.normal(key, (settings.steps,)))(keys))
    phi, tangent = np.full(RUNS, settings.theta), np.ones(RUNS)
    for rate, draw in zip(rates(settings), draws.T, strict=True):
        step = slope(phi, settings.theta, settings.strength) + settings.noise * draw
        turn = 1.0 - rate * curvature(phi, settings.strength)
        phi, tangent = phi - rate * step, turn * tangent + rate * settings.strength
    return phi, tangent * (phi - 1.5)


CORNERS = [
    Settings(theta, strength, noise_, 5, 1)
    for theta in (-1.0, RIDGE, 0.55, 2.0)
    for strength in (0.1, 1.0, 10**0.95, 10.0, 10**1.7, 100.0)
    for noise_ in (0.01, 6.0, 20.0)
    if (strength, noise_) != (10**0.95, 0.01)
]
LONG = [
    Settings(theta, strength, noise_, 80, 1)
    for theta, strength, noise_ in (
        (-1.0, 0.1, 20.0), (RIDGE, 0.1, 20.0), (RIDGE, 1.0, 0.01), (0.55, 1.0, 6.0),
        (RIDGE, 10**0.95, 6.0), (0.55, 10.0, 20.0), (RIDGE, 100.0, 0.01), (2.0, 100.0, 20.0),
    )
]  # fmt: skip


@pytest.mark.parametrize("settings", CORNERS + LONG, ids=str)
def test_numbers_are_those_of_an_independent_computation(tiny, settings):
    found = descend(settings)
    raw, unrolled = plain_descents(settings)
    np.testing.assert_allclose(found.raw, raw, atol=1e-9)
    scale = max(1.0, np.abs(unrolled).max())
    assert found.largest == pytest.approx(np.abs(unrolled).max(), rel=1e-6)
    assert found.unrolled["mean"] == pytest.approx(unrolled.mean(), abs=1e-7 * scale)
    if (settings.theta, settings.strength) == (RIDGE, 10.0):
        assert np.isnan([found.true["mean"], found.implicit["mean"]]).all()
        return
    odds, gradients, true = exact(settings)
    wells, ridges = stationary(settings)
    kept = np.unique(np.searchsorted(ridges, raw))
    np.testing.assert_allclose([well.phi for well in found.wells], wells[kept], atol=1e-9)
    np.testing.assert_allclose([w.gradient for w in found.wells], gradients[kept], rtol=1e-6)
    shares = np.zeros(len(odds))
    shares[kept] = [well.runs / RUNS for well in found.wells]
    assert (np.abs(shares - odds) < 4.5 * np.sqrt(odds * (1 - odds) / RUNS) + 1 / RUNS).all()
    interval = found.true["interval"]
    assert interval < 0.1 * abs(true) + 0.5
    assert found.true["mean"] == pytest.approx(true, abs=2 * interval + 1e-3 * abs(true))


@pytest.mark.parametrize("settings", CORNERS + LONG, ids=str)
def test_extremes_are_bounded_and_said_in_words(tiny, settings):
    computed = room.compute(settings)
    found = computed.descents
    text = room.readings(found).lower()
    assert "nan" not in text and "inf<" not in text
    assert all(np.isfinite(line).all() for line in computed.curves)
    # No noise that comes up takes a run further than this, and no path grows faster.
    eta = rates(settings)
    assert np.abs(found.raw - settings.theta).max() < eta.sum() * (2 + 4 * settings.noise)
    growth = np.prod(1 + eta * max(0.0, 10.0 - settings.strength))
    growth *= 1 + settings.strength * eta.sum()
    assert found.largest <= growth * np.abs(found.raw - 1.5).max()
    assert sum(well.runs for well in found.wells) == RUNS
    bars = room.histogram(found)
    inside = (found.raw >= room.X_RANGE[0]) & (found.raw <= room.X_RANGE[1])
    heights = np.subtract(bars["top"], bars["bottom"])
    assert heights.sum() == inside.sum()


def test_the_interval_is_honest_where_few_runs_pass_a_ridge(tiny):
    settings = Settings(RIDGE, 10**0.95, 0.01, 5, 0)
    _, _, true = exact(settings)
    many = [descend(settings._replace(seed=seed)).true for seed in range(12)]
    interval = float(np.mean([found["interval"] for found in many])) / 12**0.5
    assert interval < 0.5 * abs(true)
    assert np.mean([found["mean"] for found in many]) == pytest.approx(true, abs=2 * interval)


def test_descents_end_in_the_studys_optima(descents):
    with jax.enable_x64(True):
        there = optima(noise.inner_problem(noise.FULL, 0.55), *noise.RANGE)
    found = [well.phi for well in descents.wells]
    assert len(found) >= 2
    assert all(np.abs(there - phi).min() < 1e-8 for phi in found)


@pytest.mark.parametrize("strength", [0.1, 1.0, 10**0.9, 100.0])
def test_following_the_gradient_leads_to_the_optimum_between_the_ridges(tiny, strength):
    found = descend(SETTINGS._replace(strength=strength))
    phi, rate = found.raw, 0.55 / (10.0 + strength)
    for _ in range(3000):
        phi = phi - rate * slope(phi, SETTINGS.theta, strength)
    np.testing.assert_allclose(phi, [found.wells[k].phi for k in found.well], atol=1e-9)


def test_all_wells_have_room_where_there_are_most(tiny):
    for theta in np.linspace(-1.0, 2.0, 7):
        there = mathematics.landscape(theta, 0.1)
        wells, ridges = stationary(SETTINGS._replace(theta=theta, strength=0.1))
        assert len(wells) + len(ridges) <= 65 < mathematics.ROOM_FOR
        np.testing.assert_allclose(there.optima, wells, atol=1e-9)
        np.testing.assert_allclose(there.ridges, ridges, atol=1e-9)


def test_unrolled_gradients_differ_from_run_to_run_and_implicit_ones_do_not(descents):
    mean = sum(w.runs * w.gradient for w in descents.wells) / RUNS
    assert descents.implicit["mean"] == pytest.approx(mean)
    for noise_ in (0.01, 20.0):
        found = descend(SETTINGS._replace(strength=30.0, noise=noise_))
        assert len(found.wells) == 1
        assert found.implicit["interval"] < 1e-12 < found.unrolled["interval"]


def test_from_ten_on_one_well_is_left_and_the_two_agree(tiny):
    # The curvature is nowhere negative, so that there is one optimum.
    assert (curvature(np.linspace(0, 1, 1001), 10.0) >= -1e-12).all()
    for settings in CORNERS + LONG:
        if settings.strength >= 10 and settings != (RIDGE, 10.0, *settings[2:]):
            found = descend(settings)
            assert found.true["mean"] == pytest.approx(found.implicit["mean"], rel=1e-9)


def test_on_a_ridge_the_two_part_as_the_noise_is_turned_down(tiny):
    assert slope(RIDGE, RIDGE, 1.0) == pytest.approx(0.0, abs=5e-3)
    assert curvature(RIDGE, 0.0) < 0
    for steps in mathematics.STEPS:
        gaps = []
        for noise_ in (6.0, 0.51, 0.01):
            found = descend(Settings(RIDGE, 1.0, noise_, steps, 0))
            gaps.append(abs(found.true["mean"] - found.implicit["mean"]))
            assert gaps[-1] > 2 * (found.true["interval"] + found.implicit["interval"])
        assert gaps == sorted(gaps)


def test_an_optimum_without_a_derivative_is_said_to_have_none(tiny):
    text = room.readings(descend(Settings(RIDGE, 10.0, 6.0, 5, 0)))
    # In its row, in the average and for the expected loss.
    assert text.count("no derivative") == 3


def test_the_wells_are_near_whole_numbers():
    phi = np.linspace(-1.5, 2.5, 4001)
    values = np.asarray(loss(jnp.asarray(phi), noise.SUPPORT))
    lowest = phi[1:-1][(values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])]
    assert len(lowest) == 4 and np.abs(lowest - np.round(lowest)).max() < 0.05


@pytest.mark.parametrize("settings", [SETTINGS, CORNERS[0], LONG[2]], ids=str)
def test_the_text_in_python_gives_the_numbers_of_the_room(tiny, settings):
    shown: dict = {}
    exec(room.code(settings), shown)
    assert room.readings(shown["descents"]) == room.readings(descend(settings))
