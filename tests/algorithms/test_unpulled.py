"""Leaves with λ = 0 are what the support set says, and θ's gradient by them is zero."""

import closed_forms as cf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

import pullback as pb
from pullback.algorithms.base import Report
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.linear import CG, Dense
from pullback.solvers import LBFGS, GradientDescent, NewtonCG

pytestmark = pytest.mark.usefixtures("x64")

STRENGTH = {"a": 0.5, "b": {"c": 0.0, "w": 1.5}}


def exact(task, strength=STRENGTH):
    """The formulas hold for any Λ for which H + Λ is positive definite."""
    diagonal = cf.flat(jax.tree.map(lambda s, x: s * x, strength, cf.nested(np.ones(cf.SIZE))))
    return cf.Exact(task.support, task.query, cf.flat(cf.theta()), diagonal)


SOLVERS = {
    "the default": (None, 1e-2),
    "newton-cg": (NewtonCG(10), 1e-7),
    "gradient descent": (GradientDescent(600, learning_rate=0.3), 1e-7),
}


@pytest.mark.parametrize(("solver", "rtol"), SOLVERS.values(), ids=SOLVERS)
def test_least_squares_have_the_closed_form(solver, rtol, key):
    task, theta = cf.task(), cf.theta()
    linear_solver = None if solver is None else CG(60, rtol=1e-12)
    algorithm = pb.imaml(cf.loss, strength=STRENGTH, solver=solver, linear_solver=linear_solver)
    wanted = exact(task)
    phi, report = jax.jit(algorithm.adapt)(theta, task.support, key)
    value, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, key)
    np.testing.assert_allclose(cf.flat(phi), wanted.phi, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(value, wanted.outer_value(wanted.phi), rtol=rtol)
    size = float(np.linalg.norm(wanted.meta_gradient))
    # The default linear solver stops at 5 %.
    atol = 0.05 * size if linear_solver is None else rtol * size
    np.testing.assert_allclose(cf.flat(gradient), wanted.meta_gradient, atol=atol)
    assert gradient["b"]["c"] == 0.0
    assert (int(report.code), int(info.code)) == (Verdict.OK, Verdict.OK)


def test_two_leaves_of_several_numbers(key):
    strength = {"a": 0.0, "b": {"c": 0.7, "w": 0.0}}
    task = cf.task(3)
    algorithm = pb.imaml(cf.loss, strength=strength, solver=LBFGS(40), linear_solver=Dense())
    wanted = exact(task, strength)
    value, gradient, info = jax.jit(algorithm.meta_gradient)(cf.theta(), task, key)
    np.testing.assert_allclose(value, wanted.outer_value(wanted.phi), rtol=1e-7)
    np.testing.assert_allclose(cf.flat(gradient), wanted.meta_gradient, rtol=1e-7, atol=1e-12)
    assert int(info.code) == Verdict.OK


def test_phi_has_the_derivatives_of_the_closed_form(key):
    """By θ and by the support set; θ's own leaf says nothing of φ."""
    task, diagonal = cf.task(), exact(cf.task()).strength
    x, y = map(jnp.asarray, task.support)
    algorithm = pb.imaml(cf.loss, strength=STRENGTH, solver=LBFGS(40))

    def ours(vector, y):
        phi = ravel_pytree(algorithm.adapt(cf.nested(vector), (x, y), key)[0])[0]
        return phi, phi

    def formula(vector, y):
        phi = jnp.linalg.solve(x.T @ x + jnp.diag(diagonal), x.T @ y + diagonal * vector)
        return phi, phi

    start = cf.flat(cf.theta()) + 1e3 * (np.arange(cf.SIZE) == 3)
    (found, phi), (wanted, exactly) = (
        jax.jit(jax.jacrev(function, (0, 1), has_aux=True))(jnp.asarray(start), y)
        for function in (ours, formula)
    )
    np.testing.assert_allclose(phi, exactly, atol=1e-6)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert not np.any(found[0][:, 3])


MODEL = pb.models.Linear(3, 1)


def yes_and_no(seed=0, intercept=2.0):
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(2, 20, 3))
    y = (draw.uniform(size=(2, 20, 1)) < 1 / (1 + np.exp(-x[..., :1] - intercept))).astype(float)
    return pb.Task((x[0], y[0]), (x[1], y[1]))


def logistic(params, batch):
    """The same in NumPy, of a flat vector: bias, weights."""
    x, y = batch
    f = params[0] + x @ params[1:]
    return np.mean(np.logaddexp(0, f) - y[:, 0] * f)


FREE = {
    "the bias": {"weight": 0.2, "bias": 0.0},
    "the weight": {"weight": 0.0, "bias": 0.2},
}


@pytest.mark.parametrize("strength", FREE.values(), ids=FREE)
def test_a_part_of_a_logistic_head_is_that_of_maximum_likelihood(strength, key):
    """φ by SciPy, and the gradient by Λ(H + Λ)⁻¹v with a dense H."""
    loss = pb.models.binary_cross_entropy(MODEL.apply)
    task, theta = yes_and_no(), {"weight": jnp.asarray([[0.3], [0.1], [-0.2]]), "bias": jnp.ones(1)}
    algorithm = pb.imaml(loss, strength=strength, solver=LBFGS(30), linear_solver=Dense())

    @jax.jit
    def both(theta, task):
        return algorithm.adapt(theta, task.support, key), algorithm.meta_gradient(theta, task, key)

    (phi, report), (_, gradient, info) = both(theta, task)
    start, diagonal = (
        cf.flat(theta),
        cf.flat({"weight": np.full(3, strength["weight"]), "bias": np.full(1, strength["bias"])}),
    )

    def objective(v):
        return logistic(v, task.support) + 0.5 * np.sum(diagonal * (v - start) ** 2)

    wanted = minimize(objective, start, tol=1e-12).x
    np.testing.assert_allclose(cf.flat(phi), wanted, atol=1e-5)
    one = np.hstack([np.ones((20, 1)), task.support[0]])
    p = 1 / (1 + np.exp(-one @ cf.flat(phi)))
    curved = one.T * p * (1 - p) @ one / 20 + np.diag(diagonal)
    query = np.hstack([np.ones((20, 1)), task.query[0]])
    v = query.T @ (1 / (1 + np.exp(-query @ cf.flat(phi))) - task.query[1][:, 0]) / 20
    np.testing.assert_allclose(cf.flat(gradient), diagonal * np.linalg.solve(curved, v), atol=1e-7)
    assert (int(report.code), int(info.code)) == (Verdict.OK, Verdict.OK)


NETWORK = pb.models.MLP(inputs=2, outputs=2, hidden=(3,))
LAYERS = {
    "the head, none frozen": {"layer0": 5.0, "layer1": 0.0},
    "a bias, its weight frozen": {"layer0": {"bias": 0.0, "weight": np.inf}, "layer1": 0.3},
}


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
def test_the_gradient_is_that_of_finite_differences(layers, key):
    strength = {
        name: entry if isinstance(entry, dict) else dict.fromkeys(("bias", "weight"), entry)
        for name, entry in layers.items()
    }
    draw = np.random.default_rng(2)
    theta = jax.tree.map(
        lambda x: jnp.asarray(0.7 * draw.normal(size=x.shape)), NETWORK.init(jax.random.key(0))
    )
    x = draw.normal(size=(2, 12, 2))
    task = pb.Task((x[0], np.sin(2 * x[0])), (x[1], np.sin(2 * x[1])))
    loss = pb.models.mean_squared_error(NETWORK.apply)
    algorithm = pb.imaml(
        loss, strength=strength, solver=LBFGS(150, rtol=1e-11), linear_solver=Dense()
    )
    flat, unravel = ravel_pytree(theta)

    def query_loss(vector):
        return loss(algorithm.adapt(unravel(vector), task.support, key)[0], task.query)

    step = 1e-5 * jnp.eye(flat.size)
    ends = jax.jit(lambda points: jax.lax.map(query_loss, points))(
        jnp.concatenate([flat + step, flat - step])
    )
    wanted = (ends[: flat.size] - ends[flat.size :]) / 2e-5
    _, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, key)
    np.testing.assert_allclose(cf.flat(gradient), wanted, rtol=1e-4, atol=1e-6)
    for found, given in zip(jax.tree.leaves(gradient), jax.tree.leaves(strength), strict=True):
        assert np.any(found != 0) == (given != 0)
    assert int(info.code) == Verdict.OK


def flagged(loss, strength, theta, task, key):
    """The verdicts on an adaptation and on a meta-gradient; what they return is finite."""
    algorithm = pb.imaml(loss, strength=strength)

    @jax.jit
    def everything(theta, task):
        def adapt(theta):
            phi, report = algorithm.adapt(theta, task.support, key)
            return jnp.sum(phi["weight"]), (phi, report.code)

        slope, (phi, code) = jax.grad(adapt, has_aux=True)(theta)
        _, gradient, info = algorithm.meta_gradient(theta, task, key)
        return slope, phi, gradient, code, info.code

    slope, phi, gradient, *codes = everything(theta, task)
    assert np.isfinite(cf.flat(phi)).all() and np.isfinite(cf.flat(gradient)).all()
    pulled = [x for x, s in zip(*map(jax.tree.leaves, (slope, strength)), strict=True) if s]
    assert np.isnan(cf.flat(pulled)).all()
    return {Verdict(int(code)) for code in codes}


def test_what_the_support_set_does_not_determine_is_flagged(key):
    """The same number added to every logit leaves a softmax as it is."""
    model = pb.models.Linear(2, 3)
    draw = np.random.default_rng(4)
    x, y = draw.normal(size=(2, 9, 2)), np.tile(np.arange(3), (2, 3))
    theta = {"weight": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}
    task = pb.Task((x[0], y[0]), (x[1], y[1]))
    loss = pb.models.cross_entropy(model.apply)
    found = flagged(loss, {"weight": 0.5, "bias": 0.0}, theta, task, key)
    assert found == {Verdict.NEGATIVE_CURVATURE}


def test_too_few_rows_are_flagged(key):
    """Two rows do not determine three weights."""
    task = jax.tree.map(lambda a: a[:2], yes_and_no())
    theta = {"weight": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}
    loss = pb.models.mean_squared_error(MODEL.apply)
    algorithm = pb.imaml(loss, strength={"weight": 0.0, "bias": 1.0}, solver=LBFGS(5))
    _, report = jax.jit(algorithm.adapt)(theta, task.support, key)
    assert int(report.code) == Verdict.NEGATIVE_CURVATURE


def test_a_minimum_that_is_nowhere_is_flagged(key):
    """With one answer alone the likelihood rises for ever."""
    task = yes_and_no()
    task = pb.Task((task.support[0], np.ones((20, 1))), task.query)
    theta = {"weight": jnp.zeros((3, 1)), "bias": jnp.zeros(1)}
    loss = pb.models.binary_cross_entropy(MODEL.apply)
    found = flagged(loss, {"weight": 0.5, "bias": 0.0}, theta, task, key)
    assert not found & {Verdict.OK, Verdict.NOT_FINITE}


def test_an_outer_loss_sees_the_adapted_leaf(key):
    """A penalty on what is not pulled reaches θ through the leaves that are."""
    task, theta = cf.task(), cf.theta()

    def outer(adapted, batch):
        return cf.loss(adapted.phi, batch) + adapted.phi["b"]["c"] ** 2

    settings = {"strength": STRENGTH, "solver": LBFGS(40), "linear_solver": Dense()}
    algorithm = pb.imaml(cf.loss, outer_loss=pb.OfAdapted(outer), **settings)
    value, gradient, _ = jax.jit(algorithm.meta_gradient)(theta, task, key)
    wanted = exact(task)
    v = wanted.outer_gradient(wanted.phi) + 2 * wanted.phi * (np.arange(cf.SIZE) == 3)
    np.testing.assert_allclose(value, wanted.outer_value(wanted.phi) + wanted.phi[3] ** 2)
    np.testing.assert_allclose(cf.flat(gradient), wanted.jacobian.T @ v, rtol=1e-6, atol=1e-12)
    report = Report(jnp.zeros(()), jnp.asarray(0), jnp.ones(()))
    phi = cf.nested(jnp.asarray(wanted.phi))
    assert algorithm.adapted is not None
    seen = algorithm.adapted(theta, task.support, phi, report)
    np.testing.assert_allclose(cf.flat(seen.phi), cf.flat(phi))
    with pytest.raises(InputError, match="no prior"):
        seen.posterior(examples=12)


def test_groups_have_an_effect_of_their_own_without_a_prior(key):
    """A line for each group whose slope is drawn toward θ's, and whose intercept is not."""
    model = pb.models.Linear(1, 1)
    algorithm = pb.imaml(
        pb.models.mean_squared_error(model.apply), strength={"weight": 0.6, "bias": 0.0}
    )
    draw = np.random.default_rng(6)
    x, intercepts = draw.normal(size=(5, 8, 1)), 100 * draw.normal(size=(5, 1, 1))
    y = intercepts + 2 * x + draw.normal(size=x.shape)
    theta = {"weight": jnp.full((1, 1), 2.0), "bias": jnp.zeros(1)}
    phi, report = jax.jit(jax.vmap(lambda s: algorithm.adapt(theta, s, key)))((x, y))
    left, right = x - x.mean(1, keepdims=True), y - y.mean(1, keepdims=True)
    slope = (2 * np.mean(left * right, 1) + 0.6 * 2.0) / (2 * np.mean(left**2, 1) + 0.6)
    np.testing.assert_allclose(phi["weight"][:, 0], slope, rtol=1e-3)
    intercept = y.mean(1) - slope * x.mean(1)
    np.testing.assert_allclose(phi["bias"], intercept, rtol=1e-3)
    assert not np.any(report.code)


def test_what_cannot_be_left_unpulled_is_refused(key):
    loss, theta = cf.loss, cf.theta()
    nowhere = jax.tree.map(lambda _: 0.0, STRENGTH)
    for strength in (0.0, nowhere):
        with pytest.raises(InputError, match="strength=None"):
            pb.imaml(loss, strength=strength)
    with pytest.raises(InputError, match="0 or infinite at every leaf"):
        pb.imaml(loss, strength={"a": np.inf, "b": {"c": 0.0, "w": 0.0}})
    with pytest.raises(InputError, match=r"'a'.*positive"):
        pb.imaml(loss, strength={"a": -1.0, "b": {"c": 0.0, "w": 1.0}})
    with pytest.raises(InputError, match=r"'a'.*positive"):
        pb.imaml(loss, strength={"a": np.array([0.0, 1, 1]), "b": {"c": 0.0, "w": 1.0}})
    for other in (pb.learned_imaml, pb.maml):
        with pytest.raises(InputError, match=r"pullback\.imaml"):
            other(loss, strength=STRENGTH)
    large = pb.imaml(lambda params, x: jnp.sum(params["b"]), strength={"a": 1.0, "b": 0.0})
    for size in (0, 257):
        with pytest.raises(InputError, match=f"{size} numbers"):
            large.adapt({"a": jnp.ones(1), "b": jnp.ones(size)}, jnp.ones(1), key)
    with pytest.raises(InputError, match="structure"):
        pb.imaml(loss, strength=STRENGTH).adapt(theta["b"], cf.task().support, key)
