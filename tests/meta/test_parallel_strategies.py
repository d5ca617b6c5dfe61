import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pullback import models, tasks
from pullback.algorithms import imaml
from pullback.core.errors import InputError
from pullback.meta import autotune, parallel
from pullback.meta.autotune import Timing
from pullback.meta.training import train
from pullback.solvers import GradientDescent

pytestmark = pytest.mark.usefixtures("tiny")

MODEL = models.MLP(inputs=1, outputs=1, hidden=(5,))
LOSS = models.mean_squared_error(MODEL.apply)
ALGORITHM = imaml(LOSS, strength=2.0, solver=GradientDescent(3, 0.01))
PARAMS = MODEL.init(jax.random.key(0))


def trained(strategy, **options):
    # One step of plain descent: θ moves by the averaged meta-gradient and nothing else.
    settings = {"steps": 1, "tasks_per_step": 6, "optimizer": optax.sgd(1.0), "devices": 1}
    result = train(
        ALGORITHM,
        PARAMS,
        tasks.Sinusoid(5, 5),
        key=jax.random.key(1),
        strategy=strategy,
        **settings | options,
    )
    moved = jax.tree.map(jnp.subtract, PARAMS, result.theta)
    return jax.flatten_util.ravel_pytree(moved)[0], result.history


@pytest.fixture(scope="module")
def by_map():
    return trained("map")


# Of six tasks, chunks of 4 are not possible: the largest that is has 3.
@pytest.mark.parametrize("strategy", ["vmap", "chunked:1", "chunked:2", "chunked:4", "chunked:99"])
def test_every_strategy_gives_the_gradient_of_map(strategy, by_map):
    gradient, history = trained(strategy)
    assert np.linalg.norm(by_map[0]) > 0.1
    np.testing.assert_allclose(gradient, by_map[0], rtol=2e-5, atol=1e-6)
    for name, column in by_map[1].items():
        np.testing.assert_allclose(history[name], column, rtol=1e-4, err_msg=name)


def test_chunks_run_so_many_tasks_at_once():
    mesh, items = parallel.task_mesh(6, 1), jnp.arange(12.0).reshape(6, 2)

    def program(strategy):
        def run(items):
            return parallel.over_tasks(lambda _, x: (x.sum(), 2 * x), (), items, strategy, mesh)

        return str(jax.make_jaxpr(run)(items))

    # Loops over one task six times, over three of them twice, and not at all.
    assert "length=6" in program("map")
    assert "length=2" in program("chunked:3")
    assert "f32[3,2] = mul" in program("chunked:3")
    assert "length=" not in program("vmap")


BAD = {
    "vmpa": "Did you mean 'vmap'",
    "chunked": "chunked:N with a whole number N from 1",
    "chunked:0": "as in chunked:4",
    "chunked:two": "as in chunked:4",
    "chunked:N": "as in chunked:4",
}


@pytest.mark.parametrize(("name", "message"), BAD.items())
def test_names_that_are_no_strategy_are_refused(name, message):
    with pytest.raises(InputError, match=message):
        parallel.find_strategy(name)


def test_the_default_is_that_of_the_backend():
    own = "map" if jax.default_backend() == "cpu" else "vmap"
    assert parallel.find_strategy("auto") == own
    assert parallel.rivals(8)[0] == own
    assert set(parallel.rivals(8)) == {"map", "vmap", "chunked:2", "chunked:4"}
    assert parallel.rivals(6)[2:] == ["chunked:2"]
    assert parallel.rivals(1) == [own]


def chosen(times, steps, compilation=2.0):
    return autotune.choose(list(times), lambda name: Timing(compilation, times[name]), steps)


def test_the_fastest_strategy_is_chosen_where_timing_is_cheap():
    choice = chosen({"map": 1.0, "vmap": 0.3, "chunked:2": 0.5}, steps=1000)
    assert choice.strategy == "vmap"
    assert list(choice.timings) == ["map", "vmap", "chunked:2"]
    assert "vmap 300 ms" in choice.words()
    # Two seconds of compiling are too much beside ten of computing.
    choice = chosen({"map": 0.01, "vmap": 0.001}, steps=1000)
    assert (choice.strategy, choice.untried) == ("map", ("vmap",))
    assert "would cost more than it can gain" in choice.words()
    # After a tenfold gain the rest is no longer worth its compilation.
    choice = chosen({"map": 0.1, "vmap": 0.01, "chunked:2": 0.005}, steps=1000)
    assert (choice.strategy, choice.untried) == ("vmap", ("chunked:2",))


def test_a_gain_within_the_noise_changes_nothing():
    assert chosen({"map": 1.0, "vmap": 0.9}, steps=10_000).strategy == "map"


def test_a_measured_training_is_one_of_the_others(by_map):
    choices = []
    gradient, _ = trained("measure", on_choice=choices.append)
    assert choices[0].strategy in choices[0].timings
    np.testing.assert_allclose(gradient, by_map[0], rtol=2e-5, atol=1e-6)
