"""iMAML on a small network against two ways that know nothing of the implicit function theorem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from pullback.algorithms import imaml, maml
from pullback.linear import CG
from pullback.models import MLP, mean_squared_error
from pullback.solvers import LBFGS, GradientDescent
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("x64")

MODEL = MLP(1, 1, hidden=(4,), activation="tanh")
LOSS = mean_squared_error(MODEL.apply)


@pytest.fixture
def setting():
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, size=(2, 6, 1))
    theta = jax.tree.map(
        lambda p: p + 0.1 * rng.normal(size=p.shape), MODEL.init(jax.random.key(1))
    )
    return theta, Task(support=(x[0], np.sin(2 * x[0])), query=(x[1], np.sin(2 * x[1])))


def strength(form, theta):
    if form == "scalar":
        return 0.5
    return jax.tree.map(lambda p: 0.3 + jnp.linspace(0, 1, p.size).reshape(p.shape), theta)


@pytest.mark.parametrize("form", ["scalar", "diagonal"])
def test_implicit_gradient_equals_unrolling_and_finite_differences(form, setting, key):
    theta, task = setting
    given = strength(form, theta)
    implicit = imaml(LOSS, strength=given, solver=LBFGS(150), linear_solver=CG(60, rtol=1e-12))
    unrolled = maml(LOSS, strength=given, solver=GradientDescent(3000, learning_rate=0.1))
    value, gradient, info = jax.jit(implicit.meta_gradient)(theta, task, key)
    same_value, same_gradient, _ = jax.jit(unrolled.meta_gradient)(theta, task, key)
    assert float(info.inner_residual) < 1e-9
    np.testing.assert_allclose(value, same_value, rtol=1e-9)
    one, other = ravel_pytree(gradient)[0], ravel_pytree(same_gradient)[0]
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)

    flat, unravel = ravel_pytree(theta)

    @jax.jit
    def outer(vector):
        phi, _ = implicit.adapt(unravel(vector), task.support, key)
        value, slope = jax.value_and_grad(LOSS)(phi, task.query)
        return value, ravel_pytree(slope)[0]

    # The comparisons are blind where Λ(H + Λ)⁻¹ is near the identity; here it is far from it.
    first_order = outer(flat)[1]
    assert np.linalg.norm(one - first_order) > 0.1 * np.linalg.norm(first_order)

    for direction in np.random.default_rng(0).normal(size=(4, flat.size)):
        step = 1e-5 * direction
        slope = (outer(flat + step)[0] - outer(flat - step)[0]) / 2e-5
        np.testing.assert_allclose(one @ direction, slope, rtol=1e-5, atol=1e-8)
