"""Gradient descent that keeps only about √T of its steps: the same numbers from less memory."""

import jax
import numpy as np
import pytest

from pullback.algorithms import maml
from pullback.core import trees
from pullback.core.errors import InputError
from pullback.models import MLP, mean_squared_error
from pullback.solvers import SOLVERS, GradientDescent
from pullback.tasks import Sinusoid

MODEL = MLP(1, 1, hidden=(4,))
TASK = Sinusoid(5, 5).sample(jax.random.key(1))
KEY = jax.random.key(2)

pytestmark = pytest.mark.usefixtures("tiny")


def program(solver, model=MODEL):
    theta = model.init(jax.random.key(0))
    algorithm = maml(mean_squared_error(model.apply), strength=2.0, solver=solver)
    return jax.jit(algorithm.meta_gradient).lower(theta, TASK, KEY).compile(), theta


# One step, a prime with steps left over from whole blocks, and whole blocks only.
@pytest.mark.parametrize("steps", [1, 7, 12])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_checkpoints_change_neither_value_nor_gradient(steps, momentum):
    found = []
    for checkpoint in (False, True):
        solver = GradientDescent(steps, 0.01, momentum, checkpoint=checkpoint)
        compiled, theta = program(solver)
        value, gradient, info = compiled(theta, TASK, KEY)
        found.append((value, trees.ravel(gradient)[0], info.inner_residual))
    for plain, checkpointed in zip(*found, strict=True):
        np.testing.assert_allclose(plain, checkpointed, rtol=1e-4, atol=1e-5)


def test_the_residual_without_a_proximal_term_is_relative_to_the_start():
    theta = MODEL.init(jax.random.key(0))
    reports = []
    for checkpoint in (False, True):
        solver = GradientDescent(10, 0.05, checkpoint=checkpoint)
        algorithm = maml(mean_squared_error(MODEL.apply), solver=solver)
        reports.append(jax.jit(algorithm.adapt)(theta, TASK.support, KEY)[1])
    plain, checkpointed = (float(report.inner_residual) for report in reports)
    assert 0 < plain < 1
    np.testing.assert_allclose(plain, checkpointed, rtol=1e-4)


def test_memory_grows_with_the_root_of_the_steps_even_where_no_number_divides_them():
    model = MLP(1, 1, hidden=(20,))
    sizes = {}
    for steps in (16, 61, 256):
        compiled, _ = program(GradientDescent(steps, 0.01, checkpoint=True), model)
        sizes[steps] = compiled.memory_analysis().temp_size_in_bytes
    plain, _ = program(GradientDescent(61, 0.01), model)
    assert sizes[61] < 0.5 * plain.memory_analysis().temp_size_in_bytes
    assert sizes[256] < 5 * sizes[16]


def test_the_registry_makes_one_without_checkpoints():
    assert not SOLVERS["gradient-descent"].make(steps=3, learning_rate=0.1).checkpoint


@pytest.mark.wrong_types
def test_a_checkpoint_is_yes_or_no():
    with pytest.raises(InputError, match="checkpoint='root'"):
        GradientDescent(4, checkpoint="root")
