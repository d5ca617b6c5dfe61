"""Models against plain formulas."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.models import (
    ACTIVATIONS,
    MLP,
    MODELS,
    NORMALISATIONS,
    Conv4,
    accuracy,
    convolve,
    cross_entropy,
    find_activation,
    functional,
    mean_squared_error,
)

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("height", "width"), [(6, 6), (7, 7), (1, 1), (2, 5)])
@pytest.mark.parametrize("channels", [1, 5])
def test_convolve_is_a_strided_convolution(height, width, channels, rng):
    x = rng.normal(size=(2, height, width, channels))
    weight = rng.normal(size=(4, 9 * channels))

    def as_convolution(x, weight):
        return jax.lax.conv_general_dilated(
            x,
            weight.T.reshape(3, 3, channels, 4),
            (2, 2),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    out, pull = jax.vjp(convolve, x, weight)
    wanted, wanted_pull = jax.vjp(as_convolution, x, weight)
    np.testing.assert_allclose(out, wanted, rtol=1e-10, atol=1e-12)
    cotangent = rng.normal(size=wanted.shape)
    for a, b in zip(pull(cotangent), wanted_pull(cotangent), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def conv4(normalisation, rng, size=9):
    """A small network whose last layer is not zero, so that logits mean something."""
    model = Conv4(3, width=4, normalisation=normalisation, groups=2, size=size)
    params = model.init(jax.random.key(0))
    params["linear"]["weight"] = rng.normal(size=params["linear"]["weight"].shape)
    for i in range(4):
        params[f"conv{i}"]["scale"] = 1 + 0.3 * rng.normal(size=4)
        params[f"conv{i}"]["bias"] = 0.3 * rng.normal(size=4)
    return model, params


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_only_batch_normalisation_lets_examples_see_each_other(normalisation, rng):
    model, params = conv4(normalisation, rng)
    x = rng.normal(size=(4, 9, 9, 1))
    changed = x.copy()
    # Not a multiple of the old image: that would be normalised away.
    changed[0] = rng.normal(size=(9, 9, 1))
    apply = jax.jit(model.apply)
    one, other = apply(params, x), apply(params, changed)
    assert np.abs(one[0] - other[0]).max() > 1e-3
    leak = np.abs(one[1:] - other[1:]).max()
    assert (leak > 1e-3) == (normalisation == "batch")
    if normalisation != "batch":
        assert leak < 1e-12


@pytest.mark.parametrize("normalisation", ["group", "batch"])
def test_folded_normalisation_is_the_plain_formula(normalisation, rng):
    model, _ = conv4(normalisation, rng)
    x = 1.5 + rng.normal(size=(3, 5, 5, 4))
    scale, bias = rng.normal(size=4), rng.normal(size=4)
    if normalisation == "group":
        grouped, axes = x.reshape(3, 5, 5, 2, 2), (1, 2, 4)
    else:
        grouped, axes = x.reshape(3, 5, 5, 4, 1), (0, 1, 2, 4)
    mean, variance = (f(grouped, axis=axes, keepdims=True) for f in (np.mean, np.var))
    plain = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape) * scale + bias
    np.testing.assert_allclose(model._normalise(x, scale, bias), plain, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n != "relu"])
def test_an_activation_has_the_derivatives_of_its_formula(name):
    plain, ours = ACTIVATIONS[name].load(), find_activation(name)
    for x in jnp.asarray([-3.0, -0.2, 0.0, 1.7]):
        for _ in range(3):
            np.testing.assert_allclose(ours(x), plain(x), rtol=1e-9, atol=1e-12)
            plain, ours = jax.grad(plain), jax.grad(ours)
        plain, ours = ACTIVATIONS[name].load(), find_activation(name)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_products_with_the_hessian_are_differences_of_the_gradient(normalisation, rng):
    model, params = conv4(normalisation, rng)
    loss = cross_entropy(model.apply)
    batch = jnp.asarray(rng.normal(size=(4, 9, 9, 1))), jnp.arange(4) % 3
    direction = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape), params)
    gradient = jax.jit(lambda p: jax.grad(loss)(p, batch))
    product = jax.jit(lambda p, d: jax.jvp(gradient, (p,), (d,))[1])(params, direction)
    step = 1e-6
    ahead = gradient(jax.tree.map(lambda p, d: p + step * d, params, direction))
    behind = gradient(jax.tree.map(lambda p, d: p - step * d, params, direction))
    for p, a, b in zip(*map(jax.tree.leaves, (product, ahead, behind)), strict=True):
        np.testing.assert_allclose(p, (a - b) / (2 * step), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_a_blank_image_is_no_trouble(normalisation, rng):
    model, params = conv4(normalisation, rng)
    gradient = jax.jit(jax.grad(lambda p, x: jnp.sum(model.apply(p, x) ** 2)))
    for leaf in jax.tree.leaves(gradient(params, np.zeros((2, 9, 9, 1)))):
        assert np.all(np.isfinite(leaf))


@pytest.mark.parametrize("size", [8, 15])
def test_conv4_starts_at_chance_for_any_size(size):
    model = Conv4(5, width=16, size=size)
    params = model.init(jax.random.key(0))
    logits = jax.jit(model.apply)(params, jnp.ones((2, size, size, 1)))
    np.testing.assert_array_equal(logits, np.zeros((2, 5)))


def test_logit_scale_multiplies_the_logits(rng):
    model, params = conv4("group", rng)
    x = rng.normal(size=(2, 9, 9, 1))
    louder = Conv4(3, width=4, groups=2, size=9, logit_scale=8.0)
    scaled, plain = jax.jit(lambda p, x: (louder.apply(p, x), model.apply(p, x)))(params, x)
    np.testing.assert_allclose(scaled, 2 * plain, rtol=1e-12)


@pytest.mark.parametrize("hidden", [(), (3,), (4, 5)])
def test_mlp_is_the_chain_of_its_layers(hidden, rng):
    model = MLP(2, 3, hidden=hidden, activation="tanh")
    params = model.init(jax.random.key(0))
    widths = (2, *hidden, 3)
    shapes = [params[f"layer{i}"]["weight"].shape for i in range(len(widths) - 1)]
    assert shapes == list(itertools.pairwise(widths))
    x = out = jnp.asarray(rng.normal(size=(6, 2)))
    for i in range(len(shapes)):
        out = out @ np.asarray(params[f"layer{i}"]["weight"])
        out = np.tanh(out) if i < len(hidden) else out
    np.testing.assert_allclose(model.apply(params, x), out, rtol=1e-12)


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS if n != "relu"])
def test_activations_but_relu_have_a_second_derivative_everywhere(name):
    points = np.linspace(-1e-3, 1e-3, 41)
    second = jax.vmap(jax.grad(jax.grad(ACTIVATIONS[name].load())))(points)
    assert np.abs(np.diff(second)).max() < 0.1


def identity(params, x):
    return params * x


def test_losses_and_accuracy_by_hand():
    logits = jnp.log(jnp.asarray([[0.7, 0.2, 0.1], [0.3, 0.3, 0.4]]))
    labels = jnp.array([0, 1])
    np.testing.assert_allclose(
        cross_entropy(identity)(1.0, (logits, labels)), -np.log([0.7, 0.3]).mean()
    )
    np.testing.assert_allclose(accuracy(identity)(1.0, (logits, labels)), 0.5)
    x, y = jnp.array([[1.0], [2.0]]), jnp.array([[0.0], [5.0]])
    np.testing.assert_allclose(mean_squared_error(identity)(2.0, (x, y)), (4 + 1) / 2)


def test_cross_entropy_of_huge_logits_is_finite():
    loss = cross_entropy(identity)
    logits = jnp.array([[1e4, -1e4]])
    np.testing.assert_allclose(loss(1.0, (logits, jnp.array([1]))), 2e4)
    assert np.isfinite(jax.grad(loss)(1.0, (logits, jnp.array([1]))))


def test_functional_splits_a_module_without_changing_it(rng):
    module = eqx.nn.MLP(2, 3, 4, 1, key=jax.random.key(0))
    params, apply = functional(module)
    x = jnp.asarray(rng.normal(size=(5, 2)))
    np.testing.assert_allclose(apply(params, x), jax.vmap(module)(x), rtol=1e-12)
    assert all(eqx.is_inexact_array(leaf) for leaf in jax.tree.leaves(params))
    doubled = jax.tree.map(lambda p: 0 * p, params)
    np.testing.assert_array_equal(apply(doubled, x), np.zeros((5, 3)))


def test_functional_keeps_integer_tables_out_of_the_parameters():
    class Lookup(eqx.Module):
        table: jax.Array
        weight: jax.Array

        def __call__(self, x):
            return self.weight * x[self.table]

    params, apply = functional(Lookup(jnp.array([1, 0]), jnp.ones(2)))
    assert len(jax.tree.leaves(params)) == 1
    np.testing.assert_array_equal(apply(params, jnp.array([[3.0, 4.0]])), [[4.0, 3.0]])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 4), (2, 3, 2), (1, 7, 3), (28, 28, 1), (5,)])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_made_for_any_shape_that_fits_it(name, shape):
    if name == "conv4" and len(shape) != 3:
        with pytest.raises(InputError, match=r"examples of shape \[5\].*--model mlp"):
            MODELS[name].make(shape, 3)
        return
    model = MODELS[name].make(shape, 3, width=4, groups=2, hidden=(4,))
    params = model.init(jax.random.key(0))
    x = jax.random.uniform(jax.random.key(1), (2, *shape))

    def loss(params):
        moved = jax.tree.map(lambda leaf: leaf + 0.1, params)
        return jnp.sum(model.apply(moved, x) ** 2)

    assert model.apply(params, x).shape == (2, 3)
    slopes = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    assert all(np.isfinite(slope).all() for slope in slopes)
    assert any(np.abs(slope).max() > 0 for slope in slopes)
