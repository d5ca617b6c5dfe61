"""Λ raised until H + Λ is positive definite: the factor, the gradient, and train like test."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.algorithms import AdaptiveStrength, imaml
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.solvers import LBFGS, GradientDescent
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("x64")


def wells(params, batch):
    """A double well in each coordinate: curvature −4b at the top, 8b in either well."""
    return jnp.sum((params**2 - batch) ** 2)


THETA = jnp.asarray([0.1, -0.2, 0.05])
TASK = Task(jnp.ones(3), 1.2 * jnp.ones(3))


def algorithm(raise_strength, strength=1.0, solver=None):
    # Too few steps to leave the top of the hill, where H + Λ is indefinite for λ = 1.
    solver = GradientDescent(3, 0.01) if solver is None else solver
    return imaml(wells, strength=strength, solver=solver, raise_strength=raise_strength)


def eigenvalues(phi, strength):
    return np.linalg.eigvalsh(jax.hessian(wells)(phi, TASK.support) + np.diag(strength))


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("strength", [1.0, jnp.asarray([1.0, 2.0, 1.5])])
def test_the_curvature_keeps_the_stated_margin(margin, strength, key):
    raising = AdaptiveStrength(margin, tries=6)
    _, _, info = jax.jit(algorithm(raising, strength).meta_gradient)(THETA, TASK, key)
    phi, report = algorithm(raising, strength).adapt(THETA, TASK.support, key)
    assert report.strength_factor > 1
    raised = np.broadcast_to(report.strength_factor * strength, 3)
    smallest = eigenvalues(phi, raised)[0]
    assert smallest > 0.99 * margin * raised.min()
    assert smallest > 0
    assert info.code != Verdict.NEGATIVE_CURVATURE
    assert info.smallest_curvature > 0


def test_without_the_rule_the_verdict_is_negative_curvature(key):
    info = jax.jit(algorithm(None).meta_gradient)(THETA, TASK, key)[2]
    assert int(info.code) == Verdict.NEGATIVE_CURVATURE
    assert info.strength_factor == 1


def test_training_and_adaptation_raise_by_the_same_factor(key):
    both = algorithm(AdaptiveStrength())
    info = both.meta_gradient(THETA, TASK, key)[2]
    report = both.adapt(THETA, TASK.support, key)[1]
    np.testing.assert_allclose(info.strength_factor, report.strength_factor, rtol=1e-12)


def test_where_the_curvature_is_fine_nothing_changes(key):
    theta = jnp.asarray([0.9, -1.1, 1.2])
    plain = algorithm(None, solver=LBFGS(30)).meta_gradient(theta, TASK, key)
    ruled = algorithm(AdaptiveStrength(), solver=LBFGS(30)).meta_gradient(theta, TASK, key)
    assert ruled[2].strength_factor == 1
    np.testing.assert_array_equal(plain[1], ruled[1])


def test_the_raised_gradient_is_that_of_the_raised_problem(key):
    solver = LBFGS(60)
    # At the top of the hill: every gradient is zero there, so a push off it keeps the curvature.
    theta = jnp.asarray([0.3, -0.3, 0.2])
    raised = algorithm(AdaptiveStrength(0.3, tries=6), solver=solver)
    _, gradient, info = raised.meta_gradient(theta, TASK, key)
    fixed = algorithm(None, strength=float(info.strength_factor), solver=solver)
    np.testing.assert_allclose(gradient, fixed.meta_gradient(theta, TASK, key)[1], rtol=1e-6)


def test_tasks_are_raised_one_by_one_under_vmap(key):
    thetas = jnp.stack([THETA, jnp.asarray([0.9, -1.1, 1.2])])
    solve = jax.vmap(algorithm(AdaptiveStrength()).meta_gradient, in_axes=(0, None, None))
    factors = solve(thetas, TASK, key)[2].strength_factor
    assert factors[0] > 1
    assert factors[1] == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"margin": 1.0}, "margin < 1"),
        ({"margin": -0.1}, "margin < 1"),
        ({"margin": float("nan")}, "margin < 1"),
        ({"tries": 0}, "whole numbers"),
        ({"looks": 1.5}, "whole numbers"),
    ],
)
def test_settings_out_of_range_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        AdaptiveStrength(**given)
