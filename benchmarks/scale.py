"""What more devices and hosts gain: compute and all-reduce measured, the rest from a model.

    python -m benchmarks.scale [--quick] [--write docs/scale.md]

Two processes on this machine, each held to a core of its own, stand for two hosts. What a
meta-step takes there is measured, and so is the all-reduce of a gradient over loopback, for
several sizes; the tables for more hosts and slower networks are computed from these
(docs/scale.md has the model). With --write they replace what stands there between the marks.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BEGIN, END = "<!-- measured: python -m benchmarks.scale -->", "<!-- end of measured -->"
SIZES = tuple(4 * 4**n for n in range(4, 12))
"""Bytes of the arrays that are all-reduced: 1 kB to 16 MB."""
TASKS = 8
HOSTS = (1, 2, 4, 8, 16, 32, 64)
WIRE = 50e-6
"""Seconds that a message is assumed to travel between hosts, beside what gloo itself takes."""
NETWORKS = {"10 Gbit/s": 10e9 / 8, "1 Gbit/s": 1e9 / 8}


# One process of a measurement.


def work(order):
    """Measure what an order asks for; the numbers of process 0 are printed."""
    if order["cores"] is not None and hasattr(os, "sched_setaffinity"):
        available = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {available[core % len(available)] for core in order["cores"]})
    from pullback.cli.compilation_cache import keep_programs
    from pullback.meta import multihost, parallel
    from pullback.meta.multihost import Place

    keep_programs()
    parallel.use_host_devices(order["devices"])
    if order["processes"] > 1:
        multihost.join(Place(order["coordinator"], order["process"], order["processes"], 60))
    found = {"steps": {}, "parameters": {}}
    for model in order["models"]:
        for tasks in order["tasks"]:
            found["steps"][f"{model} {tasks}"], found["parameters"][model] = meta_step(model, tasks)
    if order["processes"] > 1:
        found["reduce"] = {size: all_reduce([size // 4]) for size in SIZES}
        found["apart"] = {}
        for model in order["models"]:
            sizes = leaves(model)
            found["apart"][model] = [all_reduce(sizes), all_reduce([sum(sizes)])]
    if multihost.is_first():
        print(json.dumps(found), flush=True)
    multihost.leave()


def problem(model):
    """Parameters, algorithm and tasks of a model that is measured."""
    import jax

    from benchmarks import standard
    from pullback import models, tasks
    from pullback.algorithms import imaml
    from pullback.solvers import LBFGS

    if model == "MLP":
        network = models.MLP(inputs=1, outputs=1, hidden=(40, 40))
        loss = models.mean_squared_error(network.apply)
        algorithm = imaml(loss, strength=2.0, solver=LBFGS(steps=16))
        return network.init(jax.random.key(0)), algorithm, tasks.Sinusoid(10, 10)
    point = standard.Point(convolutions=model == "Conv4")
    params = point.model().init(jax.random.key(0))
    return params, standard.algorithm("imaml, L-BFGS", point), standard.Patterns(point)


def leaves(model):
    import jax

    return [leaf.size for leaf in jax.tree.leaves(problem(model)[0])]


def meta_step(model, tasks):
    """Median seconds of a meta-step as the trainer does it, all devices at work."""
    import jax

    from pullback.meta.training import train

    params, algorithm, source = problem(model)
    seconds = []

    def on_block(state, block):
        seconds.append(block.seconds / len(block))
        # The first two blocks compile and warm up.
        return len(seconds) >= 9 or (len(seconds) > 4 and sum(seconds[1:]) > 15)

    train(
        algorithm,
        params,
        source,
        steps=100_000,
        key=jax.random.key(1),
        tasks_per_step=tasks,
        on_block=on_block,
        block_seconds=0.4,
    )
    return statistics.median(seconds[2:]), sum(leaf.size for leaf in jax.tree.leaves(params))


def all_reduce(sizes, repeats=5):
    """Median seconds of summing arrays of so many numbers over all processes."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import PartitionSpec

    from pullback.meta import multihost, parallel

    mesh = parallel.task_mesh(multihost.count(), 1)
    arrays = parallel.replicate([np.ones(size, np.float32) for size in sizes], mesh)

    @jax.jit
    def loop(arrays, rounds):
        def local(arrays, rounds):
            def one(_, arrays):
                summed = jax.lax.psum(arrays, parallel.AXIS)
                return [0.5 * array for array in summed]

            return jax.lax.fori_loop(0, rounds, one, arrays)

        everywhere = PartitionSpec()
        return jax.shard_map(
            local, mesh=mesh, in_specs=everywhere, out_specs=everywhere, check_vma=False
        )(arrays, rounds)

    def seconds(rounds):
        nonlocal result
        began = time.perf_counter()
        result = jax.block_until_ready(loop(arrays, rounds))
        return (time.perf_counter() - began) / rounds

    result = None
    seconds(1)
    # As many as take a tenth of a second, and in both processes the same.
    rounds = multihost.agree(False, max(2, min(1000, int(0.1 / seconds(4)))))[1]
    found = [seconds(rounds) for _ in range(repeats)]
    assert all(bool(jnp.all(np.asarray(array) == 1.0)) for array in result)
    return statistics.median(found)


# All of them.


def run(processes, devices, models, tasks, cores):
    """Start the processes of one measurement, and read what process 0 found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for each in range(processes):
        order = {
            "process": each,
            "processes": processes,
            "coordinator": coordinator,
            "devices": devices,
            "models": models,
            "tasks": tasks,
            "cores": cores[each],
        }
        command = [sys.executable, "-m", "benchmarks.scale", "--order", json.dumps(order)]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        started.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    outputs = [process.communicate() for process in started]
    for process, (_, stderr) in zip(started, outputs, strict=True):
        if process.returncode:
            raise SystemExit(f"A measurement ended with {process.returncode}:\n{stderr[-3000:]}")
    lines = [line for line in outputs[0][0].splitlines() if line.startswith("{")]
    return json.loads(lines[-1])


def fit(reduce):
    """Seconds of a message and bytes a second, from all-reduces between two processes.

    Between two, t = 2α + bytes/β. The fit is to relative errors, so that small arrays count.
    """
    size = np.asarray([float(s) for s in reduce])
    seconds = np.asarray(list(reduce.values()))
    columns = np.stack([2 / seconds, size / seconds], axis=1)
    (latency, inverse), *_ = np.linalg.lstsq(columns, np.ones(len(size)), rcond=None)
    # Noise can push either below zero, which no network is.
    return max(float(latency), 1e-9), 1 / max(float(inverse), 1e-12)


def reduce_time(hosts, size, latency, bandwidth):
    """A ring all-reduce: 2(N − 1) messages of size/N bytes, one after the other."""
    rounds = 2 * (hosts - 1)
    return rounds * latency + rounds / hosts * size / bandwidth


def report(one, devices, two, models):
    """All tables, as Markdown."""
    latency, bandwidth = fit(two["reduce"])
    parts = [reduce_table(two, latency, bandwidth)]
    rows = ["| model | parameters | one device | two devices | two processes | the model says |"]
    rows += ["| --- |" + " --- |" * 5]
    costs = {}
    for model in models:
        key, few = f"{model} {TASKS}", f"{model} {TASKS // 4}"
        each = (one["steps"][key] - one["steps"][few]) / (TASKS - TASKS // 4)
        fixed = max(0.0, one["steps"][key] - TASKS * each)
        size = 4 * one["parameters"][model]
        costs[model] = each, fixed, size
        said = fixed + each * TASKS / 2 + reduce_time(2, size, latency, bandwidth)
        times = (one["steps"][key], devices["steps"][key], two["steps"][key], said)
        cells = " | ".join(f"{1e3 * t:.3g} ms" for t in times)
        rows.append(f"| {model} | {one['parameters'][model]:,} | {cells} |")
    parts.append(f"A meta-step of {TASKS} tasks, each process held to one core:")
    parts.append("\n".join(rows))
    networks = {"loopback, as measured": (latency, bandwidth)}
    networks |= {n: (latency + WIRE, min(b, bandwidth)) for n, b in NETWORKS.items()}
    for model, (each, fixed, size) in costs.items():
        parts.append(
            f"{model}, {1e3 * each:.3g} ms a task and {1e3 * fixed:.3g} ms beside them, "
            f"{size / 1e3:,.0f} kB to reduce. Milliseconds per meta-step, and efficiency:"
        )
        parts.append(hosts_table(each, fixed, size, networks))
    return "\n\n".join(parts)


def reduce_table(two, latency, bandwidth):
    rows = ["| bytes | all-reduce between two processes | the fit |", "| --- | --- | --- |"]
    for size, seconds in two["reduce"].items():
        fitted = reduce_time(2, int(size), latency, bandwidth)
        rows.append(f"| {int(size):,} | {1e3 * seconds:.3g} ms | {1e3 * fitted:.3g} ms |")
    text = (
        f"α = {1e6 * latency:.0f} µs a message, β = {bandwidth / 1e6:,.0f} MB/s over loopback. "
        "The arrays of a model one by one, and joined into one as the trainer does: "
    )
    text += "; ".join(
        f"{model} {1e3 * apart:.3g} ms and {1e3 * joined:.3g} ms"
        for model, (apart, joined) in two["apart"].items()
    )
    return "\n".join(rows) + f"\n\n{text}."


def hosts_table(each, fixed, size, networks):
    """Time and efficiency by hosts: 8 tasks a step in all, and 8 a step on every host."""
    # Not before the worker has set what JAX reads when it is imported.
    from pullback.runs.formatting import number

    heads = [f"{kind}, {name}" for kind in ("8 tasks", "8 a host") for name in networks]
    rows = [f"| hosts | {' | '.join(heads)} |", "| --- |" + " --- |" * len(heads)]
    alone = fixed + TASKS * each
    for hosts in HOSTS:
        cells = []
        for share in (TASKS / hosts, TASKS):
            for latency, bandwidth in networks.values():
                if share < 1:
                    cells.append("–")
                    continue
                seconds = fixed + share * each + reduce_time(hosts, size, latency, bandwidth)
                done = share * hosts / TASKS
                cells.append(
                    f"{number(1e3 * seconds)} ({100 * done * alone / hosts / seconds:.0f} %)"
                )
        rows.append(f"| {hosts} | {' | '.join(cells)} |")
    rows += ["", stops(each, fixed, size, networks)]
    return "\n".join(rows)


def stops(each, fixed, size, networks):
    """Where it stops paying: the hosts at which half of each one's time is not for tasks."""
    words = []
    for name, (latency, bandwidth) in networks.items():

        def efficiency(hosts, tasks, latency=latency, bandwidth=bandwidth):
            seconds = fixed + tasks / hosts * each + reduce_time(hosts, size, latency, bandwidth)
            return (fixed + tasks * each) / (hosts * seconds)

        ends = []
        for tasks in (8, 64, 512):
            paying = [
                n for n in range(1, tasks + 1) if tasks % n == 0 and efficiency(n, tasks) > 0.5
            ]
            ends.append(f"{max(paying)} for {tasks} tasks")
        words.append(f"{name}: {', '.join(ends)}")
    return f"The most hosts at an efficiency above one half. {'; '.join(words)}."


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--order", help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="no convolutions: half a minute")
    parser.add_argument("--write", type=Path, help="a document to put the tables into")
    options = parser.parse_args()
    if options.order:
        work(json.loads(options.order))
        return
    models = ["MLP"] if options.quick else ["MLP", "Conv4"]
    began = time.perf_counter()
    one = run(1, 1, models, [TASKS // 4, TASKS], [[0]])
    devices = run(1, 2, models, [TASKS], [None])
    two = run(2, 1, models, [TASKS], [[0], [1]])
    text = report(one, devices, two, models)
    print(text)
    print(f"\nMeasured in {time.perf_counter() - began:.0f} s.", file=sys.stderr)
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        _, after = rest.split(END)
        written = f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"
        options.write.write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main()
