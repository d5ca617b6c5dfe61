"""Properties of the implicit gradient that hold for every task."""

import functools

import closed_forms as cf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from pullback import implicit
from pullback.algorithms import imaml
from pullback.core.problem import Proximal
from pullback.linear import CG
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("x64")

quick = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10**6)
EXACT = CG(60, rtol=1e-12)


@functools.partial(jax.jit, static_argnames=("linear", "damping"))
def vjp(theta, support, strength, cotangent, linear=EXACT, damping=0.0):
    problem = Proximal(cf.loss, strength).problem(theta, support)
    return implicit.vjp(implicit.linearise(problem, theta), cotangent, linear, damping=damping)


@jax.jit
def meta_gradient(theta, task, strength):
    """Λ as an argument, so that one program serves all its values."""
    algorithm = imaml(cf.loss, strength=strength, solver=cf.solve_exactly, linear_solver=EXACT)
    return algorithm.meta_gradient(theta, task, jax.random.key(0))[1:]


def vector(seed, scale=1.0):
    return cf.nested(scale * np.random.default_rng(seed).normal(size=cf.SIZE))


@quick
@given(seeds, st.floats(1e9, 1e12))
def test_an_infinite_strength_gives_the_plain_gradient_at_theta(seed, strength):
    task, theta = cf.task(seed), cf.theta(seed)
    gradient, _ = meta_gradient(theta, task, strength)
    plain = cf.exact(task=task, theta_=theta).outer_gradient(cf.flat(theta))
    np.testing.assert_allclose(cf.flat(gradient), plain, rtol=1e-5, atol=1e-7)


@quick
@given(seeds, st.floats(1e-12, 1e-9))
def test_no_strength_leaves_nothing_for_theta_to_do(seed, strength):
    task = cf.task(seed)
    gradient, _ = meta_gradient(cf.theta(seed), task, strength)
    exact = cf.exact(task=task)
    limit = np.linalg.solve(exact.hessian, exact.outer_gradient(exact.phi))
    assert 0 < np.linalg.norm(cf.flat(gradient)) <= 20 * strength * np.linalg.norm(limit)


@quick
@given(seeds, st.floats(-10, 10), st.floats(-10, 10))
def test_the_product_is_linear_in_the_cotangent(seed, a, b):
    theta, support, strength = cf.theta(), cf.batch(1), cf.STRENGTHS["diagonal"]
    v, w = vector(seed), vector(seed + 1)
    mixed = jax.tree.map(lambda x, y: a * x + b * y, v, w)
    whole, of_v, of_w = (cf.flat(vjp(theta, support, strength, u)[0]) for u in (mixed, v, w))
    np.testing.assert_allclose(whole, a * of_v + b * of_w, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("linear", cf.LINEAR_SOLVERS)
def test_tiny_and_huge_cotangents_only_scale_the_result(linear):
    theta, support, strength = cf.theta(), cf.batch(1), cf.STRENGTHS["diagonal"]
    product = functools.partial(vjp, theta, support, strength, linear=cf.LINEAR_SOLVERS[linear])
    unscaled, solve = product(vector(0))
    for scale in (1e-200, 1e200):
        result, scaled_solve = product(vector(0, scale))
        np.testing.assert_allclose(cf.flat(result) / scale, cf.flat(unscaled), rtol=1e-7)
        assert int(scaled_solve.code) == int(solve.code)
        assert float(scaled_solve.residual) < 1e-8


@pytest.mark.parametrize("linear", ["cg", "dense", "lineax gmres"])
def test_tiny_cotangents_only_scale_the_result_in_single_precision(linear):
    solver = {"cg": CG(20, rtol=1e-5)}.get(linear, cf.LINEAR_SOLVERS[linear])
    single = lambda tree: jax.tree.map(lambda x: np.asarray(x, np.float32), tree)  # noqa: E731
    theta, support, strength = single((cf.theta(), cf.batch(1), cf.STRENGTHS["diagonal"]))
    with jax.enable_x64(False):
        for scale in (1.0, 1e-30, 1e30):
            result, _ = vjp(theta, support, strength, single(vector(0, scale)), linear=solver)
            exact = cf.exact("diagonal", Task(cf.batch(1), cf.batch(2)))
            wanted = exact.jacobian.T @ cf.flat(vector(0))
            got = cf.flat(result)
            assert got.dtype == np.float32
            np.testing.assert_allclose(got / np.float32(scale), wanted, rtol=1e-3, atol=1e-4)


@quick
@given(st.permutations(range(cf.SIZE)))
def test_renumbering_the_parameters_renumbers_the_gradient(order):
    order = np.asarray(order)
    x, y = cf.batch(1)
    q, z = cf.batch(2)
    start = cf.flat(cf.theta())
    diagonal = cf.flat(cf.STRENGTHS["diagonal"])
    plain, _ = meta_gradient(start, Task((x, y), (q, z)), diagonal)
    moved, _ = meta_gradient(
        start[order], Task((x[:, order], y), (q[:, order], z)), diagonal[order]
    )
    np.testing.assert_allclose(moved, plain[order], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "shape",
    [
        lambda v: v,
        lambda v: [v[:1], (v[1:4], v[4:].reshape(2, 2))],
        lambda v: {"z": {"y": v[:7].reshape(7, 1)}, "zz": v[7]},
    ],
    ids=["one leaf", "list and tuple", "matrix and scalar"],
)
def test_the_structure_of_the_parameters_makes_no_difference(shape):
    start = cf.flat(cf.theta())
    diagonal = cf.flat(cf.STRENGTHS["diagonal"])
    plain, _ = meta_gradient(cf.nested(start), cf.task(), cf.nested(diagonal))
    reshaped, _ = meta_gradient(shape(start), cf.task(), shape(diagonal))
    assert jax.tree.structure(reshaped) == jax.tree.structure(shape(start))
    np.testing.assert_allclose(cf.flat(reshaped), cf.flat(plain), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("linear", ["cg", "dense"])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_damping_is_added_to_the_operator_and_recorded(damping, linear, key):
    algorithm = imaml(
        cf.loss,
        strength=cf.STRENGTHS["diagonal"],
        solver=cf.solve_exactly,
        linear_solver=cf.LINEAR_SOLVERS[linear],
        damping=damping,
    )
    _, gradient, info = jax.jit(algorithm.meta_gradient)(cf.theta(), cf.task(), key)
    exact = cf.exact("diagonal")
    damped = exact.curved + damping * np.eye(cf.SIZE)
    wanted = exact.strength * np.linalg.solve(damped, exact.outer_gradient(exact.phi))
    np.testing.assert_allclose(cf.flat(gradient), wanted, rtol=1e-8)
    assert float(info.damping) == damping


def test_damping_is_zero_unless_asked_for():
    _, info = meta_gradient(cf.theta(), cf.task(), 0.7)
    assert float(info.damping) == 0.0


@pytest.mark.parametrize("form", cf.PROXIMAL)
def test_gradient_of_the_objective_is_the_derivative_of_its_value(form):
    problem = Proximal(cf.loss, cf.STRENGTHS[form]).problem(cf.theta(), cf.batch(1))
    point = cf.theta(7)

    @jax.jit
    def both(point):
        derivative = jax.value_and_grad(problem.value)(point)
        return problem.value_and_gradient(point), derivative, problem.gradient(point)

    (value, gradient), (same_value, derivative), same_gradient = both(point)
    np.testing.assert_allclose(value, same_value, rtol=1e-12)
    exact = cf.exact(form, Task(cf.batch(1), cf.batch(2))).gradient(cf.flat(point))
    for given_by in (gradient, derivative, same_gradient):
        np.testing.assert_allclose(ravel_pytree(given_by)[0], exact, rtol=1e-10, atol=1e-12)
    assert float(problem.smallest_strength()) == cf.strength_vector(form).min()
    assert jnp.shape(value) == ()
