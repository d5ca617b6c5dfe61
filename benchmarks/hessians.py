"""The inner problems of a trained run, for the solver tables beside this file."""

import argparse
import dataclasses
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pullback.core.problem import Proximal
from pullback.runs import build, checkpoint
from pullback.runs.folder import Run


def parser(description):
    """The options that both tables share."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("run", type=Path, help="folder of a trained run")
    options.add_argument("--step", default="last", help="checkpoint: last, best or a meta-step")
    options.add_argument("--data-dir", help="folder of the data, if it has moved")
    options.add_argument("--part", default="validation", choices=build.PARTS)
    options.add_argument("--tasks", type=int, default=8)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--budget", type=int, default=256)
    return options


def inner_problems(arguments, queries=None):
    """A trained θ, tasks, the loss, the proximal problem, and one line that says what they are."""
    # Checkpoints hold 32-bit numbers.
    with jax.enable_x64(False):
        run = Run.open(arguments.run)
        config = run.config
        if arguments.data_dir is not None:
            moved = dataclasses.replace(config.data, data_dir=arguments.data_dir)
            config = dataclasses.replace(config, data=moved)
        built = build.build(config, run.split)
        which = arguments.step if arguments.step in ("last", "best") else int(arguments.step)
        step = checkpoint.find(run.checkpoints, which, built.score)
        theta = build.restore(run, built, step).theta
        keys = jax.random.split(jax.random.key(arguments.seed), arguments.tasks)
        source = built.tasks(arguments.part)
        if queries is not None:
            source = dataclasses.replace(source, queries=queries)
        draw = jax.jit(lambda key: source.sample(key))
        theta, tasks = jax.device_get((theta, [draw(key) for key in keys]))
    dtype = np.dtype(jnp.zeros(()).dtype)

    def widen(leaf):
        return jnp.asarray(leaf, dtype if np.issubdtype(leaf.dtype, np.floating) else leaf.dtype)

    theta, tasks = jax.tree.map(widen, (theta, tasks))
    data, strength = run.config.data, run.config.algorithm.strength
    size = sum(leaf.size for leaf in jax.tree.leaves(theta))
    about = (
        f"{data.dataset}, {data.ways}-way {data.shots}-shot: {len(tasks)} {arguments.part} tasks, "
        f"θ of meta-step {step}, {size:,} parameters, λ = {strength:g}, {dtype.name}, "
        f"{os.cpu_count()} cores"
    )
    return theta, tasks, built.loss, Proximal(built.loss, strength), about
