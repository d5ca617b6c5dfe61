"""Inner solvers where problems are hard: stiff, flat, solved already, or not finite somewhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from pullback.algorithms import imaml
from pullback.core.problem import Proximal
from pullback.core.results import Verdict
from pullback.linear import CG
from pullback.solvers import LBFGS, GradientDescent, Nesterov, NewtonCG, Optimistix, Scipy
from pullback.tasks import Task

SELF_TUNING = {
    "lbfgs": LBFGS,
    "nesterov": Nesterov,
    "newton-cg": NewtonCG,
    "scipy": lambda steps: Scipy(options={"maxiter": steps}),
    "optimistix": lambda steps: Optimistix(optx.BFGS(rtol=1e-7, atol=1e-7), steps),
}
DTYPES = ["float32", "float64"]

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture(params=DTYPES)
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield np.dtype(request.param)


def diagonal(phi, batch):
    curvature, slope = batch
    return jnp.sum(0.5 * curvature * phi * phi - slope * phi)


def well(phi, batch):
    """Infinite for φ ≤ 0, and curved ever more strongly on the way there."""
    return jnp.sum(phi - batch * jnp.log(phi))


@functools.partial(jax.jit, static_argnames=("loss", "solver", "strength"))
def solve(loss, support, theta, solver, strength=1.0):
    problem = Proximal(loss, strength).problem(theta, support)
    solution = solver.solve(problem, theta, jax.random.key(0))
    norm = lambda phi: jnp.linalg.norm(problem.gradient(phi))  # noqa: E731
    ends = (problem.value(theta), problem.value(solution.phi), norm(theta), norm(solution.phi))
    return solution, ends


def stiff(dtype, n=20, low=0.1, high=1000.0, seed=0):
    rng = np.random.default_rng(seed)
    support = (np.geomspace(low, high, n).astype(dtype), rng.normal(size=n).astype(dtype))
    return support, rng.normal(size=n).astype(dtype)


@pytest.mark.parametrize("name", SELF_TUNING)
def test_a_stiff_problem_goes_down_at_every_budget(name, dtype):
    support, theta = stiff(dtype)
    ratios = []
    for steps in (4, 128):
        _, (before, after, steep, left) = solve(diagonal, support, theta, SELF_TUNING[name](steps))
        assert float(after) <= float(before) * (1 + 1e-5)
        ratios.append(float(left / steep))
    assert ratios[1] < ratios[0]
    assert ratios[1] < {"nesterov": 1e-2}.get(name, 1e-4)


def test_lbfgs_never_raises_the_objective_from_one_step_to_the_next():
    support, theta = stiff(np.float32, n=12, low=1e-3, high=1e5)
    values = [float(solve(diagonal, support, theta, LBFGS(k))[1][1]) for k in (1, 3, 8)]
    slack = 1e-5 * np.abs(values[:-1])
    assert np.all(np.diff(values) <= slack)


@pytest.mark.parametrize("name", SELF_TUNING)
def test_a_curvature_that_grows_a_hundredfold_within_one_solve_is_survived(name):
    dtype = np.float32

    def hardening(phi, batch):
        return jnp.sum(batch * (0.5 * phi**2 + 8.0 * phi**4))

    theta = np.linspace(-3, 3, 6).astype(dtype)
    _, (before, after, steep, left) = solve(
        hardening, np.ones(6, dtype), theta, SELF_TUNING[name](40)
    )
    assert float(after) < float(before)
    assert float(left) < 1e-2 * float(steep)


# Optimistix's BFGS starts from H ≈ I, and spends the budget on finding the scale.
@pytest.mark.parametrize("name", [name for name in SELF_TUNING if name != "optimistix"])
def test_a_curvature_that_grows_a_hundredfold_over_training_needs_no_retuning(name):
    support, theta = stiff(np.float32, low=0.1, high=10.0)
    solver = SELF_TUNING[name](32)
    for growth in (1.0, 10.0, 100.0):
        curvature = (np.float32(growth) * support[0], support[1])
        _, (before, after, steep, left) = solve(diagonal, curvature, theta, solver)
        assert float(after) < float(before)
        assert float(left) < 0.1 * float(steep)
    fixed = GradientDescent(32, learning_rate=0.1)
    assert not float(solve(diagonal, curvature, theta, fixed)[1][1]) < float(before)


@functools.partial(jax.jit, static_argnames="solver")
def meta_gradient(theta, task, strength, solver):
    """Λ as an argument, so that one program serves all its values."""
    algorithm = imaml(diagonal, strength=strength, solver=solver, linear_solver=CG(20, rtol=1e-5))
    return algorithm.meta_gradient(theta, task, jax.random.key(0))


@pytest.mark.parametrize("strength", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("name", SELF_TUNING)
@pytest.mark.parametrize("curvature", [0.0, 2.0], ids=["flat", "solved"])
def test_nothing_to_do_is_done_exactly(curvature, name, strength, dtype):
    """Zero gradient at θ: φ* = θ, and the meta-gradient is Λ(H + Λ)⁻¹v all the same."""
    theta = np.array([1.0, 2.0, 3.0], dtype)
    hessian = curvature * np.array([0.25, 0.5, 1.0], dtype)
    task = Task((hessian, hessian * theta), (np.ones(3, dtype), np.array([3, 5, -1], dtype)))
    _, gradient, info = meta_gradient(theta, task, dtype.type(strength), SELF_TUNING[name](8))
    wanted = strength / (hessian + strength) * (theta - task.query[1])
    np.testing.assert_allclose(gradient, wanted, rtol=1e-3)
    assert int(info.code) == Verdict.OK
    assert float(info.inner_residual) == 0.0


@pytest.mark.parametrize("name", SELF_TUNING)
def test_one_parameter_is_solved_in_a_few_steps(name, dtype):
    support, theta = stiff(dtype, n=1, low=7.0, high=7.0)
    solution, (_, _, steep, left) = solve(diagonal, support, theta, SELF_TUNING[name](6))
    wanted = (support[1] + theta) / (support[0] + 1)
    np.testing.assert_allclose(solution.phi, wanted, rtol=1e-4)
    assert float(left) < 1e-4 * float(steep)


def test_more_memory_than_parameters_does_no_harm():
    dtype = np.float32
    support, theta = stiff(dtype, n=2, low=1.0, high=50.0)
    solution, _ = solve(diagonal, support, theta, LBFGS(30, history=20))
    np.testing.assert_allclose(
        solution.phi, (support[1] + theta) / (support[0] + 1), rtol=1e-4, atol=1e-6
    )
    inverse = jax.jit(jax.vmap(solution.inverse))(np.eye(2, dtype=dtype))
    np.testing.assert_allclose(inverse, np.diag(1 / (support[0] + 1)), rtol=0.05, atol=0.05)


def test_the_inverse_handed_on_is_symmetric_and_positive_definite():
    dtype = np.float32
    support, theta = stiff(dtype)
    solution, _ = solve(diagonal, support, theta, LBFGS(12))
    matrix = jax.jit(jax.vmap(solution.inverse))(np.eye(20, dtype=dtype))
    matrix = np.asarray(matrix, float)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-4 * np.abs(matrix).max())
    assert np.linalg.eigvalsh(0.5 * (matrix + matrix.T))[0] > 0


def test_lbfgs_backs_off_from_trial_points_that_are_not_finite():
    """The first trial from here overshoots into φ < 0: the loss is NaN, its gradient is not."""
    dtype = np.float32
    theta = np.array([6.0, 4.0, 5.0], dtype)
    target = np.array([0.01, 0.02, 0.05], dtype)
    solution, (before, after, steep, left) = solve(well, target, theta, LBFGS(60), strength=0.01)
    assert np.all(np.asarray(solution.phi) > 0)
    assert float(after) < float(before)
    assert float(left) < 1e-2 * float(steep)


def test_lbfgs_from_a_point_that_is_not_finite_says_so():
    dtype = np.float32
    algorithm = imaml(well, strength=1.0)
    task = Task(np.ones(2, dtype), np.ones(2, dtype))
    theta = np.array([-1.0, 1.0], dtype)
    _, report = jax.jit(algorithm.adapt)(theta, task.support, jax.random.key(0))
    assert int(report.code) == Verdict.NOT_FINITE


@pytest.mark.parametrize(
    "solver", [LBFGS(8), Nesterov(8), GradientDescent(8, 0.01)], ids=["lbfgs", "nesterov", "gd"]
)
def test_start_norm_is_that_of_the_loss_at_theta(solver):
    dtype = np.float32
    support, theta = stiff(dtype, high=10.0)
    solution, _ = solve(diagonal, support, theta, solver)
    wanted = np.linalg.norm(support[0] * theta - support[1])
    np.testing.assert_allclose(solution.start_norm, wanted, rtol=1e-5)


@pytest.mark.parametrize("name", SELF_TUNING)
def test_single_precision_parameters_stay_so_in_a_double_precision_program(name):
    with jax.enable_x64(True):
        support, theta = stiff(np.float32, high=10.0)
        solution, _ = solve(diagonal, support, theta, SELF_TUNING[name](8))
        assert solution.phi.dtype == np.float32
