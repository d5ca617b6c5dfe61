"""What a linear solver reports is what a dense computation finds; failure is never silent."""

import functools

import closed_forms as cf
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from closed_forms import symmetric
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.algorithms import imaml
from pullback.core import results
from pullback.core.results import Verdict
from pullback.linear import CG, GMRES, MINRES, BiCGStab, Dense, Lineax, Neumann, Nystrom
from pullback.solvers import LBFGS
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("x64")

SOLVERS = {
    "cg": CG(3, rtol=0.0),
    "cg, from rhs": CG(3, rtol=0.0, start="rhs"),
    "dense": Dense(),
    "lineax gmres": Lineax(lx.GMRES(rtol=1e-2, atol=0.0)),
    "lineax bicgstab": Lineax(lx.BiCGStab(rtol=1e-2, atol=0.0)),
    "minres": MINRES(3, rtol=0.0),
    "gmres": GMRES(12, rtol=1e-2, restart=3),
    "bicgstab": BiCGStab(40, rtol=1e-2),
    "neumann": Neumann(2000, rtol=1e-2, scale=0.1),
    "nystrom": Nystrom(2, 6, rtol=0.0),
}


@functools.partial(jax.jit, static_argnames="solver")
def solve(matrix, rhs, inverse, solver):
    return solver.solve(lambda u: matrix @ u, rhs, lambda v: inverse * v)


@pytest.mark.parametrize("name", SOLVERS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_reports_agree_with_the_dense_matrix(name, seed):
    rng = np.random.default_rng(seed)
    eigenvalues = np.sort(10.0 ** rng.uniform(-1, 1, size=6))
    matrix, rhs = symmetric(eigenvalues, seed), rng.normal(size=6)
    s = solve(matrix, rhs, 0.5, SOLVERS[name])
    residual = np.linalg.norm(matrix @ s.value - rhs) / np.linalg.norm(rhs)
    np.testing.assert_allclose(s.residual, residual, rtol=1e-6, atol=1e-12)
    assert int(s.code) == Verdict.OK
    if not isinstance(SOLVERS[name], Lineax | GMRES | BiCGStab):
        assert s.smallest_curvature >= eigenvalues[0] * (1 - 1e-9)
        assert s.largest_curvature <= eigenvalues[-1] * (1 + 1e-9)
        assert s.smallest_curvature <= s.largest_curvature
    if isinstance(SOLVERS[name], CG):
        assert int(s.steps) == 3


def test_cg_stops_at_its_tolerance_and_within_its_steps():
    matrix, rhs = symmetric(np.geomspace(1, 100, 12)), np.ones(12)
    loose, tight = (solve(matrix, rhs, 1.0, CG(50, rtol=r)) for r in (0.1, 1e-8))
    assert float(loose.residual) <= 0.1
    assert float(tight.residual) <= 1e-8
    assert int(loose.steps) < int(tight.steps) <= 50
    assert int(solve(matrix, rhs, 1.0, CG(2, rtol=1e-8)).steps) == 2


def test_the_exact_inverse_as_preconditioner_needs_one_step():
    diagonal = np.geomspace(1, 1e4, 9)
    s = solve(np.diag(diagonal), np.ones(9), 1 / diagonal, CG(20, rtol=1e-10))
    assert int(s.steps) == 1
    np.testing.assert_allclose(s.value, 1 / diagonal, rtol=1e-12)


@pytest.mark.parametrize("start", ["zero", "rhs"])
def test_negative_curvature_at_the_first_direction_is_reported_not_zero(start):
    s = solve(np.diag([-1.0, -2.0]), np.ones(2), 0.5, CG(5, rtol=0.05, start=start))
    assert int(s.code) == Verdict.NEGATIVE_CURVATURE
    # The approximate inverse applied to v.
    np.testing.assert_allclose(s.value, [0.5, 0.5])
    assert float(s.smallest_curvature) < 0
    residual = np.linalg.norm(np.array([-1.5, -2.0])) / 2**0.5
    np.testing.assert_allclose(s.residual, residual, rtol=1e-12)


def test_negative_curvature_at_a_later_direction_keeps_what_came_before():
    matrix, rhs = np.diag([3.0, 2.0, -1.0]), np.array([1.0, 1.0, 0.4])
    s = solve(matrix, rhs, 1.0, CG(10, rtol=1e-10))
    before = solve(matrix, rhs, 1.0, CG(int(s.steps) - 1, rtol=1e-10))
    assert int(s.steps) > 1
    assert int(s.code) == Verdict.NEGATIVE_CURVATURE
    assert int(before.code) == Verdict.OK
    np.testing.assert_allclose(s.value, before.value)
    assert np.all(np.isfinite(s.value))
    assert float(s.smallest_curvature) < 0 < float(s.largest_curvature)


def test_dense_solves_an_indefinite_matrix_and_says_so():
    matrix, rhs = symmetric([-1.0, 0.5, 2.0]), np.arange(1.0, 4.0)
    s = solve(matrix, rhs, 1.0, Dense())
    assert int(s.code) == Verdict.NEGATIVE_CURVATURE
    np.testing.assert_allclose(s.value, np.linalg.solve(matrix, rhs), rtol=1e-10)
    np.testing.assert_allclose([s.smallest_curvature, s.largest_curvature], [-1, 2], rtol=1e-10)


@pytest.mark.parametrize("method", [lx.GMRES, lx.CG, lx.BiCGStab])
def test_a_lineax_solver_out_of_steps_is_not_solved(method):
    matrix, rhs = symmetric(np.geomspace(1e-4, 1e4, 20)), np.ones(20)
    options = {"restart": 2} if method is lx.GMRES else {}
    solver = Lineax(method(rtol=1e-12, atol=0.0, max_steps=2, **options))
    s = solve(matrix, rhs, 1.0, solver)
    assert int(s.code) == Verdict.SOLVE_FAILED
    assert float(s.residual) > 1e-6


@pytest.mark.parametrize("name", SOLVERS)
def test_a_matrix_of_nan_is_not_finite(name):
    s = solve(np.full((3, 3), np.nan), np.ones(3), 1.0, SOLVERS[name])
    assert int(s.code) == Verdict.NOT_FINITE


@pytest.mark.parametrize("name", SOLVERS)
def test_a_right_hand_side_of_nan_is_not_finite(name):
    s = solve(np.eye(3), np.array([1.0, np.nan, 1.0]), 1.0, SOLVERS[name])
    assert int(s.code) == Verdict.NOT_FINITE


@pytest.mark.parametrize("name", SOLVERS)
def test_a_right_hand_side_of_zero_has_the_solution_zero(name):
    s = solve(symmetric([1.0, 2.0, 3.0]), np.zeros(3), 1.0, SOLVERS[name])
    np.testing.assert_array_equal(s.value, np.zeros(3))
    assert int(s.code) == Verdict.OK
    assert float(s.residual) == 0.0


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 1e4])
@pytest.mark.parametrize("inverse", [1e-6, 1.0])
def test_cg_past_convergence_never_invents_negative_curvature(scale, inverse):
    """``rtol=0`` always takes all steps, on a positive definite matrix as well."""
    with jax.enable_x64(False):
        matrix = np.asarray(scale * symmetric([1.0, 2.0, 3.0]), np.float32)
        rhs = np.array([1.0, -2.0, 0.5], np.float32)
        s = solve(matrix, rhs, np.float32(inverse), CG(40, rtol=0.0))
    assert int(s.code) == Verdict.OK
    assert float(s.smallest_curvature) > 0


@pytest.mark.parametrize("scale", [1e19, 1e-12])
def test_cg_does_not_depend_on_the_scale_of_the_approximate_inverse(scale):
    """A solver that met no curvature hands on an inverse of arbitrary scale."""
    with jax.enable_x64(False):
        matrix = np.asarray(symmetric([10.0, 20.0, 30.0]), np.float32)
        rhs = np.array([1.0, -2.0, 0.5], np.float32)
        s = solve(matrix, rhs, np.float32(scale), CG(10, rtol=1e-3))
    np.testing.assert_allclose(s.value, np.linalg.solve(matrix, rhs), rtol=2e-2)


def saddle(params, batch):
    """Curvatures −2 and 1 beside a linear term."""
    x = params["x"]
    return jnp.sum(batch * x * x) / 2 + jnp.sum(x)


@pytest.mark.parametrize("linear", [CG(10, 0.05), CG(10, 0.05, preconditioned=False), Dense()])
def test_imaml_at_a_saddle_reports_it_with_a_finite_gradient(linear, key):
    stay = lambda problem, theta, key: theta  # noqa: E731
    algorithm = imaml(saddle, strength=1.0, solver=stay, linear_solver=linear)
    task = Task(np.array([-2.0, 1.0]), np.array([1.0, 1.0]))
    _, gradient, info = jax.jit(algorithm.meta_gradient)({"x": np.zeros(2)}, task, key)
    assert int(info.code) == Verdict.NEGATIVE_CURVATURE
    assert np.all(np.isfinite(gradient["x"]))
    assert np.linalg.norm(gradient["x"]) > 0
    assert float(info.smallest_curvature) < 0


@pytest.mark.parametrize(
    ("solver", "linear"),
    [("lbfgs", name) for name in ("cg", "cg, plain", "dense", "lineax gmres")]
    + [("nesterov", "cg"), ("gradient descent", "cg")],
)
def test_a_nan_in_the_support_set_is_never_silent(solver, linear, key):
    """Targets of NaN poison the gradient, yet leave H itself finite."""
    algorithm = imaml(
        cf.loss,
        strength=1.0,
        solver=LBFGS(4) if solver == "lbfgs" else cf.SOLVERS[solver],
        linear_solver=cf.LINEAR_SOLVERS[linear],
    )
    x, y = cf.batch(0)
    task = Task((x, np.full_like(y, np.nan)), cf.batch(1))
    _, _, info = jax.jit(algorithm.meta_gradient)(cf.theta(), task, key)
    assert int(info.code) == Verdict.NOT_FINITE


def test_a_nan_in_the_query_set_is_never_silent(key):
    algorithm = imaml(cf.loss, strength=1.0, solver=cf.solve_exactly)
    x, y = cf.batch(0)
    task = Task(cf.batch(1), (x, np.full_like(y, np.nan)))
    value, _, info = jax.jit(algorithm.meta_gradient)(cf.theta(), task, key)
    assert np.isnan(value)
    assert int(info.code) == Verdict.NOT_FINITE


@pytest.mark.parametrize("code", list(Verdict))
def test_every_code_has_a_sentence(code):
    assert len(results.message(code).split()) > 2
