"""How well the certificate knows the error of a meta-gradient: estimated against true.

    python -m benchmarks.calibration [--tasks 10] [--kinds NAME ...] [--json FILE]

Problems of many kinds (:data:`KINDS`), in single and in double precision, crossed with inner
solvers, their steps and linear solvers (:data:`SETTINGS`). The truth is had in double precision:
from where the inner solver stopped a damped Newton's method goes on to a residual of 1e-8, and the
linear system there is solved as a dense one. Where the loss has kinks the truth is a closed form.
"""

import argparse
import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np

from pullback.algorithms.adjoint import Implicit
from pullback.core import results, trees
from pullback.core.problem import InnerProblem
from pullback.implicit.certificate import Certify
from pullback.linear import CG, GMRES, Dense
from pullback.linear.cg import ECONOMICAL
from pullback.models import MLP, cross_entropy, mean_squared_error
from pullback.models.losses import separable
from pullback.solvers import LBFGS, GradientDescent, Nesterov, NewtonCG, Projected
from pullback.tasks import Task

HIDDEN = (8, 8)
FACTOR = 3.0
FLOOR = {"float64": 1e-6, "float32": 1e-4}
"""Errors below this are exact for all that a user needs, and left out of ratios."""


class Problem(NamedTuple):
    """One task, and what it is adapted from and with."""

    theta: Any
    task: Task
    strength: Any


class Kind(NamedTuple):
    """A family of problems.

    Args:
        loss: ``loss(params, batch) -> scalar``.
        sample: a key to a :class:`Problem` in double precision.
        derivative: dφ*/dθ as a diagonal from a :class:`Problem`, where there is a closed form.
    """

    loss: Callable[[Any, Any], Any]
    sample: Callable[[Any], Problem]
    derivative: Callable[[Problem], Any] | None


def normal(key, *shape):
    return jax.random.normal(key, shape)


def halves(x, y, count):
    return Task((x[:count], y[:count]), (x[count:], y[count:]))


def network(sizes, loss, examples, strength):
    """An untrained network with two hidden layers."""
    model = MLP(*sizes, HIDDEN)

    def sample(key):
        return Problem(model.init(jax.random.key(0)), examples(key), strength)

    return Kind(loss(model.apply), sample, None)


def sines(key):
    """A random amplitude and phase: five points to learn from, twenty to judge by."""
    a, b, c = jax.random.split(key, 3)
    amplitude = jax.random.uniform(a, minval=0.5, maxval=5.0)
    phase = jax.random.uniform(b, maxval=jnp.pi)
    x = jax.random.uniform(c, (25, 1), minval=-5.0, maxval=5.0)
    return halves(x, amplitude * jnp.sin(x - phase), 5)


def clusters(key):
    """Three clusters in the plane, one example each to learn from and eight to judge by."""
    a, b = jax.random.split(key)
    x = 2.0 * normal(a, 3, 2)[None] + 0.7 * normal(b, 9, 3, 2)
    labels = jnp.broadcast_to(jnp.arange(3), (9, 3))
    return halves(x.reshape(-1, 2), labels.reshape(-1), 3)


def logistic_loss(params, batch):
    x, y = batch
    return jnp.mean(jnp.logaddexp(0.0, -y * (x @ params["w"] + params["b"])))


def logistic(units, strength):
    """Ten examples of five features in the given units to learn from, thirty to judge by."""

    def sample(key):
        a, b, c, d = jax.random.split(key, 4)
        x = normal(a, 40, 5)
        y = jnp.where(x @ normal(b, 5) + 0.5 * normal(c, 40) > 0, 1.0, -1.0)
        theta = {"w": 0.5 * normal(d, 5), "b": jnp.zeros(())}
        return Problem(theta, halves(x * jnp.asarray(units), y, 10), strength)

    return Kind(logistic_loss, sample, None)


def softmax(scale, strength):
    """A linear head on unit vectors of 24 numbers, five classes."""

    def loss(params, batch):
        x, y = batch
        rows = jax.nn.log_softmax(scale * (x @ params["w"]) + params["b"])
        return -jnp.mean(jnp.take_along_axis(rows, y[:, None], 1))

    def sample(key):
        a, b, c = jax.random.split(key, 3)
        x = normal(a, 1, 5, 24) + 0.5 * normal(b, 6, 5, 24)
        x = x / jnp.linalg.norm(x, axis=-1, keepdims=True)
        labels = jnp.broadcast_to(jnp.arange(5), (6, 5))
        theta = {"w": 0.1 * normal(c, 24, 5), "b": jnp.zeros(5)}
        return Problem(theta, halves(x.reshape(-1, 24), labels.reshape(-1), 10), strength)

    return Kind(loss, sample, None)


def factorisation(strength):
    """A matrix of 6 × 5 as a product of rank 2, half of its entries to learn from."""

    def loss(params, batch):
        matrix, mask = batch
        return jnp.sum(mask * (params["u"] @ params["v"].T - matrix) ** 2) / jnp.sum(mask)

    def sample(key):
        a, b, c, d, e = jax.random.split(key, 5)
        matrix = normal(a, 6, 2) @ normal(b, 2, 5)
        mask = jax.random.bernoulli(c, 0.5, (6, 5)).astype(float).at[0, 0].set(1.0)
        theta = {"u": normal(d, 6, 2), "v": normal(e, 5, 2)}
        return Problem(theta, Task((matrix, mask), (matrix, 1.0 - mask)), strength)

    return Kind(loss, sample, None)


def quartic_loss(params, batch):
    mixed, target = batch
    return 0.25 * jnp.sum((mixed @ params["x"] - target) ** 4)


def quartics(strength):
    """Sums of fourth powers, flat near their optimum."""

    def sample(key):
        a, b, c, d = jax.random.split(key, 4)
        mixed, other = normal(a, 6, 4) / 2, normal(b, 6, 4) / 2
        task = Task((mixed, normal(c, 6)), (other, normal(c, 6)))
        return Problem({"x": normal(d, 4)}, task, strength)

    return Kind(quartic_loss, sample, None)


def well_loss(params, batch):
    mixed, depth = batch
    x = mixed @ params["x"]
    return 0.25 * jnp.sum((x * x - depth) ** 2)


def wells(strength):
    """Double wells, which curve downward between their two minima."""

    def sample(key):
        a, b, c, d = jax.random.split(key, 4)
        mixed, _ = jnp.linalg.qr(normal(a, 5, 5))
        other, _ = jnp.linalg.qr(normal(b, 5, 5))
        depths = 0.5 + jax.random.uniform(c, (2, 5))
        task = Task((mixed, depths[0]), (other, depths[1]))
        return Problem({"x": 0.7 * normal(d, 5)}, task, strength)

    return Kind(well_loss, sample, None)


def quadratic_loss(params, batch):
    matrix, target = batch
    x = jnp.concatenate([params["a"], params["b"]])
    # A cubic term lets the curvature change, and the tanh bounds it.
    bent = jnp.sum(jnp.tanh(x - target) ** 3)
    return 0.5 * (x - target) @ matrix @ (x - target) + 0.1 * jnp.sum(jnp.diag(matrix)) * bent / 8


def spectrum(values, strength, units=(1.0, 1.0)):
    """Eight unknowns with these curvatures in random directions, and in these units."""
    values = jnp.asarray(values, float)
    scale = jnp.repeat(jnp.asarray(units, float), 4)

    def sample(key):
        a, b, c, d, e = jax.random.split(key, 5)

        def matrix(key):
            q, _ = jnp.linalg.qr(normal(key, 8, 8))
            return (q * values) @ q.T / scale[:, None] / scale

        theta = scale * normal(e, 8)
        support, query = (matrix(a), scale * normal(b, 8)), (matrix(c), scale * normal(d, 8))
        return Problem({"a": theta[:4], "b": theta[4:]}, Task(support, query), strength)

    return Kind(quadratic_loss, sample, None)


def kinks(shape, slope):
    """Separable losses with kinks; whether an unknown stands in one is known in closed form."""

    def loss(params, batch):
        target, weight = batch
        return jnp.sum(weight * shape(params["x"] - target))

    def sample(key):
        a, b, c, d = jax.random.split(key, 4)
        weight = 1.0 + jax.random.uniform(d, (6,))
        task = Task((normal(a, 6), weight), (normal(b, 6), weight))
        return Problem({"x": 1.5 * normal(c, 6)}, task, 2.0)

    def derivative(problem):
        target, weight = problem.task.support
        (theta,), strength = jax.tree.leaves(problem.theta), problem.strength
        return {"x": slope(theta - target, weight / strength)}

    return Kind(loss, sample, derivative)


def soft(offset, share):
    """dφ*/dθ of |φ|: none within the kink's reach."""
    return jnp.where(jnp.abs(offset) > share, 1.0, 0.0)


def hinge_slope(offset, share):
    """dφ*/dθ of max(0, φ)."""
    return jnp.where((offset < 0) | (offset > share), 1.0, 0.0)


def huber(x):
    return jnp.where(jnp.abs(x) < 0.1, 5.0 * x * x, jnp.abs(x) - 0.05)


def huber_slope(offset, share):
    return jnp.where(jnp.abs(offset) > 0.1 + share, 1.0, 1.0 / (1.0 + 10.0 * share))


KINDS = {
    "sine network, λ 0.5": network((1, 1), mean_squared_error, sines, 0.5),
    "sine network, λ 2": network((1, 1), mean_squared_error, sines, 2.0),
    "cluster network, λ 0.1": network((2, 3), cross_entropy, clusters, 0.1),
    "cluster network, λ 0.5": network((2, 3), cross_entropy, clusters, 0.5),
    "logistic": logistic([1.0] * 5, 0.1),
    "logistic, saturating": logistic([1.0, 2.0, 4.0, 7.0, 10.0], 0.01),
    "logistic, mixed units": logistic([1e3, 1.0, 1.0, 1.0, 1e-2], 0.1),
    "softmax head": softmax(8.0, 1e-2),
    "softmax head, saturating": softmax(30.0, {"w": 1e-4, "b": 1e-4}),
    "factorisation": factorisation(0.3),
    "quartics": quartics(0.1),
    "anisotropic": spectrum(np.geomspace(1e-2, 1e3, 8), 0.1),
    "near-singular": spectrum([-0.999, -0.99, -0.9, 0.0, 1.0, 2.0, 5.0, 9.0], 1.0),
    "negative curvature": wells(0.5),
    "mixed units": spectrum(np.geomspace(1.0, 10.0, 8), {"a": 1.0, "b": 1e-6}, (1.0, 1e3)),
    "kink |x|": kinks(jnp.abs, soft),
    "kink max(0, x)": kinks(jax.nn.relu, hinge_slope),
    "Huber": kinks(huber, huber_slope),
}

SETTINGS = {
    "L-BFGS 6, CG 3": (LBFGS(6), CG(3, rtol=0.0)),
    "L-BFGS 16, the default CG": (LBFGS(16), ECONOMICAL),
    "L-BFGS 48, CG to 1e-5": (LBFGS(48), CG()),
    "Nesterov 16, CG 10": (Nesterov(16), CG(10, rtol=0.0)),
    "gradient descent 16, GMRES": (GradientDescent(16, 0.02), GMRES()),
    "Newton-CG 4, dense": (NewtonCG(4), Dense()),
}
ELIMINATED = {
    "projected 2, CG 2": (Projected(2, rtol=None), CG(2, rtol=0.0)),
    "projected to 5 %, the default CG": (Projected(), ECONOMICAL),
}
"""Where the loss knows its linear head, which is then eliminated behind the others, too."""


def newton(problem, start, steps=60):
    """The stationary point that lies downhill, by Newton's method with a damped dense matrix."""
    flat, unravel = jax.flatten_util.ravel_pytree(start)

    def value(x):
        return problem.value(unravel(x))

    def gradient(x):
        return jax.flatten_util.ravel_pytree(problem.gradient(unravel(x)))[0]

    def unfinished(carry):
        count, x, g, _ = carry
        return (count < steps) & (jnp.linalg.norm(g) > 1e-12 * jnp.linalg.norm(x - anchor))

    def step(carry):
        count, x, g, damping = carry
        matrix = jax.jacobian(gradient)(x)
        values, vectors = jnp.linalg.eigh(0.5 * (matrix + matrix.T))
        floor = jnp.maximum(jnp.abs(values), 1e-8 * jnp.max(jnp.abs(values)))
        move = vectors @ ((vectors.T @ g) / (floor * (1.0 + damping)))
        level = value(x - move) <= value(x) + 1e-14 * jnp.abs(value(x))
        better = level & jnp.isfinite(value(x - move))
        damping = jnp.where(better, 0.1 * damping, 10.0 * damping + 1.0)
        x = jnp.where(better, x - move, x)
        return count + 1, x, gradient(x), damping

    anchor = jax.flatten_util.ravel_pytree(problem.theta)[0]
    start = (0, flat, gradient(flat), jnp.zeros(()))
    return unravel(jax.lax.while_loop(unfinished, step, start)[1])


def truth(kind, problem, phi):
    """The meta-gradient at the optimum below φ, its residual and its smallest curvature."""
    theta, task, strength = problem
    inner = InnerProblem(kind.loss, task.support, theta, strength)
    outer = jax.grad(kind.loss)
    if kind.derivative is not None:
        diagonal = kind.derivative(problem)
        # Along a kink φ* stands in it; elsewhere it is where the pull equals the slope.
        best = _separable_optimum(kind, inner)
        gradient = jax.tree.map(jnp.multiply, diagonal, outer(best, task.query))
        return gradient, jnp.zeros(()), jnp.ones(())
    best = newton(inner, phi)
    flat, unravel = jax.flatten_util.ravel_pytree(best)

    def slope(x):
        return jax.flatten_util.ravel_pytree(inner.gradient(unravel(x)))[0]

    matrix = jax.jacobian(slope)(flat)
    cotangent, _ = jax.flatten_util.ravel_pytree(outer(best, task.query))
    gradient = inner.pull(unravel(jnp.linalg.solve(matrix, cotangent)))
    pull = jax.flatten_util.ravel_pytree(inner.pull(trees.subtract(best, theta)))[0]
    residual = jnp.linalg.norm(slope(flat)) / jnp.linalg.norm(pull)
    return gradient, residual, jnp.linalg.eigvalsh(0.5 * (matrix + matrix.T))[0]


def _separable_optimum(kind, inner):
    """Each unknown by golden-section search; the objective is convex in each of them."""
    golden = (math.sqrt(5.0) - 1.0) / 2.0
    (theta,) = jax.tree.leaves(inner.theta)
    target, weight = inner.support
    batches = (target[:, None], weight[:, None])

    def objective(x):
        each = jax.vmap(lambda x, t, w: kind.loss({"x": x[None]}, (t, w)))(x, *batches)
        return each + 0.5 * inner.strength * (x - theta) ** 2

    def shrink(_, ends):
        low, high = ends
        left, right = high - golden * (high - low), low + golden * (high - low)
        lower = objective(left) < objective(right)
        return jnp.where(lower, low, left), jnp.where(lower, right, high)

    low, high = jax.lax.fori_loop(0, 80, shrink, (theta - 10.0, theta + 10.0))
    return {"x": 0.5 * (low + high)}


def study(name, tasks, precision):
    """Every setting on every task: the estimate, the truth, and the verdict."""
    kind, rows = KINDS[name], []
    keys = jax.random.split(jax.random.key(1), tasks)
    exact = jax.jit(lambda key, phi: truth(kind, kind.sample(key), phi))
    settings = SETTINGS | (ELIMINATED if separable(kind.loss) else {})
    for setting, (solver, linear) in settings.items():

        def computed(key, solver=solver, linear=linear):
            problem = jax.tree.map(lambda x: _cast(x, precision), kind.sample(key))
            theta, task, strength = problem
            inner = InnerProblem(kind.loss, task.support, theta, strength)
            implicit = Implicit(solver, linear, damping=0.0, certify=Certify())
            found = implicit.adjoint(inner, kind.loss, task.query, key)
            return found.phi, found.gradient, found.info

        found = jax.jit(lambda keys, computed=computed: jax.lax.map(computed, keys))(keys)
        for key, (phi, gradient, info) in zip(keys, _rows(found, tasks), strict=True):
            phi = jax.tree.map(lambda x: jnp.asarray(x, float), phi)
            wanted, residual, smallest = jax.device_get(exact(key, phi))
            if not (residual < 1e-8 and smallest > 0):
                continue
            difference = jax.tree.map(np.subtract, jax.tree.map(np.float64, gradient), wanted)
            error = trees.mean_share(*jax.tree.map(jnp.asarray, (difference, gradient)))
            rows.append(
                {
                    "kind": name,
                    "precision": precision,
                    "setting": setting,
                    "error": float(error),
                    "inner_error": float(info.inner_error),
                    "linear_error": float(info.linear_error),
                    "inner_residual": float(info.inner_residual),
                    "linear_residual": float(info.linear_residual),
                    "smallest": float(info.smallest_curvature),
                    "verdict": results.label(info.code),
                }
            )
    return rows


def _cast(leaf, precision):
    leaf = jnp.asarray(leaf)
    return leaf.astype(precision) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _rows(tree, tasks):
    leaves, structure = jax.tree.flatten(jax.device_get(tree))
    return [structure.unflatten([leaf[i] for leaf in leaves]) for i in range(tasks)]


def stated(row):
    """Both estimates together."""
    return row["inner_error"] + row["linear_error"]


def above(row):
    """Whether a ratio of estimate and truth means something."""
    return row["error"] > FLOOR[row["precision"]]


def summarise(rows):
    """Share of cases whose estimate is within a factor of the truth, at most it, and at least."""
    ratio = np.asarray([stated(r) / r["error"] for r in rows])
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
    """A line for each group of cases."""
    head = (
        "cases | ok | ok, error > 10 × stated | ok, error > ½ | within ×3 | not under ÷3 | median"
    )
    lines = [f"| group | {head} |", "| --- |" + " --- |" * 7]
    for name, rows in groups:
        good = [r for r in rows if r["verdict"] == "ok"]
        seen = [r for r in good if above(r)]
        ratios = "– | – | –"
        if seen:
            s = summarise(seen)
            ratios = f"{s['within']:.0%} | {s['covers']:.0%} | {s['median']:.2f}"
        low = sum(r["error"] > 10 * stated(r) for r in seen)
        wrong = sum(r["error"] > 0.5 for r in good)
        lines.append(f"| {name} | {len(rows)} | {len(good)} | {low} | {wrong} | {ratios} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--precisions", nargs="+", default=list(FLOOR), choices=list(FLOOR))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    # Nearly all of the time goes into compiling.
    jax.config.update("jax_disable_most_optimizations", True)
    rows = []
    for name, precision in itertools.product(arguments.kinds, arguments.precisions):
        found = study(name, arguments.tasks, precision)
        rows += found
        if arguments.json:
            arguments.json.write_text(json.dumps(rows))
        print(f"{name}, {precision}: {len(found)} cases", flush=True)
        jax.clear_caches()
    groups = [("all", rows)]
    for column in ("precision", "kind", "setting"):
        values = dict.fromkeys(r[column] for r in rows)
        groups += [(v, [r for r in rows if r[column] == v]) for v in values]
    print("Of the cases with the verdict ok:\n" + table(groups))
    verdicts = sorted({r["verdict"] for r in rows})
    wrong = [(v, [r for r in rows if r["verdict"] == v]) for v in verdicts]
    print("\n| verdict | cases | true error above ½ |\n| --- | --- | --- |")
    for verdict, cases in wrong:
        print(f"| {verdict} | {len(cases)} | {sum(r['error'] > 0.5 for r in cases)} |")


if __name__ == "__main__":
    main()
