"""Time to a meta-gradient of known error: the head eliminated, against the former default.

    python -m benchmarks.eliminated RUN [--tasks 6] [--repeats 8] [--ways 5] [--shots 1]
        [--queries 10]

A run on classes of pictures, or a pretrained initialisation, gives θ. Exact is float64: L-BFGS to
1e-9 and CG to 1e-9 on the whole system, nothing eliminated. Everything timed is float32, one task
after the other, in one process that is held to one thread; the repeats are interleaved, and ratios
are of medians.
"""

import os

os.environ.setdefault(
    "XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
)

import functools
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import hessians
from benchmarks.hidden_head import hide_head
from pullback import implicit
from pullback.algorithms import imaml
from pullback.core.problem import Proximal
from pullback.implicit.certificate import Certify
from pullback.linear import CG
from pullback.linear.cg import ECONOMICAL
from pullback.solvers import LBFGS, Projected, run

HEADER = """\
| inner solver | linear solver | median error (most) | ms a task | times as fast | compiling, s |
| --- | --- | --- | --- | --- | --- |"""


def variants(loss, strength):
    """Each row's name and program ``(theta, task, key) -> (value, gradient, info)``."""

    def gradient(loss, solver, linear, certify=None):
        options = {"solver": solver, "linear_solver": linear, "certify": certify}
        return imaml(loss, strength=strength, **options).meta_gradient

    whole = functools.partial(gradient, hide_head(loss), LBFGS(), ECONOMICAL)
    eliminated = functools.partial(gradient, loss)

    def outer(theta, task, key):
        return *jax.value_and_grad(loss)(theta, task.query), None

    rows = {("L-BFGS, 16 gradients", "CG to 5 %, whole system"): whole()}
    rows["L-BFGS, 16 gradients", "CG to 5 %, body alone"] = eliminated(LBFGS(), ECONOMICAL)
    for steps in (1, 2, 3):
        solver, linear = Projected(steps, rtol=None), CG(steps, rtol=0.0)
        rows[f"projected, {steps} + 1 gradients", f"CG, {steps}"] = eliminated(solver, linear)
    for rtol in (0.2, 0.05):
        name = f"projected to {rtol:.0%}", f"CG to {rtol:.0%}"
        rows[name] = eliminated(Projected(rtol=rtol), CG(10, rtol=rtol))
    rows["projected to 5%", "CG to 5%, certificate"] = eliminated(
        Projected(), ECONOMICAL, Certify()
    )
    rows["L-BFGS, 16 gradients", "CG to 5 %, whole system, certificate"] = whole(Certify())
    rows["the query loss's gradient at θ alone", "–"] = outer
    return rows


def exact_gradients(loss, strength, theta, tasks):
    """Every task's meta-gradient in float64, flat."""
    with jax.enable_x64(True):

        def widen(leaf):
            kind = jnp.float64 if leaf.dtype == jnp.float32 else leaf.dtype
            return jnp.asarray(np.asarray(leaf), kind)

        whole = hide_head(loss)

        @jax.jit
        def one(theta, task):
            problem = Proximal(whole, strength).problem(theta, task.support)
            phi = run(LBFGS(400, 16, rtol=1e-9), problem, theta, jax.random.key(0)).phi
            point = implicit.linearise(problem, phi)
            cotangent = jax.grad(whole)(phi, task.query)
            solver = CG(200, rtol=1e-9, preconditioned=False)
            gradient, solve = implicit.vjp(point, cotangent, solver)
            return gradient, point.residual(), solve.residual

        theta, tasks = jax.tree.map(widen, (theta, tasks))
        found = [jax.device_get(one(theta, task)) for task in tasks]
    left = max(max(float(residual), float(linear)) for _, residual, linear in found)
    if left > 1e-6:
        raise SystemExit(f"no exact gradient: a residual of {left:.1e} is left")
    return [flat(gradient) for gradient, _, _ in found]


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def main():
    parser = hessians.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=8)
    arguments = parser.parse_args()
    theta, tasks, loss, proximal, about = hessians.inner_problems(arguments)
    exact = exact_gradients(loss, proximal.strength, theta, tasks)
    key = jax.random.key(arguments.seed)
    programs, errors, compiling = {}, {}, {}
    for name, function in variants(loss, proximal.strength).items():
        began = time.perf_counter()
        programs[name] = jax.jit(function).lower(theta, tasks[0], key).compile()
        compiling[name] = time.perf_counter() - began
        found = [flat(programs[name](theta, task, key)[1]) for task in tasks]
        errors[name] = [
            float(np.linalg.norm(g - e) / np.linalg.norm(e))
            for g, e in zip(found, exact, strict=True)
        ]
    seconds = {name: [] for name in programs}
    for _ in range(arguments.repeats):
        for name, program in programs.items():
            began = time.perf_counter()
            for task in tasks:
                jax.block_until_ready(program(theta, task, key))
            seconds[name].append((time.perf_counter() - began) / len(tasks))
    print(f"{about}, {len(tasks[0].query[1])} query examples\n\n{HEADER}")
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    first = next(iter(medians.values()))
    for name, median in medians.items():
        middle, most = statistics.median(errors[name]), max(errors[name])
        off = "–" if middle > 1 else f"{middle:.2%} ({most:.1%})"
        print(
            f"| {name[0]} | {name[1]} | {off} | {median * 1e3:.1f} | {first / median:.2f} "
            f"| {compiling[name]:.1f} |"
        )


if __name__ == "__main__":
    main()
