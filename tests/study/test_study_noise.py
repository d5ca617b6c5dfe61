"""The noisy descents against quadrature, which draws no random number."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from pullback.core.errors import InputError, NumericalError
from pullback.study import noise, wells

pytestmark = pytest.mark.usefixtures("x64")

SMALL = dataclasses.replace(noise.QUICK, thetas=(0.2,), many_steps=(5,))


@pytest.fixture(scope="module")
def measured():
    return noise.measure(SMALL, 0, lambda done: None)


def slope(phi, theta):
    """The gradient of the inner objective, by hand."""
    given = SMALL.support
    wave = given.curvature * np.sin(2 * np.pi * phi) / (2 * np.pi)
    return wave + given.tilt + SMALL.strength * (phi - theta)


def expected_loss(theta, steps):
    """E[L(φ_T, query)] from θ: the recursion u(φ) ← E[u(φ − η(∇ + noise))], backward in time."""
    grid = np.linspace(-7.0, 8.0, 3001)
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    u = 0.5 * SMALL.query.square * (grid - SMALL.query.target) ** 2
    for t in reversed(range(steps)):
        eta = SMALL.learning_rate / (1 + t / SMALL.decay)
        start = grid - eta * slope(grid, theta)
        ends = start[:, None] - eta * SMALL.noise * nodes[None]
        u = CubicSpline(grid, u)(np.clip(ends, grid[0], grid[-1])) @ weights
    return CubicSpline(grid, u)(theta)


@pytest.mark.parametrize("steps", [5, 20])
def test_the_gradient_of_the_expectation_is_that_of_quadrature(measured, steps):
    (line,) = [x for x in (measured["main"], *measured["by_steps"]) if x["steps"] == steps]
    h = 1e-3
    theta = SMALL.theta
    true = (expected_loss(theta + h, steps) - expected_loss(theta - h, steps)) / (2 * h)
    for name in ("unrolled", "difference_raw"):
        assert abs(line[name]["mean"] - true) < 1.6 * line[name]["interval"]
    # And that is far from what implicit gradients average to.
    assert abs(line["implicit"]["mean"] - true) > 1.0


def test_shares_sum_to_one_and_their_slopes_to_zero(measured):
    for line in (measured["main"], *measured["by_theta"], *measured["by_steps"]):
        assert sum(o["share"]["mean"] for o in line["optima"]) == pytest.approx(1)
        slopes = [o["slope_of_share"]["mean"] for o in line["optima"]]
        assert sum(slopes) == pytest.approx(0, abs=1e-9)
    common = [o for o in measured["main"]["optima"] if o["share"]["mean"] > 0.02]
    assert len(common) >= 3


def test_the_implicit_gradients_are_those_of_the_formula(measured):
    total = 0.0
    for optimum in measured["main"]["optima"]:
        phi = optimum["phi"]
        assert abs(slope(phi, SMALL.theta)) < 1e-9
        curved = SMALL.support.curvature * np.cos(2 * np.pi * phi) + SMALL.strength
        assert curved > 0
        formula = SMALL.strength / curved * SMALL.query.square * (phi - SMALL.query.target)
        assert optimum["implicit"] == pytest.approx(formula, rel=1e-9)
        total += optimum["share"]["mean"] * formula
    assert measured["main"]["implicit"]["mean"] == pytest.approx(total, rel=1e-9)


def test_what_is_missing_is_the_change_of_the_odds(measured):
    main = measured["main"]
    assert abs(main["gap"]["mean"]) > 2 * main["gap"]["interval"]
    assert main["gap"]["mean"] == pytest.approx(
        main["difference"]["mean"] - main["implicit"]["mean"]
    )
    assert main["gap"]["mean"] == pytest.approx(main["odds"]["mean"], rel=0.05)
    by_hand = sum(o["slope_of_share"]["mean"] * o["outer_loss"] for o in main["optima"])
    assert main["odds"]["mean"] == pytest.approx(by_hand)


def test_optima_are_all_found(measured):
    problem = noise.inner_problem(SMALL, SMALL.theta)
    found = wells.optima(problem, *noise.RANGE)
    x = np.linspace(*noise.RANGE, 100_001)
    y = slope(x, SMALL.theta)
    crossings = x[:-1][(y[:-1] < 0) & (y[1:] >= 0)]
    np.testing.assert_allclose(found, crossings, atol=1e-4)


def test_a_descent_that_ends_nowhere_is_an_error():
    with pytest.raises(NumericalError, match="did not end in an optimum"):
        noise._sort(np.asarray([0.1, 0.5]), np.asarray([0.1]), 1e-8)


def test_noise_is_drawn_by_the_key_alone():
    problem = noise.inner_problem(SMALL, 0.5)
    solver = wells.NoisyDescent(5, 0.05, 20.0, 6.0)
    ends = [float(solver.solve(problem, problem.theta, jax.random.key(s)).phi) for s in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]
    with pytest.raises(InputError, match="noise"):
        wells.NoisyDescent(5, 0.05, 20.0, -1.0)


def test_a_theta_where_an_optimum_is_about_to_die_is_left_out():
    # At θ = 0.15 a shallow optimum near −1.75 is there on one side of the difference only.
    settings = dataclasses.replace(SMALL, thetas=(0.15, 0.2), many_steps=(), runs=400)
    result = noise.measure(settings, 0, lambda done: None)
    assert result["left_out"] == [0.15]
    assert [line["theta"] for line in result["by_theta"]] == [0.2]
