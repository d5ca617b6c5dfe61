"""The inner problems of a trained run, for the solver tables beside this file."""

import argparse
import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np

from pullback.core.problem import Proximal
from pullback.runs import build
from pullback.runs.pretrained import Packed, open_trained, trained_theta, with_ways


def parser(description):
    """The options that both tables share."""
    options = argparse.ArgumentParser(description=description.splitlines()[0])
    options.add_argument("run", help="folder of a run, or name of a pretrained initialisation")
    options.add_argument("--step", help="checkpoint: last, best or a meta-step")
    options.add_argument("--data-dir", help="folder of the data, if it has moved")
    options.add_argument("--part", default="validation", choices=build.PARTS)
    options.add_argument("--tasks", type=int, default=8)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--budget", type=int, default=256)
    options.add_argument("--ways", type=int, help="of a task, if not those of the run")
    options.add_argument("--shots", type=int, help="of each class, if not those of the run")
    options.add_argument("--queries", type=int, help="of each class, if not those of the run")
    return options


def inner_problems(arguments):
    """A trained θ, tasks, the loss, the proximal problem, and one line that says what they are."""
    # Checkpoints hold 32-bit numbers.
    with jax.enable_x64(False):
        run = open_trained(arguments.run)
        config = with_ways(run, run.config, arguments.ways)
        asked = {"data_dir": arguments.data_dir, "shots": arguments.shots}
        asked |= {"queries": arguments.queries}
        asked = {name: value for name, value in asked.items() if value is not None}
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **asked))
        built = build.build(config, run.split)
        which = arguments.step or ("best" if isinstance(run, Packed) else "last")
        which = which if which in ("last", "best") else int(which)
        step, theta = trained_theta(run, built, which)
        keys = jax.random.split(jax.random.key(arguments.seed), arguments.tasks)
        source = built.tasks(arguments.part)
        draw = jax.jit(lambda key: source.sample(key))
        theta, tasks = jax.device_get((theta, [draw(key) for key in keys]))
    dtype = np.dtype(jnp.zeros(()).dtype)

    def widen(leaf):
        return jnp.asarray(leaf, dtype if np.issubdtype(leaf.dtype, np.floating) else leaf.dtype)

    theta, tasks = jax.tree.map(widen, (theta, tasks))
    data, strength = config.data, config.algorithm.strength
    size = sum(leaf.size for leaf in jax.tree.leaves(theta))
    about = (
        f"{data.dataset}, {data.ways}-way {data.shots}-shot: {len(tasks)} {arguments.part} tasks, "
        f"θ of meta-step {step}, {size:,} parameters, λ = {strength:g}, {dtype.name}, "
        f"{os.cpu_count()} cores"
    )
    return theta, tasks, built.loss, Proximal(built.loss, strength), about
