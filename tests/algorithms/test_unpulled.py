"""Leaves with λ = 0 are what the support set says, and θ's gradient by them is zero."""

import closed_forms as cf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

import pullback as pb
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.linear import CG, Dense
from pullback.solvers import LBFGS, GradientDescent, NewtonCG

pytestmark = pytest.mark.usefixtures("x64")

STRENGTH = {"a": 0.5, "b": {"c": 0.0, "w": 1.5}}


def exact(task, strength=STRENGTH):
    """The formulas hold for any Λ for which H + Λ is positive definite."""
    diagonal = cf.flat(jax.tree.map(lambda s, x: s * x, strength, cf.nested(np.ones(cf.SIZE))))
    return cf.Exact(task.support, task.query, cf.flat(cf.theta()), diagonal)


SOLVERS = {
    "the default": (None, 1e-2),
    "l-bfgs": (LBFGS(40), 1e-7),
    "newton-cg": (NewtonCG(10), 1e-7),
    "gradient descent": (GradientDescent(600, learning_rate=0.3), 1e-7),
    "black box": (cf.solve_exactly, 1e-10),
}


@pytest.mark.parametrize(("solver", "rtol"), SOLVERS.values(), ids=SOLVERS)
def test_least_squares_have_the_closed_form(solver, rtol, key):
    task, theta = cf.task(), cf.theta()
    linear_solver = None if solver is None else CG(60, rtol=1e-12)
    algorithm = pb.imaml(cf.loss, strength=STRENGTH, solver=solver, linear_solver=linear_solver)
    wanted = exact(task)
    phi, report = jax.jit(algorithm.adapt)(theta, task.support, key)
    value, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, key)
    np.testing.assert_allclose(cf.flat(phi), wanted.phi, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(value, wanted.outer_value(wanted.phi), rtol=rtol)
    size = np.linalg.norm(wanted.meta_gradient)
    # The default linear solver stops at 5 %.
    atol = 0.05 * size if linear_solver is None else rtol * size
    np.testing.assert_allclose(cf.flat(gradient), wanted.meta_gradient, atol=atol)
    assert gradient["b"]["c"] == 0.0
    assert (int(report.code), int(info.code)) == (Verdict.OK, Verdict.OK)


def test_two_leaves_of_several_numbers(key):
    strength = {"a": 0.0, "b": {"c": 0.7, "w": 0.0}}
    task, theta = cf.task(3), cf.theta()
    algorithm = pb.imaml(cf.loss, strength=strength, solver=LBFGS(40), linear_solver=Dense())
    wanted = exact(task, strength)
    phi, _ = algorithm.adapt(theta, task.support, key)
    _, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, key)
    np.testing.assert_allclose(cf.flat(phi), wanted.phi, rtol=1e-7)
    np.testing.assert_allclose(cf.flat(gradient), wanted.meta_gradient, rtol=1e-7, atol=1e-12)
    assert int(info.code) == Verdict.OK


def test_what_theta_says_of_it_does_not_matter(key):
    algorithm = pb.imaml(cf.loss, strength=STRENGTH, solver=LBFGS(40))
    support, theta = cf.task().support, cf.theta()
    found = [
        algorithm.adapt({"a": theta["a"], "b": theta["b"] | {"c": c}}, support, key)[0]
        for c in (jnp.asarray(-1e3), jnp.asarray(5.0))
    ]
    np.testing.assert_allclose(*map(cf.flat, found), rtol=1e-7)


def test_phi_has_the_derivatives_of_the_closed_form(key):
    """By θ, by Λ of the pulled leaves and by the support set."""
    task, theta = cf.task(), cf.theta()
    x, y = map(jnp.asarray, task.support)
    start, direction = cf.flat(theta), np.random.default_rng(5).normal(size=cf.SIZE)

    def ours(vector, y):
        algorithm = pb.imaml(cf.loss, strength=STRENGTH, solver=LBFGS(40))
        return ravel_pytree(algorithm.adapt(cf.nested(vector), (x, y), key)[0])[0]

    diagonal = exact(task).strength

    def formula(vector, y):
        return jnp.linalg.solve(x.T @ x + jnp.diag(diagonal), x.T @ y + diagonal * vector)

    for argument in (0, 1):
        by_theta, by_formula = (
            jax.jit(jax.jacrev(function, argument))(jnp.asarray(start), y)
            for function in (ours, formula)
        )
        np.testing.assert_allclose(by_theta, by_formula, atol=1e-6)
    forward = jax.jvp(lambda v: ours(v, y), (jnp.asarray(start),), (jnp.asarray(direction),))[1]
    np.testing.assert_allclose(forward, exact(task).jacobian @ direction, atol=1e-6)
