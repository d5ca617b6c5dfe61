"""The code in the document on models and losses runs as it stands there, with every algorithm."""

import re
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pullback as pb
from pullback.algorithms import ALGORITHMS

pytestmark = pytest.mark.usefixtures("tiny")
DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
COARSE, AUX, HEAD, LAYER, DROPOUT, NORM, AVERAGES = re.findall(
    r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL
)
MODEL = pb.models.MLP(1, 1, hidden=(3,))


def run(*blocks):
    x = jnp.linspace(-1.0, 1.0, 6)[:, None]
    names = {
        "jax": jax,
        "jnp": jnp,
        "eqx": eqx,
        "optax": optax,
        "pb": pb,
        "model": MODEL,
        "theta": MODEL.init(jax.random.key(0)),
        "task": pb.Task((x, jnp.sin(x)), (x, jnp.cos(x))),
        "key": jax.random.key(1),
    }
    for block in blocks:
        exec(compile(block, DOCUMENT.name, "exec"), names)
    return names


def gradient_shapes(name, loss, params, task):
    """Those of a meta-gradient, which nothing is computed for."""
    line = ALGORITHMS[name]
    algorithm = line.make(loss, **({"strength": 1.0} if line.proximal else {}))
    theta = algorithm.init(params)
    _, gradient, _ = jax.eval_shape(algorithm.meta_gradient, theta, task, jax.random.key(0))
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), gradient)


def same_shapes(gradient, params):
    return gradient == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), params)


def test_a_loss_in_half_precision():
    names = run(COARSE)
    theta, task, loss = names["theta"], names["task"], names["coarse_loss"]
    exact = jax.jit(jax.grad(pb.models.mean_squared_error(MODEL.apply)))(theta, task.support)
    found = jax.jit(jax.grad(loss))(theta, task.support)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.1, atol=0.02), found, exact)
    assert same_shapes(gradient_shapes("imaml", loss, theta, task), theta)


def test_a_loss_with_aux():
    names = run(AUX)
    plain = pb.fomaml(pb.models.mean_squared_error(MODEL.apply))
    phi, _ = plain.adapt(names["theta"], names["task"].support, names["key"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), names["phi"], phi)
    assert names["outputs"].shape == (6, 1)


def test_a_model_that_says_where_its_head_is():
    names = run(HEAD)
    theta, task, plain = names["theta_0"], names["task"], names["my_apply"]
    loss = pb.models.mean_squared_error(lambda params, x: plain(params, x))
    solvers = {"solver": pb.solvers.LBFGS(200), "linear_solver": pb.linear.Dense()}
    exact = pb.imaml(loss, strength=1.0, **solvers)
    _, wanted, _ = jax.jit(exact.meta_gradient)(theta, task, names["key"])
    found = names["gradient"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0.02, atol=1e-3), found, wanted)
    assert names["info"].verdict == "ok"


def test_an_equinox_module_that_says_where_its_last_layer_is():
    names = run(LAYER)
    assert isinstance(names["head_apply"], pb.models.LinearHead)
    _, gradient, _ = jax.eval_shape(
        names["fast"].meta_gradient, names["weights"], names["task"], names["key"]
    )
    assert jax.tree.structure(gradient) == jax.tree.structure(names["weights"])


@pytest.fixture(scope="module")
def dropout():
    return run(DROPOUT)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_takes_a_loss_with_keys(algorithm, dropout):
    task = dropout["tasks"].sample(jax.random.key(0))
    loss = pb.models.mean_squared_error(dropout["apply"])
    params = dropout["params"]
    assert same_shapes(gradient_shapes(algorithm, loss, params, task), params)


def test_the_keys_decide_what_is_dropped(dropout):
    (x, keys), y = dropout["tasks"].sample(jax.random.key(0)).support
    loss = pb.models.mean_squared_error(dropout["apply"])
    value = loss(dropout["params"], ((x, keys), y))
    assert value == loss(dropout["params"], ((x, keys), y))
    assert value != loss(dropout["params"], ((x, keys[::-1]), y))
    assert len(np.unique(jax.random.key_data(keys), axis=0)) == len(x)
    assert np.isfinite(dropout["scored"].mean)


def test_a_state_is_used_and_never_changed():
    names = run(NORM, AVERAGES)
    x = names["task"].support[0]
    centred = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)
    for _ in range(2):
        np.testing.assert_allclose(names["normalise"](names["scale"], x), centred, rtol=1e-5)
    assert np.isfinite(names["frozen"](names["scale"], x)).all()
    task = names["task"]
    loss = pb.models.mean_squared_error(names["normalise"])
    for algorithm in ALGORITHMS:
        assert same_shapes(gradient_shapes(algorithm, loss, names["scale"], task), names["scale"])
