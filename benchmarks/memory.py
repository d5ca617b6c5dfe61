"""Peak memory of a meta-gradient against inner steps, and of a meta-step against tasks.

    python -m benchmarks.memory [--out bench] [--quick] [--jobs 2] [--most 8]

Every number comes from a process of its own and is had in two ways: the temporary memory that XLA
plans for the program, and the most memory that the process really takes while it runs it. What
both mean and how to read them is in docs/growth.md.
"""

import argparse
import json
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import process
from pullback.runs import folder, plots

MIB, GIB = 2**20, 2**30
FLAT = 1.05
ALGORITHMS = {
    "imaml": ("iMAML, gradient descent", plots.COLOURS["imaml"], "o"),
    "imaml, L-BFGS": ("iMAML, L-BFGS", plots.SKY, "D"),
    "maml": ("MAML", plots.COLOURS["maml"], "^"),
    "maml, checkpointed": ("MAML, √T checkpoints", plots.PURPLE, "s"),
}
STRATEGIES = {
    "map": ("map: one after the other", plots.BLUE, "o"),
    "vmap": ("vmap: all at once", plots.GREEN, "s"),
}
INNER_STEPS = tuple(2**n for n in range(10))
FEW_STEPS = INNER_STEPS[::3]
"""Enough to see that L-BFGS is flat, too."""
TASKS = tuple(4**n for n in range(4))
KINDS = ("planned", "measured")
QUICK = {"width": 32, "convolutions": False}


def orders(quick):
    """What is to be measured, one process each, the largest first so that none is waited for."""
    changed = QUICK if quick else {}
    steps, tasks = ((1, 32), (1, 16)) if quick else (INNER_STEPS, TASKS)
    for n in reversed(steps):
        for name in ALGORITHMS:
            if name == "imaml, L-BFGS" and not quick and n not in FEW_STEPS:
                continue
            yield {"algorithm": name, "sizes": changed | {"inner_steps": n}}
    for n in reversed(tasks):
        for strategy in STRATEGIES:
            sizes = changed | {"tasks": n}
            yield {"algorithm": "imaml", "strategy": strategy, "sizes": sizes}


def carry_out(order):
    """One order, inside its own process."""
    import jax

    from benchmarks import standard

    point = standard.Point().change(**order["sizes"])
    if "strategy" in order:
        program, given = standard.one_meta_step(order["algorithm"], point, order["strategy"])
    else:
        program, given = standard.one_meta_gradient(order["algorithm"], point)
    planned = program.memory_analysis()
    found = {
        "planned": planned.temp_size_in_bytes,
        "result": planned.output_size_in_bytes,
        "parameters": point.parameters,
        "measured": None,
    }
    if planned.temp_size_in_bytes <= order["most"]:
        found["measured"] = process.peak(lambda: jax.block_until_ready(program(*given)))
    return found


def measure(given, jobs, report):
    """All orders, some at a time, each with what was found."""

    def one(order):
        found = order | process.in_process("benchmarks.memory", order)
        report(found)
        return found

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(one, given))


def series(rows, axis, **wanted):
    """Sizes and rows of those that match, in order of size."""
    found = [r for r in rows if all(r.get(k) == v for k, v in wanted.items())]
    return sorted((r["sizes"][axis], r) for r in found)


def table(rows, axis, head, columns, field):
    """One line a size; two columns, planned and measured, for each of ``columns``."""
    names = [name for label, *_ in columns.values() for name in (f"{label}: planned", "measured")]
    lines = [f"| {head} | " + " | ".join(names) + " |", "| --- |" + " --- |" * len(names)]
    wanted = [_only(key, field) for key in columns]
    found = [dict(series(rows, axis, **only)) for only in wanted]
    for size in found[0]:
        cells = [_cell(by_size.get(size), kind) for by_size in found for kind in KINDS]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _only(key, field):
    return {"strategy": None, "algorithm": key} if field == "algorithm" else {field: key}


def _cell(row, kind):
    if row is None:
        return ""
    if row[kind] is None:
        return f"not run above {row['most'] / GIB:g} GiB" if row["planned"] > row["most"] else "–"
    return f"{row[kind] / MIB:,.1f}"


def ratios(rows):
    """Largest over smallest of every curve, planned and measured."""
    found = {}
    for columns, axis, field in (
        (ALGORITHMS, "inner_steps", "algorithm"),
        (STRATEGIES, "tasks", "strategy"),
    ):
        for key in columns:
            of_one = [row for _, row in series(rows, axis, **_only(key, field))]
            for kind in KINDS:
                sizes = [row[kind] for row in of_one if row[kind] is not None]
                found.setdefault(key, {})[kind] = max(sizes) / min(sizes) if sizes else math.nan
    return found


def draw(rows, about):
    """Both tables as curves: marks as measured, dashes as planned."""
    figure = plots.new_figure(11.4, 5.0)
    left, right = figure.subplots(1, 2)
    for panel, columns, axis, field in (
        (left, ALGORITHMS, "inner_steps", "algorithm"),
        (right, STRATEGIES, "tasks", "strategy"),
    ):
        for key, (label, colour, mark) in columns.items():
            found = series(rows, axis, **_only(key, field))
            x = [size for size, _ in found]
            planned = [row["planned"] / MIB for _, row in found]
            measured = [(row["measured"] or math.nan) / MIB for _, row in found]
            panel.plot(x, planned, "--", color=colour, linewidth=1.2)
            panel.plot(x, measured, mark, color=colour, markersize=6, label=label)
        panel.plot([], [], "--", color="black", linewidth=1.2, label="as XLA plans it")
        panel.set_xscale("log", base=2)
        sizes = sorted({row["sizes"][axis] for row in rows if axis in row["sizes"]})
        panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
        plots.style(panel, "memory at the peak, MiB" if panel is left else "")
        plots.logarithmic(panel)
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    left.set_xlabel("inner steps of one task's meta-gradient")
    right.set_xlabel("tasks of one meta-step of iMAML")
    figure.suptitle(about, x=0.01, ha="left", fontsize=11)
    return figure


def document(rows, found, about):
    """The tables as Markdown."""
    steps = table(rows, "inner_steps", "inner steps", ALGORITHMS, "algorithm")
    tasks = table(rows, "tasks", "tasks", STRATEGIES, "strategy")
    labels = {key: label for key, (label, *_) in (ALGORITHMS | STRATEGIES).items()}
    flat = [
        f"- {labels[key]}: {ratio['planned']:.3f} planned, {ratio['measured']:.3f} measured"
        for key, ratio in found.items()
    ]
    return "\n\n".join(
        (
            f"{about}. MiB at the peak.",
            f"One task's meta-gradient:\n\n{steps}",
            f"A meta-step of iMAML, 16 inner steps a task:\n\n{tasks}",
            "Largest over smallest of each column:\n\n" + "\n".join(flat),
        )
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="a small network at a few sizes")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes at a time")
    parser.add_argument("--most", type=float, default=8.0, help="GiB that a run may take")
    parser.add_argument("--order", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.order is not None:
        print(json.dumps(carry_out(arguments.order)))
        return
    given = [order | {"most": arguments.most * GIB} for order in orders(arguments.quick)]
    done = []

    def report(row):
        done.append(row)
        what = row.get("strategy") or row["algorithm"]
        sizes = ", ".join(f"{name} {size}" for name, size in row["sizes"].items())
        cells = ", ".join(f"{kind} {_cell(row, kind)}" for kind in KINDS)
        print(f"[{len(done)}/{len(given)}] {what}, {sizes}: {cells} MiB", flush=True)

    rows = measure(given, arguments.jobs, report)
    network = "a small fully connected network" if arguments.quick else "Conv4, 64 channels"
    about = f"5-way 1-shot, {network}, {rows[0]['parameters']:,} parameters, 5 CG steps"
    found = ratios(rows)
    text = document(rows, found, about)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "memory.md").write_text(text + "\n", encoding="utf-8")
    record = {"about": about, "ratios": found, "rows": rows, "versions": folder.versions()}
    folder.write_json(arguments.out / "memory.json", record)
    plots.save(draw(rows, f"Memory: {about}"), arguments.out / "memory.png")
    print(f"\n{text}\n")
    over = [f"{kind} {r:.3f}" for kind, r in found["imaml"].items() if r > FLAT]
    # The kernel counts pages to within some hundred KiB, which is too coarse for a small network.
    if over and not arguments.quick:
        raise SystemExit(f"iMAML's memory is not flat in inner steps: {', '.join(over)}")


if __name__ == "__main__":
    main()
