"""Every algorithm with every inner solver, linear solver and form of Λ that fit together.

Not all at once: every form of Λ is met by every linear solver, by every inner solver and by every
algorithm, and L-BFGS, whose memory the linear solvers are handed, by every linear solver.
"""

import itertools

import closed_forms as cf
import jax
import numpy as np
import pytest

from pullback.algorithms import ALGORITHMS
from pullback.core import results
from pullback.core.results import Verdict
from pullback.linear import LINEAR_SOLVERS
from pullback.solvers import GradientDescent, NewtonCG, Scipy, is_differentiable

pytestmark = pytest.mark.usefixtures("x64")

INNER = cf.SOLVERS | {
    "newton-cg": NewtonCG(12),
    "scipy": Scipy(options={"maxiter": 200, "ftol": 0.0, "gtol": 1e-12}),
}
"""With enough steps to solve the inner problem."""
REPRESENTATIVE = ("lbfgs", "nesterov", "momentum", "adam", "newton-cg", "scipy", "black box")
FORMS = ("scalar", "per leaf", "diagonal")
SHORT = {"gradient descent": GradientDescent(60, 0.2), "momentum": GradientDescent(30, 0.1, 0.5)}

IMPLICIT = [
    (name, inner, linear, FORMS[(i + j) // 2 % len(FORMS)])
    for name in ALGORITHMS
    if ALGORITHMS[name].implicit
    for (i, inner), (j, linear) in itertools.product(
        enumerate(REPRESENTATIVE), enumerate(LINEAR_SOLVERS)
    )
    if inner == "lbfgs" or (i + j) % 2 == 0
]
EXPLICIT = [
    (name, solver, form)
    for n, name in enumerate(name for name in ALGORITHMS if not ALGORITHMS[name].implicit)
    for (i, solver), (j, form) in itertools.product(
        enumerate(REPRESENTATIVE), enumerate(("none", *FORMS))
    )
    if (name != "maml" or is_differentiable(INNER[solver])) and (n + i + j) % 2 == 0
]


@pytest.mark.parametrize(("name", "inner", "linear", "form"), IMPLICIT)
def test_implicit_gradients_are_exact_in_every_combination(name, inner, linear, form, key):
    steps = {"neumann": 400, "nystrom": 40}.get(linear, 60)
    algorithm = ALGORITHMS[name].make(
        cf.loss,
        strength=cf.STRENGTHS[form],
        solver=INNER[inner],
        linear_solver=LINEAR_SOLVERS[linear].make(steps=steps, rtol=1e-9),
        certify=None,
    )
    _, gradient, info = jax.jit(algorithm.meta_gradient)(cf.theta(), cf.task(), key)
    wanted = cf.exact(form).meta_gradient
    assert results.label(info.code) == "ok"
    assert info.linear_residual < 1e-6
    np.testing.assert_allclose(cf.flat(gradient), wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(("name", "inner", "form"), EXPLICIT)
def test_explicit_algorithms_reach_the_same_point_with_every_solver(name, inner, form, key):
    solver = SHORT.get(inner, INNER[inner]) if name == "maml" else INNER[inner]
    algorithm = ALGORITHMS[name].make(cf.loss, strength=cf.STRENGTHS[form], solver=solver)

    def both(theta, task, key):
        return algorithm.adapt(theta, task.support, key), algorithm.meta_gradient(theta, task, key)

    (phi, report), (_, gradient, info) = jax.jit(both)(cf.theta(), cf.task(), key)
    assert int(info.code) == int(report.code) == Verdict.OK
    exact = cf.exact(form)
    if name == "fomaml":
        outer = exact.outer_gradient(exact.phi)
        np.testing.assert_allclose(cf.flat(gradient), outer, atol=1e-4 * np.abs(outer).max())
    if solver is INNER[inner]:
        np.testing.assert_allclose(cf.flat(phi), exact.phi, atol=1e-4 * np.abs(exact.phi).max())
    else:
        assert np.all(np.isfinite(cf.flat(gradient)))
        assert info.inner_residual < 0.5
