"""Leaves with Λ = ∞ do not adapt; their gradient is that of what adapts on top of them."""

import closed_forms as cf
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pullback as pb
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.linear import Dense

pytestmark = pytest.mark.usefixtures("x64")

INF = np.inf
MODEL = pb.models.MLP(inputs=2, outputs=2, hidden=(4, 3))
EXACTLY = {
    "solver": pb.solvers.Projected(60, rtol=None, otherwise=pb.solvers.LBFGS(60)),
    "linear_solver": Dense(),
}


def network():
    draw = np.random.default_rng(0)
    params = MODEL.init(jax.random.key(0))
    return jax.tree.map(lambda x: jnp.asarray(0.7 * draw.normal(size=x.shape)), params)


def regression():
    draw = np.random.default_rng(1)
    x = draw.normal(size=(2, 6, 2))
    y = np.sin(2 * x) + 0.1 * draw.normal(size=x.shape)
    return pb.Task((x[0], y[0]), (x[1], y[1]))


class Same(eqx.Module):
    """One task, again and again."""

    def sample(self, key):
        return jax.tree.map(jnp.asarray, regression())


def strengths(**layers):
    """Λ of the layers that adapt; the others are frozen."""
    return {
        name: dict.fromkeys(("bias", "weight"), layers.get(name, INF))
        for name in ("layer0", "layer1", "layer2")
    }


def test_least_squares_are_the_limit_of_a_strong_pull(key):
    """The closed form of the whole problem with Λ = 1e9 on the frozen leaf."""
    algorithm = pb.imaml(
        cf.loss,
        strength={"a": INF, "b": {"c": 3.0, "w": 1.5}},
        solver=pb.solvers.LBFGS(60),
        linear_solver=Dense(),
    )
    theta, task = cf.theta(), cf.task()
    phi, report = algorithm.adapt(theta, task.support, key)
    _, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, key)
    strength = np.where(np.arange(cf.SIZE) < 3, 1e9, cf.strength_vector("per leaf"))
    exact = cf.Exact(task.support, task.query, cf.flat(theta), strength)
    np.testing.assert_array_equal(phi["a"], theta["a"])
    np.testing.assert_allclose(cf.flat(phi), exact.phi, rtol=1e-7)
    np.testing.assert_allclose(cf.flat(gradient), exact.meta_gradient, rtol=1e-6)
    assert (int(report.code), int(info.code)) == (Verdict.OK, Verdict.OK)


def test_a_head_alone_is_ridge_regression_differentiated_by_jax(key):
    """With one head on frozen features all is a closed form (Bertinetto et al. 2019, R2-D2)."""
    loss, theta, task = pb.models.mean_squared_error(MODEL.apply), network(), regression()
    algorithm = pb.imaml(loss, strength=strengths(layer2=0.3))

    def features(theta, x):
        for name in ("layer0", "layer1"):
            x = jax.nn.silu(x @ theta[name]["weight"] + theta[name]["bias"])
        return jnp.concatenate([x, jnp.ones((len(x), 1))], 1)

    def query_loss(theta):
        head = jnp.concatenate([theta["layer2"]["weight"], theta["layer2"]["bias"][None]])
        f, y = features(theta, task.support[0]), task.support[1]
        # The mean over rows and outputs of squares, and half of λ times squares.
        curved = 2 * f.T @ f / y.size + 0.3 * jnp.eye(4)
        head = jnp.linalg.solve(curved, 2 * f.T @ y / y.size + 0.3 * head)
        return jnp.mean((features(theta, task.query[0]) @ head - task.query[1]) ** 2)

    value, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, key)
    wanted, slope = jax.value_and_grad(query_loss)(theta)
    np.testing.assert_allclose(value, wanted, rtol=1e-12)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), gradient, slope
    )
    assert int(info.code) == Verdict.OK
    assert float(info.inner_residual) < 1e-12
    assert int(info.linear_steps) == 0


CASES = {
    "the head and one layer": {"layer1": 0.5, "layer2": 0.3},
    "all but the head": {"layer0": 0.8, "layer1": 0.5},
    "the first layer": {"layer0": 0.8},
    "the head": {"layer2": 0.3},
}


@pytest.mark.parametrize("layers", CASES.values(), ids=CASES)
def test_the_gradient_is_that_of_finite_differences(layers, key):
    smooth = pb.models.mean_squared_error(lambda params, x: MODEL.apply(params, jnp.tanh(x)))
    loss = pb.models.mean_squared_error(MODEL.apply) if "layer2" in layers else smooth
    algorithm = pb.imaml(loss, strength=strengths(**layers), **EXACTLY)
    theta, task = network(), regression()
    flat, unravel = ravel_pytree(theta)

    def query_loss(vector):
        return loss(algorithm.adapt(unravel(vector), task.support, key)[0], task.query)

    step = 1e-5 * jnp.eye(flat.size)
    ends = jax.jit(jax.vmap(query_loss))(jnp.concatenate([flat + step, flat - step]))
    wanted = (ends[: flat.size] - ends[flat.size :]) / 2e-5
    _, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, key)
    np.testing.assert_allclose(cf.flat(gradient), wanted, rtol=1e-5, atol=1e-7)
    assert int(info.code) == Verdict.OK
    phi, _ = algorithm.adapt(theta, task.support, key)
    for name in theta:
        moved = any(np.any(phi[name][leaf] != theta[name][leaf]) for leaf in theta[name])
        assert moved == (name in layers)
        assert np.abs(cf.flat(gradient[name])).max() > 1e-4


def test_phi_has_its_derivative_by_what_is_frozen(key):
    loss, theta, task = pb.models.mean_squared_error(MODEL.apply), network(), regression()
    algorithm = pb.imaml(loss, strength=strengths(layer1=0.5, layer2=0.3), **EXACTLY)

    def query_loss(theta):
        return loss(algorithm.adapt(theta, task.support, key)[0], task.query)

    _, gradient, _ = jax.jit(algorithm.meta_gradient)(theta, task, key)
    slope = jax.jit(jax.grad(query_loss))(theta)
    np.testing.assert_allclose(cf.flat(slope), cf.flat(gradient), rtol=1e-3, atol=1e-5)


def test_a_training_lowers_the_loss_of_what_is_frozen(key):
    loss, theta = pb.models.mean_squared_error(MODEL.apply), network()
    algorithm = pb.imaml(loss, strength=strengths(layer2=0.3))
    trained = pb.train(algorithm, theta, Same(), steps=5, tasks_per_step=2, key=key)
    before, after = (
        pb.evaluate(algorithm, t, Same(), metric=loss, count=2, key=key).mean
        for t in (theta, trained.theta)
    )
    assert after < before


def test_what_cannot_be_frozen_is_refused(key):
    loss, theta, task = pb.models.mean_squared_error(MODEL.apply), network(), regression()
    with pytest.raises(InputError, match="nothing adapts"):
        pb.imaml(loss, strength=INF)
    with pytest.raises(InputError, match="nothing adapts"):
        pb.imaml(loss, strength=strengths())
    part = strengths(layer2=0.3) | {"layer0": {"bias": np.array([INF, 1, 1, 1]), "weight": 1.0}}
    with pytest.raises(InputError, match="whole leaf"):
        pb.imaml(loss, strength=part)
    with pytest.raises(InputError, match=r"'layer1'.*positive"):
        pb.imaml(loss, strength=strengths(layer1=-1.0))
    with pytest.raises(InputError, match=r"pullback\.imaml"):
        pb.learned_imaml(loss, strength=strengths(layer2=0.3), form="leaf")
    other = pb.imaml(loss, strength={"layer0": INF, "layer2": 0.3})
    with pytest.raises(InputError, match="structure"):
        other.adapt(theta, task.support, key)
