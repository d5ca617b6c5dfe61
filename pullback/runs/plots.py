"""Pictures of runs, drawn without a display and without Matplotlib's global state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pullback.core.scores import Score
from pullback.runs.config import describe_strength
from pullback.runs.folder import Run, write_with
from pullback.runs.formatting import task_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pullback.runs.fitting import Curve

# Okabe and Ito's palette, which people with any kind of colour vision can tell apart.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
GREY, SKY, YELLOW = "#6B6B6B", "#56B4E9", "#E69F00"
COLOURS = {"imaml": BLUE, "maml": ORANGE, "fomaml": YELLOW, "reptile": GREEN}
"""The colour of each algorithm, the same in every picture."""
_SPARE = (PURPLE, SKY, GREY)
NINETY = 1.6448536
"""Standard deviations that an interval of 90 % reaches to either side."""


@dataclass(frozen=True)
class Fit:
    """One algorithm's fit of a curve.

    Args:
        name: the algorithm.
        y: the fitted curve.
    """

    name: str
    y: np.ndarray


def draw_run(run: Run, score: Score) -> Path:
    """Draw a run's loss, validation and residuals into its ``plot.png``.

    Args:
        run: the run; its metrics so far are drawn.
        score: what the validations are of.

    Returns:
        The file written.

    Raises:
        StorageError: if the disk refuses it.
    """
    steps, validations = run.metrics("step"), run.metrics("validation")
    certified = any(line.get("inner_error") is not None for line in steps)
    figure = new_figure(7.2, 10.4 if certified else 8.0)
    above, middle, below, *last = figure.subplots(4 if certified else 3, 1, sharex=True)
    _line(above, steps, "loss", GREY, "query loss in meta-training")
    style(above, "loss")
    if not score.percent:
        logarithmic(above)
    _band(middle, validations, "step", BLUE, "validation, mean with 95 % interval", score)
    style(middle, score.axis)
    if not score.percent:
        logarithmic(middle)
    _line(below, steps, "inner_residual", ORANGE, "inner problem")
    _line(below, steps, "linear_residual", GREEN, "linear solve")
    if any(line.get_ydata().size for line in below.get_lines()):  # pyright: ignore
        logarithmic(below)
    style(below, "relative residual")
    for axes in last:
        _line(axes, steps, "inner_error", ORANGE, "by the inner solution")
        _line(axes, steps, "linear_error", GREEN, "by the linear solve")
        logarithmic(axes)
        style(axes, "meta-gradient's error")
    (last or [below])[0].set_xlabel("meta-step")
    figure.suptitle(_title(run), x=0.01, ha="left", fontsize=11)
    return save(figure, run.plot)


def draw_comparison(runs: Mapping[str, Run], score: Score, path: Path, subtitle: str) -> Path:
    """Draw the validation curves of several runs against meta-steps and against seconds.

    Args:
        runs: runs by the name of their algorithm.
        score: what the validations are of.
        path: the file to write.
        subtitle: what was compared.

    Returns:
        The file written.

    Raises:
        StorageError: if the disk refuses it.
    """
    figure = new_figure(10.0, 4.4)
    axes = figure.subplots(1, 2, sharey=True)
    for (name, run), spare in zip(runs.items(), _spares(len(runs)), strict=True):
        for panel, against in zip(axes, ("step", "seconds"), strict=True):
            lines = run.metrics("validation")
            _band(panel, lines, against, COLOURS.get(name, spare), name, score)
    names = ("meta-step", "seconds of training, compilation left out")
    for panel, text in zip(axes, names, strict=True):
        style(panel, score.axis if panel is axes[0] else "", legend=False)
        panel.set_xlabel(text)
        if not score.percent:
            logarithmic(panel)
    axes[0].legend(frameon=False, loc="best")
    figure.suptitle(f"Validation {score.name}: {subtitle}", x=0.01, ha="left", fontsize=11)
    return save(figure, path)


def draw_adaptation(
    x: np.ndarray,
    truth: np.ndarray,
    support: tuple[np.ndarray, np.ndarray],
    fits: Sequence[Fit],
    path: Path,
) -> Path:
    """Draw one new task of a curve, its support points, and what each algorithm makes of them.

    Args:
        x: where the curves are drawn.
        truth: the curve.
        support: the points adapted to.
        fits: the adapted curves.
        path: the file to write.

    Returns:
        The file written.

    Raises:
        StorageError: if the disk refuses it.
    """
    figure = new_figure(7.2, 4.4)
    panel = figure.subplots()
    panel.plot(x, truth, color="#B0B0B0", linewidth=4, label="the task", zorder=1)
    for fit, spare in zip(fits, _spares(len(fits)), strict=True):
        colour = COLOURS.get(fit.name, spare)
        dashes = "-" if fit.name in COLOURS else "--"
        panel.plot(x, fit.y, dashes, color=colour, linewidth=1.6, label=fit.name, zorder=2)
    panel.plot(*support, "o", color="black", markersize=6, label="support points", zorder=3)
    style(panel, "y", legend=False)
    panel.set_xlabel("x")
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    title = f"One new task, adapted to from {len(support[0])} points"
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return save(figure, path)


def draw_groups(curves: "Sequence[Curve]", path: Path, title: str, axes: tuple[str, str]) -> Path:
    """Draw groups before and after they are adapted to, with intervals of 90 %.

    Args:
        curves: one for each group.
        path: the file to write.
        title: what they are.
        axes: what the horizontal and the vertical one are of.

    Returns:
        The file written.

    Raises:
        StorageError: if the disk refuses it.
    """
    across = min(3, len(curves))
    down = -(-len(curves) // across)
    figure = new_figure(1.2 + 3.1 * across, 1.0 + 2.5 * down)
    panels = figure.subplots(down, across, sharey=True, squeeze=False).ravel()
    for panel, curve in zip(panels, curves, strict=False):
        order = np.argsort(curve.x, kind="stable")
        x = curve.x[order]
        for colour, predicted, label in (
            (GREY, curve.before[order], "before: the population"),
            (BLUE, curve.after[order], f"after {curve.seen} rows"),
        ):
            mean, reach = predicted[:, 0], NINETY * predicted[:, 1]
            panel.plot(x, mean, color=colour, linewidth=1.6, label=label)
            panel.fill_between(x, mean - reach, mean + reach, color=colour, alpha=0.18, linewidth=0)
        seen, rest = slice(None, curve.seen), slice(curve.seen, None)
        panel.plot(curve.x[rest], curve.y[rest], "o", color=ORANGE, markersize=3.5, label="to come")
        panel.plot(curve.x[seen], curve.y[seen], "o", color="black", markersize=5, label="seen")
        style(panel, "", legend=False)
        name = curve.name if len(curve.name) <= 30 else f"{curve.name[:29]}…"
        panel.set_title(name, fontsize=9, parse_math=False)
        for label in panel.get_xticklabels():
            label.set_rotation(30 if x.dtype.kind == "M" else 0)
    for panel in panels[len(curves) :]:
        panel.set_visible(False)
    for number, panel in enumerate(panels[: len(curves)]):
        if number % across == 0:
            panel.set_ylabel(axes[1], parse_math=False)
        # The lowest of its column.
        if number + across >= len(curves):
            panel.set_xlabel(axes[0], parse_math=False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return save(figure, path)


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure as PNG, as a whole or not at all.

    Raises:
        StorageError: if the disk refuses it.
    """
    write_with(path, lambda temporary: figure.savefig(temporary, dpi=144, format="png"))
    return path


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of that many inches, which no window will ever show."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _line(
    panel: "Axes", lines: Sequence[Mapping[str, Any]], name: str, colour: str, label: str
) -> None:
    found = [line for line in lines if name in line]
    x = np.asarray([line["step"] for line in found])
    y = np.asarray([line[name] for line in found])
    if not y.size:
        return
    window = max(1, len(y) // 50)
    if window > 1:
        panel.plot(x, y, color=colour, linewidth=0.6, alpha=0.3)
        # Means over a window, with its end as place, so that no step is drawn before its time.
        cut = len(y) // window * window
        x = x[:cut].reshape(-1, window)[:, -1]
        y = y[:cut].reshape(-1, window).mean(1)
    panel.plot(x, y, color=colour, linewidth=1.6, label=label)


def _band(
    panel: "Axes",
    lines: Sequence[Mapping[str, Any]],
    against: str,
    colour: str,
    label: str,
    score: Score,
) -> None:
    found = [line for line in lines if "mean" in line]
    scale = score.scale
    x = np.asarray([line[against] for line in found], float)
    if against == "seconds":
        x -= [line["compilation"] for line in found]
    mean = scale * np.asarray([line["mean"] for line in found])
    half = scale * np.asarray([line.get("interval", 0.0) for line in found])
    few = len(found) <= 25
    panel.plot(
        x, mean, color=colour, linewidth=1.6, label=label, marker="o" if few else "", markersize=3
    )
    panel.fill_between(x, mean - half, mean + half, color=colour, alpha=0.18, linewidth=0)


def style(panel: "Axes", name: str, legend: bool = True) -> None:
    """The look that all panels share; ``name`` is that of the vertical axis."""
    panel.set_ylabel(name)
    panel.grid(True, color="#E6E6E6", linewidth=0.7)
    panel.set_axisbelow(True)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    if legend and panel.get_legend_handles_labels()[0]:
        panel.legend(frameon=False, loc="best")


def logarithmic(panel: "Axes") -> None:
    """A logarithmic vertical axis with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    panel.set_yscale("log")
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.yaxis.set_minor_formatter(NullFormatter())


def _spares(count: int) -> list[str]:
    return [_SPARE[i % len(_SPARE)] for i in range(count)]


def _title(run: Run) -> str:
    data, algorithm = run.config.data, run.config.algorithm
    task = task_text(data.ways, data.shots)
    text = f"{algorithm.name} on {data.dataset}{', ' if task else ''}{task}"
    return text + (f", {describe_strength(run.config)}" if algorithm.strength else "")
