"""The few-shot problem whose memory and time are measured: 5-way 1-shot, Conv4 with 64 channels.

The images are random, a pattern for each class and noise on it for each example, since neither
memory nor time depends on what they show.
"""

import dataclasses
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from benchmarks.hidden_head import hide_head
from pullback.algorithms import imaml, maml
from pullback.core import trees
from pullback.linear import CG
from pullback.meta import parallel
from pullback.meta.training import default_optimizer
from pullback.models import MLP, Conv4, cross_entropy
from pullback.solvers import LBFGS, GradientDescent
from pullback.tasks import Task

SIDE = 28
# With these two no linear solve of any size in the tables ends before its steps are spent.
STRENGTH, LEARNING_RATE = 2.0, 0.03


@dataclass(frozen=True)
class Point:
    """One size of the problem. Without convolutions it compiles in a tenth of the time."""

    tasks: int = 8
    ways: int = 5
    shots: int = 1
    queries: int = 5
    width: int = 64
    inner_steps: int = 16
    linear_steps: int = 5
    convolutions: bool = True

    @property
    def parameters(self):
        shapes = jax.eval_shape(self.model().init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    def model(self):
        if self.convolutions:
            return Conv4(self.ways, self.width)
        return MLP(SIDE * SIDE, self.ways, hidden=(self.width,))

    def change(self, **sizes):
        return dataclasses.replace(self, **sizes)


class Patterns(eqx.Module):
    """Tasks of random images in [0, 1], every class with a pattern of its own."""

    point: Point = eqx.field(static=True)
    noise: float = eqx.field(static=True, default=0.3)

    def sample(self, key):
        ways, shots = self.point.ways, self.point.shots
        each = shots + self.point.queries
        first, second = jax.random.split(key)
        patterns = jax.random.uniform(first, (ways, 1, SIDE, SIDE, 1))
        noise = self.noise * jax.random.normal(second, (ways, each, SIDE, SIDE, 1))
        images = jnp.clip(patterns + noise, 0.0, 1.0)
        labels = jnp.broadcast_to(jnp.arange(ways)[:, None], (ways, each))

        def batch(x, y):
            flat = (-1, SIDE, SIDE, 1) if self.point.convolutions else (-1, SIDE * SIDE)
            return x.reshape(flat), y.reshape(-1)

        support = batch(images[:, :shots], labels[:, :shots])
        return Task(support, batch(images[:, shots:], labels[:, shots:]))


def algorithm(name, point):
    """A meta-learning algorithm by the name it has in the tables."""
    loss = hide_head(cross_entropy(point.model().apply))
    checkpoint = name == "maml, checkpointed"
    descent = GradientDescent(point.inner_steps, LEARNING_RATE, checkpoint=checkpoint)
    if name in ("maml", "maml, checkpointed"):
        return maml(loss, solver=descent)
    solver = {"imaml": descent, "imaml, L-BFGS": LBFGS(point.inner_steps)}[name]
    linear = CG(point.linear_steps, rtol=0.0)
    return imaml(loss, strength=STRENGTH, solver=solver, linear_solver=linear)


def one_meta_gradient(name, point):
    """The meta-gradient of one task, compiled, and what it is called with."""
    theta, task, key = jax.jit(_start, static_argnums=0)(point)
    function = algorithm(name, point).meta_gradient
    return jax.jit(function).lower(theta, task, key).compile(), (theta, task, key)


def one_meta_step(name, point, strategy="map"):
    """A whole meta-step on one device, as the trainer does it, compiled, and its arguments."""
    optimizer = default_optimizer(1000)
    meta_gradient, source = algorithm(name, point).meta_gradient, Patterns(point)
    mesh = parallel.task_mesh(point.tasks, 1)

    def one_task(theta, key):
        episode, solver = jax.random.split(key)
        value, gradient, info = meta_gradient(theta, source.sample(episode), solver)
        return gradient, (value, info)

    def step(theta, state, key):
        keys = jax.random.split(key, point.tasks)
        total, (values, infos) = parallel.over_tasks(one_task, theta, keys, strategy, mesh)
        gradient = trees.scale(1.0 / point.tasks, total)
        updates, state = optimizer.update(gradient, state, theta)
        return optax.apply_updates(theta, updates), state, values, infos

    theta, _, key = jax.jit(_start, static_argnums=0)(point)
    arguments = theta, jax.jit(optimizer.init)(theta), key
    return jax.jit(step).lower(*arguments).compile(), arguments


def _start(point):
    first, second, third = jax.random.split(jax.random.key(0), 3)
    return point.model().init(first), Patterns(point).sample(second), third
