"""Solvers from elsewhere: Optimistix, SciPy and functions on the host, under every transform."""

import functools
import os
import subprocess
import sys
import textwrap

import closed_forms as cf
import jax
import jax.numpy as jnp
import numpy as np
import optax
import optimistix as optx
import pytest
import scipy.optimize
from compiling import ENVIRONMENT
from jax.flatten_util import ravel_pytree

from pullback.algorithms import imaml, maml
from pullback.core.errors import InputError
from pullback.core.problem import Proximal
from pullback.core.results import Verdict
from pullback.linear import CG
from pullback.solvers import LBFGS, Callback, NewtonCG, Optimistix, Scipy, run
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("x64")


def descend(value_and_gradient, theta, key_data):
    """Gradient descent in NumPy."""
    phi = theta.astype(float)
    for _ in range(600):
        phi = phi - 0.15 * value_and_gradient(phi)[1]
    return phi


TIGHT = {"rtol": 1e-12, "atol": 1e-12}
SOLVERS = {
    "newton-cg": NewtonCG(12, 20),
    "optimistix bfgs": Optimistix(optx.BFGS(**TIGHT), 200),
    "optimistix lbfgs": Optimistix(optx.LBFGS(**TIGHT), 200),
    "optimistix cg": Optimistix(optx.NonlinearCG(**TIGHT), 500),
    "optimistix gd": Optimistix(optx.GradientDescent(0.15, **TIGHT), 1500),
    "optimistix optax": Optimistix(optx.OptaxMinimiser(optax.sgd(0.15), **TIGHT), 1500),
    "scipy L-BFGS-B": Scipy(options={"ftol": 1e-16, "gtol": 1e-11}),
    "scipy BFGS": Scipy("BFGS", {"gtol": 1e-10}),
    "scipy CG": Scipy("CG", {"gtol": 1e-10}),
    "scipy TNC": Scipy("TNC", {"gtol": 1e-13, "ftol": 1e-18, "xtol": 1e-18, "maxfun": 2000}),
    "scipy SLSQP": Scipy("SLSQP", {"ftol": 1e-20}),
    "scipy Newton-CG": Scipy("Newton-CG", {"xtol": 1e-12}),
    "scipy trust-ncg": Scipy("trust-ncg", {"gtol": 1e-10}),
    "scipy trust-krylov": Scipy("trust-krylov", {"gtol": 1e-10}),
    "scipy trust-constr": Scipy("trust-constr", {"gtol": 1e-10, "xtol": 1e-14}),
    "callback": Callback(descend),
}
"""Each with a budget and tolerances to solve these tasks as far as it can."""

LOOSE = {"optimistix cg": 1e-5, "scipy TNC": 1e-4, "scipy SLSQP": 1e-5}
"""Methods that stop by the objective, which is flat to rounding near its optimum."""


def key():
    return jax.random.key(0)


def meta_gradient(theta, task, solver):
    algorithm = imaml(
        cf.loss, strength=cf.STRENGTHS["mixed"], solver=solver, linear_solver=CG(60, rtol=1e-11)
    )
    problem = Proximal(cf.loss, cf.STRENGTHS["mixed"]).problem(theta, task.support)
    return run(solver, problem, theta, key()).phi, algorithm.meta_gradient(theta, task, key())


@pytest.mark.parametrize("name", SOLVERS)
def test_the_optimum_and_the_meta_gradient_are_the_closed_forms(name):
    phi, (_, gradient, info) = jax.jit(functools.partial(meta_gradient, solver=SOLVERS[name]))(
        cf.theta(), cf.task()
    )
    exact, rtol = cf.exact("mixed"), LOOSE.get(name, 1e-7)
    np.testing.assert_allclose(cf.flat(phi), exact.phi, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(cf.flat(gradient), exact.meta_gradient, rtol=rtol, atol=rtol)
    assert jax.tree.structure(phi) == jax.tree.structure(cf.theta())
    assert int(info.code) == Verdict.OK


def test_an_overflow_inside_scipy_is_no_error(monkeypatch):
    minimise = scipy.optimize.minimize

    def overflowing(*args, **options):
        np.full(2, 1e300) @ np.full(2, 1e300)
        return minimise(*args, **options)

    monkeypatch.setattr(scipy.optimize, "minimize", overflowing)
    problem = Proximal(cf.loss, 0.7).problem(cf.theta(), cf.task().support)
    phi = Scipy("BFGS").solve(problem, cf.theta(), key()).phi
    assert np.isfinite(cf.flat(phi)).all()


@pytest.mark.parametrize("method", ["Nelder-Mead", "Powell", "COBYLA", "COBYQA"])
def test_methods_without_gradients_get_near(method):
    def loss(phi, batch):
        return 0.5 * jnp.sum(batch * (phi - 1.0) ** 2)

    problem = Proximal(loss, 1.0).problem(np.zeros(2), np.array([1.0, 3.0]))
    solution = jax.jit(lambda t: Scipy(method).solve(problem, t, key()))(np.zeros(2))
    np.testing.assert_allclose(solution.phi, [0.5, 0.75], atol=2e-4)


def test_scipy_without_gradients_takes_differences_of_values():
    problem = Proximal(cf.loss, 0.7).problem(cf.theta(), cf.task().support)
    solver = Scipy("BFGS", {"gtol": 1e-6}, jac=False)
    phi = jax.jit(lambda t: solver.solve(problem, t, key()).phi)(cf.theta())
    np.testing.assert_allclose(cf.flat(phi), cf.exact("scalar").phi, atol=1e-5)


def valley(phi, batch):
    """Rosenbrock's valley from a point where its Hessian is indefinite."""
    return jnp.sum(batch * (phi[1:] - phi[:-1] ** 2) ** 2 + (1 - phi[:-1]) ** 2)


DOWNWARD = np.array([0.3, 1.2, 0.5, 1.4])


@functools.partial(jax.jit, static_argnames="solver")
def through_the_valley(solver):
    problem = Proximal(valley, 0.05).problem(DOWNWARD, np.array(20.0))
    return solver.solve(problem, DOWNWARD, key()).phi


@pytest.mark.parametrize(
    "name", ["optimistix bfgs", "scipy L-BFGS-B", "scipy trust-ncg", "scipy Newton-CG"]
)
def test_downward_curvature_at_the_start_is_survived(name):
    wanted = through_the_valley(LBFGS(400))
    np.testing.assert_allclose(through_the_valley(SOLVERS[name]), wanted, rtol=1e-5)


HOST = ["scipy L-BFGS-B", "scipy trust-ncg", "callback"]


@pytest.mark.parametrize("name", [*HOST, "optimistix bfgs"])
@pytest.mark.parametrize("transform", ["vmap", "map", "vmap over Λ", "map over Λ"])
def test_tasks_side_by_side_do_as_one_after_the_other(transform, name):
    """Over Λ alone all tasks look the same at θ, and must still be told apart."""
    solver, theta = SOLVERS[name], cf.theta()
    tasks = [cf.task(seed) for seed in range(3)]
    strengths = [0.2, 0.7, 3.0]
    if transform.endswith("Λ"):
        tasks = [tasks[0]] * 3
    else:
        strengths = [0.7] * 3

    def one(support, strength):
        problem = Proximal(cf.loss, None).problem(theta, support)
        problem = type(problem)(cf.loss, support, theta, strength)
        return ravel_pytree(solver.solve(problem, theta, key()).phi)[0]

    supports = jax.tree.map(lambda *x: np.stack(x), *[task.support for task in tasks])
    if transform == "vmap":
        together = jax.vmap(one, (0, None))
        args = supports, 0.7
    elif transform == "map":
        together = lambda s, _: jax.lax.map(lambda i: one(i, 0.7), s)  # noqa: E731
        args = supports, None
    elif transform == "vmap over Λ":
        together = jax.vmap(one, (None, 0))
        args = tasks[0].support, np.array(strengths)
    else:
        together = lambda s, all: jax.lax.map(lambda i: one(s, i), all)  # noqa: E731
        args = tasks[0].support, np.array(strengths)
    found = jax.jit(together)(*args)
    for task, strength, phi in zip(tasks, strengths, found, strict=True):
        x, y = task.support
        curved = x.T @ x + strength * np.eye(cf.SIZE)
        wanted = np.linalg.solve(curved, x.T @ y + strength * cf.flat(theta))
        np.testing.assert_allclose(phi, wanted, rtol=1e-6, atol=1e-8)


def test_single_precision_parameters_stay_so_and_say_what_they_reach():
    with jax.enable_x64(False):
        theta, task = jax.tree.map(lambda x: np.asarray(x, np.float32), (cf.theta(), cf.task()))
        algorithm = imaml(cf.loss, strength=0.7, solver=Scipy())
        phi, report = jax.jit(algorithm.adapt)(theta, task.support, key())
        assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(phi))
        assert float(report.inner_residual) < 0.05


def test_a_function_gets_the_key_and_may_use_it():
    def shift(value_and_gradient, theta, key_data):
        return theta + key_data.sum()

    problem = Proximal(cf.loss, 1.0).problem(cf.theta(), cf.task().support)
    solve = jax.jit(lambda key: Callback(shift).solve(problem, cf.theta(), key).phi)
    for given in (jax.random.key(7), jax.random.PRNGKey(7)):
        moved = cf.flat(solve(given)) - cf.flat(cf.theta())
        np.testing.assert_allclose(moved, 7.0)


def test_the_function_sees_the_proximal_objective_and_its_gradient():
    seen = []

    def look(value_and_gradient, theta, key_data):
        seen.extend(map(value_and_gradient, (theta, theta + 1.0, theta)))
        return theta

    problem = Proximal(cf.loss, 0.7).problem(cf.theta(), cf.task().support)
    solution = jax.jit(lambda t: Callback(look).solve(problem, t, key()))(cf.theta())
    exact = cf.exact("scalar")
    for (_, gradient), point in zip(seen, (exact.theta, exact.theta + 1, exact.theta), strict=True):
        np.testing.assert_allclose(gradient, exact.gradient(point), rtol=1e-9)
    np.testing.assert_allclose(
        seen[1][0], problem.value(jax.tree.map(lambda x: x + 1, cf.theta())), rtol=1e-12
    )
    start = np.linalg.norm(exact.gradient(exact.theta))
    np.testing.assert_allclose(solution.start_norm, start, rtol=1e-9)


class LostPatience(Exception):
    pass


def impatient(value_and_gradient, theta, key_data):
    value_and_gradient(theta + 1.0)
    raise LostPatience("the licence server is down")


WRONG = {
    "shape": (lambda f, theta, k: theta[1:], r"float64\[7\].*Allowed.*vector of 8"),
    "dtype": (lambda f, theta, k: np.arange(8), r"int64\[8\].*Allowed"),
    "type": (lambda f, theta, k: None, r"NoneType.*Allowed"),
    "nan": (lambda f, theta, k: np.where(np.arange(8) == 5, np.nan, theta), "nan at index 5, 1 of"),
    "error": (impatient, "LostPatience: the licence server is down"),
}


@pytest.mark.parametrize("what", WRONG)
@pytest.mark.parametrize("vmapped", [False, True])
def test_what_goes_wrong_on_the_host_is_told_in_its_own_words(what, vmapped):
    function, told = WRONG[what]

    def solve(theta, support):
        problem = Proximal(cf.loss, 1.0).problem(theta, support)
        return Callback(function).solve(problem, theta, key()).phi

    support = cf.task().support
    if vmapped:
        solve = jax.vmap(solve, (None, 0))
        support = jax.tree.map(lambda x: np.stack([x, x]), support)
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"(?s){told}"):
        jax.block_until_ready(jax.jit(solve)(cf.theta(), support))


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Scipy("L-BFGS"), "Did you mean 'L-BFGS-B'"),
        (lambda: Scipy("trust-exact"), "Unknown SciPy method 'trust-exact'"),
        (lambda: Scipy(options=["maxiter"]), "options=.*Allowed: a dict"),
        (lambda: Scipy("trust-ncg", jac=False), "jac=False.*Allowed"),
        (lambda: Callback("bfgs"), "'bfgs' is no inner solver"),
        (lambda: Callback(LostPatience), r"class LostPatience.*Write LostPatience\(...\)"),
        (lambda: Optimistix(optx.BFGS), r"class BFGS.*Write BFGS\(...\)"),
        (lambda: Optimistix(optx.Newton(**TIGHT)), "Newton.*Allowed: an Optimistix minimiser"),
        (lambda: Optimistix(optx.BFGS(**TIGHT), 0), "steps=0"),
        (lambda: imaml(cf.loss, strength=1.0, solver=Scipy), r"class Scipy.*Write Scipy\(...\)"),
        (lambda: maml(cf.loss, solver=Scipy()), "and Scipy cannot be"),
        (lambda: maml(cf.loss, solver=NewtonCG()), "and NewtonCG cannot be"),
    ],
)
def test_bad_input_is_refused_with_a_remedy(build, told):
    with pytest.raises(InputError, match=told):
        build()


def test_a_missing_optimistix_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "optimistix", None)
    with pytest.raises(InputError, match=r"pip install 'pullback\[optimistix\]'"):
        Optimistix(object())


DEVICES = """
    import jax, jax.numpy as jnp, numpy as np
    from pullback.core.problem import Proximal
    from pullback.meta import parallel
    from pullback.solvers import Callback, Scipy

    def loss(phi, batch):
        return 0.5 * jnp.sum(batch[0] * (phi - batch[1]) ** 2)

    def fail(value_and_gradient, theta, key_data):
        if value_and_gradient(theta)[1][0] > 0:
            raise RuntimeError("out of licences")
        return theta

    def solve(solver, theta, items):
        def one(theta, item):
            phi = solver.solve(Proximal(loss, 1.0).problem(theta, item), theta, KEY).phi
            return jnp.sum(phi), phi
        mesh = parallel.task_mesh(8)
        program = jax.jit(lambda t, i: parallel.over_tasks(one, t, i, "map", mesh)[1])
        return np.asarray(program(theta, items))

    KEY = jax.random.key(0)
    assert jax.local_device_count() == 2
    rng = np.random.default_rng(0)
    for size, rounds in ((50, 3), (100_000, 1)):
        wide = {"maxiter": 4, "initial_trust_radius": 1e3, "max_trust_radius": 1e4}
        for solver in (Scipy(options={"maxiter": 6}), Scipy("trust-ncg", wide)):
            for _ in range(rounds):
                curvature = rng.uniform(0.9, 1.1, (8, size)).astype(np.float32)
                target = rng.normal(size=(8, size)).astype(np.float32)
                found = solve(solver, np.zeros(size, np.float32), (curvature, target))
                wanted = curvature * target / (curvature + 1)
                assert np.abs(found - wanted).max() < 1e-2, np.abs(found - wanted).max()
    try:
        solve(Callback(fail), np.zeros(3, np.float32), (np.ones((8, 3)), np.linspace(-1, 1, 8)))
    except jax.errors.JaxRuntimeError as error:
        assert "out of licences" in str(error)
        print("all told")
"""


def test_solves_on_two_devices_at_once_neither_wait_for_each_other_nor_mix():
    """In a process of its own, since a deadlock would take this one along."""
    cheap = ENVIRONMENT | {"JAX_PLATFORMS": "cpu"}
    cheap["XLA_FLAGS"] += " --xla_force_host_platform_device_count=2"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(DEVICES)],
        env=os.environ | cheap,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert "all told" in done.stdout, done.stderr[-2000:]


def test_a_task_that_is_all_solved_already_stays():
    task = Task((np.eye(3), np.ones(3)), (np.eye(3), np.zeros(3)))
    for solver in (Scipy(), Optimistix(optx.BFGS(**TIGHT)), NewtonCG()):
        algorithm = imaml(
            lambda p, b: 0.5 * jnp.sum((b[0] @ p - b[1]) ** 2), strength=1.0, solver=solver
        )
        _, gradient, info = jax.jit(algorithm.meta_gradient)(np.ones(3), task, key())
        np.testing.assert_allclose(gradient, 0.5, rtol=1e-6)
        assert float(info.inner_residual) == 0.0
