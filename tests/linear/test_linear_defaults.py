"""A linear solver made without settings solves; only iMAML's own default stops early."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import symmetric

from pullback.algorithms import imaml, learned_imaml
from pullback.algorithms.adjoint import Implicit
from pullback.core.results import Verdict
from pullback.linear import CG, GMRES, MINRES, BiCGStab, Dense, Neumann, Nystrom
from pullback.linear.cg import ECONOMICAL, REMEMBERED
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")
SIZE = 7
MATRIX = symmetric(np.geomspace(1.0, 40.0, SIZE))
RHS = np.arange(1.0, 1.0 + SIZE)
SOLVERS = {
    "cg": CG(),
    "cg of 50 steps": CG(steps=50),
    "minres": MINRES(),
    "gmres": GMRES(),
    "bicgstab": BiCGStab(),
    "nystrom": Nystrom(),
    "neumann": Neumann(),
    "dense": Dense(),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_in_single_precision_the_answer_is_right_to_five_digits(name):
    matrix = jnp.asarray(MATRIX, jnp.float32)
    found = SOLVERS[name].solve(lambda u: matrix @ u, jnp.asarray(RHS, jnp.float32), lambda v: v)
    exact = np.linalg.solve(np.asarray(matrix, float), RHS)
    assert int(found.code) == Verdict.OK
    assert np.linalg.norm(MATRIX @ np.asarray(found.value, float) - RHS) < (
        1.5e-5 * np.linalg.norm(RHS)
    )
    # The error of u is the residual's times the condition number at most.
    assert np.linalg.norm(found.value - exact) < 40 * 1.5e-5 * np.linalg.norm(exact)


def test_more_steps_by_default_cost_cg_no_more_memory():
    shapes = jax.eval_shape(lambda b: CG().solve(lambda u: u, b, lambda v: v), jnp.ones(SIZE))
    assert shapes.directions.shape == (REMEMBERED, SIZE)


def loss(params, batch):
    return 0.5 * jnp.sum(batch * params * params) + jnp.sum(params)


def test_imaml_asks_for_the_economical_solver_by_name():
    assert (ECONOMICAL.steps, ECONOMICAL.rtol) == (10, 0.05)
    assert Implicit(None, None, 0.0, None).linear_solver is ECONOMICAL
    curvatures = jnp.geomspace(0.1, 100.0, 12)
    task, theta = Task(curvatures, curvatures), jnp.ones(12)
    gradients = []
    for solver in (None, ECONOMICAL, CG(100, 1e-6, preconditioned=False)):
        algorithm = imaml(loss, strength=1.0, linear_solver=solver)
        gradients.append(algorithm.meta_gradient(theta, task, jax.random.key(0))[1])
    np.testing.assert_array_equal(gradients[0], gradients[1])
    assert np.max(np.abs(gradients[0] - gradients[2])) > 1e-4


@pytest.mark.parametrize("function", [imaml, learned_imaml])
def test_the_docstrings_say_so(function):
    text = " ".join(function.__doc__.split()).replace("``", "`")
    assert "ECONOMICAL` if None" in text
    assert "10 products with H or at a relative residual of 5 %" in text
