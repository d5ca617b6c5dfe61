"""Sine in five points: what the room computes, without a browser."""

import dataclasses

import jax
import numpy as np
import pytest

import pullback as pb
from pullback.lab.rooms.sine import mathematics
from pullback.lab.rooms.sine import view as room
from pullback.lab.session import Session
from pullback.meta import training

SMALL = dataclasses.replace(mathematics.RECIPES["reptile"], steps=3, tasks_per_step=2)
POINTS = np.array([[-1.0, 0.5], [0.5, 2.0], [2.0, -1.0]], np.float32)


def test_a_training_reports_progress_and_is_cached(tmp_path, tiny):
    reported = []
    first = mathematics.train(SMALL, lambda *what: reported.append(what), cache_dir=tmp_path)
    assert reported[0] == (0, 0.0) and reported[-1][0] == 3
    assert first.fresh and first.facts["steps"] == 3 and first.facts["seconds"] > 0
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first.arrays, mathematics.untrained())
    assert max(jax.tree.leaves(moved)) > 0
    again = mathematics.train(SMALL, lambda *_: pytest.fail("trained again"), cache_dir=tmp_path)
    assert not again.fresh and again.facts == first.facts
    jax.tree.map(np.testing.assert_array_equal, again.arrays, first.arrays)


def test_a_fit_is_the_librarys_own_adaptation(tiny):
    theta = mathematics.untrained()
    loss = pb.models.mean_squared_error(mathematics.MODEL.apply)
    support = (POINTS[:, :1], POINTS[:, 1:])
    algorithm = pb.imaml(loss, strength=0.7, solver=pb.solvers.LBFGS(4))
    phi, report = algorithm.adapt(theta, support, jax.random.key(0))
    found = mathematics.fit("imaml", theta, POINTS, 0.7, 4)
    curve = mathematics.MODEL.apply(phi, mathematics.grid()[:, None])[:, 0]
    np.testing.assert_allclose(found.after, curve, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.loss_after, loss(phi, support), rtol=1e-3)
    np.testing.assert_allclose(found.report.inner_residual, report.inner_residual, rtol=0.05)


@pytest.mark.parametrize("recipe", mathematics.RECIPES.values(), ids=mathematics.RECIPES.keys())
def test_no_task_diverges_at_the_start(tiny, recipe):
    # Rounding differs from machine to machine: what diverges for a while, and comes back, on one
    # of them ends in NaN on another.
    result = training.train(
        recipe.algorithm(),
        mathematics.untrained(),
        mathematics.TASKS,
        steps=30,
        key=jax.random.key(mathematics.SEED),
        tasks_per_step=recipe.tasks_per_step,
        optimizer=training.default_optimizer(recipe.steps, recipe.rate),
    )
    assert result.history["loss"].max() < 100.0


@pytest.mark.parametrize("name", mathematics.RECIPES)
@pytest.mark.parametrize("points", [POINTS[:0], 6.0 * np.ones((12, 2), np.float32)])
def test_extremes_are_said_in_words(tiny, name, points):
    for strength in (1e-3, 1e3):
        fit = mathematics.fit(name, mathematics.untrained(), points, strength, 64)
        text = room.readings(dict.fromkeys(room.STYLES, ""), {name: fit}, len(points))
        assert "nan" not in text.lower() and "inf" not in text.lower()


def test_a_strong_pull_keeps_the_curve_and_a_weak_one_meets_the_points(tiny):
    theta = mathematics.untrained()
    strong = mathematics.fit("imaml", theta, POINTS, 1e5, 16)
    weak = mathematics.fit("imaml", theta, POINTS, 1e-3, 16)
    assert np.abs(strong.after - strong.before).max() < 0.1
    assert weak.loss_after < 0.2 * weak.loss_before


def test_a_click_places_a_point_or_takes_one_away():
    points = room.toggled((), 1.0, 2.0)
    assert points == ((1.0, 2.0),)
    assert room.toggled(points, 1.1, 2.1) == ()
    assert room.toggled(points, 99.0, -99.0)[-1] == (5.0, -6.0)
    assert room.toggled(points, float("nan"), 0.0) == points
    for i in range(20):
        points = room.toggled(points, -5 + 0.5 * i, 5.0)
    assert len(points) == mathematics.MAX_POINTS


def test_another_wave_goes_through_its_points():
    points, truth = room.draw_wave(3)
    assert len(points) == 5
    for x, y in points:
        assert np.interp(x, mathematics.grid(), truth) == pytest.approx(y, abs=0.02)


@pytest.mark.filterwarnings("ignore:Widget.name is deprecated")
def test_two_quick_clicks_place_two_points_and_a_double_click_one(tiny, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    view = room._View(Session())
    view._set_points(())
    view._tapped(1.0, 1.0)
    view._tapped(-3.0, 1.0, twice=True)
    assert len(view.points) == 2
    view._tapped(-3.0, 1.0, twice=True)
    assert len(view.points) == 2
    view._tapped(-3.0, 1.0)
    assert view.points == ((1.0, 1.0),)
    assert "trained on the live page" in view.table.object
