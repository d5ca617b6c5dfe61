"""Laplace's approximation at φ*: exact where the posterior is normal, and never silently wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

import pullback as pb
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.models.head import LinearHead

pytestmark = pytest.mark.usefixtures("x64")

NOISE = 0.3
EXAMPLES = 7


def features(body, x):
    return x


LINEAR = LinearHead(features, "head")


def data(key=0):
    x = jax.random.normal(jax.random.key(key), (EXAMPLES, 3))
    return x, jax.random.normal(jax.random.key(key + 1), (EXAMPLES,))


def normal_loss(params, batch):
    """The mean negative log density of y, N(x·w, NOISE²)."""
    x, y = batch
    left = (y - x @ params["head"]["weight"][:, 0]) / NOISE
    return jnp.mean(0.5 * left**2) + jnp.log(NOISE) + 0.5 * jnp.log(2 * jnp.pi)


def logistic_loss(params, batch):
    x, y = batch
    logits = jnp.tanh(x @ params["in"]) @ params["out"]
    return jnp.mean(jax.nn.softplus(logits) - (y > 0) * logits)


def conjugate(theta, strength, batch):
    """The exact posterior of w, and the evidence, by the Gaussian of all rows."""
    x, y = np.asarray(batch[0]), np.asarray(batch[1])
    prior = 1 / (EXAMPLES * np.asarray(strength)) * np.ones(3)
    covariance = np.linalg.inv(x.T @ x / NOISE**2 + np.diag(1 / prior))
    mean = covariance @ (x.T @ y / NOISE**2 + theta / prior)
    rows = multivariate_normal(x @ theta, (x * prior) @ x.T + NOISE**2 * np.eye(EXAMPLES))
    return mean, covariance, rows.logpdf(y)


def as_params(w):
    return {"head": {"weight": jnp.asarray(w)[:, None]}}


@pytest.mark.parametrize("strength", [0.7, "diagonal"])
@pytest.mark.parametrize("method", ["dense", "lanczos"])
def test_of_a_linear_model_it_is_the_exact_posterior(method, strength):
    theta, batch = np.array([0.5, -1.0, 2.0]), data()
    diagonal = np.array([0.2, 1.0, 3.0])
    mean, covariance, evidence = conjugate(theta, 0.7 if strength == 0.7 else diagonal, batch)
    strength = 0.7 if strength == 0.7 else as_params(diagonal)
    problem = pb.Proximal(normal_loss, strength).problem(as_params(theta), batch)
    found = pb.posterior(
        problem,
        as_params(mean),
        examples=EXAMPLES,
        method=method,
        key=jax.random.key(0),
        probes=900,
    )
    assert found.evidence.verdict == "ok"
    np.testing.assert_allclose(
        found.evidence.log_evidence, evidence, rtol=1e-9 if method == "dense" else 0.03
    )
    assert abs(found.evidence.log_evidence - evidence) <= 3 * found.evidence.error / 2 + 1e-8
    points = jnp.array([[1.0, 2.0, -1.0], [0.0, 0.0, 1.0]])
    mean_of, variance = found.predict(lambda p: points @ p["head"]["weight"][:, 0])
    np.testing.assert_allclose(mean_of, points @ mean, rtol=1e-9)
    np.testing.assert_allclose(variance, np.diag(points @ covariance @ points.T), rtol=1e-8)
    drawn = found.sample(jax.random.key(1), 20_000)["head"]["weight"][..., 0]
    np.testing.assert_allclose(np.mean(drawn, 0), mean, atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05 * covariance.max())


@pytest.mark.parametrize("method", ["dense", "lanczos"])
def test_single_precision_is_enough(method):
    theta, batch = np.array([0.5, -1.0, 2.0]), data()
    mean, covariance, evidence = conjugate(theta, 0.7, batch)
    single = jax.tree.map(lambda a: a.astype(jnp.float32), batch)
    problem = pb.Proximal(normal_loss, 0.7).problem(as_params(np.float32(theta)), single)
    settings = {"method": method, "key": jax.random.key(0), "probes": 900}
    found = pb.posterior(problem, as_params(np.float32(mean)), examples=EXAMPLES, **settings)
    assert found.evidence.verdict == "ok"
    assert found.evidence.log_evidence.dtype == found.phi["head"]["weight"].dtype == jnp.float32
    error = 3 * found.evidence.error + 1e-3
    np.testing.assert_allclose(found.evidence.log_evidence, evidence, atol=error)
    _, variance = found.predict(lambda p: p["head"]["weight"][:, 0])
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=1e-4)


def test_the_head_alone_is_uncertain_given_the_body():
    loss = pb.models.mean_squared_error(
        LinearHead(lambda body, x: jnp.tanh(x @ body["in"]), "head")
    )
    params = {
        "in": jax.random.normal(jax.random.key(2), (3, 4)),
        "head": {"weight": jnp.zeros((4, 1)), "bias": jnp.zeros(1)},
    }
    x, y = data()
    problem = pb.Proximal(loss, 0.5).problem(params, (x, y[:, None]))
    phi = pb.solve(
        pb.Proximal(loss, 0.5),
        params,
        (x, y[:, None]),
        solver=pb.solvers.Projected(steps=20),
        key=jax.random.key(0),
    ).phi
    found = pb.posterior(problem, phi, examples=EXAMPLES, method="head")
    rows = jnp.hstack([jnp.tanh(x @ phi["in"]), jnp.ones((EXAMPLES, 1))])
    hidden = jax.hessian(
        lambda w: loss({**phi, "head": {"weight": w[:4, None], "bias": w[4:]}}, (x, y[:, None]))
    )(jnp.zeros(5))
    covariance = np.linalg.inv(hidden + 0.5 * np.eye(5)) / EXAMPLES
    _, variance = found.predict(lambda p: loss.apply(p, x)[:, 0])
    np.testing.assert_allclose(variance, np.diag(rows @ covariance @ rows.T), rtol=1e-7)
    np.testing.assert_allclose(
        found.evidence.log_determinant, np.linalg.slogdet(hidden + 0.5 * np.eye(5))[1], rtol=1e-9
    )
    drawn = found.sample(jax.random.key(0), 3)
    np.testing.assert_array_equal(drawn["in"], jnp.broadcast_to(phi["in"], (3, 3, 4)))


def network():
    theta = {
        "in": 0.5 * jax.random.normal(jax.random.key(3), (3, 2)),
        "out": 0.5 * jax.random.normal(jax.random.key(4), (2,)),
    }
    return theta, data()


@jax.jit
def solved(theta, log_strength, batch):
    problem = pb.Proximal(logistic_loss, jnp.exp(log_strength)).problem(theta, batch)
    flat, restore = jax.flatten_util.ravel_pytree(theta)

    def step(flat, _):
        slope = jax.grad(lambda v: problem.value(restore(v)))
        return flat - jnp.linalg.solve(jax.jacfwd(slope)(flat), slope(flat)), None

    return restore(jax.lax.scan(step, flat, length=12)[0])


def evidence_of(log_strength, theta, batch, **settings):
    phi = solved(theta, log_strength, batch)
    problem = pb.Proximal(logistic_loss, jnp.exp(log_strength)).problem(theta, batch)
    return pb.posterior(problem, phi, examples=EXAMPLES, **settings).evidence


def test_the_evidence_of_a_network_is_that_of_the_normal_about_its_mode():
    theta, batch = network()
    phi = solved(theta, 0.0, batch)
    found = evidence_of(0.0, theta, batch)
    flat, restore = jax.flatten_util.ravel_pytree(phi)
    curved = jax.hessian(lambda v: logistic_loss(restore(v), batch))(flat) + np.eye(flat.size)
    offset = flat - jax.flatten_util.ravel_pytree(theta)[0]
    wanted = -EXAMPLES * (logistic_loss(phi, batch) + 0.5 * offset @ offset)
    wanted -= 0.5 * np.linalg.slogdet(curved)[1]
    np.testing.assert_allclose(found.log_evidence, wanted, rtol=1e-9)
    np.testing.assert_allclose(found.smallest_curvature, np.linalg.eigvalsh(curved)[0], rtol=1e-9)


def test_the_gradient_of_the_evidence_sees_the_mode_move():
    theta, batch = network()

    @jax.jit
    def evidence(log_strength, shift):
        moved = jax.tree.map(lambda t: t + shift, theta)
        return evidence_of(log_strength, moved, batch).log_evidence

    slopes = jax.jit(jax.grad(evidence, (0, 1)))(0.3, 0.0)
    for slope, (a, b) in zip(slopes, [(1e-4, 0.0), (0.0, 1e-4)], strict=True):
        wanted = (evidence(0.3 + a, b) - evidence(0.3 - a, -b)) / 2e-4
        np.testing.assert_allclose(slope, wanted, rtol=2e-3)


def test_lanczos_is_the_matrix_and_so_is_its_gradient():
    theta, batch = network()

    @jax.jit
    def pair(log_strength):
        dense = evidence_of(log_strength, theta, batch).log_determinant
        by_products = evidence_of(
            log_strength, theta, batch, method="lanczos", key=jax.random.key(0), probes=400
        )
        return dense, by_products.log_determinant

    dense, products = pair(0.0)
    np.testing.assert_allclose(products, dense, atol=0.06)
    wanted, slope = jax.jit(jax.jacrev(pair))(0.0)
    np.testing.assert_allclose(slope, wanted, rtol=0.02)


def test_a_space_too_small_is_said_and_has_no_gradient():
    x, y = data()
    curved = jnp.array([1.0, 30.0, 900.0])

    def loss(params, batch):
        return jnp.mean((batch[0] * curved**0.5 @ params["w"] - batch[1]) ** 2)

    def logs(strength):
        theta = {"w": jnp.zeros(3)}
        problem = pb.Proximal(loss, strength).problem(theta, (x, y))
        slope = jax.jacfwd(lambda w: problem.gradient({"w": w})["w"])(theta["w"])
        phi = {"w": jnp.linalg.solve(slope, -problem.gradient(theta)["w"])}
        settings = {"method": "lanczos", "key": jax.random.key(0), "steps": 1}
        found = pb.posterior(problem, phi, examples=EXAMPLES, **settings)
        return found.evidence.log_determinant, found.evidence

    slope, found = jax.jit(jax.grad(logs, has_aux=True))(0.1)
    assert np.isnan(slope)
    assert found.verdict == "solve_not_converged"
    assert "use more steps of it" in str(found)


def test_what_is_no_minimum_is_said():
    theta, batch = network()
    problem = pb.Proximal(logistic_loss, 1e-3).problem(theta, batch)
    away = pb.posterior(problem, theta, examples=EXAMPLES)
    assert away.evidence.code in (Verdict.INNER_NOT_CONVERGED, Verdict.NEGATIVE_CURVATURE)

    def saddle(params, batch):
        return jnp.mean(batch) * params["w"][0] ** 2 - params["w"][1] ** 2

    w = {"w": jnp.zeros(2)}
    problem = pb.Proximal(saddle, 0.5).problem(w, jnp.ones(3))
    found = pb.posterior(problem, w, examples=3)
    assert found.evidence.verdict == "negative_curvature"
    assert np.isnan(found.evidence.log_evidence)
    assert np.isnan(found.sample(jax.random.key(0), 2)["w"]).all()


def test_it_goes_through_vmap_and_jit_and_its_evidence_trains_the_prior():
    """Twenty tasks whose weights are N(0, 1): the strength found is that of this prior."""
    keys = jax.random.split(jax.random.key(8), 20)

    def task(key):
        one, two, three = jax.random.split(key, 3)
        x = jax.random.normal(one, (EXAMPLES, 3))
        y = x @ jax.random.normal(two, (3,)) + NOISE * jax.random.normal(three, (EXAMPLES,))
        return x, y

    tasks = jax.vmap(task)(keys)
    theta = as_params(np.zeros(3))

    @jax.jit
    @jax.value_and_grad
    def loss(log_strength):
        def one(batch):
            problem = pb.Proximal(normal_loss, jnp.exp(log_strength)).problem(theta, batch)
            x, y = batch
            curved = x.T @ x / NOISE**2 / EXAMPLES + jnp.exp(log_strength) * jnp.eye(3)
            phi = jnp.linalg.solve(curved, x.T @ y / NOISE**2 / EXAMPLES)
            return pb.posterior(problem, as_params(phi), examples=EXAMPLES).evidence.log_evidence

        return -jnp.mean(jax.vmap(one)(tasks))

    log_strength = 0.0
    for _ in range(60):
        log_strength = log_strength - 0.5 * loss(log_strength)[1]
    precision = EXAMPLES * np.exp(log_strength)
    assert 0.6 < precision < 1.5
    best = min(
        np.linspace(-4, 0, 81),
        key=lambda s: (
            -sum(conjugate(np.zeros(3), np.exp(s), (x, y))[2] for x, y in zip(*tasks, strict=True))
        ),
    )
    np.testing.assert_allclose(log_strength, best, atol=0.06)


def test_bad_settings_are_refused():
    theta, batch = network()
    problem = pb.Proximal(logistic_loss, 1.0).problem(theta, batch)
    for settings, message in [
        ({"method": "cholesky"}, "'cholesky'"),
        ({"method": "head"}, "knows of no linear head"),
        ({"method": "lanczos"}, "there is no key"),
        ({"examples": 0}, "examples=0"),
        ({"probes": 0}, "probes=0"),
    ]:
        with pytest.raises(InputError, match=message):
            pb.posterior(problem, theta, **{"examples": EXAMPLES, **settings})
    with pytest.raises(InputError, match="no proximal term"):
        pb.posterior(pb.Proximal(logistic_loss, None).problem(theta, batch), theta, examples=7)
    with pytest.raises(InputError, match="count=0"):
        pb.posterior(problem, theta, examples=7).sample(jax.random.key(0), 0)
    large = {"w": jnp.zeros(5000)}
    flat = pb.Proximal(lambda p, b: jnp.sum(p["w"] ** 2), 1.0).problem(large, jnp.ones(1))
    with pytest.raises(InputError, match="5000 parameters"):
        pb.posterior(flat, large, examples=1, method="dense")
