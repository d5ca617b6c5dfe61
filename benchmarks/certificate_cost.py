"""What the certificate costs: a meta-gradient's time with it against without it.

    python -m benchmarks.certificate_cost RUN [--tasks 8] [--repeats 7]

The inner and the linear solver are those of the run. Every variant runs over the same tasks, one
after the other on one device, and the repeats are interleaved; the ratio is of the medians.
"""

import statistics
import time

import jax
import jax.numpy as jnp

from benchmarks import hessians
from pullback.algorithms import imaml
from pullback.implicit.certificate import Certify
from pullback.linear import LINEAR_SOLVERS
from pullback.runs.folder import Run
from pullback.solvers import SOLVERS


def main():
    parser = hessians.parser(__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    theta, tasks, loss, proximal, about = hessians.inner_problems(arguments)
    config = Run.open(arguments.run).config
    given, data = config.algorithm, config.data
    solver = SOLVERS[given.solver or ""].make(
        steps=given.inner_steps,
        learning_rate=given.inner_learning_rate,
        momentum=given.inner_momentum,
    )
    linear = LINEAR_SOLVERS[given.linear_solver or "cg"].make(
        steps=given.linear_steps, rtol=given.linear_rtol
    )
    thinned = max(1, data.queries // 2)
    variants = {
        "without": None,
        "Certify()": Certify(),
        f"Certify(every={thinned})": Certify(every=thinned),
        "Certify(every=1)": Certify(every=1),
        "Certify(share=0.25)": Certify(share=0.25),
    }
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    keys = jax.random.split(jax.random.key(arguments.seed), len(tasks))

    def program(certify):
        algorithm = imaml(
            loss,
            strength=proximal.strength,
            solver=solver,
            linear_solver=linear,
            damping=given.damping,
            certify=certify,
        )

        def one(item):
            return algorithm.meta_gradient(theta, *item)

        return jax.jit(lambda: jax.lax.map(one, (stacked, keys))).lower().compile()

    programs = {name: program(certify) for name, certify in variants.items()}
    seconds = {name: [] for name in programs}
    for repeat in range(arguments.repeats + 1):
        for name, run in programs.items():
            began = time.process_time(), time.perf_counter()
            jax.block_until_ready(run())
            spent = time.process_time() - began[0], time.perf_counter() - began[1]
            if repeat:
                seconds[name].append(spent)
    print(f"{about}; {arguments.repeats} repeats\n")
    print("| certificate | CPU ms per task | wall ms per task | CPU, ratio to none |")
    print("| --- | --- | --- | --- |")
    cpu = {name: statistics.median(s[0] for s in pairs) for name, pairs in seconds.items()}
    wall = {name: statistics.median(s[1] for s in pairs) for name, pairs in seconds.items()}
    for name in programs:
        per_task = 1e3 / len(tasks)
        ratio = cpu[name] / cpu["without"]
        print(
            f"| {name} | {cpu[name] * per_task:.1f} | {wall[name] * per_task:.1f} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
