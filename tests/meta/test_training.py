"""The training loop: it learns, repeats itself, resumes, and stops where numbers end."""

import functools

import closed_forms as cf
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pullback.algorithms import ALGORITHMS
from pullback.core.errors import NumericalError
from pullback.core.results import Verdict
from pullback.meta import training
from pullback.meta.training import train
from pullback.models import MLP, mean_squared_error
from pullback.solvers import GradientDescent
from pullback.tasks import Sinusoid, Task, TaskDistribution

pytestmark = pytest.mark.usefixtures("tiny")

RATE = 0.05
SGD = optax.sgd(RATE)
ADAM = optax.adam(RATE)


class Bowls(eqx.Module):
    """Least squares around a common centre; ``bad`` spoils a share of the tasks with NaN."""

    centre: jax.Array
    bad: float = 0.0

    def sample(self, key):
        shift_key, x_key, luck_key = jax.random.split(key, 3)
        optimum = self.centre + 0.1 * jax.random.normal(shift_key, (cf.SIZE,))
        x = jax.random.normal(x_key, (2, 10, cf.SIZE)) / 10**0.5
        x = jnp.where(jax.random.uniform(luck_key) < self.bad, jnp.nan, x)
        return Task((x[0], x[0] @ optimum), (x[1], x[1] @ optimum))


def bowls(bad=0.0):
    return Bowls(jnp.ones(cf.SIZE), jnp.asarray(bad))


def origin():
    return cf.nested(jnp.zeros(cf.SIZE))


@functools.cache
def algorithm(name, loss=cf.loss, rate=0.05):
    line = ALGORITHMS[name]
    if line.implicit:
        return line.make(loss, strength=1.0)
    return line.make(loss, solver=GradientDescent(3, rate))


MODEL = MLP(1, 1, hidden=(16,))
SINUSOID_LOSS = mean_squared_error(MODEL.apply)


def run(name="fomaml", steps=12, tasks=None, **options):
    """One program for all runs of an algorithm."""
    given = {"key": jax.random.key(1), "tasks_per_step": 2, "optimizer": SGD, **options}
    tasks = bowls() if tasks is None else tasks
    return train(algorithm(name), origin(), tasks, steps=steps, **given)


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_finds_the_common_centre(name):
    result = run(name, steps=120, optimizer=ADAM)
    losses = result.history["loss"]
    assert losses[-10:].mean() < 0.1 * losses[:3].mean()
    np.testing.assert_allclose(cf.flat(result.theta), np.ones(cf.SIZE), atol=0.3)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_learns_sine_waves(name):
    result = train(
        algorithm(name, SINUSOID_LOSS, 0.005),
        MODEL.init(jax.random.key(0)),
        Sinusoid(),
        steps=60,
        key=jax.random.key(0),
        tasks_per_step=4,
        optimizer=optax.adam(0.01),
    )
    losses = result.history["loss"]
    assert np.all(np.isfinite(losses))
    assert losses[-15:].mean() < 0.8 * losses[:5].mean()


def test_the_step_is_an_optimiser_step_along_the_mean_of_the_meta_gradients():
    """One step written out by hand, with the keys that the documentation names."""
    result = run(steps=1, tasks_per_step=3)
    step_key = jax.random.fold_in(jax.random.key(1), 0)
    gradients, values = [], []
    meta_gradient = jax.jit(algorithm("fomaml").meta_gradient)
    for i in range(3):
        episode_key, solver_key = jax.random.split(jax.random.fold_in(step_key, i))
        task = bowls().sample(episode_key)
        value, gradient, _ = meta_gradient(origin(), task, solver_key)
        gradients.append(cf.flat(gradient))
        values.append(float(value))
    mean = np.mean(gradients, axis=0)
    np.testing.assert_allclose(cf.flat(result.theta), -RATE * mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(result.history["loss"], [np.mean(values)], rtol=1e-5)
    np.testing.assert_allclose(result.history["gradient_norm"], [np.linalg.norm(mean)], rtol=1e-5)


def test_a_custom_distribution_is_one_by_its_method():
    assert isinstance(bowls(), TaskDistribution)


def test_further_blocks_do_not_compile_again():
    sizes = []

    def on_block(state, block):
        sizes.append((len(block), training._run_block._cache_size()))

    run(steps=40, on_block=on_block, block_ends=9)
    compiled = sizes[0][1]
    assert len({length for length, _ in sizes}) > 1
    assert {size for _, size in sizes} == {compiled}
    # Nor does another run, another seed or another θ.
    run(steps=7, key=jax.random.key(9), tasks=Bowls(jnp.zeros(cf.SIZE), jnp.asarray(0.0)))
    assert training._run_block._cache_size() == compiled


def test_the_seed_decides_everything():
    first, again, other = run(), run(), run(key=jax.random.key(2))
    same(first.state, again.state)
    same(first.history, again.history)
    assert not np.array_equal(first.history["loss"], other.history["loss"])


@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["sgd", "adam"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(optimizer):
    whole = run(steps=12, optimizer=optimizer)
    half = run(steps=5, optimizer=optimizer)
    rest = run(steps=12, optimizer=optimizer, state=half.state)
    same(rest.state, whole.state)
    assert int(rest.state.step) == 12
    for name, column in whole.history.items():
        pieces = np.concatenate([half.history[name], rest.history[name]])
        np.testing.assert_array_equal(pieces, column)


def test_a_finished_run_has_nothing_left_to_do():
    done = run(steps=5)
    again = run(steps=5, state=done.state)
    same(again.state, done.state)
    assert again.history == {}


@pytest.mark.parametrize("block_seconds", [0.0, 1.0])
def test_the_length_of_blocks_changes_nothing(block_seconds):
    """The wall clock decides how long a block is, so it must not decide anything else."""
    same(run(steps=12, block_seconds=block_seconds).state, run(steps=12).state)


def test_blocks_end_where_they_are_told_to_and_count_from_one():
    blocks = []
    run(steps=25, block_ends=10, on_block=lambda state, block: blocks.append((state, block)))
    ends = [block.first + len(block) - 1 for _, block in blocks]
    assert [int(state.step) for state, _ in blocks] == ends
    assert blocks[0][1].first == 1
    assert {10, 20, 25} <= set(ends)
    assert [b.first for _, b in blocks[1:]] == [end + 1 for end in ends[:-1]]
    assert sum(sum(block.codes.values()) for _, block in blocks) == 25 * 2


def test_a_callback_that_returns_true_ends_the_run():
    result = run(steps=30, on_block=lambda state, block: int(state.step) >= 10, block_ends=10)
    assert result.stopped
    assert int(result.state.step) == 10
    assert len(result.history["loss"]) == 10
    assert not run(steps=3, on_block=lambda state, block: None).stopped


@functools.cache
def spoilt(tasks_bad):
    return jax.jit(lambda key: jnp.isnan(bowls(tasks_bad).sample(key).support[0]).any())


def first_bad(bad, key, per_step, limit=200):
    """Step (from 1) and task (from 0) of the first spoilt episode, by the documented keys."""
    for step in range(limit):
        step_key = jax.random.fold_in(key, step)
        for i in range(per_step):
            episode_key, _ = jax.random.split(jax.random.fold_in(step_key, i))
            if spoilt(bad)(episode_key):
                return step + 1, i
    raise AssertionError("no task is spoilt")


def test_a_nan_stops_the_run_at_its_step_and_names_the_task():
    tasks = bowls(bad=0.06)
    # A seed whose first spoilt task is neither at the start nor the first of its step.
    tries = ((seed, *first_bad(0.06, jax.random.key(seed), 2)) for seed in range(100))
    seed, step, task = next(found for found in tries if 3 < found[1] < 12 and found[2] == 1)
    key = jax.random.key(seed)
    seen = []
    with pytest.raises(NumericalError) as caught:
        run(
            steps=200,
            tasks=tasks,
            key=key,
            block_ends=step - 1,
            on_block=lambda state, block: seen.append(state),
        )
    assert f"Meta-step {step}, task {task} of 2" in str(caught.value)
    good = seen[-1]
    assert int(good.step) == step - 1
    same(good, run(steps=step - 1, tasks=tasks, key=key).state)
    assert np.all(np.isfinite(cf.flat(good.theta)))


def test_history_counts_flagged_tasks_and_keeps_every_column():
    def saddle(params, batch):
        """A concave loss, so that H + Λ is indefinite for every task."""
        x, _ = batch
        return -jnp.sum(cf.ravel_pytree(params)[0] ** 2) * 5.0 + 0.0 * jnp.sum(x)

    line = ALGORITHMS["imaml"]
    bad = line.make(saddle, strength=1.0, solver=lambda problem, theta, key: theta)
    start = cf.nested(jnp.ones(cf.SIZE))
    blocks = []
    result = train(
        bad,
        start,
        bowls(),
        steps=3,
        key=jax.random.key(0),
        tasks_per_step=2,
        optimizer=optax.sgd(1e-4),
        on_block=lambda state, block: blocks.append(block),
    )
    assert result.history["flagged"].tolist() == [2, 2, 2]
    assert np.all(result.history["smallest_curvature"] < 0)
    assert {code for block in blocks for code in block.codes} == {Verdict.NEGATIVE_CURVATURE}
    assert result.codes == {Verdict.NEGATIVE_CURVATURE: 6}
    assert {len(column) for column in result.history.values()} == {3}


def test_map_and_vmap_agree():
    one, other = (run(steps=6, strategy=strategy) for strategy in ("map", "vmap"))
    np.testing.assert_allclose(cf.flat(one.theta), cf.flat(other.theta), rtol=1e-5, atol=1e-6)


def test_the_default_optimiser_decays_to_a_standstill():
    optimizer = training.default_optimizer(10)
    state = optimizer.init(jnp.ones(2))
    sizes = []
    for _ in range(11):
        updates, state = optimizer.update(jnp.ones(2), state)
        sizes.append(float(jnp.abs(updates).max()))
    assert sizes[0] == pytest.approx(2e-3, rel=1e-3)
    assert sizes[10] == pytest.approx(0.0, abs=1e-9)
