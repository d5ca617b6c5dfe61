"""Supervised pretraining of a model's body, in the form of an algorithm."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pullback.algorithms.base import MetaAlgorithm, Report, check_algorithm, info_without_solve
from pullback.core.checks import check_params, check_type
from pullback.core.errors import InputError, check_counts, check_number, check_positive
from pullback.core.results import UNKNOWN, Verdict
from pullback.core.trees import Params
from pullback.models.head import Head, LinearHead

SCALE = 20.0
"""Factor on the cosines, the logits of pretraining."""


class Pretraining(NamedTuple):
    """What pretraining learns.

    Args:
        params: the model's parameters, their head at zero.
        prototypes: a direction among the features for each label, of any length.
    """

    params: Params
    prototypes: Float[Array, "features labels"]


def supervised(
    apply: LinearHead,
    labels: int,
    *,
    key: PRNGKeyArray,
    scale: float = SCALE,
    smoothing: float = 0.0,
    then: MetaAlgorithm | None = None,
) -> MetaAlgorithm:
    """A cosine classifier over all training classes, of which the model's body is kept.

    The logits are ``scale · cos(features, prototype)`` (Gidaris & Komodakis 2018, "Dynamic
    Few-Shot Visual Learning without Forgetting", section 3.2; Chen et al. 2019, "A Closer Look at
    Few-shot Classification", who call it Baseline++).

    Args:
        apply: a model that says where its head is; the head is set to zero, and stays there.
        labels: number of classes, each of their views counted.
        key: for the first prototypes.
        scale: factor on the cosines.
        smoothing: share of each target that is spread evenly over all labels.
        then: the algorithm whose ``adapt`` judges the body on new tasks, from a head of zeros.

    Returns:
        The algorithm. θ is a named tuple of ``params`` and ``prototypes``; a task's query set is a
        labelled batch, and its support set is not looked at.

    Raises:
        InputError: if the model has no linear head, or a number is out of range; from ``adapt``,
            without ``then``.
    """
    check_type(
        "supervised(apply=...)",
        apply,
        LinearHead,
        "a model that says where its head is: the apply of Conv4, MLP or Linear, or a "
        "pullback.models.LinearHead",
    )
    check_counts("supervised", labels=labels)
    check_positive("supervised", scale=scale)
    check_number("supervised", "numbers from 0 below 1", lambda x: 0 <= x < 1, smoothing=smoothing)
    if then is not None:
        check_algorithm(then)

    def init(params):
        body, head = apply.split(check_params(params))
        zero = apply.join(body, Head(*jax.tree.map(jnp.zeros_like, tuple(head))))
        features, dtype = head.weight.shape[0], head.weight.dtype
        prototypes = jax.random.normal(key, (features, labels), dtype) * features**-0.5
        return Pretraining(zero, prototypes)

    def loss(theta, batch):
        x, y = batch
        body, _ = apply.split(theta.params)
        cosines = _unit(apply.features(body, x), 1) @ _unit(theta.prototypes, 0)
        likelihoods = jax.nn.log_softmax(scale * cosines)
        hits = jnp.take_along_axis(likelihoods, y[:, None], 1)[:, 0]
        return -jnp.mean((1 - smoothing) * hits + smoothing * jnp.mean(likelihoods, 1))

    def adapt(theta, support, key):
        if then is None:
            raise InputError(
                "The body in pretraining was asked to adapt, and no algorithm was given for it",
                remedy="Write pretrain(..., then=algorithm), or adapt theta.params by another one",
            )
        return then.adapt(then.init(theta.params), support, key)

    def meta_gradient(theta, task, key):
        value, gradient = jax.value_and_grad(loss)(theta, task.query)
        none = jnp.full_like(value, UNKNOWN)
        report = Report(none, jnp.asarray(Verdict.OK), jnp.ones_like(value))
        return value, gradient, info_without_solve(report, value, gradient)

    return MetaAlgorithm(init, adapt, meta_gradient)


def _unit(vectors, axis):
    squares = jnp.sum(vectors * vectors, axis, keepdims=True)
    return vectors * jax.lax.rsqrt(squares + jnp.finfo(vectors.dtype).tiny ** 0.5)
