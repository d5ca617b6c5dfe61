import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pullback as pb
from pullback.algorithms import supervised
from pullback.core.errors import InputError
from pullback.meta.pretraining import pretraining_optimizer
from pullback.models import MLP, LinearHead, cross_entropy
from pullback.tasks import ClassSet, Task, batches

pytestmark = pytest.mark.usefixtures("tiny")

MODEL = MLP(3, 4, (8, 6))
KEY = jax.random.key(0)


def params(seed=0):
    return MODEL.init(jax.random.key(seed))


def clusters(classes=6, examples=10, apart=3.0):
    """Vectors around a centre for each class."""
    rng = np.random.default_rng(0)
    centres = apart * rng.normal(size=(classes, 1, 3))
    vectors = centres + rng.normal(size=(classes, examples, 3))
    return ClassSet.of("clusters", vectors.astype(np.float32), [f"c{n}" for n in range(classes)])


SOURCE = batches(clusters(), size=8)


def pretrain(steps, **options):
    return pb.pretrain(MODEL.apply, params(), SOURCE, steps=steps, key=KEY, **options)


def test_the_loss_is_that_of_a_cosine_classifier():
    smoothing, scale = 0.1, 7.0
    algorithm = supervised(MODEL.apply, 6, key=KEY, scale=scale, smoothing=smoothing)
    theta = algorithm.init(params())
    task = SOURCE.sample(KEY)
    value, gradient, info = algorithm.meta_gradient(theta, task, KEY)
    x, y = task.query
    features = np.asarray(MODEL.features(MODEL.apply.split(theta.params)[0], x), float)
    prototypes = np.asarray(theta.prototypes, float)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    prototypes /= np.linalg.norm(prototypes, axis=0, keepdims=True)
    logits = scale * features @ prototypes
    targets = (1 - smoothing) * np.eye(6)[np.asarray(y)] + smoothing / 6
    likelihoods = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    np.testing.assert_allclose(value, -(targets * likelihoods).sum(1).mean(), rtol=1e-5)
    assert int(info.code) == 0
    assert jax.tree.structure(gradient) == jax.tree.structure(theta)


def test_the_head_is_zero_and_stays_there():
    start = params()
    body, head = MODEL.apply.split(start)
    odd = MODEL.apply.join(body, jax.tree.map(lambda a: a + 1.0, head))
    result = pb.pretrain(MODEL.apply, odd, SOURCE, steps=3, key=KEY)
    for leaf in MODEL.apply.split(result.theta.params)[1]:
        assert not np.any(np.asarray(leaf))
    assert jax.tree.structure(result.theta.params) == jax.tree.structure(start)
    learned, _ = MODEL.apply.split(result.theta.params)
    for one, other in zip(*map(jax.tree.leaves, (learned, body)), strict=True):
        assert np.any(one != other)


def test_pretraining_makes_new_tasks_easier():
    images = clusters(24, 12, apart=1.5)
    names = images.classes
    source = batches(images.select(names[:16]), size=16)
    result = pb.pretrain(MODEL.apply, params(), source, steps=200, key=KEY)
    assert result.history["loss"][-20:].mean() < 0.7 * result.history["loss"][:5].mean()
    algorithm = pb.imaml(cross_entropy(MODEL.apply), strength=1.0)
    tasks = pb.tasks.episodes(images.select(names[16:]), ways=4, shots=2, queries=5)

    def score(theta):
        metric = pb.models.accuracy(MODEL.apply)
        return pb.evaluate(algorithm, theta, tasks, metric=metric, key=KEY, count=60).mean

    assert score(result.theta.params) > score(params()) + 0.02


def test_it_goes_on_from_where_it_was():
    optimizer = pretraining_optimizer(6)
    first = pretrain(4, optimizer=optimizer)
    second = pretrain(6, optimizer=optimizer, state=first.state)
    whole = pretrain(6, optimizer=optimizer)
    for one, other in zip(*map(jax.tree.leaves, (second.theta, whole.theta)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_one_step_is_one_of_the_optimiser():
    result = pretrain(1, optimizer=optax.sgd(0.1))
    algorithm = supervised(MODEL.apply, SOURCE.classes, key=KEY)
    theta = algorithm.init(params())
    task_key = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0)
    batch_key, solver_key = jax.random.split(task_key)
    _, slope, _ = algorithm.meta_gradient(theta, SOURCE.sample(batch_key), solver_key)
    for one, start, g in zip(*map(jax.tree.leaves, (result.theta, theta, slope)), strict=True):
        np.testing.assert_allclose(one, start - 0.1 * g, rtol=1e-4, atol=1e-6)


def test_another_algorithm_judges_the_body_from_a_head_of_zeros():
    then = pb.imaml(cross_entropy(MODEL.apply), strength=1.0)
    algorithm = supervised(MODEL.apply, 6, key=KEY, then=then)
    theta = algorithm.init(params())
    support = (jax.random.normal(KEY, (4, 3)), jnp.arange(4))
    one, _ = algorithm.adapt(theta, support, KEY)
    other, _ = then.adapt(theta.params, support, KEY)
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_features_of_zero_have_a_finite_gradient():
    dead = LinearHead(lambda body, x: 0.0 * x @ body["conv"], "linear")
    start = {"conv": jnp.ones((3, 5)), "linear": {"weight": jnp.zeros((5, 2))}}
    algorithm = supervised(dead, 6, key=KEY)
    value, gradient, info = algorithm.meta_gradient(algorithm.init(start), SOURCE.sample(KEY), KEY)
    assert np.isclose(value, np.log(6))
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
    assert int(info.code) == 0


def test_bad_input():
    with pytest.raises(InputError, match="says where its head is"):
        supervised(lambda params, x: x, 6, key=KEY)
    with pytest.raises(InputError, match="labels"):
        supervised(MODEL.apply, 0, key=KEY)
    with pytest.raises(InputError, match="smoothing"):
        supervised(MODEL.apply, 6, key=KEY, smoothing=1.0)
    with pytest.raises(InputError, match=r"pretrain\(batches"):
        pb.pretrain(MODEL.apply, params(), clusters(), steps=2, key=KEY)
    with pytest.raises(InputError, match="steps"):
        pretrain(0)
    algorithm = supervised(MODEL.apply, 6, key=KEY)
    with pytest.raises(InputError, match="no algorithm was given"):
        algorithm.adapt(algorithm.init(params()), Task((), ()).support, KEY)
