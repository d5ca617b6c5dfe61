"""What it takes to serve a program that pullback export wrote: time on one core, and its file.

    python -m benchmarks.serving [--repeats 200] [--runs RUN ...]

New groups of a table of 200 machines with three columns are adapted to from five rows each, and
five rows of each are predicted, in one call; so are tasks of runs of pullback train. The process
keeps to one core. A call is the program itself by JAX, from arrays of NumPy to arrays of NumPy.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ |= {"PJRT_NPROC": "1", "NPROC": "1", "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}

import numpy as np
import pandas as pd

import pullback as pb
from pullback.sklearn import MetaRegressor

ROWS = 5
GROUPS = (1, 100, 10_000)
"""How many are adapted to in one call."""


def machines(groups, rows, seed):
    """A table whose groups have an intercept and a slope of their own, and bend a little."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), rows)
    load, age = rng.uniform(0, 10, (2, len(group)))
    own = rng.normal(size=(groups, 2))[group]
    table = pd.DataFrame(
        {"load": load, "age": age, "oil": rng.choice(["thick", "thin"], len(load))}
    )
    y = 20 + 4 * own[:, 0] + (2 + 0.5 * own[:, 1]) * load + np.sin(age) + rng.normal(size=len(load))
    return table, y, group


def arguments(program, groups):
    """Arrays of the shapes that a program takes, for so many groups."""
    rng = np.random.default_rng(groups)
    if "columns" in program.about:
        table, y, _ = machines(groups, 2 * ROWS, seed=groups)
        x = program.rows(table).reshape(groups, 2 * ROWS, -1)
        y = y.reshape(groups, 2 * ROWS)[:, :ROWS]
        return {"x": x[:, :ROWS], "y": y, "weight": np.ones_like(y), "query": x[:, ROWS:]}
    lengths = {"tasks": groups, "queries": ROWS}
    given = {}
    for each in program.about["inputs"]:
        shape = [lengths.get(n, n) for n in each["shape"]]
        least, most = each["span"] or (0, 255 if each["dtype"] == "uint8" else 1)
        drawn = rng.uniform(least, (1 if most is None else most) + 0.999, shape)
        given[each["name"]] = drawn.astype(each["dtype"])
    return given | {"weight": np.ones_like(given["weight"])}


def clock(call, repeats):
    """The median of wall and of CPU seconds, after a first call that is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter(), time.process_time()
        call()
        seconds.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return tuple(map(statistics.median, zip(*seconds, strict=True)))


def once(call):
    began = time.process_time()
    found = call()
    return found, time.process_time() - began


def measure(name, what, folder, groups, repeats):
    """A line of the table: the file, and seconds of loading, of compiling and of calls."""
    path = folder / "program"
    _, writing = once(lambda: pb.export(what, path, overwrite=True))
    program, loading = once(lambda: pb.load_exported(path))
    line = {"program": name, "kB": path.stat().st_size / 1e3, "export": writing, "load": loading}
    for count in groups:
        given = arguments(program, count)
        _, first = once(lambda given=given: program(**given))
        calls = max(5, repeats // count)
        wall, cpu = clock(lambda given=given: program(**given), calls)
        line |= {f"first call, {count}": first, f"wall, {count}": wall, f"cpu, {count}": cpu}
    return line


def library(model, repeats):
    """Seconds of the estimator itself for one new group."""
    table, y, _ = machines(1, 2 * ROWS, seed=1)

    def call():
        model.adapt(table[:ROWS], y[:ROWS]).predict(table[ROWS:], return_std=True)

    return clock(call, repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=200, help="calls for one group")
    parser.add_argument("--runs", nargs="*", default=[], help="runs of pullback train, too")
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    table, y, group = machines(200, 8, seed=0)
    lines = []
    with tempfile.TemporaryDirectory() as place:
        for method in ("linear", "learned"):
            model = MetaRegressor(method).fit(table, y, groups=group)
            name = f"MetaRegressor({method!r})"
            line = measure(name, model, Path(place), GROUPS, arguments.repeats)
            wall, cpu = library(model, arguments.repeats)
            lines.append(line | {"estimator, wall": wall, "estimator, cpu": cpu})
        for run in arguments.runs:
            lines += [measure(run, run, Path(place), GROUPS[:2], arguments.repeats)]
    head = (
        "program",
        "kB",
        "export, s",
        "load, s",
        "groups or tasks",
        "first call, s",
        "a call, ms",
    )
    print(f"| {' | '.join((*head, 'CPU, ms'))} |")
    print(f"|{' --- |' * (len(head) + 1)}")
    for line in lines:
        before = f"{line['program']} | {line['kB']:.0f} | {line['export']:.2f} | {line['load']:.3f}"
        for count in GROUPS:
            if f"cpu, {count}" not in line:
                continue
            first, wall, cpu = (line[f"{each}, {count}"] for each in ("first call", "wall", "cpu"))
            print(f"| {before} | {count:,} | {first:.2f} | {_ms(wall)} | {_ms(cpu)} |")
        if "estimator, cpu" in line:
            wall, cpu = line["estimator, wall"], line["estimator, cpu"]
            print(f"| its estimator | – | – | – | 1 | – | {_ms(wall)} | {_ms(cpu)} |")


def _ms(seconds):
    found = 1e3 * seconds
    return f"{found:,.0f}" if found >= 1000 else f"{found:.3g}"


if __name__ == "__main__":
    main()
