"""On problems unlike a network a certificate is not fooled: kinks, saturation, units, rounding."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

import pullback as pb
from pullback import implicit
from pullback.core.problem import Proximal
from pullback.core.results import Verdict
from pullback.linear import CG, Dense, Lineax
from pullback.solvers import LBFGS, GradientDescent

pytestmark = pytest.mark.usefixtures("tiny")

KEY = jax.random.key(0)


def judge(loss, theta, task, strength=1.0, **given):
    algorithm = pb.imaml(loss, strength=strength, **given)
    _, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, KEY)
    return gradient, info


SHAPES = {"absolute": jnp.abs, "hinge": jax.nn.relu, "Huber": lambda x: jnp.maximum(x, 0.01 * x)}


@pytest.mark.parametrize("solver", [LBFGS(8), LBFGS(16), GradientDescent(16, 0.02)], ids=repr)
@pytest.mark.parametrize("shape", SHAPES)
def test_at_a_kink_no_gradient_is_ok(shape, solver):
    # φ* is in the kink, b, whatever θ is; so the true gradient is zero.
    loss = lambda params, b: jnp.sum(SHAPES[shape](params - b))  # noqa: E731
    task = pb.Task(jnp.asarray([0.3, -0.1]), jnp.asarray([-1.0, -1.0]))
    gradient, info = judge(loss, jnp.asarray([0.6, 0.4]), task, solver=solver)
    assert np.linalg.norm(gradient) > 0.1 and info.code != Verdict.OK


def logistic(params, batch):
    x, y = batch
    return jnp.mean(jnp.logaddexp(0.0, -y * (x @ params)))


def test_in_a_saturated_region_no_gradient_is_ok(rng):
    x = jnp.asarray(rng.normal(size=(8, 3)), jnp.float32) * 10
    task = pb.Task((x, jnp.sign(x[:, 0])), (x + 1, jnp.sign(x[:, 0])))
    far = lambda problem, theta, key: theta + jnp.asarray([9.0, 0.0, 0.0])  # noqa: E731
    _, info = judge(logistic, jnp.zeros(3), task, 0.01, solver=far)
    assert info.inner_residual > 1 and info.code == Verdict.INNER_NOT_CONVERGED


@pytest.mark.parametrize("strength", [1e-6, 1e-4])
def test_lbfgs_does_not_stay_where_the_loss_is_saturated(strength, rng):
    x = rng.normal(size=(5, 24))
    x = jnp.asarray(30 * x / np.linalg.norm(x, axis=1, keepdims=True), jnp.float32)

    def loss(params, labels):
        return -jnp.mean(jax.nn.log_softmax(x @ params)[jnp.arange(5), labels])

    def residual(key):
        theta = 0.1 * jax.random.normal(key, (24, 5))
        problem = Proximal(loss, strength).problem(theta, jnp.arange(5))
        return implicit.linearise(problem, LBFGS(16).solve(problem, theta, key).phi).residual()

    found = jax.jit(jax.vmap(residual))(jax.random.split(KEY, 50))
    assert np.max(found) < 20


@pytest.mark.parametrize("scale", [1e-30, 1e-19, 1.0, 1e15])
def test_the_scale_of_the_outer_loss_does_not_matter(scale, rng):
    x = rng.normal(size=(8, 3)).astype(np.float32)
    y = np.sign(x[:, 0])

    def loss(params, batch):
        x, y, scale = batch
        return scale * logistic(params, (x, y))

    one = np.ones((), np.float32)
    task = lambda s: pb.Task((x, y, one), (x[:4], y[:4], s * one))  # noqa: E731
    given = {"solver": LBFGS(5), "linear_solver": CG(2, rtol=0.0)}
    algorithm = pb.imaml(loss, strength=0.1, certify=pb.Certify(every=1), **given)
    meta_gradient = jax.jit(algorithm.meta_gradient)
    _, _, wanted = meta_gradient(jnp.zeros(3), task(1.0), KEY)
    _, gradient, info = meta_gradient(jnp.zeros(3), task(scale), KEY)
    assert np.all(gradient != 0)
    np.testing.assert_allclose(info.inner_error, wanted.inner_error, rtol=1e-3)
    np.testing.assert_allclose(info.linear_error, wanted.linear_error, rtol=1e-3)
    assert info.code == wanted.code


@pytest.mark.parametrize("big", [1e3, 1e5])
def test_a_large_leaf_does_not_hide_a_small_one(big):
    def loss(params, batch):
        return 0.5 * jnp.sum((params["b"] - batch["b"]) ** 2) + 0.25 * jnp.sum(
            (params["c"] - batch["c"]) ** 4
        )

    b = jnp.full(2, big)
    task = pb.Task({"b": b, "c": jnp.ones(2)}, {"b": b / 2, "c": 2 * jnp.ones(2)})
    theta = {"b": jnp.zeros(2), "c": jnp.zeros(2)}
    half = lambda problem, theta, key: {"b": b / 2, "c": jnp.full(2, 0.9)}  # noqa: E731
    algorithm = pb.imaml(loss, strength=1.0, solver=half)
    _, report = jax.jit(algorithm.adapt)(theta, task.support, KEY)
    _, _, info = jax.jit(algorithm.meta_gradient)(theta, task, KEY)
    np.testing.assert_allclose([info.inner_residual, report.inner_residual], 0.5**0.5, rtol=0.02)
    assert info.code == Verdict.INNER_NOT_CONVERGED


def quadratic(matrix):
    def loss(params, batch):
        return 0.5 * params @ matrix @ params - batch @ params

    return loss


def rotated(values, rng):
    q, _ = np.linalg.qr(rng.normal(size=(len(values),) * 2))
    return jnp.asarray((q * np.asarray(values)) @ q.T, jnp.float32)


def test_a_matrix_that_is_singular_to_rounding_is_not_ok(rng):
    matrix = rotated([-1.0 + 1e-7, 0.5, 1.0, 9.0], rng)
    task = pb.Task(jnp.zeros(4), jnp.ones(4))
    _, info = judge(quadratic(matrix), jnp.zeros(4), task, linear_solver=Dense())
    assert info.code != Verdict.OK


@pytest.mark.parametrize("solver", [lx.SVD(), lx.AutoLinearSolver(well_posed=False)], ids=repr)
def test_a_pseudo_inverse_is_no_solution_of_a_singular_system(solver):
    matrix = jnp.diag(jnp.asarray([-1.0, 1.0, 2.0]))
    task = pb.Task(jnp.zeros(3), jnp.asarray([0.1, 1.0, 1.0]))
    _, info = judge(quadratic(matrix), jnp.zeros(3), task, linear_solver=Lineax(solver))
    assert info.code == Verdict.SOLVE_FAILED


def test_the_stated_residual_of_cg_is_not_below_rounding(rng):
    with jax.enable_x64(True):
        matrix = jnp.asarray(rotated(np.geomspace(1.0, 1e6, 12), rng), float)
        rhs = jnp.ones(12)
        solve = CG(100, rtol=0.0).solve
        found = jax.jit(lambda rhs: solve(lambda u: matrix @ u, rhs, lambda v: v))(rhs)
        true = np.linalg.norm(matrix @ found.value - rhs) / np.linalg.norm(rhs)
        assert true < 30 * found.residual


@pytest.mark.parametrize("linear", [CG(), pb.linear.GMRES(), pb.linear.MINRES(), Dense()], ids=repr)
def test_parameters_may_be_of_two_precisions(linear):
    with jax.enable_x64(True):
        theta = {"a": jnp.zeros(2, jnp.float32), "b": jnp.zeros(2)}
        loss = lambda p, b: jnp.sum((p["a"] - b) ** 2) + jnp.sum((p["b"] - b) ** 2)  # noqa: E731
        task = pb.Task(jnp.ones(2), jnp.full(2, 3.0))
        gradient, info = judge(loss, theta, task, 2.0, linear_solver=linear)
        assert gradient["a"].dtype == jnp.float32 and gradient["b"].dtype == jnp.float64
        np.testing.assert_allclose(gradient["a"], -2.5, rtol=1e-5)
        np.testing.assert_allclose(gradient["b"], -2.5, rtol=1e-5)
        assert info.code == Verdict.OK
