"""Time of a meta-step against tasks, ways, shots, queries, parameters, inner steps and CG steps.

    python -m benchmarks.growth [--out bench] [--quick] [--repeats 7] [--only ways shots]

One size is varied at a time about the standard point. The programs of a size are compiled first
and then run in turns, so that whatever else the machine does meets all of them alike. Beside the
slope of log time over log size stands the one that counting operations lets expect
(docs/growth.md).
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

# One thread for all arithmetic: how well a product of some size is shared by several cores is
# not what these slopes are about. Compiling still has all cores. XLA reads this when it starts.
os.environ |= {"PJRT_NPROC": "1", "NPROC": "1", "JAX_PLATFORMS": "cpu"}

import jax
import numpy as np

from benchmarks.standard import SIDE, Point, one_meta_step
from pullback.runs import folder, plots

STANDARD = Point()
SMALL = {"width": 64, "convolutions": False}
GIGA = 1e9


@dataclass(frozen=True)
class Axis:
    """One size that is varied, and why time should grow with it as it does."""

    name: str
    field: str
    sizes: tuple[int, ...]
    why: str

    def points(self, quick):
        if quick:
            small = STANDARD.change(**SMALL)
            return [small, small.change(**{self.field: self.sizes[-1]})]
        return [STANDARD.change(**{self.field: size}) for size in self.sizes]

    def of(self, point):
        return getattr(point, self.name if self.name == "parameters" else self.field)


AXES = (
    Axis("tasks", "tasks", (1, 2, 4, 8, 16), "proportional: one after the other, all alike"),
    Axis(
        "ways",
        "ways",
        (2, 5, 10, 20),
        "proportional: support and query examples both, but for work on the parameters alone",
    ),
    Axis("shots", "shots", (1, 2, 5, 10), "a + b·n: all but the outer gradient is on the support"),
    Axis("queries", "queries", (1, 2, 5, 10, 15), "a + b·n: the outer gradient alone, and little"),
    Axis(
        "parameters",
        "width",
        (16, 32, 64, 128),
        "products are proportional; normalisation and activations grow with the root",
    ),
    Axis("inner steps", "inner_steps", (4, 8, 16, 32, 64), "a + b·n: a gradient each"),
    Axis("CG steps", "linear_steps", (1, 2, 5, 10, 16), "a + b·n: a Hessian-vector product each"),
)


def counted(point):
    """Operations of all matrix products in one meta-step, by what they are for.

    A gradient is three forward passes, a product with a linearised Hessian two gradients.
    """
    support, query = point.ways * point.shots, point.ways * point.queries
    one = 3 * _forward(point) * point.tasks
    return {
        "inner steps": one * support * point.inner_steps,
        "CG": 2 * one * support * point.linear_steps,
        "outer gradient": one * query,
        "linearisation": one * support,
        # A product elsewhere than at φ, and the outer gradient at two points, by about as many
        # query examples as there are support examples.
        "certificate": one * (3 * support + 2 * min(support, query)),
    }


def _forward(point):
    """Operations of one example's way through all layers."""
    width, side, channels, total = point.width, SIDE, 1, 0
    if not point.convolutions:
        return 2 * width * (SIDE * SIDE + point.ways)
    for _ in range(4):
        side, total = (side + 1) // 2, total + 2 * ((side + 1) // 2) ** 2 * 9 * channels * width
        channels = width
    return total + 2 * side * side * width * point.ways


def operations(point):
    return sum(counted(point).values())


def slope(sizes, values):
    """The exponent of the power law that fits all sizes best."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def local_slope(axis, point):
    """The exponent of the counted operations at one point: the share that grows with the size."""
    near = [
        point.change(**{axis.field: getattr(point, axis.field) * part}) for part in (0.999, 1.001)
    ]
    grown = slope((0.999, 1.001), [operations(p) for p in near])
    if axis.name != "parameters":
        return grown
    widths = point.width // 2, point.width * 2
    return grown / slope(widths, [point.change(width=width).parameters for width in widths])


def compiled(point, report):
    """A program, what it is called with, and its first run, which must have been a fair one."""
    began = time.perf_counter()
    program, given = one_meta_step("imaml", point)
    _, _, values, infos = jax.block_until_ready(program(*given))
    if not np.all(np.isfinite(values)):
        raise SystemExit(f"{point}: the losses are {values}")
    # A small network's system may be solved before its steps are spent.
    if point.convolutions and np.any(infos.linear_steps != point.linear_steps):
        raise SystemExit(f"{point}: CG ended after {infos.linear_steps} steps")
    report(f"compiled in {time.perf_counter() - began:.0f} s: {describe(point)}")
    return program, given


def time_all(programs, repeats):
    """Wall and processor seconds of every program, a run of each in turn."""
    seconds = {point: [] for point in programs}
    for _ in range(repeats):
        for point, (program, given) in programs.items():
            began = time.perf_counter(), time.process_time()
            jax.block_until_ready(program(*given))
            spent = time.perf_counter() - began[0], time.process_time() - began[1]
            seconds[point].append(spent)
    return seconds


def describe(point):
    changed = {axis.name: axis.of(point) for axis in AXES}
    return ", ".join(f"{size:,} {name}" for name, size in changed.items())


def summarise(axis, points, seconds):
    """One axis: its curve, and the slopes measured and expected."""
    sizes = [axis.of(point) for point in points]
    wall, processor = (
        [statistics.median(pair[k] for pair in seconds[point]) for point in points] for k in (0, 1)
    )
    count = [operations(point) for point in points]
    middle = STANDARD if points[0].convolutions else STANDARD.change(**SMALL)
    return {
        "name": axis.name,
        "why": axis.why,
        "sizes": sizes,
        "standard": axis.of(middle),
        "seconds": wall,
        "processor_seconds": processor,
        "least": [min(pair[0] for pair in seconds[point]) for point in points],
        "operations": count,
        "slope": slope(sizes, wall),
        "processor_slope": slope(sizes, processor),
        "expected": slope(sizes, count),
        "share": local_slope(axis, middle),
    }


def tables(lines):
    """The slopes, and every point, as Markdown."""
    head = "what grows | sizes | ms, least to most | slope | expected | at the standard point | why"
    rows = [f"| {head} |", "| --- |" + " --- |" * 6]
    for line in lines:
        sizes, ms = line["sizes"], [1e3 * s for s in line["seconds"]]
        rows.append(
            f"| {line['name']} | {sizes[0]:,} to {sizes[-1]:,} | {ms[0]:,.0f} to {ms[-1]:,.0f} | "
            f"{line['slope']:.2f} | {line['expected']:.2f} | {line['share']:.2f} | {line['why']} |"
        )
    head = "what grows | size | ms per meta-step | of the processor | 10⁹ operations | 10⁹ a second"
    points = [f"| {head} |", "| --- |" + " --- |" * 5]
    for line in lines:
        columns = (line["sizes"], line["seconds"], line["processor_seconds"], line["operations"])
        for size, wall, processor, count in zip(*columns, strict=True):
            rate = count / wall / GIGA
            points.append(
                f"| {line['name']} | {size:,} | {1e3 * wall:,.0f} | {1e3 * processor:,.0f} | "
                f"{count / GIGA:,.1f} | {rate:,.1f} |"
            )
    return "\n".join(rows) + "\n\n" + "\n".join(points)


def draw(lines, about):
    """One panel a size: marks as measured, dashes as counted, through the standard point."""
    columns = 4
    figure = plots.new_figure(12.6, 6.6)
    panels = list(figure.subplots(2, columns, sharey=True).flat)
    for panel, line in zip(panels, lines, strict=False):
        sizes, count = np.asarray(line["sizes"]), np.asarray(line["operations"], float)
        ms = 1e3 * np.asarray(line["seconds"])
        at = int(np.argmin(np.abs(np.log(sizes / line["standard"]))))
        panel.plot(sizes, count * ms[at] / count[at], "--", color="black", linewidth=1.2)
        panel.plot(sizes, ms, "-o", color=plots.BLUE, linewidth=1.6, markersize=5)
        panel.plot(sizes[at], ms[at], "o", color=plots.ORANGE, markersize=8, zorder=4)
        panel.set_xscale("log")
        panel.set_xticks(sizes, [_short(size) for size in sizes])
        panel.minorticks_off()
        panel.set_xlabel(line["name"])
        panel.set_title(
            f"slope {line['slope']:.2f}, expected {line['expected']:.2f}", fontsize=10, loc="left"
        )
        plots.style(panel, "ms per meta-step" if panel.get_subplotspec().is_first_col() else "")
        plots.logarithmic(panel)
    for panel in panels[len(lines) :]:
        panel.set_axis_off()
    last = panels[-1]
    last.plot([], [], "-o", color=plots.BLUE, label="measured, median")
    last.plot([], [], "--", color="black", label="as operations are counted")
    last.plot([], [], "o", color=plots.ORANGE, markersize=8, label="the standard point")
    last.legend(frameon=False, loc="center left", fontsize=10)
    figure.suptitle(about, x=0.01, ha="left", fontsize=11)
    return figure


def _short(size):
    return f"{size:g}" if size < 10_000 else f"{size / 1000:.0f}k"


def main():
    names = [axis.name for axis in AXES]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for the results")
    parser.add_argument("--quick", action="store_true", help="a small network at two sizes each")
    parser.add_argument("--repeats", type=int, default=7, help="timed runs of each program")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    arguments = parser.parse_args()

    def report(line):
        print(line, flush=True)

    # A smoke run is all compiling.
    jax.config.update("jax_disable_most_optimizations", arguments.quick)
    middle = STANDARD.change(**SMALL) if arguments.quick else STANDARD
    standard, lines = compiled(middle, report), []
    # Two dozen programs at once would exhaust the memory mappings of a process.
    for axis in (axis for axis in AXES if axis.name in arguments.only):
        points = axis.points(arguments.quick)
        programs = {p: standard if p == middle else compiled(p, report) for p in points}
        lines.append(summarise(axis, points, time_all(programs, arguments.repeats)))
        report(f"{axis.name}: slope {lines[-1]['slope']:.2f}")
    network = "a small fully connected network" if arguments.quick else "Conv4"
    about = f"iMAML, {network}, {describe(middle)}; one thread, {arguments.repeats} repeats"
    shares = {name: part / operations(middle) for name, part in counted(middle).items()}
    parts = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    text = f"{about}.\n\nOperations at the standard point: {parts}.\n\n{tables(lines)}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "growth.md").write_text(text + "\n", encoding="utf-8")
    record = {"about": about, "shares": shares, "axes": lines, "versions": folder.versions()}
    folder.write_json(arguments.out / "growth.json", record)
    figure = draw(lines, f"Time of a meta-step about one point:\n{about}")
    plots.save(figure, arguments.out / "growth.png")
    print(f"\n{text}")


if __name__ == "__main__":
    main()
