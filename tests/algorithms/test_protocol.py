"""What every registered algorithm keeps to; a new one is tested by being registered."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from pullback.algorithms import ALGORITHMS
from pullback.core.results import Verdict
from pullback.linear import CG
from pullback.meta.training import train
from pullback.models import MLP, functional, mean_squared_error
from pullback.solvers import Nesterov
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")

MODEL = MLP(1, 1, hidden=(3,), activation="tanh")
LOSS = mean_squared_error(MODEL.apply)


def make(name, loss, **options):
    line = ALGORITHMS[name]
    return line.make(loss, **({"strength": 1.0} if line.proximal else {}), **options)


@functools.cache
def algorithm(name):
    return make(name, LOSS)


def data(dtype, tasks=None):
    shape = (6, 1) if tasks is None else (tasks, 6, 1)
    x = np.random.default_rng(0).uniform(-2, 2, size=(2, *shape)).astype(dtype)
    return Task((x[0], np.sin(x[0])), (x[1], np.sin(x[1])))


def parameters(dtype):
    params = MODEL.init(jax.random.key(0))
    return jax.tree.map(lambda p: jnp.asarray(p + 0.1, dtype), params)


@functools.cache
def compiled(name):
    return jax.jit(algorithm(name).meta_gradient), jax.jit(algorithm(name).adapt)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("dtype", "double"),
    [("float32", False), ("float32", True), ("float64", True)],
    ids=["float32", "float32 in an x64 program", "float64"],
)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_gradient_and_phi_have_the_shapes_and_types_of_theta(name, dtype, double, key):
    with jax.enable_x64(double):
        theta = algorithm(name).init(parameters(dtype))
        meta, adapt = algorithm(name).meta_gradient, algorithm(name).adapt
        task = data(dtype)
        value, gradient, _ = jax.eval_shape(meta, theta, task, key)
        phi, _ = jax.eval_shape(adapt, theta, task.support, key)
    assert value.shape == ()
    assert value.dtype == dtype
    wanted = jax.tree.map(lambda x: (x.shape, x.dtype), theta)
    for tree in (gradient, phi):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), tree) == wanted


@pytest.mark.parametrize("name", ALGORITHMS)
def test_jit_and_vmap_agree_with_the_plain_call(name, key):
    """In double precision and solved well, so that rounding cannot change when a loop ends."""
    options = {}
    if ALGORITHMS[name].implicit:
        options = {"solver": Nesterov(200), "linear_solver": CG(40, rtol=1e-10)}
    with jax.enable_x64(True):
        given = make(name, LOSS, **options).meta_gradient

        def meta(theta, task, key):
            # Extreme curvatures hang on the last, rounded directions of a solve; these do not.
            value, gradient, info = given(theta, task, key)
            return value, gradient, info.inner_residual, info.code

        theta, tasks = parameters("float64"), data("float64", tasks=2)
        keys = jax.random.split(key, 2)
        stacked = jax.jit(jax.vmap(meta, in_axes=(None, 0, 0)))(theta, tasks, keys)
        each = [jax.tree.map(lambda x, i=i: x[i], (stacked, tasks)) for i in range(2)]
        for (row, task), one_key in zip(each, keys, strict=True):
            same(meta(theta, task, one_key), row)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_no_tracer_leaks(name, key):
    with jax.checking_leaks():
        jax.eval_shape(algorithm(name).meta_gradient, parameters("float32"), data("float32"), key)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_same_key_gives_the_same_numbers_bit_for_bit(name, key):
    theta, task = parameters("float32"), data("float32")
    before = jax.tree.map(np.array, theta)
    for function, given in zip(compiled(name), (task, task.support), strict=True):
        first, second = function(theta, given, key), function(theta, given, key)
        jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, theta, before)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_info_and_report_are_scalars_with_every_field(name, key):
    meta, adapt = compiled(name)
    theta, task = parameters("float32"), data("float32")
    _, gradient, info = meta(theta, task, key)
    _, report = adapt(theta, task.support, key)
    assert all(jnp.shape(x) == () for x in jax.tree.leaves((info, report)))
    assert len(jax.tree.leaves(info)) == 10
    assert int(info.code) == int(report.code) == Verdict.OK
    assert np.isfinite(info.inner_residual)
    assert np.isfinite(report.inner_residual)
    assert float(info.damping) == 0.0
    solves = ALGORITHMS[name].implicit
    assert (int(info.linear_steps) > 0) == solves
    assert np.isfinite(info.linear_residual) == solves
    assert any(np.any(g != 0) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_nan_in_the_task_is_reported(name, key):
    meta, adapt = compiled(name)
    task = data("float32")
    bad = (task.support[0], np.full_like(task.support[1], np.nan))
    assert (
        int(meta(parameters("float32"), Task(bad, task.query), key)[2].code) == Verdict.NOT_FINITE
    )
    assert int(adapt(parameters("float32"), bad, key)[1].code) == Verdict.NOT_FINITE


class Lines(eqx.Module):
    """Lines through a common point, which is what there is to meta-learn."""

    def sample(self, key):
        slope_key, input_key = jax.random.split(key)
        x = jax.random.uniform(input_key, (12, 1), minval=-1.0)
        y = 2.0 + 0.3 * jax.random.normal(slope_key) * x
        return Task((x[:6], y[:6]), (x[6:], y[6:]))


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(1)(jnp.tanh(linen.Dense(4)(x)))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(1, 4, rngs=rngs)
        self.outer = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(jnp.tanh(self.inner(x)))


def plain_dict():
    def apply(params, x):
        return jnp.tanh(x @ params["w"]) @ params["v"] + params["b"]

    params = {"w": jnp.full((1, 4), 0.5), "v": jnp.full((4, 1), 0.1), "b": jnp.zeros(1)}
    return params, apply


def equinox_module():
    return functional(eqx.nn.MLP(1, 1, 4, 1, activation=jnp.tanh, key=jax.random.key(0)))


def flax_linen():
    model = Linen()
    return model.init(jax.random.key(0), jnp.zeros((1, 1))), model.apply


def flax_nnx():
    definition, params = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param)
    return params, lambda params, x: nnx.merge(definition, params)(x)


@pytest.mark.parametrize(
    ("model", "name"),
    [(plain_dict, "maml"), (equinox_module, "imaml"), (flax_linen, "fomaml"), (flax_nnx, "imaml")],
)
def test_models_of_every_library_are_trained_in_their_own_structure(model, name, key):
    params, apply = model()
    result = train(
        make(name, mean_squared_error(apply)),
        params,
        Lines(),
        steps=40,
        key=key,
        tasks_per_step=2,
        optimizer=optax.adam(0.1),
    )
    assert jax.tree.structure(result.theta) == jax.tree.structure(params)
    losses = result.history["loss"]
    assert losses[-5:].mean() < 0.5 * losses[:3].mean()
