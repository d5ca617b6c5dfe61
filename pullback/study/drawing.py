"""The pictures of the study, in the look of :mod:`pullback.runs.plots`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from pullback.core.problem import Proximal
from pullback.runs.plots import (
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    YELLOW,
    new_figure,
    style,
)
from pullback.study import wells
from pullback.study.parts import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# One hue from light to dark, so that more CG steps read as more, to any eye and in print.
SHADES = ("#9ECAE9", "#5BA3D0", BLUE, "#00395A")
MARKS = ("v", "s", "o", "D")
OPTIMA = (PURPLE, GREEN, SKY, YELLOW, GREY)
SPREAD_ALPHA = 0.18


def tradeoff(result: Result) -> "Figure":
    """Error of the meta-gradient against inner steps, computation and CG steps."""
    figure = new_figure(12.6, 4.6)
    left, middle, right = figure.subplots(1, 3, sharey=True)
    dark = iter(zip(SHADES[-_implicit_curves(result) :], MARKS, strict=False))
    for curve in result["curves"]:
        name = curve["algorithm"]
        label, colour, mark = name.upper(), COLOURS[name], "^" if name == "maml" else "x"
        if name == "imaml":
            label = f"iMAML, {curve['linear_steps']} CG steps"
            colour, mark = next(dark)
        for panel, x in ((left, curve["inner_steps"]), (middle, curve["cost"])):
            _spread(panel, x, curve["error"], colour, label, mark)
    left.set_xlabel("steps of inner gradient descent")
    middle.set_xlabel("computation, in gradients (a Hessian product counts 2)")
    for panel in (left, middle):
        panel.set_xscale("log", base=2)
        _plain_counts(panel)
    left.legend(frameon=False, loc="lower left", fontsize=9)
    for line, colour, mark in zip(result["solve"], (BLUE, ORANGE), ("o", "^"), strict=True):
        solved = line["inner_steps"] is None
        where = "inner problem solved" if solved else f"after {line['inner_steps']} inner steps"
        x = line["linear_steps"]
        _spread(right, x, line["error"], colour, f"true error, {where}", mark)
        estimate = line["estimate"]["median"]
        right.plot(x, estimate, "--", color="black", linewidth=1.2, zorder=4)
    right.plot([], [], "--", color="black", linewidth=1.2, label="the certificate's estimate")
    right.set_xlabel("CG steps")
    right.legend(frameon=False, loc="best", fontsize=9)
    for panel in (left, middle, right):
        panel.set_yscale("log")
        style(panel, "relative error of the meta-gradient" if panel is left else "", legend=False)
    given = result["settings"]
    _title(
        figure,
        f"Meta-gradients against the exact one: least squares, {given['size']} parameters, "
        f"λ = {given['strength']:g}, condition number {result['condition_number']:.0f}; "
        f"median and quartiles of {given['tasks']} tasks",
    )
    return figure


def memory(result: Result) -> "Figure":
    """Temporary memory of a meta-gradient against inner steps."""
    figure = new_figure(7.2, 4.8)
    panel = figure.subplots()
    looks = {
        "imaml": ("iMAML", BLUE, "o", "-"),
        "maml": ("MAML", COLOURS["maml"], "^", "-"),
        "maml, checkpointed": ("MAML, √T checkpoints", PURPLE, "s", "-"),
        "fomaml": ("FOMAML", COLOURS["fomaml"], "x", "--"),
    }
    for curve in result["curves"]:
        label, colour, mark, dashes = looks[curve["algorithm"]]
        known = [
            (steps, size / 1024)
            for steps, size in zip(curve["inner_steps"], curve["bytes"], strict=True)
            if size is not None
        ]
        panel.plot(
            [steps for steps, _ in known],
            [size for _, size in known],
            dashes,
            color=colour,
            marker=mark,
            markersize=5,
            linewidth=1.6,
            label=label,
        )
    weights = result["parameter_bytes"] / 1024
    panel.axhline(weights, color=GREY, linewidth=1.0, linestyle=":", label="the parameters alone")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    _plain_counts(panel)
    _plain_counts(panel, "y")
    style(panel, "temporary memory, KiB (as XLA plans it)")
    panel.set_xlabel("inner steps")
    given = result["settings"]
    shape = "-".join(map(str, (1, *given["hidden"], 1)))
    _title(
        figure,
        f"Memory of one meta-gradient: sinusoid, network {shape}, {given['shots']} points, "
        f"{given['linear_steps']} CG steps",
    )
    return figure


def noise(result: Result) -> "Figure":
    """Optima reached by noisy descents, and three gradients of the expected outer loss."""
    figure = new_figure(11.0, 8.4)
    (wave, shares), (by_theta, by_steps) = figure.subplots(2, 2)
    main, given = result["main"], result["settings"]
    _wells(wave, main, given)
    _shares(shares, result)
    _gradients(by_theta, result["by_theta"], "theta")
    by_theta.axvline(main["theta"], color=GREY, linewidth=0.8, linestyle=":")
    by_theta.set_xlabel("θ")
    by_theta.set_title(f"gradient of the expected outer loss, {main['steps']} noisy steps", **SMALL)
    _gradients(by_steps, result["by_steps"], "steps")
    by_steps.set_xscale("log", base=2)
    by_steps.set_xticks([line["steps"] for line in result["by_steps"]])
    by_steps.minorticks_off()
    _plain_counts(by_steps)
    by_steps.set_xlabel("noisy steps")
    by_steps.set_title(f"the same at θ = {main['theta']:g}", **SMALL)
    by_steps.legend(frameon=False, loc="best", fontsize=9)
    _title(
        figure,
        f"SGD on an inner loss with several optima, {given['runs']} runs at every setting; "
        "bars and bands are 95 % intervals",
    )
    return figure


SMALL: dict[str, Any] = {"fontsize": 10, "loc": "left"}


def _wells(panel: "Axes", main: Result, given: Result) -> None:
    support = wells.Batch(**given["support"])
    theta = jnp.asarray(main["theta"])
    problem = Proximal(wells.loss, given["strength"]).problem(theta, support)
    query = wells.Batch(**given["query"])
    phis = [line["phi"] for line in main["optima"]]
    x = np.linspace(min(phis) - 0.4, max(phis) + 0.4, 400)
    values = jax.vmap(lambda phi: jnp.stack([problem.value(phi), wells.loss(phi, query)]))(x)
    inner, outer = np.asarray(values).T
    panel.plot(x, inner, color="black", linewidth=1.6, label="inner objective")
    panel.plot(x, outer, "--", color=GREY, linewidth=1.2, label="outer loss")
    heights = np.interp(phis, x, inner)
    for line, height, colour in zip(main["optima"], heights, _optima(main), strict=False):
        panel.plot(line["phi"], height, "o", color=colour, markersize=9, zorder=4)
        share = line["share"]["mean"]
        panel.annotate(
            f"{100 * share:.1f} %",
            (line["phi"], height),
            xytext=(0, -17),
            textcoords="offset points",
            ha="center",
            color=colour,
            fontweight="bold",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )
    panel.axvline(main["theta"], color=GREY, linewidth=0.8, linestyle=":")
    low, high = float(inner.min()), float(max(inner.max(), heights.max()))
    panel.set_ylim(low - 0.22 * (high - low), high + 0.1 * (high - low))
    style(panel, "loss", legend=False)
    panel.legend(frameon=False, loc="upper right", fontsize=9)
    panel.set_xlabel("φ")
    panel.set_title(f"optima reached from θ = {main['theta']:g}", **SMALL)


def _shares(panel: "Axes", result: Result) -> None:
    # An optimum is a well of its own wherever θ is, and wells are one apart.
    found: dict[int, list[tuple[float, float]]] = {}
    for line in result["by_theta"]:
        for optimum in line["optima"]:
            well = round(optimum["phi"])
            found.setdefault(well, []).append((line["theta"], optimum["share"]["mean"]))
    main = result["main"]
    colours = dict(zip((round(o["phi"]) for o in main["optima"]), _optima(main), strict=False))
    for well, points in sorted(found.items()):
        theta, share = zip(*points, strict=True)
        if max(share) < 0.01:
            continue
        panel.plot(
            theta,
            100 * np.asarray(share),
            color=colours.get(well, GREY),
            linewidth=1.8,
            label=f"optimum near φ = {well}".replace("-", "−"),
        )
    panel.axvline(main["theta"], color=GREY, linewidth=0.8, linestyle=":")
    style(panel, "share of runs, %", legend=False)
    # Room above the curves for the legend.
    panel.set_ylim(0, 1.3 * panel.get_ylim()[1])
    panel.legend(frameon=False, loc="upper center", ncols=2, fontsize=9)
    panel.set_xlabel("θ")
    panel.set_title("where runs end, by θ", **SMALL)


def _gradients(panel: "Axes", lines: Sequence[Result], against: str) -> None:
    x = np.asarray([line[against] for line in lines], float)
    # Each estimate beside the finite differences of what it estimates: the implicit gradient is
    # one at the optima, the unrolled one where the noisy steps stopped.
    looks = (
        ("difference", "finite differences, at the optima", "black", "s"),
        ("implicit", "implicit, averaged over runs", BLUE, "o"),
        ("difference_raw", "finite differences, before polishing", GREY, "D"),
        ("unrolled", "unrolled, averaged over runs", ORANGE, "^"),
    )
    # Side by side on the axis of steps, where they would hide one another.
    shift = {"difference": 0.94, "difference_raw": 1.0, "unrolled": 1.06, "implicit": 1.0}
    for name, label, colour, mark in looks:
        mean = np.asarray([line[name]["mean"] for line in lines])
        half = np.asarray([line[name]["interval"] for line in lines])
        if against == "theta":
            panel.plot(x, mean, color=colour, linewidth=1.6, marker=mark, markersize=3)
            panel.fill_between(x, mean - half, mean + half, color=colour, alpha=0.2, linewidth=0)
        else:
            panel.errorbar(
                x * shift[name],
                mean,
                half,
                color=colour,
                linewidth=1.2,
                marker=mark,
                markersize=5,
                capsize=3,
                label=label,
            )
    panel.axhline(0, color=GREY, linewidth=0.8)
    style(panel, "gradient by θ", legend=False)


def _optima(main: Result) -> list[str]:
    """Colours by how many runs end in an optimum, so that the common ones have the clearest."""
    order = np.argsort([-line["share"]["mean"] for line in main["optima"]], kind="stable")
    colours = [""] * len(order)
    for rank, k in enumerate(order):
        colours[int(k)] = OPTIMA[min(rank, len(OPTIMA) - 1)]
    return colours


def _implicit_curves(result: Result) -> int:
    return sum(curve["algorithm"] == "imaml" for curve in result["curves"])


def _spread(
    panel: "Axes", x: Sequence[float], error: Result, colour: str, label: str, mark: str
) -> None:
    panel.plot(
        x, error["median"], color=colour, marker=mark, markersize=4.5, linewidth=1.6, label=label
    )
    panel.fill_between(
        x, error["low"], error["high"], color=colour, alpha=SPREAD_ALPHA, linewidth=0
    )


def _plain_counts(panel: "Axes", axis: str = "x") -> None:
    from matplotlib.ticker import FuncFormatter

    which = panel.xaxis if axis == "x" else panel.yaxis
    which.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _title(figure: "Figure", text: str) -> None:
    figure.suptitle(text, x=0.01, ha="left", fontsize=11)
