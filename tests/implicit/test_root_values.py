"""Gradients through ``root`` and ``fixed_point`` against formulas and finite differences."""

import closed_forms as cf
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

import pullback as pb
from pullback import implicit
from pullback.algorithms import imaml
from pullback.core.results import Verdict
from pullback.implicit._solve import DENSE_LIMIT
from pullback.linear import CG, Dense

pytestmark = pytest.mark.usefixtures("x64")

N = 4
EXACT = CG(60, rtol=1e-12)
X, Y = cf.batch(1, np.geomspace(0.3, 2.0, N))
SYMMETRIC_SOLVERS = {
    "cg": CG(40, rtol=1e-12),
    "dense": Dense(),
    "lineax cg": lx.CG(rtol=1e-12, atol=1e-12),
}
SOLVERS = {
    "default": None,
    "gmres": lx.GMRES(rtol=1e-11, atol=1e-11),
    "auto": lx.AutoLinearSolver(well_posed=True),
    "normal": lx.Normal(lx.CG(rtol=1e-13, atol=1e-13)),
}


def ridge_condition(w, x, y, l2):
    return x.T @ (x @ w - y) + l2 * w


def ridge_formula(x, y, l2):
    return jnp.linalg.solve(x.T @ x + l2 * jnp.eye(x.shape[1]), x.T @ y)


def ridge(**given):
    @implicit.root(ridge_condition, **given)
    def solve(init, x, y, l2):
        return jax.lax.while_loop(  # no reverse mode: it must never be asked for one
            lambda w: jnp.any(w != ridge_formula(x, y, l2)),
            lambda w: ridge_formula(x, y, l2),
            init,
        )

    return solve


def linear(**given):
    @implicit.root(lambda x, a, b: a @ x - b, **given)
    def solve(init, a, b):
        return jnp.linalg.solve(a, b)

    return solve


def close(given, wanted, rtol=1e-8, atol=1e-9):
    given, wanted = (np.asarray(ravel_pytree(tree)[0]) for tree in (given, wanted))
    np.testing.assert_allclose(given, wanted, rtol=rtol, atol=atol)


def test_the_doors_are_reached_from_the_package():
    assert pb.implicit.root is implicit.root
    assert {"root", "fixed_point", "certify", "vjp"} <= set(pb.implicit.__all__)


@pytest.mark.parametrize("mode", [jax.jacrev, jax.jacfwd])
def test_ridge_has_the_jacobian_of_its_formula(mode):
    start = jnp.zeros(N)
    got = jax.jit(mode(lambda *args: ridge()(start, *args), (0, 1, 2)))(X, Y, 0.5)
    close(got, jax.jit(mode(ridge_formula, (0, 1, 2)))(X, Y, 0.5))


@pytest.mark.parametrize("name", SYMMETRIC_SOLVERS)
def test_symmetric_solvers_of_the_library_solve_a_symmetric_condition(name):
    solve = ridge(linear_solver=SYMMETRIC_SOLVERS[name], symmetric=True)
    for mode in (jax.jacrev, jax.jacfwd):
        got = jax.jit(mode(lambda l2: solve(jnp.zeros(N), X, Y, l2)))(0.5)
        close(got, jax.jit(jax.jacfwd(ridge_formula, 2))(X, Y, 0.5))


def test_a_gradient_a_directional_derivative_and_a_batch_of_gradients_agree():
    solve = ridge()
    loss = lambda l2: jnp.sum(solve(jnp.zeros(N), X, Y, l2) ** 3)  # noqa: E731
    formula = lambda l2: jnp.sum(ridge_formula(X, Y, l2) ** 3)  # noqa: E731
    strengths = jnp.asarray([0.1, 0.5, 3.0])
    wanted = jax.jit(jax.vmap(jax.grad(formula)))(strengths)
    close(jax.jit(jax.vmap(jax.grad(loss)))(strengths), wanted)
    gradient = jax.jit(jax.grad(loss))
    close(jnp.stack([gradient(s) for s in strengths]), wanted)
    close(jax.jit(jax.vmap(lambda s: jax.jvp(loss, (s,), (1.0,))[1]))(strengths), wanted)


def test_second_derivatives_are_those_of_the_formula():
    solve = ridge()

    def both(f):
        hessian = jax.hessian(lambda p: jnp.sum(f(p["x"], Y, p["l2"]) ** 3))
        return jax.jit(hessian)({"x": X, "l2": 0.5})

    close(both(lambda *args: solve(jnp.zeros(N), *args)), both(ridge_formula), rtol=1e-6)


def test_second_derivatives_of_a_nonlinear_condition_agree_with_finite_differences():
    @implicit.root(lambda x, t: jnp.exp(x) + x * t["a"] - t["b"])
    def solve(init, t):
        step = lambda _, x: x - (jnp.exp(x) + x * t["a"] - t["b"]) / (jnp.exp(x) + t["a"])  # noqa: E731
        return jax.lax.fori_loop(0, 30, step, init)

    @jax.jit
    def outer(a, b):
        return jnp.sum(jnp.sin(solve(jnp.zeros(2), {"a": a, "b": b})))

    check_grads(outer, (jnp.asarray([0.5, 2.0]), jnp.asarray([3.0, 1.5])), order=2, eps=1e-4)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_nonsymmetric_indefinite_matrix_is_inverted_and_not_its_transpose(name):
    a = jnp.asarray([[0.0, 2.0, 0.0], [-1.0, 0.3, 1.0], [0.5, 0.0, -3.0]])
    b = jnp.arange(3.0) + 1
    solve = linear(linear_solver=SOLVERS[name])
    for mode in (jax.jacrev, jax.jacfwd):
        got = jax.jit(lambda *args, mode=mode: mode(solve, (1, 2))(None, *args))(a, b)
        close(got, jax.jit(jax.jacfwd(jnp.linalg.solve, (0, 1)))(a, b))


seeds = st.integers(0, 10**6)


@settings(max_examples=15, deadline=None)
@given(seeds, st.booleans(), st.floats(-8, 8))
def test_the_jacobian_of_any_regular_linear_system_is_the_inverse(seed, definite, exponent):
    rng = np.random.default_rng(seed)
    a = np.linalg.qr(rng.normal(size=(N, N)))[0] * np.geomspace(0.1, 2, N)
    a = (a @ a.T if definite else a @ rng.permutation(np.eye(N))) * 10.0**exponent
    got = RECIPES[definite](jnp.asarray(a), jnp.asarray(rng.normal(size=N)))
    for jacobian in got:
        np.testing.assert_allclose(
            jacobian * 10.0**exponent @ a / 10.0**exponent, np.eye(N), atol=1e-8
        )


def _both_jacobians(**given):
    solve = linear(**given)
    return jax.jit(lambda a, b: [mode(solve, 2)(None, a, b) for mode in (jax.jacrev, jax.jacfwd)])


RECIPES = {
    True: _both_jacobians(symmetric=True, linear_solver=CG(50, rtol=1e-13)),
    False: _both_jacobians(),
}


def test_beyond_the_dense_limit_the_default_iterates():
    n = DENSE_LIMIT + 10
    diagonal = jnp.asarray(np.random.default_rng(0).uniform(1, 3, n))

    @implicit.root(lambda x, d, b: d * x + 0.5 * jnp.roll(x, 1) - b)
    def solve(init, d, b):
        return jnp.linalg.solve(jnp.diag(d) + 0.5 * jnp.roll(jnp.eye(n), 1, axis=0), b)

    b, v = jnp.ones(n), jnp.cos(jnp.arange(n))
    matrix = jnp.diag(diagonal) + 0.5 * jnp.roll(jnp.eye(n), 1, axis=0)
    got = jax.jit(jax.grad(lambda b: v @ solve(None, diagonal, b)))(b)
    close(got, np.linalg.solve(matrix.T, v), rtol=1e-6)


def test_the_lasso_has_the_derivative_of_its_support():
    def shrink(v, by):
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - by, 0)

    def step(w, y, l1):
        return shrink(w - 0.4 * X.T @ (X @ w - y), 0.4 * l1)

    @implicit.fixed_point(step)
    def lasso(init, y, l1):
        return jax.lax.fori_loop(0, 600, lambda _, w: step(w, y, l1), init)

    l1 = 0.4
    w = lasso(jnp.zeros(N), Y, l1)
    support = np.flatnonzero(w)
    assert 0 < len(support) < N
    sub = X[:, support]
    inverse = np.linalg.inv(sub.T @ sub)
    wanted_l1, wanted_y = np.zeros(N), np.zeros((N, len(Y)))
    wanted_l1[support] = -inverse @ np.sign(w[support])
    wanted_y[support] = inverse @ sub.T
    for mode in (jax.jacrev, jax.jacfwd):
        by_y, by_l1 = jax.jit(mode(lasso, (1, 2)))(jnp.zeros(N), jnp.asarray(Y), l1)
        close(by_l1, wanted_l1)
        close(by_y, wanted_y)


def test_the_dual_of_a_support_vector_machine_moves_with_its_free_variables_and_its_bound():
    rng = np.random.default_rng(3)
    rows, labels = rng.normal(size=(8, 2)), np.where(np.arange(8) % 2, 1.0, -1.0)
    q = (labels[:, None] * rows) @ (labels[:, None] * rows).T + 0.3 * np.eye(8)

    def step(alpha, gain, bounds):
        return jnp.clip(alpha - 0.05 * (q @ alpha - gain), bounds["low"], bounds["high"])

    @implicit.fixed_point(step)
    def solve(init, gain, bounds):
        return jax.lax.fori_loop(0, 4000, lambda _, a: step(a, gain, bounds), init)

    bounds = {"low": 0.0, "high": 0.8}
    gain = jnp.ones(8)
    alpha = solve(jnp.zeros(8), gain, bounds)
    free = (alpha > 0) & (alpha < 0.8)
    full = np.asarray(alpha == 0.8)
    assert 0 < free.sum() < 8
    assert full.any()
    free = np.asarray(free)
    inverse = np.linalg.inv(q[np.ix_(free, free)])
    by_gain = np.zeros((8, 8))
    by_gain[np.ix_(free, free)] = inverse
    by_high = full.astype(float)
    by_high[free] = -inverse @ q[np.ix_(free, full)].sum(1)
    got_gain, got_bounds = jax.jit(jax.jacrev(solve, (1, 2)))(jnp.zeros(8), gain, bounds)
    close(got_gain, by_gain)
    close(got_bounds["high"], by_high)


def test_cleaning_data_by_a_weight_for_each_example_agrees_with_finite_differences():
    rng = np.random.default_rng(5)
    x, validation = rng.normal(size=(10, 2)), rng.normal(size=(6, 2))
    labels, truth = np.sign(x[:, 0] + 0.3), np.sign(validation[:, 0])

    def inner(w, importance):
        losses = jnp.logaddexp(0.0, -labels * (x @ w["slope"] + w["offset"]))
        return jax.nn.sigmoid(importance) @ losses + 0.05 * jnp.sum(ravel_pytree(w)[0] ** 2)

    @implicit.root(jax.grad(inner), symmetric=True, linear_solver=CG(30, rtol=1e-12))
    def train(init, importance):
        flat, unravel = ravel_pytree(init)
        loss = lambda v: inner(unravel(v), importance)  # noqa: E731
        newton = lambda _, v: v - jnp.linalg.solve(jax.hessian(loss)(v), jax.grad(loss)(v))  # noqa: E731
        return unravel(jax.lax.fori_loop(0, 15, newton, flat))

    @jax.jit
    def outer(importance):
        w = train({"slope": jnp.zeros(2), "offset": jnp.zeros(())}, importance)
        return jnp.mean(jnp.logaddexp(0.0, -truth * (validation @ w["slope"] + w["offset"])))

    check_grads(outer, (jnp.zeros(10),), order=1, modes=["fwd", "rev"], eps=1e-5)


@pytest.mark.parametrize("jitted", [False, True])
def test_a_solver_that_leaves_jax_is_differentiated(jitted):
    def condition(w, x, l2):
        return jax.grad(lambda w: jnp.sum(jnp.logaddexp(0.0, x @ w)) + 0.5 * l2 * w @ w)(w)

    def outside(x, l2):
        x, l2 = np.asarray(x), float(l2)
        value = lambda w: np.sum(np.logaddexp(0, x @ w)) + 0.5 * l2 * w @ w  # noqa: E731
        slope = lambda w: x.T @ (1 / (1 + np.exp(-x @ w))) + l2 * w  # noqa: E731
        return scipy.optimize.minimize(value, np.zeros(2), jac=slope, tol=1e-11).x

    @implicit.root(condition, symmetric=True)
    def solve(init, x, l2):
        return jax.pure_callback(outside, jax.ShapeDtypeStruct((2,), float), x, l2)

    x = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)) + 0.5)
    outer = lambda l2: jnp.sum(solve(None, x, l2) ** 2)  # noqa: E731
    gradient = jax.grad(outer)
    gradient = jax.jit(gradient) if jitted else gradient
    numeric = (outer(1.0 + 1e-4) - outer(1.0 - 1e-4)) / 2e-4
    close(gradient(1.0), numeric, rtol=1e-5)


def test_a_solver_in_numpy_needs_no_callback_outside_jit():
    @implicit.root(lambda x, a, b: a @ x - b)
    def solve(init, a, b):
        return np.linalg.solve(np.asarray(a), np.asarray(b))

    a, b = jnp.asarray([[2.0, 1.0], [0.0, 3.0]]), jnp.ones(2)
    close(jax.jacrev(solve, 2)(None, a, b), np.linalg.inv(a))


def test_aux_is_returned_beside_the_solution():
    @implicit.root(ridge_condition, has_aux=True)
    def solve(init, x, y, l2):
        return ridge_formula(x, y, l2), {"steps": 3, "value": l2 * 2, "nothing": None}

    def outer(l2):
        w, aux = solve(jnp.zeros(N), X, Y, l2)
        return jnp.sum(w), aux

    (_, aux), gradient = jax.jit(jax.value_and_grad(outer, has_aux=True))(0.5)
    assert (int(aux["steps"]), float(aux["value"]), aux["nothing"]) == (3, 1.0, None)
    close(gradient, np.sum(jax.jit(jax.jacfwd(ridge_formula, 2))(X, Y, 0.5)))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_whole_numbers_truth_values_keys_none_and_functions_may_be_among_the_arguments(transform):
    def condition(x, t):
        return t["link"](x) ** 3 * t["scale"] - jnp.where(t["flag"], t["b"], 0) + t["key"].ndim

    @implicit.root(condition)
    def solve(init, t):
        return (jnp.where(t["flag"], t["b"], 0) / t["scale"]) ** (1 / 3)

    static = {"none": None, "name": "text", "link": lambda x: x, "plain": 2}
    arrays = {
        "scale": jnp.asarray([2, 3]),
        "flag": jnp.asarray([True, False]) | True,
        "key": jax.random.key(0),
    }
    run = transform(jax.grad(lambda b, arrays: jnp.sum(solve(None, {"b": b, **static, **arrays}))))
    b = jnp.asarray([1.0, 2.0])
    close(run(b, arrays), (b / arrays["scale"]) ** (-2 / 3) / (3 * arrays["scale"]))


def test_the_tree_of_the_solution_and_of_the_arguments_may_be_any():
    size = cf.SIZE
    a = np.random.default_rng(0).normal(size=(size, size)) + 3 * np.eye(size)

    @implicit.root(lambda x, p: cf.nested(a @ ravel_pytree(x)[0] - ravel_pytree(p)[0]))
    def solve(init, p):
        return cf.nested(jnp.linalg.solve(a, ravel_pytree(p)[0]))

    v = np.cos(np.arange(size))
    theta = cf.theta()
    gradient = jax.jit(jax.grad(lambda p: v @ ravel_pytree(solve(theta, p))[0]))(theta)
    assert jax.tree.structure(gradient) == jax.tree.structure(theta)
    close(gradient, np.linalg.solve(a.T, v))


def test_the_meta_gradient_of_imaml_is_the_gradient_through_root(key):
    strength, exact = cf.STRENGTHS["diagonal"], cf.exact("diagonal")
    task, theta = cf.task(), cf.theta()

    def condition(phi, theta, support):
        pull = jax.tree.map(lambda s, p, t: s * (p - t), strength, phi, theta)
        return jax.tree.map(jnp.add, jax.grad(cf.loss)(phi, support), pull)

    @implicit.root(condition, symmetric=True, linear_solver=EXACT)
    def adapt(init, theta, support):
        return cf.nested(jnp.asarray(exact.phi))

    outer = lambda theta: cf.loss(adapt(theta, theta, task.support), task.query)  # noqa: E731
    algorithm = imaml(cf.loss, strength=strength, solver=cf.solve_exactly, linear_solver=EXACT)
    value, gradient, _ = jax.jit(algorithm.meta_gradient)(theta, task, key)
    got_value, got = jax.jit(jax.value_and_grad(outer))(jax.tree.map(jnp.asarray, theta))
    close(got_value, value)
    close(got, gradient)
    close(got, exact.meta_gradient)


def test_damping_is_added_to_the_jacobian():
    got = jax.jit(jax.jacrev(linear(damping=0.3), 2))(None, 2 * np.eye(2), np.ones(2))
    close(got, np.eye(2) / 2.3)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_cotangents_only_scale_the_gradient_in_single_precision(scale):
    with jax.enable_x64(False):
        a = jnp.asarray([[2.0, 1.0], [-1.0, 3.0]], jnp.float32)

        @jax.jit
        def pulled(cotangent):
            _, pull = jax.vjp(lambda b: linear()(None, a, b), jnp.ones(2, jnp.float32))
            return pull(cotangent)

        (got,) = pulled(jnp.full(2, scale, jnp.float32))
        assert got.dtype == jnp.float32
        close(got / np.float32(scale), np.linalg.solve(a.T, np.ones(2)), rtol=1e-5)


def test_a_certificate_reports_what_was_measured():
    w = np.linalg.solve(X.T @ X + 0.5 * np.eye(N), X.T @ Y)
    certify = jax.jit(lambda w: implicit.certify(ridge_condition, w, X, Y, 0.5))
    exact = certify(w)
    assert int(exact.code) == Verdict.OK
    assert float(exact.relative) < 1e-12
    assert float(exact.linear_residual) < 1e-12
    moved = certify(w + 0.1)
    wanted = np.linalg.norm((X.T @ X + 0.5 * np.eye(N)) @ np.full(N, 0.1))
    close(moved.residual, wanted)
    assert int(moved.code) == Verdict.INNER_NOT_CONVERGED
    step = lambda w: w - 0.1 * ridge_condition(w, X, Y, 0.5)  # noqa: E731
    of_step = jax.jit(lambda w: implicit.certify(implicit.displacement(step), w))(w)
    assert int(of_step.code) == Verdict.OK
