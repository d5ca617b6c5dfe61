import jax
import numpy as np
import pytest

from pullback import trees
from pullback.algorithms import maml
from pullback.errors import InputError
from pullback.models import MLP, mean_squared_error
from pullback.solvers import GradientDescent
from pullback.study import memory
from pullback.tasks import Sinusoid


@pytest.fixture(scope="module")
def sizes():
    result = memory.measure(memory.QUICK, 0, lambda done: None)
    return {curve["algorithm"]: curve["bytes"] for curve in result["curves"]}


def test_memory_is_flat_for_implicit_gradients_and_grows_with_unrolling(sizes):
    first, last = 0, -1
    assert memory.QUICK.inner_steps == (1, 64)
    for name in ("imaml", "fomaml"):
        assert max(sizes[name]) < 1.1 * min(sizes[name])
    # Every step keeps at least its φ.
    model = MLP(1, 1, hidden=memory.QUICK.hidden)
    weights = sum(x.nbytes for x in jax.tree.leaves(model.init(jax.random.key(0))))
    assert sizes["maml"][last] - sizes["maml"][first] > 60 * weights
    assert sizes["maml"][last] > 4 * sizes["imaml"][last]
    assert sizes["imaml"][last] < sizes["maml, checkpointed"][last] < sizes["maml"][last] / 2


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_checkpoints_do_not_change_the_gradient(steps):
    model = MLP(1, 1, hidden=(4,))
    theta = model.init(jax.random.key(0))
    task = Sinusoid(5, 5).sample(jax.random.key(1))
    gradients = [
        trees.ravel(
            jax.jit(
                maml(mean_squared_error(model.apply), strength=2.0, solver=solver).meta_gradient
            )(theta, task, jax.random.key(2))[1]
        )[0]
        for solver in (GradientDescent(steps, 0.01), memory.CheckpointedDescent(steps, 0.01))
    ]
    np.testing.assert_allclose(*gradients, rtol=1e-4, atol=1e-5)


def test_a_checkpointed_descent_needs_steps():
    with pytest.raises(InputError, match="steps"):
        memory.CheckpointedDescent(0, 0.01)
