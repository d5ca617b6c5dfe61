"""Λ and hyperparameters trained beside θ: what they find, and their optimiser."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.algorithms import Learned, learned_imaml
from pullback.linear import CG
from pullback.meta import training
from pullback.meta.training import train
from pullback.solvers import LBFGS
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")


class Regressions(eqx.Module):
    """Linear regressions whose weights are drawn from a Gaussian prior."""

    mean: jax.Array
    precision: jax.Array
    noise: float

    def sample(self, key):
        keys = jax.random.split(key, 3)
        size = self.mean.size
        w = self.mean + jax.random.normal(keys[0], (size,)) / jnp.sqrt(self.precision)
        x = jax.random.normal(keys[1], (25, size))
        y = x @ w + self.noise * jax.random.normal(keys[2], (25,))
        return Task((x[:5], y[:5]), (x[5:], y[5:]))


def squares(w, batch):
    """With half the sum of squares the posterior's mean has Λ = σ²·precision."""
    x, y = batch
    return 0.5 * jnp.sum((x @ w - y) ** 2)


def test_the_learned_diagonal_recovers_the_precision_of_a_gaussian_prior(key):
    """The best predictor of the query set is the posterior's mean, which is this inner problem."""
    precision, noise, steps = np.asarray([0.5, 1.0, 2.0, 4.0]), 1.0, 400
    mean = np.asarray([1.0, -1.0, 0.5, 0.0])
    algorithm = learned_imaml(
        squares,
        strength=1.0,
        form="diagonal",
        solver=LBFGS(12),
        linear_solver=CG(8, rtol=1e-6),
        certify=None,
    )
    result = train(
        algorithm,
        jnp.zeros(4),
        Regressions(jnp.asarray(mean), jnp.asarray(precision), noise),
        steps=steps,
        key=key,
        tasks_per_step=128,
        optimizer=training.default_optimizer(steps, 0.05, 10.0, 0.05),
        strategy="vmap",
    )
    np.testing.assert_allclose(result.theta.strength, noise**2 * precision, rtol=0.1)
    np.testing.assert_allclose(result.theta.params, mean, atol=0.1)


def ridge(w, batch, hyper):
    return squares(w, batch) + 0.5 * hyper * jnp.sum(w**2)


LEARNED = learned_imaml(
    ridge,
    strength=0.5,
    form="diagonal",
    hyper=0.3,
    outer_loss=squares,
    solver=LBFGS(6),
    certify=None,
)
START = np.asarray([0.5, -0.5, 1.0, 2.0], np.float32)


def trained(steps, **options):
    tasks = Regressions(jnp.zeros(4), jnp.ones(4), 0.5)
    given = {"key": jax.random.key(3), "tasks_per_step": 2, **options}
    return train(LEARNED, jnp.asarray(START), tasks, steps=steps, **given)


def test_training_learns_all_three_and_resumes_bit_for_bit():
    optimizer = training.default_optimizer(8, hyper_learning_rate=0.05)
    whole = trained(8, optimizer=optimizer)
    half = trained(3, optimizer=optimizer)
    rest = trained(8, optimizer=optimizer, state=half.state)
    jax.tree.map(np.testing.assert_array_equal, rest.state, whole.state)
    start = LEARNED.init(START)
    for before, after in zip(jax.tree.leaves(start), jax.tree.leaves(whole.theta), strict=True):
        assert np.all(np.asarray(before) != np.asarray(after))


def test_without_an_optimiser_the_hyperparameters_have_a_rate_of_their_own():
    start, theta = LEARNED.init(START), trained(1).theta
    moved = np.abs(theta.log_strength - start.log_strength)
    np.testing.assert_allclose(moved, training.HYPER_LEARNING_RATE, rtol=1e-3)
    np.testing.assert_allclose(np.abs(theta.params - START), 2e-3, rtol=1e-3)


def test_each_group_is_clipped_by_itself():
    optimizer = training.default_optimizer(10, 1.0, 3.0, 1.0)
    theta = Learned(jnp.zeros(2), jnp.zeros(()), jnp.zeros(()))
    state = optimizer.init(theta)

    def second_moments(params):
        gradient = Learned(jnp.full(2, params), jnp.asarray(0.3), jnp.asarray(0.4))
        _, new = optimizer.update(gradient, state, theta)
        named = ((jax.tree_util.keystr(p), x) for p, x in jax.tree.leaves_with_path(new))
        return {path: np.asarray(x) for path, x in named if ".nu" in path}

    small, large = second_moments(1.0), second_moments(1e6)
    assert len(small) == 3
    hyper = [path for path in small if "log_" in path]
    assert len(hyper) == 2
    for path in small:
        assert (small[path] == large[path]).all() == (path in hyper)
