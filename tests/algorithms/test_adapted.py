"""Outer losses and metrics that see θ, Λ, η and the posterior; hyperparameters of any sign."""

import closed_forms as cf
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pullback as pb
from pullback.algorithms import AdaptiveStrength
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.linear import Dense

pytestmark = pytest.mark.usefixtures("x64")

EXACTLY = {"solver": pb.solvers.LBFGS(60), "linear_solver": Dense()}
ROWS = 12


def finite_differences(function, theta):
    """The gradient of a scalar by central differences."""
    flat, unravel = ravel_pytree(theta)
    step = 1e-5 * jnp.eye(flat.size)
    ends = jax.jit(jax.vmap(lambda v: function(unravel(v))))(
        jnp.concatenate([flat + step, flat - step])
    )
    return (ends[: flat.size] - ends[flat.size :]) / 2e-5


def agrees(algorithm, outer, theta, key, rtol=1e-6):
    """The meta-gradient, by differences of the outer loss at what ``adapt`` gives."""
    task = cf.task()

    def value_of(theta):
        phi, report = algorithm.adapt(theta, task.support, key)
        return outer(algorithm.adapted(theta, task.support, phi, report), task.query)

    value, gradient, info = jax.jit(algorithm.meta_gradient)(theta, task, key)
    wanted = finite_differences(value_of, theta)
    np.testing.assert_allclose(cf.flat(gradient), wanted, rtol=rtol, atol=1e-6)
    np.testing.assert_allclose(value, jax.jit(value_of)(theta), rtol=1e-9)
    assert np.abs(wanted).min() > 1e-5
    assert int(info.code) == Verdict.OK


def of_all(adapted, batch):
    """The query loss, a pull of θ to 0 and of Λ to 1, and a price on η."""
    value = cf.loss(adapted.phi, batch) + 0.3 * jnp.sum(ravel_pytree(adapted.theta)[0] ** 2)
    value += 0.2 * jnp.sum(jnp.log(ravel_pytree(adapted.strength)[0]) ** 2)
    return value + 0.1 * jnp.sum(ravel_pytree((adapted.hyper, 0.0))[0] ** 2)


def shifted(params, batch, hyper):
    """Least squares whose targets are moved by a number of any sign, with a ridge."""
    x, y = batch
    w = ravel_pytree(params)[0]
    return 0.5 * jnp.sum((x @ w - y - hyper["shift"]) ** 2) + 0.5 * hyper["ridge"] * jnp.sum(w**2)


HYPER = {"shift": jnp.array([-0.7]), "ridge": 0.4}
SIGNED = {"shift": True, "ridge": False}


@pytest.mark.parametrize("strength", [0.7, cf.STRENGTHS["diagonal"]], ids=["scalar", "diagonal"])
def test_an_outer_loss_sees_theta_and_strength(strength, key):
    algorithm = pb.imaml(cf.loss, strength=strength, outer_loss=pb.OfAdapted(of_all), **EXACTLY)
    agrees(algorithm, of_all, cf.theta(), key)


def test_it_sees_what_is_frozen_and_what_is_learned(key):
    outer = pb.OfAdapted(of_all)
    frozen = {"a": np.inf, "b": {"c": 3.0, "w": 1.5}}
    agrees(pb.imaml(cf.loss, strength=frozen, outer_loss=outer, **EXACTLY), of_all, cf.theta(), key)
    learned = pb.learned_imaml(
        shifted,
        strength=0.6,
        form="leaf",
        hyper=HYPER,
        signed=SIGNED,
        outer_loss=outer,
        **EXACTLY,
    )
    agrees(learned, of_all, learned.init(cf.theta()), key)


def test_a_hyperparameter_of_any_sign_is_learned_as_it_is(key):
    learned = pb.learned_imaml(
        shifted, strength=0.6, hyper=HYPER, signed=SIGNED, outer_loss=cf.loss, **EXACTLY
    )
    theta = learned.init(cf.theta())
    np.testing.assert_array_equal(theta.hyper["shift"], HYPER["shift"])
    np.testing.assert_allclose(theta.hyper["ridge"], 0.4)
    agrees(learned, lambda adapted, batch: cf.loss(adapted.phi, batch), theta, key)
    every = pb.learned_imaml(
        shifted, strength=0.6, hyper=HYPER, signed=True, outer_loss=cf.loss, **EXACTLY
    )
    _, gradient, _ = jax.jit(every.meta_gradient)(every.init(cf.theta()), cf.task(), key)
    _, of_logarithm, _ = jax.jit(learned.meta_gradient)(theta, cf.task(), key)
    np.testing.assert_allclose(
        0.4 * gradient.signed_hyper["ridge"], of_logarithm.log_hyper["ridge"], rtol=1e-9
    )


def test_the_evidence_is_an_outer_loss(key):
    """Of a linear model with normal noise it is a closed form, and Laplace is exact."""

    def mean_loss(params, batch):
        return cf.loss(params, batch) / ROWS

    def evidence(adapted, batch):
        return -adapted.posterior(examples=ROWS).evidence.log_evidence

    def exact(theta):
        x, y = cf.task().support
        spread = ROWS * jnp.exp(theta.log_strength)
        covariance = jnp.eye(ROWS) + x @ x.T / spread
        left = y - x @ ravel_pytree(theta.params)[0]
        # Without the constant ½N log 2π, which the loss leaves out as well.
        squares = left @ jnp.linalg.solve(covariance, left)
        return 0.5 * (squares + jnp.linalg.slogdet(covariance)[1])

    learned = pb.learned_imaml(
        mean_loss, strength=0.6, outer_loss=pb.OfAdapted(evidence), **EXACTLY
    )
    theta = learned.init(cf.theta())
    value, gradient, info = jax.jit(learned.meta_gradient)(theta, cf.task(), key)
    wanted, slope = jax.value_and_grad(exact)(theta)
    np.testing.assert_allclose(value, wanted, rtol=1e-9)
    np.testing.assert_allclose(cf.flat(gradient), cf.flat(slope), rtol=1e-3, atol=1e-4)
    assert int(info.code) == Verdict.OK


def test_the_operator_of_an_adapted_task_is_the_curvature(key):
    algorithm = pb.imaml(cf.loss, strength=cf.STRENGTHS["diagonal"], **EXACTLY)
    theta, task = cf.theta(), cf.task()
    phi, report = algorithm.adapt(theta, task.support, key)
    product = algorithm.adapted(theta, task.support, phi, report).operator(damping=0.5)
    columns = [cf.flat(product(cf.nested(row))) for row in np.eye(cf.SIZE)]
    exact = cf.exact("diagonal")
    np.testing.assert_allclose(columns, exact.curved + 0.5 * np.eye(cf.SIZE), rtol=1e-9, atol=1e-12)


def test_a_raised_strength_is_seen(key):
    def saddle(params, batch):
        return cf.loss(params, batch) - 0.75 * jnp.sum(ravel_pytree(params)[0] ** 2)

    algorithm = pb.imaml(saddle, strength=0.7, raise_strength=AdaptiveStrength(), **EXACTLY)
    phi, report = algorithm.adapt(cf.theta(), cf.task().support, key)
    adapted = algorithm.adapted(cf.theta(), cf.task().support, phi, report)
    assert float(report.strength_factor) > 1
    np.testing.assert_allclose(adapted.strength, 0.7 * report.strength_factor)


class Same(eqx.Module):
    """One task, again and again."""

    def sample(self, key):
        return jax.tree.map(jnp.asarray, cf.task())


def test_a_metric_sees_the_same(key):
    algorithm = pb.imaml(cf.loss, strength=0.7, **EXACTLY)
    metric = pb.OfAdapted(lambda adapted, batch: cf.loss(adapted.theta, batch))
    found = pb.evaluate(algorithm, cf.theta(), Same(), metric=metric, count=2, key=key)
    np.testing.assert_allclose(found.mean, cf.loss(cf.theta(), cf.task().query), rtol=1e-9)
    with pytest.raises(InputError, match="no inner problem"):
        pb.evaluate(pb.fomaml(cf.loss), cf.theta(), Same(), metric=metric, count=2, key=key)


REFUSED = {
    "an outer loss that is none": (
        lambda: pb.imaml(cf.loss, strength=1.0, outer_loss=3),
        "outer_loss is 3",
    ),
    "a function of one argument": (
        lambda: pb.OfAdapted(lambda adapted: 0.0),
        "other arguments",
    ),
    "signs of another shape": (
        lambda: pb.learned_imaml(
            shifted, strength=1.0, hyper=HYPER, signed={"ridge": True}, outer_loss=cf.loss
        ),
        "does not go with",
    ),
    "a negative number that is not signed": (
        lambda: pb.learned_imaml(shifted, strength=1.0, hyper=HYPER, outer_loss=cf.loss),
        "signed=True",
    ),
    "a signed number that is not finite": (
        lambda: pb.learned_imaml(
            shifted,
            strength=1.0,
            hyper=HYPER | {"shift": np.nan},
            signed=SIGNED,
            outer_loss=cf.loss,
        ),
        "finite numbers",
    ),
}


@pytest.mark.parametrize(("call", "part"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(call, part):
    with pytest.raises(InputError, match=part):
        call()


def test_an_outer_loss_that_is_no_number_is_refused(key):
    vector = pb.OfAdapted(lambda adapted, batch: batch[1])
    algorithm = pb.imaml(cf.loss, strength=1.0, outer_loss=vector)
    with pytest.raises(InputError, match="outer_loss"):
        algorithm.meta_gradient(cf.theta(), cf.task(), key)
