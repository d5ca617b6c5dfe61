"""A θ that was trained, tasks of unseen classes, and their exact meta-gradients.

    python -m benchmarks.peers.trained FILE [--steps 400] [--data-dir DIR]

Training is pullback's with its defaults: 5-way 1-shot, Conv4 with 64 channels, λ = 5, L-BFGS of 16
gradients, 8 tasks a meta-step, Adam with cosine decay. The exact gradients are in double precision:
L-BFGS to a stationarity residual of 1e-10, CG to the same, and both looked at.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import pullback
from benchmarks.hidden_head import hide_head
from benchmarks.peers import layout
from benchmarks.peers.problem import Problem
from pullback.linear import CG
from pullback.meta import parallel
from pullback.models import Conv4, cross_entropy
from pullback.solvers import LBFGS
from pullback.tasks import Task, draw_split, episodes, load_glyphs, load_omniglot

STRENGTH, WAYS, SHOTS, QUERIES = 5.0, 5, 1, 5
TASKS = 8
"""For choosing settings, and as many others for timing them."""
SPARE = 4
"""More of them are drawn, since some have no exact gradient to be found."""
EXACT = 1e-8


def sources(data_dir):
    """Training tasks, and tasks of classes that training does not see."""
    images = load_omniglot(data_dir) if data_dir else load_glyphs()
    split = draw_split(images, seed=0)
    sizes = {"ways": WAYS, "shots": SHOTS, "queries": QUERIES}
    train = episodes(images.select(split.classes("train")), rotations=True, **sizes)
    return images.name, train, episodes(images.select(split.classes("validation")), **sizes)


def train(tasks, steps):
    """θ after some meta-steps."""
    model = Conv4(WAYS)
    algorithm = pullback.imaml(cross_entropy(model.apply), strength=STRENGTH, certify=None)

    def tell(state, block):
        loss = np.mean(block.metrics["loss"])
        print(f"training: meta-step {int(state.step)}, loss {loss:.3f}", file=sys.stderr)

    start = model.init(jax.random.key(0))
    key = jax.random.key(1)
    found = pullback.train(
        algorithm, start, tasks, steps=steps, key=key, on_block=tell, block_seconds=10.0
    )
    return jax.device_get(found.theta)


def exact(theta, tasks):
    """Each task's meta-gradient in double precision, and its two residuals."""
    with jax.enable_x64(True):

        def widen(leaf):
            return jnp.asarray(leaf, jnp.float64 if leaf.dtype == np.float32 else leaf.dtype)

        theta, tasks = jax.tree.map(widen, (theta, tasks))
        algorithm = pullback.imaml(
            # The judge knows nothing of a head.
            hide_head(cross_entropy(Conv4(WAYS).apply)),
            strength=STRENGTH,
            solver=LBFGS(600, 16, rtol=1e-10),
            linear_solver=CG(400, rtol=1e-10),
            certify=None,
        )

        def one(theta, task):
            _, gradient, info = algorithm.meta_gradient(theta, task, jax.random.key(0))
            return jnp.zeros(()), (gradient, info)

        mesh = parallel.task_mesh(len(tasks.support[1]))
        program = jax.jit(lambda t, k: parallel.over_tasks(one, t, k, "map", mesh)[1])
        return jax.device_get(program(theta, tasks))


def make(path, steps, data_dir):
    """Train, draw, solve, and write it all to a file.

    Raises:
        SystemExit: if too few tasks have an exact gradient.
    """
    name, training, unseen = sources(data_dir)
    theta = train(training, steps)
    keys = jax.random.split(jax.random.key(2), 2 * (TASKS + SPARE))
    tasks = jax.device_get(jax.jit(jax.vmap(unseen.sample))(keys))
    gradients, info = exact(theta, tasks)
    solved = (info.inner_residual <= EXACT) & (info.linear_residual <= EXACT) & (info.code == 0)
    good = np.flatnonzero(solved)[: 2 * TASKS]
    if len(good) < 2 * TASKS:
        raise SystemExit(f"{len(good)} of {len(keys)} tasks have an exact gradient; 16 are needed")
    about = {
        "dataset": name,
        "steps": steps,
        "strength": STRENGTH,
        "left out": int(np.argmax(np.cumsum(solved) == 2 * TASKS) + 1 - 2 * TASKS),
        "inner residual": float(info.inner_residual[good].max()),
        "linear residual": float(info.linear_residual[good].max()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = layout.flat(theta)
    for part, chosen in (("choice", good[:TASKS]), ("timing", good[TASKS:])):
        some: Task = jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], tasks)
        Problem(flat, *some.support, *some.query).save(path.with_suffix(f".{part}.npz"))
        of_some = layout.flat(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], gradients))
        np.savez(path.with_suffix(f".{part}-exact.npz"), **of_some)
    path.write_text(json.dumps(about, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    # Here, since the backend has not started yet, and who imports this has an own environment.
    parallel.use_host_devices()
    make(arguments.file, arguments.steps, arguments.data_dir)


if __name__ == "__main__":
    main()
