"""The pull: its mathematics, and the figure in a browser."""

import functools
import itertools

import jax
import numpy as np
import pytest
from lab_browser import drag, eventually, model, pixel, show, slide
from plain_landscapes import derivatives

import pullback as pb
from pullback.core.problem import InnerProblem
from pullback.lab import landscapes
from pullback.lab.rooms.pull import mathematics, view
from pullback.lab.rooms.pull.code import START, START_SETTINGS, Settings, code
from pullback.solvers import run

pytestmark = pytest.mark.usefixtures("tiny")
THETAS = [(-3.0, -3.0), (-3.0, 3.0), (3.0, -3.0), (3.0, 3.0), START, (0.7, 0.4), (-1.5, 0.9)]
STRENGTHS = [(0.01, 0.01), (0.01, 100.0), (100.0, 0.01), (100.0, 100.0), (0.5, 0.5), (0.1, 4.0)]
LINE_SEARCHED = ("lbfgs", "newton-cg")


def plain_path(name, theta, strength, batch):
    """Gradient descent in a plain loop, its step from a bound on the largest curvature."""
    here = derivatives(theta, batch).hessian + np.diag(strength)
    bound = 2 * np.max(batch.bowl) + 2.4**2 * float(batch.waves) + max(strength)
    step = 0.8 / max(np.abs(here).sum(axis=1).max(), bound)
    path, velocity = [np.array(theta, float)], np.zeros(2)
    for _ in range(mathematics.STEPS[name]):
        slope = derivatives(path[-1], batch).gradient + strength * (path[-1] - theta)
        velocity = (0.7 if name == "momentum" else 0.0) * velocity + slope
        path.append(path[-1] - step * velocity)
    return np.stack(path)


def check_values(values, theta, strength, task):
    """Losses and pull at a point, and the meta-gradient if there is a minimum."""
    support, query = (derivatives(values.phi, batch) for batch in (task.support, task.query))
    assert values.loss == pytest.approx(support.value, rel=1e-6, abs=1e-9)
    assert values.outer == pytest.approx(query.value, rel=1e-6, abs=1e-9)
    pull = 0.5 * np.sum(strength * (values.phi - theta) ** 2)
    assert values.pull == pytest.approx(pull, rel=1e-6, abs=1e-9)
    operator = support.hessian + np.diag(strength)
    if np.linalg.eigvalsh(operator)[0] > 1e-3:
        gradient = strength * np.linalg.solve(operator, query.gradient)
        np.testing.assert_allclose(values.meta_gradient, gradient, rtol=1e-5, atol=1e-9)
    return support, operator


@pytest.mark.parametrize("kind", landscapes.KINDS)
@pytest.mark.parametrize("solver", mathematics.SOLVERS)
def test_numbers_are_those_of_an_independent_computation(kind, solver):
    for *given, task in itertools.product(THETAS, STRENGTHS, landscapes.tasks(kind)):
        theta, strength = (np.asarray(pair, np.float32) for pair in given)
        found = mathematics.solve_task(solver, theta, strength, task)
        support, operator = check_values(found.solved, theta, strength, task)
        # φ* is a minimum, where loss and pull balance.
        balance = support.gradient + strength * (found.solved.phi - theta)
        np.testing.assert_allclose(balance, 0.0, atol=1e-8)
        assert np.linalg.eigvalsh(operator)[0] > 0
        jacobian = np.linalg.solve(operator, np.diag(strength))
        np.testing.assert_allclose(found.jacobian, jacobian, rtol=1e-6, atol=1e-9)
        there, stopped_operator = check_values(found.stopped, theta, strength, task)
        if np.linalg.eigvalsh(stopped_operator)[0] < -1e-3:
            assert found.info.code != pb.Verdict.OK
        slope = there.gradient + strength * (found.stopped.phi - theta)
        size = found.info.inner_residual * np.linalg.norm(there.gradient)
        assert size == pytest.approx(np.linalg.norm(slope), rel=1e-4, abs=1e-9)
        # Nothing diverges: no solver stops higher than it began.
        start = derivatives(theta, task.support).value
        levels = [v.loss + v.pull for v in (found.solved, found.stopped)]
        assert levels[0] <= levels[1] + 1e-5 and levels[1] <= start + 1e-5
        np.testing.assert_allclose(found.path[0], theta, atol=1e-6)
        np.testing.assert_allclose(found.path[-1], found.stopped.phi, atol=1e-6)
        if solver not in LINE_SEARCHED:
            assert np.abs(found.path).max() < 6
            path = plain_path(solver, theta, strength, task.support)
            np.testing.assert_allclose(found.path, path, atol=2e-3)


@pytest.mark.parametrize("kind", landscapes.KINDS)
def test_gradient_descent_never_rises_in_the_figure(kind):
    axis = np.linspace(-3, 3, 13, dtype=np.float32)
    thetas = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)

    def highest(theta, strength, task, name):
        problem = InnerProblem(landscapes.loss, task.support, theta, strength)
        solver = mathematics.make_solver(name, mathematics.largest_curvature(theta, strength, task))
        phi = run(solver, problem, theta, jax.random.key(0)).phi
        return problem.value(theta), problem.value(phi)

    strengths = np.asarray(STRENGTHS, np.float32)
    for name, task in itertools.product(("gradient-descent", "momentum"), landscapes.tasks(kind)):
        each = functools.partial(highest, task=task, name=name)
        before, after = jax.jit(jax.vmap(jax.vmap(each, (None, 0)), (0, None)))(thetas, strengths)
        assert (np.asarray(after) <= np.asarray(before) * (1 + 1e-5) + 1e-6).all()


def test_what_does_not_arrive_is_told_apart_from_the_solution():
    settings = START_SETTINGS._replace(solver="momentum", kind="valley")
    text = view.readings(view.compute(settings))
    first, second = text.split("where the solver stopped")
    found = view.compute(settings).solutions[1]
    assert f"{found.solved.outer:.3f}" in first and f"{found.stopped.outer:.3f}" in second
    assert f"{found.solved.outer:.3f}" != f"{found.stopped.outer:.3f}"


def test_at_the_start_all_solvers_lead_to_one_dotted_arrow():
    arrows = [
        view.meta_gradients(view.compute(START_SETTINGS._replace(solver=name)))
        for name in mathematics.SOLVERS
    ]
    for solved, stopped in arrows:
        np.testing.assert_allclose(solved, arrows[0][0], atol=1e-9)
        assert np.linalg.norm(stopped - solved) < 0.4 * np.linalg.norm(solved)


def test_arrows_point_against_the_slope_of_the_outer_loss():
    def outer(theta):
        computed = view.compute(START_SETTINGS._replace(theta=tuple(theta)))
        return np.mean([found.solved.outer for found in computed.solutions])

    solved, _ = view.meta_gradients(view.compute(START_SETTINGS))
    steps = 0.01 * np.eye(2)
    slopes = [(outer(START + step) - outer(START - step)) / 0.02 for step in steps]
    np.testing.assert_allclose(solved, slopes, rtol=1e-3)


@pytest.mark.parametrize("theta", THETAS)
def test_on_quadratics_a_weaker_pull_is_closer_to_the_loss_and_cares_less_for_theta(theta):
    sliders = 10.0 ** np.arange(-2.0, 2.1, 0.5)
    for task in landscapes.tasks("quadratic"):
        found = [
            mathematics.solve_task("lbfgs", np.array(theta), np.full(2, strength), task)
            for strength in sliders
        ]
        far = [np.linalg.norm(f.solved.phi - task.support.centre) for f in found]
        cares = [np.linalg.norm(f.jacobian) for f in found]
        assert (np.diff(cares) > 0).all() and cares[0] < 0.1
        assert (np.diff(far) >= -1e-12).all()


@pytest.mark.parametrize("kind", landscapes.KINDS)
def test_crosses_are_where_the_query_loss_is_lowest(kind):
    axis = np.linspace(-6, 6, 41)
    for task in landscapes.tasks(kind):
        values = [derivatives(phi, task.query).value for phi in itertools.product(axis, axis)]
        assert min(values) > 0 and derivatives(task.query.centre, task.query).value == 0


@pytest.mark.parametrize(
    "settings",
    [
        START_SETTINGS,
        *(
            START_SETTINGS._replace(solver=name, kind=kind, theta=(1.2, -0.7), strength=(0.3, 2.0))
            for name, kind in (("momentum", "valley"), ("lbfgs", "optima"))
        ),
        START_SETTINGS._replace(solver="newton-cg", theta=(-3.0, 3.0), strength=(100.0, 0.01)),
    ],
    ids=str,
)
def test_the_text_in_python_gives_the_numbers_of_the_room(settings):
    shown: dict = {}
    exec(code(settings), shown)
    for task, found in zip(
        landscapes.tasks(settings.kind), view.compute(settings).solutions, strict=True
    ):
        (phi, outer, gradient, info), solved = shown["solve"](task)
        close = functools.partial(np.testing.assert_allclose, rtol=2e-3, atol=2e-3)
        close(phi, found.stopped.phi)
        close(outer, found.stopped.outer)
        close(gradient, found.stopped.meta_gradient)
        assert info.code == found.info.code
        wanted = (found.solved.phi, found.jacobian, found.solved.outer, found.solved.meta_gradient)
        for ours, theirs in zip(solved, wanted, strict=True):
            close(ours, theirs)


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
    return np.stack([found.solved.phi for found in view.compute(settings).solutions])


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
    wanted = code(START_SETTINGS._replace(strength=(10**0.2, 10**0.2)))
    assert eventually(lambda: page.locator("#pull-code").text_content() == wanted)


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
    curve = view.same_pull(np.array(settings.theta), found.solved.phi, np.array(settings.strength))
    losses = [derivatives(point, task.support).value for point in curve]
    # φ* is the lowest point of the loss on its own curve.
    assert found.solved.loss <= min(losses) + 1e-9
