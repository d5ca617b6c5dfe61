"""The pull: its mathematics, and the figure in a browser."""

import jax
import numpy as np
import pytest
from lab_browser import drag, eventually, model, pixel, show, slide

from pullback.lab import landscapes
from pullback.lab.rooms.pull import mathematics, view
from pullback.lab.rooms.pull.view import START, Settings

pytestmark = pytest.mark.usefixtures("tiny")
STRENGTH = np.array([0.5, 0.5])


def closed_form(task, theta, strength):
    """φ* and dφ*/dθ of a quadratic, by its Hessian."""
    hessian = np.asarray(jax.hessian(landscapes.loss)(theta, task.support))
    whole = hessian + np.diag(strength)
    pulled = hessian @ np.asarray(task.support.centre) + strength * theta
    return np.linalg.solve(whole, pulled), np.linalg.solve(whole, np.diag(strength)), hessian


@pytest.mark.parametrize("solver", mathematics.SOLVERS)
@pytest.mark.parametrize("strength", [STRENGTH, np.array([0.02, 5.0])])
def test_quadratic_has_its_closed_form(solver, strength):
    theta = np.array([0.4, -1.0], np.float32)
    task = landscapes.tasks("quadratic")[0]
    optimum, jacobian, hessian = closed_form(task, theta, strength)
    found = mathematics.solve_task(solver, theta, strength, task)
    np.testing.assert_allclose(found.optimum, optimum, atol=2e-3)
    np.testing.assert_allclose(found.jacobian, jacobian, atol=1e-3)
    np.testing.assert_allclose(found.path[0], theta, atol=1e-6)
    np.testing.assert_allclose(found.path[-1], found.phi)
    if solver in ("lbfgs", "newton-cg"):
        outer = hessian @ (optimum - np.asarray(task.query.centre))
        np.testing.assert_allclose(found.meta_gradient, jacobian.T @ outer, atol=2e-3)


@pytest.mark.parametrize("solver", ["gradient-descent", "momentum"])
def test_path_is_that_of_a_plain_loop(solver):
    theta, task = np.array([0.4, -1.0]), landscapes.tasks("valley")[0]
    found = mathematics.solve_task(solver, theta, STRENGTH, task)
    # Each step of the path gives away the step size; all must agree, and with the momentum.
    momentum = 0.7 if solver == "momentum" else 0.0
    gradient = jax.grad(landscapes.loss)
    velocity, rates = np.zeros(2), []
    for here, there in zip(found.path[:-1], found.path[1:], strict=True):
        slope = np.asarray(gradient(here, task.support)) + STRENGTH * (here - theta)
        velocity = momentum * velocity + slope
        rates.append(np.dot(here - there, velocity) / np.dot(velocity, velocity))
    np.testing.assert_allclose(rates, rates[0], rtol=5e-2)
    assert len(found.path) == mathematics.STEPS[solver] + 1


@pytest.mark.parametrize("kind", landscapes.KINDS)
@pytest.mark.parametrize("solver", mathematics.SOLVERS)
@pytest.mark.parametrize("strength", [0.01, 100.0])
def test_extremes_stay_finite(kind, solver, strength):
    computed = view.compute(
        Settings(kind, solver, (-3.0, 3.0), (strength, 1.0 / strength), ("loss", "pull", "sum"))
    )
    for found in computed.solutions:
        numbers = (found.path, found.optimum, found.jacobian, found.meta_gradient, found.outer)
        assert all(np.isfinite(number).all() for number in numbers)


def test_weaker_pull_cares_less_for_theta():
    task = landscapes.tasks("quadratic")[0]
    sizes = [
        np.linalg.norm(mathematics.solve_task("lbfgs", np.zeros(2), np.full(2, s), task).jacobian)
        for s in (0.01, 0.1, 1.0, 10.0)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.2


def test_contour_lies_on_its_level():
    axis = landscapes.grid()
    first, second = np.meshgrid(axis, axis)
    x, y = landscapes.contours(axis, first**2 + second**2, np.array([4.0]))
    np.testing.assert_allclose(np.hypot(x, y)[~np.isnan(x)], 2.0, atol=0.01)


def optima(page):
    points = model(page, "pull-points", "data")
    if points is None or len(points["x"]) < 2:
        return None
    return np.stack([points["x"][:2], points["y"][:2]], axis=1)


def expected(theta, strength=10**-0.3, kind="quadratic"):
    settings = Settings(kind, "gradient-descent", theta, (strength, strength), ("loss",))
    return np.stack([found.optimum for found in view.compute(settings).solutions])


def reaches(page, wanted) -> bool:
    def close():
        seen = optima(page)
        return seen is not None and np.allclose(seen, wanted, atol=0.02)

    return eventually(close, 60)


def test_optima_follow_a_drag_as_the_library_computes_them(visit):
    page = visit()
    show(page, "pull")
    assert reaches(page, expected(START))
    drag(page, "pull-figure", START, (1.0, 0.5))
    place = model(page, "pull-theta", "data")
    theta = (place["x"][0], place["y"][0])
    np.testing.assert_allclose(theta, (1.0, 0.5), atol=0.05)
    assert reaches(page, expected(theta))


def test_click_and_number_input_move_theta_too(visit):
    page = visit()
    show(page, "pull")
    assert reaches(page, expected(START))
    page.locator("#pull canvas").first.scroll_into_view_if_needed()
    page.mouse.click(*pixel(page, "pull-figure", 0.5, -0.5))
    assert reaches(page, expected((0.5, -0.5)))
    box = page.locator("#pull input.bk-input").first
    box.fill("-1.0")
    box.press("Enter")
    assert reaches(page, expected((-1.0, -0.5)))


def test_lambda_moves_the_optima(visit):
    page = visit()
    show(page, "pull")
    assert reaches(page, expected(START))
    slide(page, "pull", 0, 10)
    assert reaches(page, expected(START, 10**0.2))


def test_two_visitors_do_not_share_theta(visit):
    first, second = visit(), visit()
    for page in (first, second):
        show(page, "pull")
        assert reaches(page, expected(START))
    drag(first, "pull-figure", START, (1.5, 1.5))
    assert reaches(first, expected((1.5, 1.5)))
    assert reaches(second, expected(START))


def test_finger_drags_on_a_narrow_screen(visit):
    page = visit(width=390, has_touch=True)
    show(page, "pull")
    assert reaches(page, expected(START))
    page.locator("#pull canvas").first.scroll_into_view_if_needed()
    before = page.evaluate("scrollY")
    finger = page.context.new_cdp_session(page)
    for kind, place in (
        ("touchStart", START),
        *(("touchMove", (-0.1 + 0.06 * n, -1.2 + 0.07 * n)) for n in range(1, 11)),
        ("touchEnd", None),
    ):
        points = []
        if place is not None:
            x, y = pixel(page, "pull-figure", *place)
            points = [{"x": x, "y": y}]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    assert reaches(page, expected((0.5, -0.5)))
    assert page.evaluate("scrollY") == before


def test_curve_of_the_same_pull_touches_the_loss():
    settings = Settings("quadratic", "lbfgs", (0.4, -1.0), (0.2, 2.0), ())
    found, task = view.compute(settings).solutions[0], landscapes.tasks("quadratic")[0]
    curve = view.same_pull(np.array(settings.theta), found.optimum, np.array(settings.strength))
    losses = [float(landscapes.loss(point, task.support)) for point in curve.astype(np.float32)]
    # φ* is the lowest point of the loss on its own curve.
    assert float(landscapes.loss(found.optimum, task.support)) <= min(losses) + 1e-4
