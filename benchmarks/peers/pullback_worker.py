"""Pullback itself: gradient descent and plain CG as the others have, or its own defaults."""

import functools

import jax

from benchmarks.hidden_head import hide_head
from benchmarks.peers import layout, parts
from pullback.algorithms import imaml, maml
from pullback.implicit.certificate import Certify
from pullback.linear import CG
from pullback.meta import parallel
from pullback.models import Conv4, cross_entropy
from pullback.solvers import LBFGS, GradientDescent, Projected
from pullback.tasks import Task


def algorithm(setting, ways, width):
    """The algorithm that a setting asks for.

    Options: ``solver`` is ``"gradient descent"``, ``"lbfgs"`` or ``"projected"``; ``history``;
    ``certify``, false for none; ``rtol`` of CG; ``preconditioned``; ``start`` of CG.
    """
    options = setting.options
    separable = cross_entropy(Conv4(ways, width).apply)
    # The others' arithmetic.
    loss = hide_head(separable)
    descent = GradientDescent(setting.inner_steps, setting.learning_rate, setting.momentum)
    if setting.algorithm == "maml":
        return maml(loss, solver=descent)
    solver = descent
    if options.get("solver") == "lbfgs":
        solver = LBFGS(setting.inner_steps, options.get("history", 6))
    if options.get("solver") == "projected":
        loss, solver = separable, Projected(setting.inner_steps, rtol=None)
    linear = CG(
        setting.linear_steps,
        rtol=options.get("rtol", 0.0),
        start=options.get("start", "zero"),
        preconditioned=options.get("preconditioned", False),
    )
    certify = Certify() if options.get("certify") else None
    return imaml(
        loss, strength=setting.strength, solver=solver, linear_solver=linear, certify=certify
    )


def prepare(problem, setting):
    theta = layout.nested(problem.theta)
    features, ways = problem.theta["linear/weight"].shape
    chosen = algorithm(setting, ways, features // 4)
    mesh = parallel.task_mesh(problem.tasks)
    support = problem.support_x, problem.support_y
    tasks = Task(support, (problem.query_x, problem.query_y))
    key = jax.random.key(0)

    def one_task(theta, task):
        _, gradient, info = chosen.meta_gradient(theta, task, key)
        return gradient, (gradient, info)

    @jax.jit
    def step(theta, tasks):
        return parallel.over_tasks(one_task, theta, tasks, parallel.find_strategy("auto"), mesh)

    theta, tasks = parallel.replicate((theta, tasks), mesh)
    program = step.lower(theta, tasks).compile()
    run = functools.partial(_run, program, theta, tasks)
    run.program = program
    return run, lambda found: layout.flat(found[1][0])


def _run(program, theta, tasks):
    return jax.block_until_ready(program(theta, tasks))


def special(run):
    """Seconds of one run by group of operations."""
    return {"groups": parts.measure(run)}
