"""Inexact meta-gradients: errors that are real, and verdicts that come in time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from lab_browser import eventually, model, show, slide

from pullback import algorithms
from pullback.core.results import Verdict
from pullback.lab.rooms.inexact import mathematics, view
from pullback.lab.rooms.inexact.view import Settings
from pullback.linear import CG
from pullback.solvers import GradientDescent

pytestmark = pytest.mark.usefixtures("tiny")


def computed(strength, steps):
    return view.compute(Settings(strength, steps))


def test_true_gradient_is_that_of_finite_differences():
    strength, step = 2.0, 0.05
    reference = mathematics.reference(strength)
    task = mathematics.task()
    solver = GradientDescent(400, 1.0 / (12.0 + strength))
    algorithm = algorithms.imaml(mathematics.loss, strength=strength, solver=solver)

    def outer(theta):
        phi, _ = algorithm.adapt(theta, task.support, jax.random.key(0))
        return mathematics.loss(phi, task.query)

    for number in (0, 5):
        way = step * jnp.eye(mathematics.SIZE)[number]
        slope = (outer(way) - outer(-way)) / (2 * step)
        assert float(reference.gradient[number]) == pytest.approx(float(slope), abs=5e-3)


def test_path_and_error_are_those_of_the_algorithm():
    strength, steps = 2.0, 7
    found = computed(strength, 4)
    solver = GradientDescent(steps, 1.0 / (12.0 + strength))
    algorithm = algorithms.imaml(
        mathematics.loss, strength=strength, solver=solver, linear_solver=CG(4, rtol=0.0)
    )
    theta, task = jnp.zeros(mathematics.SIZE), mathematics.task()
    phi, _ = algorithm.adapt(theta, task.support, jax.random.key(0))
    np.testing.assert_allclose(found.reference.path[steps], phi, atol=1e-4)
    _, gradient, info = algorithm.meta_gradient(theta, task, jax.random.key(0))
    true, estimates = found.reference.gradient, found.estimates
    error = np.linalg.norm(gradient - true) / np.linalg.norm(true)
    assert estimates.errors[steps] == pytest.approx(error, rel=1e-2)
    assert estimates.info.inner_error[steps] == pytest.approx(float(info.inner_error), rel=1e-2)


def test_more_steps_of_both_make_it_right():
    found = computed(2.0, 16)
    assert found.estimates.errors[-1] < 1e-3
    assert found.estimates.info.code[-1] == Verdict.OK


def test_ridge_is_seen_with_enough_cg_steps_and_left_with_enough_inner_ones():
    found = computed(0.3, 16)
    assert found.reference.eigenvalues[3, 0] < 0
    assert found.estimates.info.code[3] == Verdict.NEGATIVE_CURVATURE
    assert found.estimates.info.smallest_curvature[3] >= found.reference.eigenvalues[3, 0] - 1e-4
    assert found.reference.eigenvalues[-1, 0] > 0
    assert found.estimates.info.code[-1] == Verdict.OK
    assert mathematics.sufficient_strength(found.reference.eigenvalues[3], 0.3) == pytest.approx(
        0.3 - found.reference.eigenvalues[3, 0]
    )


@pytest.mark.parametrize("strength", [10**-1.5, 10**1.5])
@pytest.mark.parametrize("step", [0, mathematics.MAX_INNER_STEPS])
def test_extremes_are_said_in_words(strength, step):
    for steps in (1, 16):
        shown = view.readings(computed(strength, steps), step)
        assert "nan" not in shown.lower()
        assert "inf" not in shown.lower()


def test_verdict_and_curves_follow_the_sliders(visit):
    page = visit()
    show(page, "inexact")
    good = page.locator("#inexact .good", has_text="ok")
    good.first.wait_for()
    data = eventually(lambda: model(page, "inexact-inner", "data"))
    np.testing.assert_allclose(
        data["true"], view.clipped(computed(10**0.3, 8).estimates.errors), rtol=0.02
    )
    slide(page, "inexact", 2, -16)
    slide(page, "inexact", 1, 2)
    slide(page, "inexact", 0, -16)
    verdict = page.locator("#inexact .bad", has_text="negative curvature")
    verdict.first.wait_for()
    eigenvalues = model(page, "inexact-eigenvalues", "data")["x"]
    assert min(eigenvalues) < 0
