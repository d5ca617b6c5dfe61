"""The head's solve where rounding makes a matrix of it indefinite: examples with nearly the same
features, and logits so large that probabilities saturate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.problem import Proximal
from pullback.models import MLP, cross_entropy, mean_squared_error
from pullback.solvers import LBFGS, Projected, run
from pullback.solvers.head import cholesky

pytestmark = pytest.mark.usefixtures("tiny")


def smooth(count, width, rng, dtype=np.float32):
    """Features of numbers that lie close together: a kernel of a numerical rank of a few."""
    x = rng.uniform(-0.5, 0.5, (count, 1))
    return np.tanh(x @ rng.normal(size=(1, width)) + rng.normal(size=width)).astype(dtype)


@pytest.mark.parametrize("count", [1, 2, 10, 100, 400])
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_kernel_that_rounding_makes_indefinite_has_a_factor(count, unit, rng):
    features = unit * smooth(count, 2 * count, rng)
    kernel = jnp.asarray(features @ features.T, jnp.float32)
    factor = np.asarray(cholesky(kernel), float)
    assert np.isfinite(factor).all()
    allowed = 20 * count * np.finfo(np.float32).eps * np.trace(kernel)
    assert np.linalg.norm(factor @ factor.T - kernel, 2) <= allowed


def test_members_of_a_batch_are_factored_as_alone_and_nan_stays(rng):
    good = np.eye(3, dtype=np.float32)
    low = np.ones((3, 3), np.float32) - 1e-7 * np.eye(3, dtype=np.float32)
    bad = np.full((3, 3), np.nan, np.float32)
    found = jax.vmap(cholesky)(jnp.stack([good, low, bad]))
    np.testing.assert_array_equal(found[0], good)
    np.testing.assert_allclose(found[1], cholesky(jnp.asarray(low)), rtol=1e-6)
    assert np.isfinite(np.asarray(found[1])).all()
    assert np.isnan(np.asarray(found[2])).any()


@pytest.mark.parametrize("each", [mean_squared_error, cross_entropy])
@pytest.mark.parametrize("count", [40, 120])
def test_close_examples_are_adapted_to_in_single_precision(each, count, rng):
    """The features of one number are more than the examples, so that the kernel is factored."""
    outputs = 1 if each is mean_squared_error else 2
    model = MLP(inputs=1, outputs=outputs, hidden=(2 * count,))
    theta = model.init(jax.random.key(0))
    x = jnp.asarray(rng.uniform(-0.5, 0.5, (count, 1)), jnp.float32)
    y = jnp.sin(3 * x) if outputs == 1 else (x[:, 0] > 0).astype(int)
    loss = each(model.apply)
    problem = Proximal(loss, 2.0).problem(theta, (x, y))

    def solved(solver):
        return jax.jit(lambda: run(solver, problem, theta, jax.random.key(0)).phi)()

    def objective(phi):
        return float(problem.value_and_gradient(phi)[0])

    phi = solved(Projected())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(phi))
    assert objective(phi) <= objective(solved(LBFGS(200))) * (1 + 1e-3)


@pytest.mark.parametrize("unit", [1.0, 1e2, 1e4])
@pytest.mark.parametrize(("count", "features"), [(4, 30), (40, 3)], ids=["dual", "primal"])
def test_features_in_large_units_are_adapted_to_in_single_precision(unit, count, features, rng):
    model = MLP(inputs=features, outputs=5, hidden=())
    x = jnp.asarray(unit * rng.normal(size=(count, features)), jnp.float32)
    problem = Proximal(cross_entropy(model.apply), 2.0).problem(
        model.init(jax.random.key(0)), (x, jnp.arange(count) % 5)
    )
    found = jax.jit(lambda: run(Projected(), problem, problem.theta, jax.random.key(0)))()
    before, _ = problem.value_and_gradient(problem.theta)
    after, _ = problem.value_and_gradient(found.phi)
    assert np.isfinite(after) and after < before
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.phi))


def test_the_curvature_of_softmax_is_that_of_its_logits_and_never_indefinite(rng):
    loss = cross_entropy(lambda params, x: x)
    logits, labels = rng.normal(size=(6, 4)), np.arange(6) % 4
    with jax.enable_x64(True):
        each = [
            jax.hessian(lambda f, y=y: loss.of_outputs(f[None], np.array([y]), None))(f)
            for f, y in zip(jnp.asarray(logits), labels, strict=True)
        ]
        np.testing.assert_allclose(loss.curvatures(jnp.asarray(logits), labels), each, atol=1e-15)
    for unit in (1.0, 30.0, 1e4):
        large = jnp.asarray(unit * logits, jnp.float32)
        curved = np.asarray(loss.curvatures(large, jnp.asarray(labels)), float)
        np.testing.assert_allclose(curved, curved.transpose(0, 2, 1), rtol=1e-6)
        off = np.abs(curved).sum(2) - np.diagonal(curved, axis1=1, axis2=2)
        assert (np.diagonal(curved, axis1=1, axis2=2) >= off * (1 - 1e-6)).all()
