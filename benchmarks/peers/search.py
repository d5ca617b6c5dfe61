"""The cheapest settings with which each kind of solver comes within a tolerance of the exact.

    python -m benchmarks.peers.search TRAINED OUT

On tasks kept for choosing. Gradient descent (step, momentum) runs once for each pair and is looked
at after several numbers of steps; from each of these points CG runs on, and is looked at after
every step. The same for L-BFGS with its preconditioned CG. Pairs of numbers of steps are ordered
by their cost, a gradient's being 1 and a product's given.
"""

import argparse
import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import layout
from benchmarks.peers.problem import Problem
from pullback import implicit
from pullback.core import trees
from pullback.core.problem import Proximal
from pullback.linear import CG
from pullback.meta import parallel
from pullback.models import Conv4, cross_entropy
from pullback.solvers import LBFGS, Projected
from pullback.solvers.base import run as solve
from pullback.tasks import Task

TOLERANCES = (0.05, 0.01)
RATES, MOMENTA = (0.0025, 0.005, 0.01, 0.02), (0.0, 0.6, 0.8, 0.9)
LOOKS = (8, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256)
BUDGETS, PAIRS = (8, 10, 12, 16, 20, 24, 32), (6,)
LINEAR = 16
ELIMINATED = 4
"""The most inner steps, and the most products, where the head is eliminated."""
FEW = 8
"""How many of the cheapest settings are kept for each kind and tolerance, cheapest first."""
KINDS = {
    # A product by double backward that evaluates the gradient anew costs about three gradients.
    "plain": {"momentum": False, "product": 3.0},
    "steady": {"momentum": False, "product": 2.0},
    "momentum": {"momentum": True, "product": 2.0},
}


def error_curve(problem, phi, query, exact, precondition):
    """The relative error of the meta-gradient after each step of (preconditioned) CG."""
    point = implicit.linearise(problem, phi)
    operator = point.operator()
    rhs = jax.grad(problem.loss)(phi, query)
    size = trees.norm(exact)

    def step(carry, _):
        x, residual, direction, product = carry
        curved = operator(direction)
        alpha = product / trees.dot(direction, curved)
        x, residual = trees.axpy(alpha, direction, x), trees.axpy(-alpha, curved, residual)
        preconditioned = precondition(residual)
        new = trees.dot(residual, preconditioned)
        direction = trees.axpy(new / product, direction, preconditioned)
        error = trees.norm(trees.subtract(problem.pull(x), exact)) / size
        return (x, residual, direction, new), error

    first = precondition(rhs)
    start = trees.zeros_like(rhs), rhs, first, trees.dot(rhs, first)
    return jax.lax.scan(step, start, length=LINEAR)[1]


def descent(proximal, theta, task, exact, rate, momentum):
    """Errors by number of inner steps looked at, and of CG steps."""
    problem = proximal.problem(theta, task.support)

    def step(point, _):
        phi, velocity = point
        velocity = trees.axpy(momentum, velocity, problem.gradient(phi))
        return (trees.axpy(-rate, velocity, phi), velocity), None

    point = theta, trees.zeros_like(theta)
    lengths = np.diff((0, *LOOKS))

    def until(point, length):
        point = jax.lax.fori_loop(0, length, lambda _, p: step(p, None)[0], point)
        return point, error_curve(problem, point[0], task.query, exact, lambda r: r)

    _, errors = jax.lax.scan(until, point, jnp.asarray(lengths))
    return errors


def quasi_newton(solver, proximal, theta, task, exact):
    """Errors by number of CG steps, preconditioned by the inner solver's pairs."""
    problem = proximal.problem(theta, task.support)
    solution = solve(solver, problem, theta, jax.random.key(0))
    return error_curve(problem, solution.phi, task.query, exact, solution.inverse)


def eliminated(steps, proximal, theta, task, exact):
    """Errors by number of products, the head eliminated."""
    problem = proximal.problem(theta, task.support)
    phi = solve(Projected(steps, rtol=None), problem, theta, jax.random.key(0)).phi
    point = implicit.linearise(problem, phi, eliminate_head=True)
    rhs = jax.grad(problem.loss)(phi, task.query)

    def error(products):
        gradient, _ = implicit.vjp(point, rhs, CG(products, rtol=0.0))
        return trees.norm(trees.subtract(gradient, exact)) / trees.norm(exact)

    return jnp.stack([error(1 + i) for i in range(ELIMINATED)])


def over_tasks(function, theta, tasks, exact, *numbers):
    """Errors of all tasks; one program, whatever the numbers."""
    mesh = parallel.task_mesh(len(tasks.support[1]))

    def one(shared, item):
        theta, numbers = shared
        return jnp.zeros(()), function(theta, *item, *numbers)

    return jax.jit(
        lambda theta, numbers, items: parallel.over_tasks(one, (theta, numbers), items, "map", mesh)
    )(theta, numbers, (tasks, exact))[1]


def medians(errors):
    """The median over tasks; a setting that diverges on half of them has none."""
    return np.median(np.where(np.isfinite(errors), errors, np.inf), axis=0)


def cheapest(candidates, tolerance, product):
    """The settings that come within a tolerance, cheapest first."""
    good = [c for c in candidates if c["error"] <= tolerance]
    good.sort(key=lambda c: c["inner_steps"] + product * c["linear_steps"])
    return good[:FEW]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("trained", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    # Here, since the backend has not started yet, and who imports this has an own environment.
    parallel.use_host_devices()
    about = json.loads(arguments.trained.read_text())
    problem = Problem.load(arguments.trained.with_suffix(".choice.npz"))
    with np.load(arguments.trained.with_suffix(".choice-exact.npz")) as file:
        exact = layout.nested({name: file[name].astype(np.float32) for name in file})
    theta = jax.device_put(layout.nested(problem.theta))
    support, query = (problem.support_x, problem.support_y), (problem.query_x, problem.query_y)
    tasks = Task(support, query)
    features, ways = problem.theta["linear/weight"].shape
    proximal = Proximal(cross_entropy(Conv4(ways, features // 4).apply), about["strength"])
    # One program for all steps and momenta: both are arguments.
    look = jax.jit(
        lambda rate, momentum: over_tasks(
            functools.partial(descent, proximal), theta, tasks, exact, rate, momentum
        )
    )
    steps, quick = [], []
    for rate in RATES:
        for momentum in MOMENTA:
            errors = medians(np.asarray(look(rate, momentum)))
            print(f"step {rate:g}, momentum {momentum:g}: {errors.min():.2g}", file=sys.stderr)
            steps += [
                {
                    "inner_steps": inner,
                    "linear_steps": linear + 1,
                    "learning_rate": rate,
                    "momentum": momentum,
                    "error": float(errors[i, linear]),
                }
                for i, inner in enumerate(LOOKS)
                for linear in range(LINEAR)
            ]
    for budget in BUDGETS:
        for pairs in PAIRS:
            solver = functools.partial(quasi_newton, LBFGS(budget, pairs), proximal)
            errors = medians(np.asarray(over_tasks(solver, theta, tasks, exact)))
            print(f"L-BFGS {budget}, {pairs} pairs: {errors.min():.2g}", file=sys.stderr)
            quick += [
                {
                    "inner_steps": budget,
                    "linear_steps": linear + 1,
                    "history": pairs,
                    "error": float(errors[linear]),
                }
                for linear in range(LINEAR)
            ]
    tame = []
    for budget in range(1, ELIMINATED + 1):
        solver = functools.partial(eliminated, budget, proximal)
        errors = medians(np.asarray(over_tasks(solver, theta, tasks, exact)))
        print(f"projected {budget}: {errors.min():.2g}", file=sys.stderr)
        tame += [
            {"inner_steps": budget, "linear_steps": linear + 1, "error": float(errors[linear])}
            for linear in range(ELIMINATED)
        ]
    found = {}
    for tolerance in TOLERANCES:
        kinds = {
            kind: cheapest(
                [c for c in steps if how["momentum"] or c["momentum"] == 0],
                tolerance,
                how["product"],
            )
            for kind, how in KINDS.items()
        }
        found[str(tolerance)] = kinds | {
            "lbfgs": cheapest(quick, tolerance, 2.5),
            "projected": cheapest(tame, tolerance, 2.5),
        }
    arguments.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
