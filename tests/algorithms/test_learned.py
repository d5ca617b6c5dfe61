"""Learned Λ and inner hyperparameters: their gradients, and what is refused."""

import closed_forms as cf
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pullback as pb
from pullback.algorithms import AdaptiveStrength, describe_strength, imaml, learned_imaml
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.implicit.certificate import Certify
from pullback.linear import CG, Dense
from pullback.meta import training
from pullback.registries import STRENGTH_FORMS as FORMS
from pullback.solvers import LBFGS
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")

STARTS = {"scalar": 0.7, "leaf": cf.STRENGTHS["per leaf"], "diagonal": cf.STRENGTHS["diagonal"]}


def newton(problem, start, key):
    """A black box that solves these small problems to rounding."""
    x, unravel = ravel_pytree(start)
    gradient = lambda v: ravel_pytree(problem.gradient(unravel(v)))[0]  # noqa: E731

    def step(_, v):
        return v - jnp.linalg.solve(jax.jacfwd(gradient)(v), gradient(v))

    return unravel(jax.lax.fori_loop(0, 12, step, x))


EXACTLY = {"solver": newton, "linear_solver": Dense(), "certify": None}


@pytest.fixture
def double():
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        yield


def agrees(algorithm, outer, theta, task, key):
    """The meta-gradient, by central differences of the query loss of ``adapt``; returns φ."""

    @jax.jit
    def compute(theta):
        flat, unravel = ravel_pytree(theta)
        step = 1e-5 * jnp.eye(flat.size)

        def adapted(vector):
            return algorithm.adapt(unravel(vector), task.support, key)[0]

        points = jnp.concatenate([flat[None] + step, flat[None] - step, flat[None]])
        phi = jax.vmap(adapted)(points)
        values = jax.vmap(lambda phi: outer(phi, task.query))(phi)
        return algorithm.meta_gradient(theta, task, key), values, jax.tree.map(lambda x: x[-1], phi)

    (value, gradient, info), values, phi = compute(theta)
    assert jax.tree.structure(gradient) == jax.tree.structure(theta)
    upward, downward = np.split(np.asarray(values[:-1]), 2)
    wanted = (upward - downward) / 2e-5
    np.testing.assert_allclose(cf.flat(gradient), wanted, rtol=1e-6, atol=1e-7)
    # None of them may be right only because it is nothing.
    assert np.abs(wanted).min() > 1e-5
    assert int(info.code) == Verdict.OK
    np.testing.assert_allclose(value, values[-1], rtol=1e-12)
    return phi


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_by_strength_is_that_of_finite_differences(form, double, key):
    algorithm = learned_imaml(cf.loss, strength=STARTS[form], form=form, **EXACTLY)
    theta = algorithm.init(cf.theta())
    phi = agrees(algorithm, cf.loss, theta, cf.task(), key)
    exact = cf.exact({"leaf": "per leaf"}.get(form, form))
    np.testing.assert_allclose(cf.flat(phi), exact.phi, rtol=1e-9)


def test_the_gradient_by_a_diagonal_is_the_closed_form(double, key):
    """d log Λ = −Λ(φ − θ) ⊙ u, with (H + Λ)u = v solved by NumPy."""
    algorithm = learned_imaml(cf.loss, strength=STARTS["diagonal"], form="diagonal", **EXACTLY)
    theta = algorithm.init(cf.theta())
    _, gradient, _ = jax.jit(algorithm.meta_gradient)(theta, cf.task(), key)
    exact = cf.exact("diagonal")
    u = np.linalg.solve(exact.curved, exact.outer_gradient(exact.phi))
    wanted = -exact.strength * (exact.phi - exact.theta) * u
    np.testing.assert_allclose(cf.flat(gradient.log_strength), wanted, rtol=1e-8)
    np.testing.assert_allclose(cf.flat(gradient.params), exact.meta_gradient, rtol=1e-8)


def test_a_number_is_a_start_for_every_form_and_its_gradients_add_up(double, key):
    totals = []
    for form in FORMS:
        algorithm = learned_imaml(cf.loss, strength=0.7, form=form, **EXACTLY)
        theta = algorithm.init(cf.theta())
        np.testing.assert_allclose(cf.flat(theta.strength), 0.7, rtol=1e-12)
        _, gradient, _ = jax.jit(algorithm.meta_gradient)(theta, cf.task(), key)
        totals.append(np.sum(cf.flat(gradient.log_strength)))
    np.testing.assert_allclose(totals, totals[0], rtol=1e-8)


def test_a_raised_strength_is_learned_with_its_factor_held(double, key):
    """A factor c on Λ multiplies u's Λ too: d log Λ = −cΛ(φ − θ) ⊙ u."""
    bent = jax.tree.map(lambda x: -1.5 * jnp.ones_like(x), cf.theta())

    def saddle(params, batch):
        curved = jax.tree.map(lambda b, x: jnp.sum(0.5 * b * x * x), bent, params)
        return cf.loss(params, batch) + jax.tree.reduce(jnp.add, curved)

    raised = learned_imaml(saddle, strength=0.7, raise_strength=AdaptiveStrength(), **EXACTLY)
    theta = raised.init(cf.theta())
    _, gradient, info = jax.jit(raised.meta_gradient)(theta, cf.task(), key)
    assert float(info.strength_factor) > 1
    fixed = learned_imaml(saddle, strength=0.7 * float(info.strength_factor), **EXACTLY)
    _, wanted, _ = jax.jit(fixed.meta_gradient)(fixed.init(cf.theta()), cf.task(), key)
    np.testing.assert_allclose(gradient.log_strength, wanted.log_strength, rtol=1e-6)


def weighted(params, batch, hyper):
    """Least squares in which each feature has a weight, and a ridge of a strength of its own."""
    x, y = batch
    w = ravel_pytree(params)[0]
    residual = (x * hyper["features"][None]) @ w - y
    return 0.5 * jnp.sum(residual**2) + 0.5 * hyper["ridge"] * jnp.sum(w**2)


def logits(params, x):
    return x @ params["w"] + params["b"][None]


def entropy(params, batch):
    x, labels = batch
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits(params, x)), labels[:, None], 1)
    return -jnp.mean(picked)


def softened(params, batch, hyper):
    """Cross-entropy at a temperature, with labels smoothed by a share ε = η / (1 + η)."""
    x, labels = batch
    share = hyper["smoothing"] / (1.0 + hyper["smoothing"])
    scores = jax.nn.log_softmax(logits(params, x) / hyper["temperature"])
    picked = jnp.take_along_axis(scores, labels[:, None], 1)[:, 0]
    return -jnp.mean((1.0 - share) * picked + share * jnp.mean(scores, 1))


def blobs(seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(3, 2))
    labels = np.repeat(np.arange(3), 4)
    x = centres[labels] + 0.7 * rng.normal(size=(2, 12, 2))
    return Task((x[0], labels), (x[1], labels))


def classifier():
    rng = np.random.default_rng(1)
    return {"w": rng.normal(size=(2, 3)), "b": rng.normal(size=3)}


def with_features(**options):
    return learned_imaml(
        weighted,
        strength=STARTS["diagonal"],
        form="diagonal",
        hyper={"features": np.geomspace(0.5, 1.5, cf.SIZE), "ridge": 0.3},
        outer_loss=cf.loss,
        **options,
    )


def with_softening(**options):
    return learned_imaml(
        softened,
        strength=0.2,
        hyper={"temperature": 1.7, "smoothing": 0.1},
        outer_loss=entropy,
        **options,
    )


def test_the_gradient_by_weights_of_features_is_that_of_finite_differences(double, key):
    algorithm = with_features(**EXACTLY)
    agrees(algorithm, cf.loss, algorithm.init(cf.theta()), cf.task(), key)


def test_the_gradient_by_temperature_and_smoothing_is_that_of_finite_differences(double, key):
    algorithm = with_softening(**EXACTLY)
    theta = algorithm.init(classifier())
    np.testing.assert_allclose(float(theta.hyper["temperature"]), 1.7, rtol=1e-12)
    agrees(algorithm, entropy, theta, blobs(), key)


def test_a_black_box_is_given_the_hyperparameters_with_the_support_set(double, key):
    seen = []

    def solver(problem, theta, key):
        (x, _), hyper = problem.support
        seen.append((x.shape, sorted(hyper)))
        return theta

    algorithm = with_features(**{**EXACTLY, "solver": solver})
    jax.eval_shape(algorithm.meta_gradient, algorithm.init(cf.theta()), cf.task(), key)
    assert seen == [((12, cf.SIZE), ["features", "ridge"])]


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_jit_vmap_and_a_certified_share_agree_with_the_plain_call(share, double, key):
    certify = Certify(share=share)
    solvers = {"solver": LBFGS(12), "linear_solver": CG(8, rtol=1e-10)}
    meta = with_softening(certify=certify, **solvers).meta_gradient
    theta = with_softening().init(classifier())
    each = [blobs(seed) for seed in range(3)]
    keys = jax.random.split(key, 3)
    tasks = jax.tree.map(lambda *rows: jnp.stack(rows), *each)
    _, stacked, infos = jax.jit(jax.vmap(meta, in_axes=(None, 0, 0)))(theta, tasks, keys)
    with jax.checking_leaks():
        rows = [jax.jit(meta)(theta, task, k) for task, k in zip(each, keys, strict=True)]
    for i, (_, gradient, info) in enumerate(rows):
        row = cf.flat(jax.tree.map(lambda x, i=i: x[i], stacked))
        np.testing.assert_allclose(cf.flat(gradient), row, rtol=1e-6, atol=1e-10)
        assert np.isinf(info.inner_error) == np.isinf(infos.inner_error[i])
    assert np.isfinite(infos.inner_error).any()
    assert np.isfinite(infos.inner_error).all() == (share == 1)


@pytest.mark.parametrize(
    ("dtype", "x64", "exact"),
    [
        ("float32", False, "float32"),
        ("float32", True, "float32"),
        ("float64", True, "float64"),
    ],
)
@pytest.mark.parametrize("form", FORMS)
def test_types_and_shapes(form, dtype, x64, exact, key):
    with jax.enable_x64(x64):
        algorithm = learned_imaml(
            weighted,
            strength=0.7,
            form=form,
            hyper={"features": np.ones(cf.SIZE), "ridge": 1},
            outer_loss=cf.loss,
        )
        params = jax.tree.map(lambda x: jnp.asarray(x, dtype), cf.theta())
        task = jax.tree.map(lambda x: jnp.asarray(x, dtype), cf.task())
        theta = jax.eval_shape(algorithm.init, params)
        _, gradient, _ = jax.eval_shape(algorithm.meta_gradient, theta, task, key)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), gradient) == jax.tree.map(
            lambda x: (x.shape, x.dtype), theta
        )
    learned = jax.tree.leaves((theta.log_strength, theta.log_hyper))
    assert {str(leaf.dtype) for leaf in learned} == {exact}
    shapes = [leaf.shape for leaf in jax.tree.leaves(theta.log_strength)]
    assert (
        shapes
        == {
            "scalar": [()],
            "leaf": [(), (), ()],
            "diagonal": [(3,), (), (2, 2)],
        }[form]
    )


def test_what_is_not_finite_is_reported(key):
    algorithm = with_features()
    theta = algorithm.init(jax.tree.map(jnp.float32, cf.theta()))
    for far in (-200.0, 200.0):
        spoiled = eqx.tree_at(lambda t: t.log_hyper["features"], theta, jnp.full(cf.SIZE, far))
        _, gradient, info = jax.jit(algorithm.meta_gradient)(spoiled, cf.task(), key)
        finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        assert finite == (int(info.code) != Verdict.NOT_FINITE)
    assert not finite


def test_the_learned_strength_in_numbers(double):
    def described(form):
        algorithm = learned_imaml(cf.loss, strength=STARTS[form], form=form)
        return describe_strength(algorithm.init(cf.theta()), form)

    assert described("scalar")["value"] == pytest.approx(0.7)
    assert described("leaf")["leaves"] == pytest.approx({"a": 0.5, "b.c": 3.0, "b.w": 1.5})
    leaf = described("diagonal")["leaves"]["a"]
    values = STARTS["diagonal"]["a"]
    assert list(leaf) == ["min", "median", "max"]
    assert list(leaf.values()) == pytest.approx([values[0], values[1], values[2]])


def make(**options):
    return learned_imaml(cf.loss, **{"strength": 1.0, **options})


REFUSED = {
    "form": (lambda: make(form="diagnoal"), ["'diagnoal'", "Did you mean 'diagonal'?"]),
    "zero": (lambda: make(strength=0.0), ["0.0", "positive"]),
    "none": (lambda: make(strength=None), ["Λ", "positive"]),
    "scalar from leaves": (
        lambda: make(strength=STARTS["leaf"]),
        ["not a scalar", "form='leaf'"],
    ),
    "leaf from a diagonal": (
        lambda: make(strength=STARTS["diagonal"], form="leaf"),
        ["['a']", "(3,)", "form='diagonal'"],
    ),
    "other structure": (
        lambda: make(strength={"a": 1.0}, form="leaf").init(cf.theta()),
        ["structure"],
    ),
    "no outer loss": (lambda: make(hyper={"t": 1.0}), ["outer_loss(params, batch)", "hyper"]),
    "empty hyper": (lambda: make(hyper={}, outer_loss=cf.loss), ["hyper={}", "None"]),
    "hyper of zero": (
        lambda: make(hyper={"t": np.asarray([1.0, 0.0])}, outer_loss=cf.loss),
        ["η", "['t']", "positive finite", "signed=True"],
    ),
    "text as hyper": (lambda: make(hyper="warm", outer_loss=cf.loss), ["'warm'", "positive"]),
    "damping": (lambda: make(damping=-1.0), ["damping=-1.0"]),
    "solver": (lambda: make(solver=LBFGS), ["LBFGS(...)"]),
    "plain parameters": (
        lambda: make().adapt(cf.theta(), cf.batch(0), jax.random.key(0)),
        ["dict", "Learned", "init(params)"],
    ),
    "integers": (lambda: make().init({"n": np.arange(3)}), ["['n']", "int64"]),
    "a rate for nothing": (
        lambda: pb.train(
            imaml(cf.loss, strength=1.0),
            cf.theta(),
            pb.tasks.Sinusoid(),
            steps=1,
            key=jax.random.key(0),
            optimizer=training.default_optimizer(1, hyper_learning_rate=0.1),
        ),
        ["hyper_learning_rate", "dict", "learned_imaml"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_message_says_what_was_given_and_what_is_allowed(case):
    attempt, parts = REFUSED[case]
    with pytest.raises(InputError) as caught:
        attempt()
    assert [part for part in parts if part not in str(caught.value)] == []
