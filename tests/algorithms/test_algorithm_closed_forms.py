"""Each algorithm on least squares, where φ, dφ/dθ and the meta-gradient are known matrices."""

import functools

import closed_forms as cf
import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from pullback import implicit
from pullback.algorithms import ALGORITHMS, imaml
from pullback.core.problem import Proximal
from pullback.core.results import Verdict
from pullback.linear import CG
from pullback.solvers import GradientDescent, run
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("x64", "strict_promotion")

STEPS, RATE = 4, 0.2
NUMBERS = ("linear_residual", "damping", "code")


def _imaml(exact, whole):
    return exact.phi, exact.meta_gradient


def _maml(exact, whole):
    phi = exact.phi_after(STEPS, RATE)
    return phi, exact.jacobian_after(STEPS, RATE).T @ exact.outer_gradient(phi)


def _fomaml(exact, whole):
    phi = exact.phi_after(STEPS, RATE)
    return phi, exact.outer_gradient(phi)


def _reptile(exact, whole):
    return exact.phi_after(STEPS, RATE), exact.theta - whole.phi_after(STEPS, RATE)


CLOSED_FORMS = {"imaml": _imaml, "maml": _maml, "fomaml": _fomaml, "reptile": _reptile}
"""By algorithm: φ on the support set, and the meta-gradient."""


def make(name, form):
    """The algorithm as registered: with a solver run to the end if implicit, else k plain steps."""
    line = ALGORITHMS[name]
    if line.implicit:
        options = {"solver": cf.SOLVERS["nesterov"], "linear_solver": cf.LINEAR_SOLVERS["cg"]}
    else:
        options = {"solver": GradientDescent(STEPS, RATE)}
    return line.make(cf.loss, strength=cf.STRENGTHS[form], **options)


def forms(name):
    return cf.PROXIMAL if ALGORITHMS[name].proximal else list(cf.STRENGTHS)


def close(got, wanted, rtol=1e-8):
    np.testing.assert_allclose(cf.flat(got), wanted, rtol=rtol, atol=rtol * np.abs(wanted).max())


@pytest.mark.parametrize(("name", "form"), [(n, f) for n in ALGORITHMS for f in forms(n)])
def test_adapted_parameters_and_meta_gradient_are_the_closed_form(name, form, key):
    task, theta = cf.task(), cf.theta()
    exact = cf.exact(form)
    whole = cf.Exact(cf.joined(task), task.query, exact.theta, exact.strength)
    phi, gradient = CLOSED_FORMS[name](exact, whole)
    algorithm = make(name, form)

    def both(theta, task, key):
        return algorithm.adapt(theta, task.support, key), algorithm.meta_gradient(theta, task, key)

    (got_phi, report), (_, got_gradient, info) = jax.jit(both)(theta, task, key)
    close(got_phi, phi)
    close(got_gradient, gradient)
    assert int(info.code) == int(report.code) == Verdict.OK
    # Reptile's own fit is to the joined sets, so only the residual of adapt is that of φ.
    left = exact.gradient(phi)
    wanted = np.linalg.norm(left) / np.linalg.norm(exact.gradient(exact.theta))
    if form != "none":
        wanted = cf.residual(left, left - exact.strength * (phi - exact.theta))
    np.testing.assert_allclose(report.inner_residual, wanted, rtol=1e-6, atol=1e-9)


def test_reptile_on_the_support_set_alone_leaves_the_query_set_out(key):
    algorithm = ALGORITHMS["reptile"].make(
        cf.loss, solver=GradientDescent(STEPS, RATE), fit="support"
    )
    exact = cf.exact("none")
    _, gradient, _ = jax.jit(algorithm.meta_gradient)(cf.theta(), cf.task(), key)
    close(gradient, exact.theta - exact.phi_after(STEPS, RATE))


@functools.cache
def solved(solver, form):
    """One inner problem solved, linearised at the result, and what the solver hands on."""
    inner = Proximal(cf.loss, cf.STRENGTHS[form])

    @jax.jit
    def solve(theta, support, key):
        return run(cf.SOLVERS[solver], inner.problem(theta, support), theta, key)

    return solve(cf.theta(), cf.task().support, jax.random.key(0))


@functools.partial(jax.jit, static_argnames="linear")
def _vjp(strength, theta, task, phi, inverse, linear):
    problem = Proximal(cf.loss, strength).problem(theta, task.support)
    point = implicit.linearise(problem, phi)
    cotangent = jax.grad(cf.loss)(phi, task.query)
    solver = cf.LINEAR_SOLVERS[linear]
    return implicit.vjp(point, cotangent, solver, approximate_inverse=inverse)


@pytest.mark.parametrize(
    ("solver", "form"),
    [(s, "mixed") for s in cf.SOLVERS] + [("lbfgs", f) for f in cf.PROXIMAL if f != "mixed"],
)
def test_every_inner_solver_reaches_the_proximal_optimum(solver, form):
    rtol = 1e-6 if solver == "adam" else 1e-9
    close(solved(solver, form).phi, cf.exact(form).phi, rtol)


@pytest.mark.parametrize(
    ("solver", "linear"),
    [
        (solver, linear)
        for solver in cf.SOLVERS
        for linear in cf.LINEAR_SOLVERS
        # The short memory differs from the long one only as a preconditioner.
        if solver != "lbfgs, short memory" or linear == "cg"
    ],
)
def test_every_inner_solver_with_every_linear_solver_gives_the_exact_meta_gradient(solver, linear):
    solution, exact = solved(solver, "mixed"), cf.exact("mixed")
    strength = cf.STRENGTHS["mixed"]
    # Only what asks for the inner solver's inverse gets it, so that the rest compiles once.
    inverse = solution.inverse if cf.LINEAR_SOLVERS[linear].preconditioned else None
    gradient, solve = _vjp(strength, cf.theta(), cf.task(), solution.phi, inverse, linear)
    close(gradient, exact.meta_gradient, 1e-6 if solver == "adam" else 1e-8)
    assert int(solve.code) == Verdict.OK
    assert float(solve.residual) < 1e-9


@pytest.mark.parametrize("form", cf.PROXIMAL)
def test_jacobian_is_the_closed_form(form):
    problem = Proximal(cf.loss, cf.STRENGTHS[form]).problem(cf.theta(), cf.task().support)
    jacobian = jax.jit(lambda phi: implicit.jacobian(implicit.linearise(problem, phi)))(cf.theta())
    np.testing.assert_allclose(jacobian, cf.exact(form).jacobian, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("linear", ["cg, plain", "dense", "lineax gmres"])
def test_imaml_hands_its_linear_solver_on(linear, key):
    """Through ``imaml`` itself, with the solver's own numbers in the info."""
    algorithm = imaml(
        cf.loss, strength=0.7, solver=cf.solve_exactly, linear_solver=cf.LINEAR_SOLVERS[linear]
    )
    value, gradient, info = jax.jit(algorithm.meta_gradient)(cf.theta(), cf.task(), key)
    exact = cf.exact("scalar")
    close(gradient, exact.meta_gradient)
    np.testing.assert_allclose(value, exact.outer_value(exact.phi), rtol=1e-10)
    assert float(info.inner_residual) < 1e-10
    seen = linear != "lineax gmres"
    assert np.isfinite(info.smallest_curvature) == seen


def test_a_numpy_solver_outside_of_jit_is_as_good_as_any(key):
    def numpy_solver(problem, theta, key):
        x, y = (np.asarray(part) for part in problem.support)
        curved = x.T @ x + 0.7 * np.eye(cf.SIZE)
        phi = np.linalg.solve(curved, x.T @ y + 0.7 * cf.flat(theta))
        return ravel_pytree(theta)[1](phi)

    algorithm = imaml(cf.loss, strength=0.7, solver=numpy_solver, linear_solver=CG(60, 1e-11))
    _, gradient, info = algorithm.meta_gradient(cf.theta(), cf.task(), key)
    close(gradient, cf.exact("scalar").meta_gradient)
    assert int(info.code) == Verdict.OK


def test_an_inexact_inner_solution_is_linearised_where_it_stands(key):
    """After k steps only, the gradient is Λ(H + Λ)⁻¹∇L(φ_k), and the residual says how far off."""
    algorithm = imaml(
        cf.loss,
        strength=0.7,
        solver=GradientDescent(STEPS, RATE),
        linear_solver=cf.LINEAR_SOLVERS["cg"],
    )
    exact = cf.exact("scalar")
    phi = exact.phi_after(STEPS, RATE)
    _, gradient, info = jax.jit(algorithm.meta_gradient)(cf.theta(), cf.task(), key)
    close(gradient, exact.jacobian.T @ exact.outer_gradient(phi))
    loss_gradient = exact.gradient(phi) - exact.strength * (phi - exact.theta)
    wanted = cf.residual(exact.gradient(phi), loss_gradient)
    np.testing.assert_allclose(info.inner_residual, wanted, rtol=1e-10)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_query_set_does_not_reach_adapt_and_the_support_set_not_the_outer_loss(name, key):
    algorithm, task, other = make(name, "scalar"), cf.task(), cf.task(seed=5)
    value = jax.jit(lambda t: algorithm.meta_gradient(cf.theta(), t, key)[0])
    exact, whole = cf.exact("scalar"), None
    if name != "reptile":
        phi = CLOSED_FORMS[name](exact, whole)[0]
        np.testing.assert_allclose(value(task), exact.outer_value(phi), rtol=1e-10)
    swapped = Task(task.support, other.query)
    assert float(value(task)) != float(value(swapped))
