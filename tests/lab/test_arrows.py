"""Four arrows: against the library's own averages, and played in a browser."""

import functools

import jax
import numpy as np
import pytest
from lab_browser import eventually, model, show, slide

from pullback.lab import landscapes
from pullback.lab.rooms.arrows import mathematics, view
from pullback.lab.rooms.arrows.view import START, Settings

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.mark.parametrize("kind", landscapes.KINDS)
def test_directions_are_means_over_the_tasks(kind):
    theta = np.array([0.3, -0.7], np.float32)
    found = mathematics.meta_gradients(kind, 3, np.tile(theta, (4, 1)), 0.8)
    for row, name in enumerate(mathematics.NAMES):
        algorithm = mathematics.make_algorithm(name, 3, 0.8)
        each = [
            algorithm.meta_gradient(theta, task, jax.random.key(0))[1]
            for task in landscapes.tasks(kind, 3)
        ]
        np.testing.assert_allclose(found.gradients[row], np.mean(each, axis=0), atol=1e-4)


def test_the_directions_at_the_start_are_those_of_the_text_in_python():
    shown = {}
    exec(view.CODE, shown)
    found = mathematics.meta_gradients("valley", 5, np.tile(START, (4, 1)), 1.0)
    np.testing.assert_allclose(found.gradients, -np.stack(shown["arrows"]), atol=1e-4)


def test_on_the_quadratics_products_and_solves_shrink_every_direction():
    for task in landscapes.tasks("quadratic", 3):
        curved = np.linalg.eigvalsh(jax.hessian(landscapes.loss)(np.ones(2), task.support))
        factors = 1 - mathematics.INNER_RATE * curved
        assert (factors > 0).all() and (factors < 1).all()
        shares = [strength / (curved + strength) for strength in (0.01, 1.0, 100.0)]
        assert (np.diff(shares, axis=0) > 0).all() and np.max(shares) < 1


@pytest.mark.parametrize("steps", [1, 2, 32])
@pytest.mark.parametrize("kind", landscapes.KINDS)
def test_inner_steps_go_down_from_everywhere_in_the_figure(kind, steps):
    axis = landscapes.grid(points=25)
    thetas = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

    def values(theta, task, strength, name):
        algorithm = mathematics.make_algorithm(name, steps, strength)
        phi, _ = algorithm.adapt(theta, task.support, jax.random.key(0))
        before, after = (landscapes.loss(at, task.support) for at in (theta, phi))
        pull = strength if name == "imaml" else 0.0
        return before, after + 0.5 * pull * jax.numpy.sum((phi - theta) ** 2)

    for name, strengths in (("imaml", [0.01, 3.0, 4.0, 100.0]), ("maml", [0.0])):
        over_thetas = jax.vmap(functools.partial(values, name=name), (0, None, None))
        over_tasks = jax.vmap(over_thetas, (None, 0, None))
        everywhere = jax.jit(jax.vmap(over_tasks, (None, None, 0)))
        tasks = mathematics.stacked_tasks(kind)
        before, after = everywhere(thetas, tasks, np.asarray(strengths, np.float32))
        assert (np.asarray(after) <= np.asarray(before) + 1e-5).all()


@pytest.mark.parametrize("strength", [0.01, 4.0, 100.0])
@pytest.mark.parametrize("kind", landscapes.KINDS)
def test_imamls_direction_is_the_dense_solve_where_the_steps_end(kind, strength):
    algorithm = mathematics.make_algorithm("imaml", 3, strength)
    found = mathematics.meta_gradients(kind, 3, np.tile(START, (4, 1)), strength)
    each, least = [], np.inf
    for task in landscapes.tasks(kind, 3):
        phi, _ = algorithm.adapt(jax.numpy.asarray(START), task.support, jax.random.key(0))
        curved = np.asarray(jax.hessian(landscapes.loss)(phi, task.support), float)
        operator = curved + strength * np.eye(2)
        least = min(least, np.linalg.eigvalsh(operator).min())
        slope = np.asarray(jax.grad(landscapes.loss)(phi, task.query), float)
        each.append(strength * np.linalg.solve(operator, slope))
    if least > 0:
        np.testing.assert_allclose(found.gradients[0], np.mean(each, axis=0), rtol=1e-3, atol=1e-4)
    else:
        # There is no minimum of the inner problem where the steps end, and the page says so.
        assert found.codes.any() and strength < 4.0 and kind != "quadratic"


def test_maml_is_the_slope_of_its_outer_loss():
    theta, step = np.array([0.4, 0.2]), 0.02
    found = mathematics.meta_gradients("quadratic", 2, np.tile(theta, (4, 1)), 1.0)
    values = mathematics.outer_loss("quadratic", 1.0, np.array([0.4 - step, 0.4 + step]), 2)
    # Central differences along the first parameter, between the two values of the second.
    slope = (values[:, 1] - values[:, 0]).mean() / (2 * step)
    there = mathematics.meta_gradients("quadratic", 2, np.tile([0.4, 0.4], (4, 1)), 1.0)
    assert slope == pytest.approx(there.gradients[1, 0], abs=2e-3)
    assert np.isfinite(found.losses).all()


def test_angles_of_known_directions():
    turned = mathematics.angles(np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0], [0.0, 0.0]]))
    assert turned[0, 1] == pytest.approx(90)
    assert turned[0, 2] == pytest.approx(180)
    assert np.isnan(turned[0, 3])


def test_only_maml_stores_more_for_more_steps():
    stored = {
        name: [mathematics.cost(name, steps, 2).stored for steps in (3, 12)]
        for name in mathematics.NAMES
    }
    assert stored["maml"][1] > 2 * stored["maml"][0]
    assert all(stored[name][0] == stored[name][1] for name in ("imaml", "fomaml", "reptile"))


@pytest.mark.parametrize("strength", [0.01, 100.0])
@pytest.mark.parametrize("kind", landscapes.KINDS)
def test_long_play_stays_finite(kind, strength):
    thetas = np.tile([3.0, 3.0], (4, 1))
    for _ in range(20):
        found = mathematics.meta_gradients(kind, 5, thetas, strength)
        thetas = view.meta_step(thetas, found)
        assert np.isfinite(thetas).all()
        settings = Settings(kind, 5, strength, tuple(map(tuple, thetas)))
        assert "nan" not in view.tables(settings, found, 1).lower()


def places(page):
    data = model(page, "arrows-points", "data")
    if data is None or len(data["x"]) < 4:
        return None
    return np.stack([data["x"], data["y"]], axis=1)


def at(page, wanted) -> bool:
    def close():
        found = places(page)
        return found is not None and np.allclose(found, wanted, atol=1e-3)

    return eventually(close, 60)


def test_step_play_and_reset(visit):
    page = visit()
    show(page, "arrows")
    start = np.tile(START, (4, 1))
    assert at(page, start)
    page.locator("#arrows").get_by_role("button", name="Step").click()
    once = view.meta_step(start, mathematics.meta_gradients("valley", 5, start, 1.0))
    assert at(page, once)
    page.locator("#arrows").get_by_role("button", name="Play").click()
    twice = view.meta_step(once, mathematics.meta_gradients("valley", 5, once, 1.0))
    far = np.linalg.norm(twice - start, axis=1)

    def further():
        found = places(page)
        return found is not None and (np.linalg.norm(found - start, axis=1) >= far - 1e-3).all()

    assert eventually(further, 60)
    page.locator("#arrows").get_by_role("button", name="Pause").click()
    page.locator("#arrows").get_by_role("button", name="Reset").click()
    assert at(page, start)
    slide(page, "arrows", 0, 1)
    # Eight gradients in the inner loop, and two at its end.
    ten = page.get_by_role("cell", name="10", exact=True)
    page.locator("#arrows tr", has_text="iMAML").filter(has=ten).first.wait_for()
    page.locator("#arrows").get_by_role("button", name="Step").click()
    assert at(page, view.meta_step(start, mathematics.meta_gradients("valley", 8, start, 1.0)))
