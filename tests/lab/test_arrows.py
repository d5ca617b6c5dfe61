"""Four arrows: against the library's own averages, and played in a browser."""

import functools
import itertools

import jax
import numpy as np
import pytest
from lab_browser import eventually, model, show, slide
from plain_landscapes import derivatives

from pullback.lab import landscapes
from pullback.lab.rooms.arrows import mathematics, view
from pullback.lab.rooms.arrows.code import START, START_SETTINGS, Settings, code

pytestmark = pytest.mark.usefixtures("tiny")


THETAS = ((-3.0, -3.0), (-3.0, 3.0), (3.0, -3.0), (3.0, 3.0), START, (0.7, 0.4), (-1.5, 0.9))
STRENGTHS = (0.01, 1.0, 4.0, 100.0)


def plain_directions(task, steps, theta, strength):
    """All four directions on one task, and iMAML's H + Λ, in NumPy alone."""

    def descend(pull):
        phi, factor = np.array(theta, float), np.eye(2)
        for _ in range(steps):
            here = derivatives(phi, task.support)
            factor = factor @ (np.eye(2) - here.hessian / 8)
            phi = phi - (here.gradient + pull * (phi - theta)) / (8 + pull)
        return phi, factor

    (pulled, _), (plain, factor) = descend(strength), descend(0.0)
    operator = derivatives(pulled, task.support).hessian + strength * np.eye(2)
    outer = derivatives(plain, task.query).gradient
    return operator, np.stack(
        [
            strength * np.linalg.solve(operator, derivatives(pulled, task.query).gradient),
            factor @ outer,
            outer,
            theta - plain,
        ]
    )


@pytest.mark.parametrize("steps", [1, 5, 32])
@pytest.mark.parametrize("kind", landscapes.KINDS)
def test_the_directions_are_those_of_an_independent_computation(kind, steps):
    for theta, strength in itertools.product(THETAS, STRENGTHS):
        found = mathematics.meta_gradients(kind, steps, np.tile(theta, (4, 1)), strength)
        assert not found.diverged.any() and not found.left.any()
        tasks = landscapes.tasks(kind, 3)
        operators, each = zip(
            *(plain_directions(task, steps, theta, strength) for task in tasks), strict=True
        )
        wanted, least = np.mean(each, axis=0), np.linalg.eigvalsh(operators).min(axis=1)
        np.testing.assert_allclose(found.gradients[1:], wanted[1:], rtol=1e-3, atol=2e-4)
        # Near zero an eigenvalue is known to rounding only, and so is what it divides.
        if least.min() > 0.02:
            np.testing.assert_allclose(found.gradients[0], wanted[0], rtol=1e-3, atol=2e-4)
        assert found.codes[least < -1e-3].all() and np.isfinite(found.gradients).all()
        way = np.arctan2(found.gradients[:, 1], found.gradients[:, 0])
        turned = np.degrees(np.abs((way[:, None] - way + np.pi) % (2 * np.pi) - np.pi))
        np.testing.assert_allclose(mathematics.angles(found.gradients), turned, atol=0.1)


@pytest.mark.parametrize(
    "settings",
    [
        START_SETTINGS,
        START_SETTINGS._replace(kind="optima", steps=1, strength=100.0, meta_steps=2),
        START_SETTINGS._replace(start=(-3.0, 3.0), strength=0.01, meta_steps=1),
    ],
    ids=str,
)
def test_the_text_in_python_prints_what_the_room_shows(settings, capsys):
    thetas = np.tile(settings.start, (4, 1))
    at_start = found = mathematics.meta_gradients(
        settings.kind, settings.steps, thetas, settings.strength
    )
    for _ in range(settings.meta_steps):
        thetas = mathematics.meta_step(thetas, found)
        found = mathematics.meta_gradients(settings.kind, settings.steps, thetas, settings.strength)
    shown: dict = {}
    exec(code(settings), shown)
    np.testing.assert_allclose(list(shown["thetas"].values()), thetas, atol=1e-4)
    np.testing.assert_allclose(
        list(shown["arrows"].values()), -at_start.gradients, rtol=1e-4, atol=1e-4
    )
    first, *_ = said = capsys.readouterr().out.splitlines()
    assert first.startswith("iMAML: θ [") and f"query loss {found.losses[0]:.3f}, length" in first
    angles = mathematics.angles(at_start.gradients)
    assert f"iMAML and MAML: {angles[0, 1]:.0f}°" in said
    assert len(said) == 10


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


def test_what_diverges_or_leaves_the_figure_has_no_numbers(monkeypatch):
    monkeypatch.setattr(mathematics, "INNER_RATE", 3.0)
    # A number of steps that nothing else is compiled for.
    found = mathematics.meta_gradients("quadratic", 7, [START, START, START, (3.5, 0.0)], 0.5)
    assert found.diverged.all() and found.left.tolist() == [False] * 3 + [True]
    assert np.isnan(found.gradients).all() and np.isnan(found.losses).all()
    text = view.tables(START_SETTINGS, found, found)
    assert text.count(">diverged<") == 3 and text.count("left the figure") == 1
    assert "nan" not in text.lower()
    thetas = np.tile(START, (4, 1))
    np.testing.assert_array_equal(mathematics.meta_step(thetas, found), thetas)


@pytest.mark.parametrize("kind", landscapes.KINDS)
def test_imamls_outer_loss_is_the_query_loss_at_its_optimum(kind):
    axis = np.array([-2.9, -0.4, 2.2])
    for strength in (0.01, 1.0):
        values = mathematics.outer_loss(kind, strength, axis)
        for (row, first), (column, second) in itertools.product(enumerate(axis), enumerate(axis)):
            theta, losses = np.array([second, first]), []
            for task in landscapes.tasks(kind, 3):
                phi = theta
                for step in range(330):
                    here = derivatives(phi, task.support)
                    slope = here.gradient + strength * (phi - theta)
                    operator = here.hessian + strength * np.eye(2)
                    # Far from the optimum plain steps, and at last Newton's.
                    phi = phi - (
                        slope / (8 + strength) if step < 300 else np.linalg.solve(operator, slope)
                    )
                assert np.linalg.norm(slope) < 1e-9 and np.linalg.eigvalsh(operator)[0] > 0
                losses.append(derivatives(phi, task.query).value)
            assert values[row, column] == pytest.approx(np.mean(losses), rel=1e-3, abs=1e-3)


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
def test_long_play_shows_numbers_or_says_why_not(kind, strength):
    thetas = np.tile([3.0, 3.0], (4, 1))
    first = found = mathematics.meta_gradients(kind, 5, thetas, strength)
    for step in range(20):
        thetas = mathematics.meta_step(thetas, found)
        found = mathematics.meta_gradients(kind, 5, thetas, strength)
        settings = Settings(kind, 5, strength, (3.0, 3.0), step + 1)
        text = view.tables(settings, found, first)
        assert "nan" not in text.lower() and not found.diverged[~found.left].any()
        assert text.count("left the figure") == found.left.sum()
        assert np.isfinite(thetas).all()


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
    once = mathematics.meta_step(start, mathematics.meta_gradients("valley", 5, start, 1.0))
    assert at(page, once)
    page.locator("#arrows").get_by_role("button", name="Play").click()
    twice = mathematics.meta_step(once, mathematics.meta_gradients("valley", 5, once, 1.0))
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
    assert at(
        page, mathematics.meta_step(start, mathematics.meta_gradients("valley", 8, start, 1.0))
    )
