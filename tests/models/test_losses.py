"""Losses and scores where nothing can be raised: a wrong label is never a plausible number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.algorithms import ALGORITHMS
from pullback.core.results import Verdict
from pullback.models import Linear, accuracy, cross_entropy
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")

MODEL = Linear(2, 3)
X = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
GOOD = np.asarray([0, 1, 2, 1], np.int32)
BAD = {"below": GOOD - 1, "above": GOOD + 7, "a byte": (GOOD + 1).astype(np.uint8)}


@pytest.mark.parametrize("labels", BAD.values(), ids=BAD)
def test_inside_jit_a_label_of_no_class_gives_nan(labels):
    params = MODEL.init(jax.random.key(0))
    value, gradient = jax.jit(jax.value_and_grad(cross_entropy(MODEL.apply)))(params, (X, labels))
    assert np.isnan(value)
    assert any(np.isnan(leaf).any() for leaf in jax.tree.leaves(gradient))
    assert np.isnan(jax.jit(accuracy(MODEL.apply))(params, (X, labels)))


@pytest.mark.parametrize("labels", [GOOD, GOOD.astype(np.uint8), GOOD.astype(np.int8)])
def test_labels_of_classes_have_the_loss_of_the_formula(labels):
    params = jax.tree.map(lambda p: p + 0.3 * jnp.arange(3.0), MODEL.init(jax.random.key(0)))
    logits = np.asarray(MODEL.apply(params, X), float)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = -np.log(shares[np.arange(4), GOOD]).mean()
    for wrap in (jax.jit, lambda f: f):
        found = wrap(cross_entropy(MODEL.apply))(params, (X, labels))
        np.testing.assert_allclose(found, wanted, rtol=1e-5)
        found = wrap(accuracy(MODEL.apply))(params, (X, labels))
        np.testing.assert_allclose(found, (logits.argmax(1) == GOOD).mean())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_meta_gradient_says_so(name):
    line = ALGORITHMS[name]
    made = line.make(cross_entropy(MODEL.apply), **({"strength": 1.0} if line.proximal else {}))
    meta = jax.jit(made.meta_gradient)
    params, key = MODEL.init(jax.random.key(0)), jax.random.key(1)
    for support, query in ((GOOD, BAD["below"]), (BAD["below"], GOOD)):
        _, _, info = meta(params, Task((X, support), (X, query)), key)
        assert int(info.code) == Verdict.NOT_FINITE
