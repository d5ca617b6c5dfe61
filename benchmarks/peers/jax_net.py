"""Pullback's Conv4 for the other JAX libraries, with JAX's own convolution or pullback's.

``network`` among a setting's options is ``"convolution"`` (``lax.conv_general_dilated``, what a
user of those libraries would write) or ``"products"`` (pullback's own model), which tells the
library's share of a ratio from the network's. Tasks run one after the other: under ``vmap`` each
has weights of its own, and XLA's grouped convolutions are ten times slower on a CPU.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import layout
from benchmarks.peers.problem import EPSILON, GROUPS, LOGIT_SCALE
from pullback.models import Conv4, cross_entropy


def logits(params, x):
    """The network on weights in the layout of JAX's convolution."""
    for i in range(layout.LAYERS):
        layer = params[f"conv{i}"]
        x = jax.lax.conv_general_dilated(
            x, layer["weight"], (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.silu(group_norm(x) * layer["scale"] + layer["bias"])
    features = x.reshape(len(x), -1)
    return LOGIT_SCALE * (features @ params["linear"]["weight"] + params["linear"]["bias"])


def group_norm(x):
    """Every example by its own groups of channels."""
    n, height, width, channels = x.shape
    grouped = x.reshape(n, height, width, GROUPS, channels // GROUPS)
    mean = jnp.mean(grouped, axis=(1, 2, 4), keepdims=True)
    variance = jnp.var(grouped, axis=(1, 2, 4), keepdims=True)
    return ((grouped - mean) * jax.lax.rsqrt(variance + EPSILON)).reshape(x.shape)


def prepare(one_task, problem, setting):
    """``one_task(theta, loss, task) -> gradient`` compiled over all tasks, and the way back."""
    products = setting.options.get("network") == "products"
    features, ways = problem.theta["linear/weight"].shape
    if products:
        weights, loss = problem.theta, cross_entropy(Conv4(ways, features // 4).apply)
    else:
        weights, loss = layout.to_convolution(problem.theta), cross_entropy(logits)
    theta = jax.device_put(layout.nested(weights))
    arrays = problem.support_x, problem.support_y, problem.query_x, problem.query_y
    tasks = jax.device_put(arrays)

    @jax.jit
    def step(theta, tasks):
        return jax.lax.map(functools.partial(one_task, theta, loss), tasks)

    program = step.lower(theta, tasks).compile()

    def read(found):
        gradients = layout.flat(jax.tree.map(np.asarray, found))
        return gradients if products else layout.from_convolution(gradients)

    return lambda: jax.block_until_ready(program(theta, tasks)), read


def proximal(loss, strength):
    """The inner objective, ``objective(phi, theta, support)``."""

    def objective(phi, theta, support):
        squares = jax.tree.map(lambda p, t: jnp.sum((p - t) ** 2), phi, theta)
        return loss(phi, support) + 0.5 * strength * jax.tree.reduce(jnp.add, squares)

    return objective
