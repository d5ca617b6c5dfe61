"""The rooms' mathematics as JavaScript in Chromium, beside the same functions compiled by JAX.

    python -m benchmarks.javascript [--repeats 200]

Each function is translated by ``pullback.lab.javascript``, called with the same inputs as the
library's, and compared with it. Times are medians, of calls one after the other, without drawing.
"""

import argparse
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from playwright.sync_api import sync_playwright

from benchmarks.chromium import CHROMIUM, FLAGS
from pullback.lab import landscapes
from pullback.lab.javascript import to_javascript
from pullback.lab.rooms.arrows import mathematics as arrows
from pullback.lab.rooms.inexact import mathematics as inexact
from pullback.lab.rooms.pull import mathematics as pull
from pullback.lab.rooms.sine import mathematics as sine

TIMED = """([text, inputs, repeats]) => {
  const began = performance.now(), program = (0, eval)(text)
  let found = program(inputs)
  const first = performance.now() - began, times = []
  for (let i = 0; i < repeats; i++) {
    const start = performance.now()
    found = program(inputs)
    times.push(performance.now() - start)
  }
  times.sort((a, b) => a - b)
  const flat = Object.values(found).map(x => typeof x === "number" ? [x] : Array.from(x))
  return [first, times[repeats >> 1], flat]
}"""


def functions():
    """What each room computes for one picture: a name, a function and its arguments."""
    theta, strength = jnp.asarray((-0.1, -1.2)), jnp.asarray((0.5, 0.5))
    task = landscapes.tasks("optima")[0]

    def of_pull(theta, strength):
        phi = pull._solve("lbfgs", theta, strength, task, jnp.asarray(0))
        return pull._differentiate(phi, theta, strength, task)[:-1]

    yield "the pull: one task by L-BFGS, φ*, Jacobian, meta-gradient", of_pull, (theta, strength)
    three = arrows.stacked_tasks("optima")
    for steps in (1, 8, 32):

        def of_arrows(thetas, strength, steps=steps):
            return arrows._meta_gradients(steps, thetas, strength, three)

        name = f"four arrows: all algorithms, {steps} inner steps, three tasks"
        yield name, of_arrows, (jnp.tile(theta, (4, 1)), jnp.float32(0.5))

    ridge = inexact.task()

    def of_inexact(strength):
        path, gradient, *others = inexact._reference(strength, ridge)
        errors, lengths, _ = inexact._estimates(8, strength, ridge, path, gradient)
        return *others, errors, lengths

    yield "inexact: 81 points of the inner path", of_inexact, (jnp.float32(2.0),)
    points = sine.pad_points(np.asarray([[1.0, 2.0], [2.0, 1.0], [-1.0, 0.5]]))
    x, start = jnp.asarray(sine.grid())[:, None], sine.untrained()

    def of_sine(strength):
        return sine._fit(sine.RECIPES["imaml"], 8, start, points, strength, x)[:4]

    yield "sine: eight steps of L-BFGS, two curves", of_sine, (jnp.float32(2.0),)


def main():
    parser = argparse.ArgumentParser(description="The rooms as JavaScript, beside JAX.")
    parser.add_argument("--repeats", type=int, default=200)
    repeats = parser.parse_args().repeats
    if CHROMIUM is None:
        raise SystemExit("no chromium found")
    print("| what | kB | first call, ms | a call, ms | of JAX, ms | largest difference |")
    print("| --- | --- | --- | --- | --- | --- |")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page()
        for name, function, arguments in functions():
            program = to_javascript(function, *arguments)
            inputs = [np.asarray(leaf).ravel().tolist() for leaf in jax.tree.leaves(arguments)]
            inputs = [x if np.ndim(a) else x[0] for x, a in zip(inputs, arguments, strict=True)]
            first, each, found = page.evaluate(TIMED, [program.text, inputs, repeats])
            compiled = jax.jit(function)
            wanted = [np.ravel(leaf) for leaf in jax.tree.leaves(compiled(*arguments))]
            times = []
            for _ in range(repeats):
                began = time.perf_counter()
                jax.block_until_ready(compiled(*arguments))
                times.append(time.perf_counter() - began)
            off = max(
                float(np.max(np.abs(f - w) / (1 + np.abs(w))))
                for f, w in zip(found, wanted, strict=True)
            )
            print(
                f"| {name} | {len(program.text) / 1e3:.0f} | {first:.0f} | {each:.1f} "
                f"| {1e3 * statistics.median(times):.1f} | {off:.0e} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
