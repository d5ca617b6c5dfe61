import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import Exact

from pullback.algorithms import imaml
from pullback.linear import CG
from pullback.solvers import GradientDescent
from pullback.study import quadratic, tradeoff
from pullback.study.parts import keys_of

pytestmark = pytest.mark.usefixtures("x64")

SMALL = dataclasses.replace(
    tradeoff.QUICK,
    size=8,
    rows=5,
    tasks=3,
    inner_steps=(2, 16, 400),
    linear_steps=(2, 8),
    solve_steps=(2, 8),
)


@pytest.fixture(scope="module")
def measured():
    ticks = []
    result = tradeoff.measure(SMALL, 0, ticks.append)
    assert ticks == list(range(1, SMALL.programs + 1))
    return result


@pytest.fixture(scope="module")
def exact():
    """The same tasks by formulas that know nothing of the study."""
    draws = jax.random.split(keys_of(0, 1), SMALL.tasks + 1)
    theta = np.asarray(jax.random.normal(draws[0], (SMALL.size,)))
    tasks = [quadratic.sample(k, SMALL.size, SMALL.rows, SMALL.spread) for k in draws[1:]]
    strength = np.full(SMALL.size, SMALL.strength)
    return [
        Exact(*(tuple(map(np.asarray, b)) for b in (t.support, t.query)), theta, strength)
        for t in tasks
    ]


def curve(result, algorithm, **more):
    wanted = {"algorithm": algorithm, **more}
    (found,) = [c for c in result["curves"] if wanted.items() <= c.items()]
    return found


def by_formula(exact, gradient):
    """Median relative error of ``gradient(task, steps, rate)`` at every number of steps."""
    return [
        np.median(
            [
                np.linalg.norm(gradient(e, steps, SMALL.learning_rate) - e.meta_gradient)
                / np.linalg.norm(e.meta_gradient)
                for e in exact
            ]
        )
        for steps in SMALL.inner_steps
    ]


@pytest.mark.parametrize(
    ("algorithm", "more", "gradient"),
    [
        (
            "maml",
            {},
            lambda e, n, r: e.jacobian_after(n, r).T @ e.outer_gradient(e.phi_after(n, r)),
        ),
        (
            "imaml",
            {"linear_steps": 8},
            lambda e, n, r: e.jacobian.T @ e.outer_gradient(e.phi_after(n, r)),
        ),
        ("fomaml", {}, lambda e, n, r: e.outer_gradient(e.phi_after(n, r))),
    ],
)
def test_errors_are_those_of_the_formulas(measured, exact, algorithm, more, gradient):
    found = curve(measured, algorithm, **more)["error"]["median"]
    np.testing.assert_allclose(found, by_formula(exact, gradient), rtol=1e-6, atol=1e-9)


def test_errors_fall_with_steps_and_only_the_biased_ones_stay(measured):
    for name, more in (("maml", {}), ("imaml", {"linear_steps": 8})):
        errors = curve(measured, name, **more)["error"]["median"]
        assert errors[0] > errors[1] > errors[2]
        assert errors[2] < 1e-6
    assert curve(measured, "imaml", linear_steps=2)["error"]["median"][-1] > 1e-2
    assert curve(measured, "fomaml")["error"]["median"][-1] > 1e-1


def test_the_certificate_knows_these_errors(measured):
    solved, half = measured["solve"]
    assert (solved["at"], half["at"]) == ("converged", "unconverged")
    # At φ* with as many CG steps as there are parameters nothing is left but rounding.
    assert solved["error"]["median"][-1] < 1e-9
    # With few CG steps a correction from far away says nothing.
    for line, which in ((solved, 0), (half, -1)):
        ratio = line["estimate"]["median"][which] / line["error"]["median"][which]
        assert 1 / 3 < ratio < 3


def test_the_descent_is_that_of_the_library():
    key = jax.random.key(5)
    task = quadratic.sample(key, SMALL.size, SMALL.rows, SMALL.spread)
    theta = jnp.ones(SMALL.size)
    solver = GradientDescent(7, SMALL.learning_rate)
    algorithm = imaml(
        quadratic.loss, strength=SMALL.strength, solver=solver, linear_solver=CG(3, 0.05)
    )
    phi, _ = algorithm.adapt(theta, task.support, key)
    np.testing.assert_allclose(tradeoff.descend(task, theta, SMALL, jnp.asarray(7)), phi)


def test_tasks_have_the_curvature_that_the_step_size_counts_on():
    task = quadratic.sample(jax.random.key(1), SMALL.size, SMALL.rows, SMALL.spread)
    for x, _ in (task.support, task.query):
        np.testing.assert_allclose(np.linalg.svd(x, compute_uv=False)[0], 1.0)


def test_computation_is_counted_by_the_stated_rule(measured):
    assert tradeoff.cost("imaml", 16, 5) == 16 + 2 + 2 * 5
    assert tradeoff.cost("maml", 16) == 3 * 16 + 1
    assert tradeoff.cost("fomaml", 16) == 16 + 1
    assert curve(measured, "imaml", linear_steps=8)["cost"] == [20, 34, 418]


def test_the_same_seed_measures_the_same_and_leaves_precision_as_it_was(measured):
    tiny = dataclasses.replace(SMALL, inner_steps=(2, 16), solve_steps=(2,), linear_steps=(2,))
    with jax.enable_x64(False):
        first = tradeoff.measure(tiny, 3, lambda done: None)
        assert jnp.zeros(()).dtype == jnp.float32
        assert first == tradeoff.measure(tiny, 3, lambda done: None)
        assert first != tradeoff.measure(tiny, 4, lambda done: None)
