"""What iMAML adapts to is differentiated implicitly; where nothing can be, that is an error."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as ox
import pytest

import pullback as pb
from pullback.algorithms import AdaptiveStrength
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.solvers import LBFGS, GradientDescent, Nesterov, NewtonCG, Optimistix, Scipy

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)


def loss(params, batch):
    return jnp.sum((params - batch) ** 2)


def exact(problem, theta, key):
    strength = problem.strength
    return (2 * problem.support + strength * theta) / (2 + strength)


SOLVERS = {
    "black box": exact,
    "lbfgs": LBFGS(),
    "newton-cg": NewtonCG(),
    "scipy": Scipy(),
    "optimistix": Optimistix(ox.BFGS(1e-9, 1e-9)),
    "gradient descent": GradientDescent(60, 0.2),
    "nesterov": Nesterov(),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_the_adapted_parameters_are_differentiated_by_all_that_they_depend_on(name):
    def outer(theta, support, strength):
        algorithm = pb.imaml(loss, strength=strength, solver=SOLVERS[name])
        phi, _ = algorithm.adapt(theta, support, KEY)
        return loss(phi, 3.0)

    theta, support = jnp.zeros(2), jnp.ones(2)
    # φ = (2b + λθ) / (2 + λ), λ = 2.
    by_theta, by_support, by_strength = jax.grad(outer, (0, 1, 2))(theta, support, 2.0)
    np.testing.assert_allclose(by_theta, [-2.5, -2.5], rtol=1e-6)
    np.testing.assert_allclose(by_support, [-2.5, -2.5], rtol=1e-6)
    np.testing.assert_allclose(by_strength, 1.25, rtol=1e-6)


@pytest.mark.parametrize("name", ["black box", "lbfgs"])
def test_derivatives_of_second_order_in_any_mode_inside_jit_and_vmap(name):
    algorithm = pb.imaml(loss, strength=2.0, solver=SOLVERS[name])
    adapted = lambda theta, b: jnp.sum(algorithm.adapt(theta, b, KEY)[0] ** 3)  # noqa: E731
    theta, b = jnp.asarray([0.4, -1.0]), jnp.asarray([1.0, 2.0])
    phi = (2 * b + 2 * theta) / 4
    wanted = np.diag(1.5 * phi)
    for second in (
        jax.hessian(adapted),
        jax.jacrev(jax.jacrev(adapted)),
        jax.jacfwd(jax.grad(adapted)),
    ):
        np.testing.assert_allclose(jax.jit(second)(theta, b), wanted, rtol=1e-6, atol=1e-9)
    batch = jax.vmap(jax.grad(adapted), (0, None))(jnp.stack([theta, 2 * theta]), b)
    np.testing.assert_allclose(batch[0], 1.5 * phi**2, rtol=1e-6)


def network(params, batch):
    x, y = batch
    hidden = jnp.tanh(x @ params["a"])
    return jnp.mean((hidden @ params["b"] - y) ** 2)


@pytest.mark.parametrize("raising", [None, AdaptiveStrength()])
def test_a_network_agrees_with_finite_differences(raising, rng):
    theta = {"a": jnp.asarray(rng.normal(size=(2, 3))), "b": jnp.asarray(rng.normal(size=3))}
    x, y = jnp.asarray(rng.normal(size=(5, 2))), jnp.asarray(rng.normal(size=5))
    algorithm = pb.imaml(
        network, strength={"a": 2.0, "b": 3.0}, solver=LBFGS(80), raise_strength=raising
    )

    def outer(move):
        moved = jax.tree.map(lambda leaf: leaf * (1 + move), theta)
        phi, _ = algorithm.adapt(moved, (x * (1 + move), y), KEY)
        return network(phi, (x[:2], y[:2]))

    outer = jax.jit(outer)
    wanted = (outer(1e-4) - outer(-1e-4)) / 2e-4
    np.testing.assert_allclose(jax.grad(outer)(0.0), wanted, rtol=1e-5)


def test_a_learned_strength_and_hyperparameter_are_differentiated_too():
    weighted = lambda params, batch, hyper: hyper * loss(params, batch)  # noqa: E731
    algorithm = pb.learned_imaml(weighted, strength=2.0, hyper=1.0, outer_loss=loss)
    theta = algorithm.init(jnp.zeros(2))

    def outer(theta):
        return loss(algorithm.adapt(theta, jnp.ones(2), KEY)[0], 3.0)

    found = jax.grad(outer)(theta)
    task = pb.Task(jnp.ones(2), jnp.full(2, 3.0))
    _, wanted, _ = algorithm.meta_gradient(theta, task, KEY)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_far_from_a_stationary_point_the_derivative_is_nan():
    stays = lambda problem, theta, key: theta  # noqa: E731
    algorithm = pb.imaml(loss, strength=2.0, solver=stays)
    gradient = jax.grad(lambda theta: loss(algorithm.adapt(theta, jnp.ones(2), KEY)[0], 3.0))
    assert np.isnan(gradient(jnp.zeros(2))).all()


@pytest.mark.parametrize("make", [pb.fomaml, pb.reptile])
@pytest.mark.parametrize("name", ["black box", "lbfgs", "newton-cg", "scipy", "optimistix"])
def test_an_explicit_algorithm_has_no_derivative_through_a_solver_that_has_none(make, name):
    algorithm = make(loss, strength=2.0, solver=SOLVERS[name])
    outer = lambda theta: loss(algorithm.adapt(theta, jnp.ones(2), KEY)[0], 3.0)  # noqa: E731
    with pytest.raises(InputError, match=r"has none.*imaml's adapt.*stop_gradient"):
        jax.grad(outer)(jnp.zeros(2))
    # A derivative by something else is none of the solver's.
    assert jax.grad(lambda x: x * outer(jnp.zeros(2)))(1.0) == outer(jnp.zeros(2))


def test_an_explicit_algorithm_is_differentiated_through_steps_that_can_be():
    algorithm = pb.maml(loss, solver=GradientDescent(1, 0.25))
    outer = lambda theta: loss(algorithm.adapt(theta, jnp.ones(2), KEY)[0], 3.0)  # noqa: E731
    np.testing.assert_allclose(jax.grad(outer)(jnp.zeros(2)), [-2.5, -2.5])


@pytest.mark.parametrize("name", ["black box", "lbfgs", "gradient descent"])
@pytest.mark.parametrize("output", [0, 1])
def test_a_meta_gradient_is_not_differentiated_once_more(name, output):
    algorithm = pb.imaml(loss, strength=2.0, solver=SOLVERS[name])
    task = pb.Task(jnp.ones(2), jnp.full(2, 3.0))

    def outer(theta):
        return jnp.sum(algorithm.meta_gradient(theta, task, KEY)[output])

    with pytest.raises(InputError, match="meta-gradient"):
        jax.grad(outer)(jnp.zeros(2))

    def closed_over(scale):
        scaled = pb.imaml(lambda p, b: scale * loss(p, b), strength=2.0, solver=SOLVERS[name])
        return jnp.sum(scaled.meta_gradient(jnp.zeros(2), task, KEY)[output])

    with pytest.raises(InputError, match="derivative"):
        jax.grad(closed_over)(1.0)


@pytest.mark.parametrize("strength", [0.1, 1.0])
def test_a_support_loss_that_is_nan_is_no_success(strength):
    def entropy(params, batch):
        return jnp.sum(batch * (jnp.log(batch) - params))

    task = pb.Task(jnp.asarray([0.0, 1.0]), jnp.asarray([0.5, 0.5]))
    stays = lambda problem, theta, key: theta  # noqa: E731
    algorithm = pb.imaml(entropy, strength=strength, solver=stays)
    assert algorithm.adapt(jnp.zeros(2), task.support, KEY)[1].code == Verdict.NOT_FINITE
    assert algorithm.meta_gradient(jnp.zeros(2), task, KEY)[2].code == Verdict.NOT_FINITE


@pytest.mark.parametrize(
    ("make", "given"), [(pb.maml, {}), (pb.fomaml, {}), (pb.reptile, {"fit": "support"})]
)
def test_inner_steps_that_raise_the_support_loss_have_a_verdict(make, given):
    task = pb.Task(jnp.ones(2), jnp.full(2, 3.0))
    for rate, wanted in ((0.4, Verdict.OK), (1.1, Verdict.INNER_DIVERGED)):
        algorithm = make(loss, solver=GradientDescent(3, rate), **given)
        assert algorithm.adapt(jnp.zeros(2), task.support, KEY)[1].code == wanted
        info = algorithm.meta_gradient(jnp.zeros(2), task, KEY)[2]
        assert info.code == wanted
    assert "smaller inner learning rate" in repr(info)


def test_a_black_box_that_goes_uphill_has_a_verdict_in_imaml_too():
    uphill = lambda problem, theta, key: theta - 1.0  # noqa: E731
    algorithm = pb.imaml(loss, strength=2.0, solver=uphill)
    task = pb.Task(jnp.ones(2), jnp.full(2, 3.0))
    assert algorithm.adapt(jnp.zeros(2), task.support, KEY)[1].code == Verdict.INNER_DIVERGED
    assert algorithm.meta_gradient(jnp.zeros(2), task, KEY)[2].code == Verdict.INNER_DIVERGED
