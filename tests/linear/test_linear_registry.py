"""Every linear solver by name: the same answers, and a code wherever there is none."""

import functools

import closed_forms as cf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import symmetric
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.algorithms import imaml
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.linear import (
    CG,
    GMRES,
    LINEAR_SOLVERS,
    MINRES,
    BiCGStab,
    Dense,
    LinearSolver,
    Neumann,
    Nystrom,
)
from pullback.linear.nystrom import sketch

pytestmark = pytest.mark.usefixtures("x64")

SIZE = 6
SOLVERS = {
    "cg": CG(40, 1e-9),
    "minres": MINRES(40, 1e-9),
    "gmres": GMRES(60, 1e-9, restart=SIZE),
    "bicgstab": BiCGStab(200, 1e-9),
    "neumann": Neumann(4000, 1e-9, scale=0.1),
    "nystrom": Nystrom(3, 40, 1e-9),
    "dense": Dense(),
}
SPD = symmetric(np.geomspace(0.2, 8.0, SIZE))
INDEFINITE = symmetric([-2.0, -0.5, 1.0, 2.0, 4.0, 8.0])
RHS = np.random.default_rng(1).normal(size=SIZE)


@functools.partial(jax.jit, static_argnames="solver")
def solve(matrix, rhs, solver):
    return solver.solve(lambda u: matrix @ u, rhs, lambda v: v / 2)


def residual(matrix, s, rhs=RHS):
    return np.linalg.norm(matrix @ np.asarray(s.value) - rhs) / np.linalg.norm(rhs)


def test_every_name_has_its_solver():
    assert set(SOLVERS) == set(LINEAR_SOLVERS)
    for name, line in LINEAR_SOLVERS.items():
        solver = line.make(steps=10, rtol=0.1)
        assert isinstance(solver, LinearSolver)
        assert type(solver) is type(SOLVERS[name])
        assert getattr(solver, "rtol", 0.1) == 0.1
        assert getattr(solver, "steps", 10) == 10


@pytest.mark.parametrize("name", SOLVERS)
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), scale=st.sampled_from([1e-30, 1e-8, 1.0, 1e20]))
def test_a_definite_matrix_is_solved_to_tolerance(name, seed, scale):
    rng = np.random.default_rng(seed)
    matrix = symmetric(10.0 ** rng.uniform(-0.5, 1, size=SIZE), seed)
    rhs = scale * rng.normal(size=SIZE)
    s = solve(matrix, rhs, SOLVERS[name])
    assert int(s.code) == Verdict.OK
    assert residual(matrix, s, rhs) <= 2e-9
    assert float(s.residual) <= 1e-9


@pytest.mark.parametrize("name", SOLVERS)
def test_an_indefinite_matrix_is_solved_or_reported(name):
    s = solve(INDEFINITE, RHS, SOLVERS[name])
    np.testing.assert_allclose(s.residual, residual(INDEFINITE, s), rtol=1e-6, atol=1e-12)
    assert np.all(np.isfinite(s.value))
    assert np.linalg.norm(s.value) > 0
    if name in ("minres", "gmres", "dense"):
        np.testing.assert_allclose(s.value, np.linalg.solve(INDEFINITE, RHS), rtol=1e-7)
    if name in ("gmres", "bicgstab"):
        assert (int(s.code) == Verdict.OK) == (float(s.residual) <= 1e-9)
    else:
        assert int(s.code) == Verdict.NEGATIVE_CURVATURE
        assert float(s.smallest_curvature) < 0


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "dense"])
def test_a_matrix_of_zeros_is_reported_with_the_guess(name):
    s = solve(np.zeros((SIZE, SIZE)), RHS, SOLVERS[name])
    assert int(s.code) not in (Verdict.OK, Verdict.NOT_FINITE)
    np.testing.assert_allclose(np.cross(s.value[:3], RHS[:3]), 0.0, atol=1e-12)
    assert np.linalg.norm(s.value) > 0
    np.testing.assert_allclose(s.residual, 1.0)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_singular_matrix_that_does_not_reach_v_is_reported(name):
    s = solve(symmetric([0.0, 1.0, 1.0, 2.0, 2.0, 4.0]), RHS, SOLVERS[name])
    assert int(s.code) != Verdict.OK


@pytest.mark.parametrize("name", SOLVERS)
def test_tiny_and_zero_right_hand_sides_in_single_precision(name):
    with jax.enable_x64(False):
        matrix, rhs = SPD.astype(np.float32), RHS.astype(np.float32)
        solver = LINEAR_SOLVERS[name].make(steps=400, rtol=1e-3)
        one, tiny, none = (solve(matrix, np.float32(c) * rhs, solver) for c in (1, 1e-30, 0))
    solved = [float(s.residual) <= 2e-3 for s in (one, tiny)]
    assert [int(s.code) == Verdict.OK for s in (one, tiny)] == solved
    # In single precision Lineax's BiCGStab takes a negative coefficient for a breakdown.
    assert all(solved) or name == "bicgstab"
    grown = np.asarray(tiny.value, float) * 1e30
    for u, s in ((np.asarray(one.value), one), (grown, tiny)):
        true = np.linalg.norm(SPD @ u - RHS) / np.linalg.norm(RHS)
        np.testing.assert_allclose(s.residual, true, rtol=0.02, atol=1e-5)
    assert int(none.code) == Verdict.OK
    np.testing.assert_array_equal(none.value, np.zeros(SIZE))
    assert float(none.residual) == 0


@pytest.mark.parametrize("name", SOLVERS)
def test_lanes_of_vmap_do_not_see_each_other(name):
    lanes = np.stack([SPD, INDEFINITE, np.full((SIZE, SIZE), np.nan), 3 * SPD])
    rhs = np.stack([RHS, RHS, RHS, np.zeros(SIZE)])
    together = jax.vmap(lambda a, b: solve(a, b, SOLVERS[name]))(lanes, rhs)
    for i in range(len(lanes)):
        alone = solve(lanes[i], rhs[i], SOLVERS[name])
        assert int(together.code[i]) == int(alone.code)
        np.testing.assert_allclose(together.value[i], alone.value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("form", ["scalar", "diagonal"])
@pytest.mark.parametrize("name", SOLVERS)
def test_the_meta_gradient_is_the_closed_form(name, form, key):
    linear = Neumann(4000, 1e-9) if name == "neumann" else SOLVERS[name]
    algorithm = imaml(
        cf.loss, strength=cf.STRENGTHS[form], solver=cf.solve_exactly, linear_solver=linear
    )
    _, gradient, info = jax.jit(algorithm.meta_gradient)(cf.theta(), cf.task(), key)
    assert int(info.code) == Verdict.OK
    np.testing.assert_allclose(cf.flat(gradient), cf.exact(form).meta_gradient, rtol=1e-6)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_minres_has_the_smallest_residual_in_its_krylov_space(steps):
    for matrix in (SPD, INDEFINITE):
        s = solve(matrix, RHS, MINRES(steps, 0.0))
        krylov = np.stack([np.linalg.matrix_power(matrix, k) @ RHS for k in range(steps)], 1)
        best = matrix @ krylov @ np.linalg.lstsq(matrix @ krylov, RHS)[0] - RHS
        smallest = np.linalg.norm(best) / np.linalg.norm(RHS)
        np.testing.assert_allclose(s.residual, smallest, rtol=1e-8)


def test_minres_reports_the_extreme_eigenvalues_once_it_has_seen_them():
    s = solve(INDEFINITE, RHS, MINRES(40, 0.0))
    curvatures = [s.smallest_curvature, s.largest_curvature]
    np.testing.assert_allclose(curvatures, [-2.0, 8.0], rtol=1e-9)


def test_neumann_is_the_sum_of_its_terms():
    s = solve(SPD, RHS, Neumann(5, 0.0, scale=0.1))
    terms = [0.1 * np.linalg.matrix_power(np.eye(SIZE) - 0.1 * SPD, k) @ RHS for k in range(5)]
    np.testing.assert_allclose(s.value, sum(terms), rtol=1e-12)
    assert int(s.steps) == 5


def test_a_neumann_series_that_diverges_is_not_solved():
    s = solve(SPD, RHS, Neumann(100, 1e-9, scale=0.5))
    assert int(s.code) == Verdict.SOLVE_FAILED
    assert np.linalg.norm(s.value) > 0
    np.testing.assert_allclose(s.residual, residual(SPD, s), rtol=1e-9)


def test_a_sketch_finds_a_hessian_of_low_rank():
    values = np.r_[np.zeros(30), [5.0, 50.0, 500.0]]
    hessian = jnp.asarray(symmetric(values))
    directions, found = sketch(lambda u: hessian @ u + u, hessian[0], 5, 0)
    np.testing.assert_allclose(np.sort(found)[-3:], [5.0, 50.0, 500.0], rtol=1e-6)
    np.testing.assert_allclose((directions.T * found) @ directions, hessian, atol=1e-5)


def test_a_sketch_of_an_indefinite_hessian_stays_positive():
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(scale=0.2, size=95), 50.0, 100.0, 150.0, 200.0, 250.0]
    hessian = jnp.asarray(symmetric(values))
    directions, found = sketch(lambda u: hessian @ u + u, hessian[0], 20, 0)
    assert np.all(np.asarray(found) >= 0)
    gram = np.asarray(directions @ directions.T)
    np.testing.assert_allclose(gram, np.diag(np.diagonal(gram)), atol=1e-9)
    np.testing.assert_allclose(np.sort(found)[-5:], values[-5:], rtol=0.05)
    curved = hessian + np.eye(100)
    rhs = rng.normal(size=100)
    solvers = (CG(200, 1e-6, preconditioned=False), Nystrom(20, 200, 1e-6))
    plain, sketched = (
        s.solve(lambda u: curved @ u, jnp.asarray(rhs), lambda v: v) for s in solvers
    )
    assert residual(curved, sketched, rhs) <= 1e-6
    # The products of the sketch are counted.
    assert int(sketched.steps) > 20
    assert int(sketched.steps) - 20 < int(plain.steps)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MINRES(0), "MINRES(steps=0)"),
        (lambda: MINRES(rtol=1.0), "0 ≤ rtol < 1"),
        (lambda: GMRES(restart=0), "GMRES(restart=0)"),
        (lambda: BiCGStab(steps=2.5), "BiCGStab(steps=2.5)"),
        (lambda: Neumann(scale=-1.0), "Neumann(scale=-1.0)"),
        (lambda: Neumann(1), "without a scale"),
        (lambda: Nystrom(10, 10), "steps above rank"),
        (lambda: Dense(limit=0), "Dense(limit=0)"),
    ],
)
def test_settings_out_of_range_are_named(make, said):
    with pytest.raises(InputError, match="Allowed") as caught:
        make()
    assert said in str(caught.value)


def test_a_network_too_large_for_a_matrix_is_refused():
    with pytest.raises(InputError, match="Dense"):
        solve(SPD, RHS, Dense(limit=SIZE - 1))
