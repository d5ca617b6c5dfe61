"""How well the certificate knows the error of a meta-gradient: estimated against true.

    python -m benchmarks.calibration [--tasks 40] [--json FILE]

Small smooth networks in float64, where the truth can be had: Newton's method takes the inner
problem to a residual of 1e-12, and the linear system there is solved as a dense one. Crossed with
it: inner solvers and their steps, steps of CG, strengths, trained and untrained networks.
"""

import argparse
import itertools
import json
import math
from pathlib import Path

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from pullback import implicit
from pullback.algorithms import imaml
from pullback.core import results
from pullback.core.problem import Proximal
from pullback.implicit.certificate import Certify
from pullback.linear import CG, Dense
from pullback.models import MLP, cross_entropy, mean_squared_error
from pullback.solvers import LBFGS, Nesterov
from pullback.tasks import Task

HIDDEN = (16, 16)
FACTOR = 3.0
FLOOR = 1e-7
"""Errors below this are exact for all that a user needs, and left out."""


def regression(key):
    """A sine with a random amplitude and phase: five points to learn from, twenty to judge by."""
    a, b, c = jax.random.split(key, 3)
    amplitude = jax.random.uniform(a, minval=0.5, maxval=5.0)
    phase = jax.random.uniform(b, maxval=jnp.pi)
    x = jax.random.uniform(c, (25, 1), minval=-5.0, maxval=5.0)
    y = amplitude * jnp.sin(x - phase)
    return Task((x[:5], y[:5]), (x[5:], y[5:]))


def classification(key):
    """Three clusters in the plane, one example each to learn from and eight to judge by."""
    a, b = jax.random.split(key)
    centres = 2.0 * jax.random.normal(a, (3, 2))
    x = centres[None] + 0.7 * jax.random.normal(b, (9, 3, 2))
    labels = jnp.broadcast_to(jnp.arange(3), (9, 3))
    return Task((x[0], labels[0]), (x[1:].reshape(-1, 2), labels[1:].reshape(-1)))


def newton(problem, start, steps=8):
    """φ* to rounding: Newton steps with a dense matrix from a point close by."""
    flat, unravel = jax.flatten_util.ravel_pytree(start)

    def gradient(x):
        return jax.flatten_util.ravel_pytree(problem.gradient(unravel(x)))[0]

    def step(_, x):
        g = gradient(x)
        move = jnp.linalg.solve(jax.jacobian(gradient)(x), g)
        better = jnp.linalg.norm(gradient(x - move)) < jnp.linalg.norm(g)
        return jnp.where(better, x - move, x)

    return unravel(jax.lax.fori_loop(0, steps, step, flat))


def study(name, sample, params, loss, tasks, strengths, solvers, linear_steps, certify):
    """Every setting on every task: the estimate, the truth, and the verdict."""
    keys = jax.random.split(jax.random.key(1), tasks)

    def truth(key, strength):
        task = sample(key)
        problem = Proximal(loss, strength).problem(params, task.support)
        phi = newton(problem, LBFGS(200).solve(problem, params, key).phi)
        point = implicit.linearise(problem, phi)
        gradient, solve = implicit.vjp(point, jax.grad(loss)(phi, task.query), Dense())
        return gradient, point.residual(), solve.smallest_curvature

    on_all = _on_all(truth, keys)
    exact = {strength: on_all(strength) for strength in strengths}
    rows = []
    for solver, steps in itertools.product(solvers, linear_steps):

        def computed(key, strength, solver=solver, steps=steps):
            linear = CG(steps, rtol=0.0)
            algorithm = imaml(
                loss, strength=strength, solver=solver, linear_solver=linear, certify=certify
            )
            _, gradient, info = algorithm.meta_gradient(params, sample(key), key)
            return gradient, info

        on_all = _on_all(computed, keys)
        for strength in strengths:
            mine = on_all(strength)
            for (gradient, residual, smallest), (estimate, info) in zip(
                _rows(exact[strength], tasks), _rows(mine, tasks), strict=True
            ):
                if residual > 1e-9 or smallest <= 0:
                    continue
                error = _norm(gradient, estimate) / _norm(estimate)
                rows.append(
                    {
                        "problem": name,
                        "strength": strength,
                        "solver": f"{type(solver).__name__}({solver.steps})",
                        "linear_steps": steps,
                        "error": float(error),
                        "inner_error": float(info.inner_error),
                        "linear_error": float(info.linear_error),
                        "inner_residual": float(info.inner_residual),
                        "verdict": results.label(info.code),
                    }
                )
    return rows


def _on_all(function, keys):
    return jax.jit(lambda strength: jax.lax.map(lambda key: function(key, strength), keys))


def _rows(tree, tasks):
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    return [structure.unflatten([leaf[i] for leaf in leaves]) for i in range(tasks)]


def _norm(a, b=None):
    difference = a if b is None else jax.tree.map(np.subtract, a, b)
    return np.sqrt(sum(np.sum(leaf * leaf) for leaf in jax.tree.leaves(difference)))


def summarise(rows):
    """Share of cases whose estimate is within a factor of the truth, at most it, and at least."""
    ratio = np.asarray([(r["inner_error"] + r["linear_error"]) / r["error"] for r in rows])
    within = (ratio < FACTOR) & (ratio > 1 / FACTOR)
    return {
        "cases": len(rows),
        "within": float(within.mean()),
        "covers": float((ratio * FACTOR >= 1).mean()),
        "low": float(np.quantile(ratio, 0.05)),
        "median": float(np.median(ratio)),
        "high": float(np.quantile(ratio, 0.95)),
    }


def table(groups):
    head = "cases | within ×3 | not under ÷3 | 5 % | median | 95 %"
    lines = [f"| group | {head} |", "| --- |" + " --- |" * 6]
    for name, rows in groups:
        if rows:
            s = summarise(rows)
            lines.append(
                f"| {name} | {s['cases']} | {s['within']:.1%} | {s['covers']:.1%} | "
                f"{s['low']:.2f} | {s['median']:.2f} | {s['high']:.2f} |"
            )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=40)
    parser.add_argument("--inverse-steps", type=int, default=Certify().inverse_steps)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    # Nearly all of the time goes into compiling.
    jax.config.update("jax_disable_most_optimizations", True)
    solvers = [LBFGS(4), LBFGS(8), LBFGS(16), Nesterov(16)]
    certify, rows = Certify(inverse_steps=arguments.inverse_steps), []
    for name, sample, sizes, loss in (
        ("regression", regression, (1, 1), mean_squared_error),
        ("classification", classification, (2, 3), cross_entropy),
    ):
        model = MLP(sizes[0], sizes[1], HIDDEN)
        params = model.init(jax.random.key(0))
        objective = loss(model.apply)
        rows += study(
            name, sample, params, objective, arguments.tasks, (0.5, 2.0), solvers, (3, 10), certify
        )
    rows = [r for r in rows if r["error"] > FLOOR]

    def bands():
        edges = (0.0, 1e-3, 1e-2, 0.1, 0.3, 1.0, math.inf)
        for low, high in itertools.pairwise(edges):
            yield f"true error {low:g} to {high:g}", [r for r in rows if low < r["error"] <= high]

    good = [r for r in rows if r["verdict"] != "negative_curvature"]
    groups = [("all", rows), ("all but negative curvature", good), *bands()]
    for column in ("problem", "strength", "solver", "linear_steps", "verdict"):
        values = sorted({r[column] for r in rows}, key=str)
        groups += [(f"{column} {v}", [r for r in rows if r[column] == v]) for v in values]
    print(table(groups))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
