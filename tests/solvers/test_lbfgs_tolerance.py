"""L-BFGS to a tolerance: it stops where it says, and otherwise is the L-BFGS of fixed steps."""

import closed_forms as cf
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.core.problem import Proximal
from pullback.solvers import LBFGS

pytestmark = pytest.mark.usefixtures("x64")
PROXIMAL = Proximal(cf.loss, cf.STRENGTHS["diagonal"])


def solved(solver, theta=None):
    theta = cf.theta() if theta is None else theta
    problem = PROXIMAL.problem(theta, cf.task().support)
    return solver.solve(problem, theta, jax.random.key(0))


def residual(phi):
    problem = PROXIMAL.problem(cf.theta(), cf.task().support)
    whole, bare = cf.flat(problem.gradient(phi)), cf.flat(problem.loss_gradient(phi))
    return np.linalg.norm(whole) / np.linalg.norm(bare)


def test_it_stops_at_the_first_point_within_its_tolerance():
    reached = [residual(solved(LBFGS(200, rtol=rtol)).phi) for rtol in (0.3, 1e-2, 1e-6)]
    for rtol, got in zip((0.3, 1e-2, 1e-6), reached, strict=True):
        assert got <= rtol
    assert reached[0] > 1e-2 > reached[1] > 1e-6


def test_too_few_steps_are_the_fixed_steps():
    short, fixed = solved(LBFGS(5, rtol=1e-9)), solved(LBFGS(5))
    np.testing.assert_allclose(cf.flat(short.phi), cf.flat(fixed.phi), rtol=1e-12)
    np.testing.assert_allclose(short.start_norm, fixed.start_norm)
    vector = cf.theta(3)
    np.testing.assert_allclose(
        cf.flat(short.inverse(vector)), cf.flat(fixed.inverse(vector)), rtol=1e-9
    )


def test_tasks_stop_one_by_one_under_vmap():
    thetas = jax.tree.map(lambda *x: jnp.stack(x), cf.theta(0), cf.theta(1))
    both = jax.vmap(lambda theta: solved(LBFGS(80, rtol=1e-4), theta).phi)(thetas)
    for i in range(2):
        alone = solved(LBFGS(80, rtol=1e-4), cf.theta(i)).phi
        one = jax.tree.map(lambda leaf, i=i: leaf[i], both)
        np.testing.assert_allclose(cf.flat(one), cf.flat(alone), rtol=1e-6)


@pytest.mark.parametrize("rtol", [0.0, 1.0, -1e-3, float("nan")])
def test_a_tolerance_out_of_range_is_refused(rtol):
    with pytest.raises(InputError, match="rtol < 1"):
        LBFGS(rtol=rtol)


def test_a_diagonal_of_very_unlike_strengths_takes_no_more_steps_than_a_scalar():
    """The proximal term is round in the solver's coordinates, whatever its scale in each."""
    rng = np.random.default_rng(0)
    size = 40
    spread = jnp.asarray(10.0 ** rng.uniform(-3, 3, size))
    axes = np.linalg.qr(rng.standard_normal((size, size)))[0]
    # √Λ⁻¹ H √Λ⁻¹ has three curvatures other than zero, so six gradients are enough for anyone.
    curved = jnp.asarray(axes[:, :3] * [1.0, 3.0, 9.0] @ axes[:, :3].T)
    target = jnp.asarray(rng.standard_normal(size))
    root = jnp.sqrt(spread)

    def loss(phi, _):
        offset = root * phi["w"] - target
        return 0.5 * offset @ curved @ offset

    problem = Proximal(loss, {"w": spread}).problem({"w": jnp.zeros(size)}, None)
    solution = LBFGS(8).solve(problem, problem.theta, jax.random.key(0))
    exact = np.linalg.solve(curved + np.eye(size), curved @ target) / root
    np.testing.assert_allclose(solution.phi["w"], exact, rtol=1e-3, atol=1e-6 / root.min())
    # Its memory approximates (H + Λ)⁻¹ among the parameters themselves, not in its coordinates.
    whole = np.diag(root) @ (curved + np.eye(size)) @ np.diag(root)
    applied = np.asarray(solution.inverse({"w": whole @ exact})["w"])
    np.testing.assert_allclose(root * applied, root * exact, rtol=0.3, atol=0.3)
