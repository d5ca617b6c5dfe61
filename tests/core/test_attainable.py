"""A tolerance finer than the numbers is refused at the first call, with what is attainable."""

import jax
import jax.numpy as jnp
import pytest

from pullback.algorithms import imaml
from pullback.core.errors import InputError
from pullback.linear import CG, GMRES, MINRES, BiCGStab, Neumann, Nystrom
from pullback.solvers import LBFGS, NewtonCG
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")
TASK = Task(jnp.ones(3), jnp.zeros(3))


def loss(params, batch):
    return jnp.sum((params - batch) ** 2)


SETTINGS = [
    *({"linear_solver": make(rtol=1e-10)} for make in (CG, MINRES, GMRES, BiCGStab, Neumann)),
    {"linear_solver": Nystrom(rank=2, rtol=1e-10)},
    {"solver": LBFGS(rtol=1e-10)},
    {"solver": NewtonCG(rtol=1e-10)},
]


@pytest.mark.parametrize("given", SETTINGS, ids=lambda given: type(*given.values()).__name__)
def test_float32_is_not_asked_for_ten_digits(given, key):
    meta_gradient = imaml(loss, strength=1.0, **given).meta_gradient
    with pytest.raises(InputError, match=r"float32.*1\.2e-07.*float64"):
        jax.eval_shape(meta_gradient, jnp.ones(3), TASK, key)
    with jax.enable_x64(True):
        task = Task(jnp.ones(3, jnp.float64), jnp.zeros(3, jnp.float64))
        gradient = meta_gradient(2 * jnp.ones(3, jnp.float64), task, key)[1]
        assert gradient.dtype == jnp.float64


def test_zero_goes_as_far_as_rounding_allows(key):
    meta_gradient = imaml(loss, strength=1.0, linear_solver=CG(10, rtol=0.0)).meta_gradient
    assert meta_gradient(jnp.ones(3), TASK, key)[2].linear_residual < 1e-6
