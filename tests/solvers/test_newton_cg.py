"""The trust-region Newton method where a plain one fails: downward curvature, overshoot, noise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.core.problem import Proximal
from pullback.solvers import LBFGS, NewtonCG
from pullback.solvers.newton_cg import steihaug

pytestmark = pytest.mark.usefixtures("x64")


def valley(phi, batch):
    """Rosenbrock's valley, whose Hessian is indefinite at the starting point below."""
    return jnp.sum(batch * (phi[1:] - phi[:-1] ** 2) ** 2 + (1 - phi[:-1]) ** 2)


START = np.array([0.3, 1.2, 0.5, 1.4])
SUPPORT = np.array(20.0)


@functools.partial(jax.jit, static_argnames=("solver", "loss"))
def solve(solver, theta=START, support=SUPPORT, strength=0.05, loss=valley):
    problem = Proximal(loss, strength).problem(theta, support)
    solution = solver.solve(problem, theta, jax.random.key(0))
    size = jnp.linalg.norm(problem.gradient(solution.phi))
    return solution, problem.value(solution.phi), size


def curvatures(theta, strength=0.05):
    hessian = jax.hessian(Proximal(valley, strength).problem(theta, SUPPORT).value)(theta)
    return np.linalg.eigvalsh(hessian)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_downward_curvature_at_the_start_is_left_behind(scale):
    """At every scale of the loss, with the optimum known from a long run of another method."""
    assert curvatures(START)[0] < -3
    wanted, _, left = solve(LBFGS(400))
    assert float(left) < 1e-9
    assert curvatures(wanted.phi)[0] > 0

    def scaled(phi, batch):
        return scale * valley(phi, batch)

    solution, _, size = solve(NewtonCG(60), strength=scale * 0.05, loss=scaled)
    assert float(size) < 1e-9 * scale
    np.testing.assert_allclose(solution.phi, wanted.phi, rtol=1e-7)


@pytest.mark.parametrize("radius", [None, 1e3])
def test_the_objective_never_rises_from_one_step_to_the_next(radius):
    values = [solve(NewtonCG(k, radius=radius))[1] for k in (1, 2, 3, 5, 8)]
    before = valley(START, SUPPORT)
    drops = np.diff([before, *values])
    assert np.all(drops <= 0)
    assert values[-1] < before


def test_a_saddle_along_one_axis_is_left_by_the_boundary():
    """Steepest descent in the direction of negative curvature only: the model has no minimum."""

    def saddle(phi, batch):
        return 0.5 * phi[0] ** 2 - batch * phi[1] ** 2 + phi[1] ** 4

    theta = np.array([0.0, 1e-3])
    solution, _, _ = solve(
        NewtonCG(30), theta=theta, support=np.array(2.0), strength=0.1, loss=saddle
    )
    # 4y³ − 4y + 0.1(y − 10⁻³) = 0 and y > 0
    wanted = np.max(np.roots([4, 0, -3.9, -1e-4]).real)
    np.testing.assert_allclose(solution.phi, [0.0, wanted], atol=1e-8)


def quadratic(phi, batch):
    hessian, slope = batch
    return 0.5 * phi @ hessian @ phi - slope @ phi


def matrix(values, seed=0):
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return basis * np.asarray(values) @ basis.T, rng.normal(size=len(values))


@pytest.mark.parametrize("values", [[1.0, 2.0, 5.0, 9.0], [-3.0, 0.5, 2.0, 9.0]])
@pytest.mark.parametrize("radius", [0.1, 0.5, 1e3])
def test_the_model_is_lowered_as_said_within_the_region(values, radius):
    hessian, slope = matrix(values)
    move, drop, at_boundary = jax.jit(
        lambda h, g, r: steihaug(lambda u: h @ u, g, r, jnp.asarray(0.0), 4)
    )(hessian, slope, radius)
    model = slope @ move + 0.5 * move @ hessian @ move
    np.testing.assert_allclose(-drop, model, rtol=1e-9)
    # The Cauchy point: as far down the gradient as the model or the region allows.
    size, curvature = np.linalg.norm(slope), slope @ hessian @ slope
    share = min(1.0, size**3 / (radius * curvature)) if curvature > 0 else 1.0
    along = -share * radius / size * slope
    cauchy = slope @ along + 0.5 * along @ hessian @ along
    assert model <= cauchy * (1 - 1e-12)
    inside = np.linalg.norm(move)
    if bool(at_boundary):
        np.testing.assert_allclose(inside, radius, rtol=1e-9)
    else:
        assert inside < radius
        np.testing.assert_allclose(move, np.linalg.solve(hessian, -slope), rtol=1e-7)
    assert bool(at_boundary) == (radius < 1 or values[0] < 0)


def test_single_precision_ends_at_rounding_and_not_before():
    hessian, slope = matrix(np.geomspace(0.1, 100, 12))
    hessian, slope = hessian.astype(np.float32), slope.astype(np.float32)
    theta = np.ones(12, np.float32)
    with jax.enable_x64(False):
        solution, _, size = solve(
            NewtonCG(12, 20), theta, (hessian, slope), np.float32(1), quadratic
        )
    assert solution.phi.dtype == np.float32
    assert float(size) < 1e-5 * float(solution.start_norm)


def test_steps_into_numbers_that_are_not_finite_are_not_taken():
    def well(phi, batch):
        return jnp.sum(phi - batch * jnp.log(phi))

    theta = np.array([6.0, 4.0, 5.0])
    target = np.array([0.01, 0.02, 0.05])
    solution, _, size = solve(NewtonCG(90, radius=100.0), theta, target, 0.01, well)
    assert np.all(np.asarray(solution.phi) > 0)
    assert float(size) < 1e-8


def test_the_tolerance_ends_the_solve_and_is_kept():
    close, _, _ = solve(NewtonCG(60))
    for rtol in (0.3, 1e-4):
        solution, _, size = solve(NewtonCG(60, rtol=rtol))
        allowed = rtol * np.linalg.norm(jax.grad(valley)(solution.phi, SUPPORT))
        assert float(size) <= allowed
        # Neither so much as one step too many: the exact end is another point.
        assert np.any(np.asarray(solution.phi) != np.asarray(close.phi))


def test_at_the_tolerance_already_nothing_moves():
    theta = np.array([1.0, 1.0, 1.0, 1.0])
    solution, _, _ = solve(NewtonCG(5, rtol=0.1), theta)
    np.testing.assert_array_equal(solution.phi, theta)


@pytest.mark.parametrize("solver", [NewtonCG(40), NewtonCG(40, rtol=1e-9)], ids=["fixed", "rtol"])
def test_tasks_side_by_side_do_as_one_after_the_other(solver):
    rng = np.random.default_rng(1)
    support = np.geomspace(2.0, 20.0, 3)[:, None] * np.ones((3, 3))
    theta = START + 0.1 * rng.normal(size=(3, 4))
    both = jax.jit(jax.vmap(lambda t, s: solve(solver, t, s)[0].phi))(theta, support)
    for task in range(3):
        alone, _, _ = solve(solver, theta[task], support[task])
        np.testing.assert_allclose(both[task], alone.phi, rtol=1e-6)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 0}, "steps=0"),
        ({"linear_steps": 2.5}, "linear_steps=2.5"),
        ({"radius": -1.0}, "radius=-1.0"),
        ({"rtol": 1.0}, "rtol=1.0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, told):
    with pytest.raises(InputError, match="Allowed") as caught:
        NewtonCG(**settings)
    assert told in str(caught.value)
