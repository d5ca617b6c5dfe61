"""Runs: the trainings in a folder, side by side, while they train."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import LogTicker, PrintfTickFormatter, Range1d

from pullback.lab import common
from pullback.lab.common import CYCLE, Line, Lines, failure, number
from pullback.lab.room import Room
from pullback.lab.run_summaries import RunSummary, differing_settings, read_runs
from pullback.lab.session import Session
from pullback.lab.visibility import VisibilityObserver
from pullback.runs.formatting import command

POLL_MILLISECONDS = 2000
DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot", "solid")
SHOWN_AT_FIRST = len(CYCLE)
"""Runs that are chosen at first; each has a colour of its own."""

LEAD = r"""
What `pullback train` writes into a run's folder, run beside run. The first curve is the outer
loss: the *query* loss after adaptation, which is what meta-training lowers. Validation scores the
same on classes that meta-training never sees. The inner residual
$\|\nabla L(\phi) + \Lambda(\phi-\theta)\| \,/\, \|\nabla L(\phi)\|$ says how far the inner
solver stopped from $\phi^*$, and *doubtful* are the tasks whose meta-gradient has a
bad verdict. While a run trains, its curves grow here.
"""

NOTES = """
Compare by seconds as well as by meta-steps: an algorithm that needs fewer steps may need more time
for each. Seconds are those of training, with compilation and validation left out.
"""

CODE = """
import tempfile
from pathlib import Path
from pullback.lab.run_summaries import differing_settings, read_runs

folder = Path(tempfile.mkdtemp())  # or the folder of your runs
runs = read_runs(folder)
different = differing_settings(runs)
"""

NO_FOLDER = """
The lab was not given a folder of runs. Train some, for instance

    pullback compare --dataset sinusoid --steps 400 --out runs

and start the lab again with `pullback lab --run runs`; it may be started first.
"""

FIGURES = (
    ("loss", "query loss in meta-training", "log"),
    ("validation", "validation", "linear"),
    ("inner_residual", "inner residual", "log"),
    ("linear_residual", "residual of the linear solve", "log"),
    ("flagged", "doubtful meta-gradients, %", "linear"),
    ("tasks_per_second", "tasks a second", "linear"),
)

FROM_ZERO = ("flagged", "tasks_per_second")

Styles = dict[str, tuple[str, str]]
"""The colour and the dash of each run that is drawn, by its name."""


def build(session: Session) -> Any:
    """The room for one visitor."""
    if session.run is None:
        return common.text(NO_FOLDER)
    return _View(session, session.run).view


class _View:
    def __init__(self, session: Session, folder: Path):
        self.session, self.folder = session, folder
        self.runs: tuple[RunSummary, ...] = ()
        self.shown_state: tuple[Any, ...] = ()
        self.offered: list[str] = []
        self.against = pn.widgets.RadioButtonGroup(
            label="Against", options={"meta-steps": 0, "seconds": 1}, value=0, width=220
        )
        self.choice = pn.widgets.CheckBoxGroup(label="Runs", options=[], inline=True)
        self.head = common.html(f"<p>Reading {escape(str(folder))} …</p>")
        self.table, self.different = common.html(), common.html()
        self.plots, self.lines, self.ends = {}, {}, {}
        for name, title, scale in FIGURES:
            self.plots[name] = self._figure(name, title, scale)
        self.against.param.watch(lambda _: self._draw(), "value")
        self.choice.param.watch(lambda _: self._draw(), "value")
        grid = pn.FlexBox(
            *(
                pn.Column(plot, styles={"flex": "1 1 330px", "min-width": "0"}, margin=0)
                for plot in self.plots.values()
            ),
            gap="20px",
            sizing_mode="stretch_width",
            margin=0,
        )
        self.parts = pn.Column(
            self.choice, self.table, self.against, grid, self.different, margin=0, visible=False
        )
        observer = VisibilityObserver()
        observer.param.watch(self._visibility_changed, "in_view")
        self.view = pn.Column(
            observer, self.head, self.parts, sizing_mode="stretch_width", margin=0
        )
        self._stop_polling = lambda: None
        self._update = session.updater(read_runs, self._show, self._failed)
        self._update(folder)

    def _figure(self, name: str, title: str, scale: str) -> Any:
        plot = common.figure(
            height=260,
            label=f"{title} of the chosen runs",
            y_axis_type=scale,
            y_axis_label=title,
            x_axis_label="meta-step",
            x_range=Range1d(start=0, end=1),
            y_range=Range1d(start=0.1, end=1),
        )
        if scale == "log":
            plot.yaxis[0].ticker = LogTicker(mantissas=[1, 2, 5], desired_num_ticks=4)
            plot.yaxis[0].formatter = PrintfTickFormatter(format="%g")
        self.lines[name] = Lines(plot, name=f"runs-{name}")
        self.ends[name] = common.empty_source("x", "y", "colour")
        plot.scatter("x", "y", source=self.ends[name], color="colour", size=5)
        return plot

    def _visibility_changed(self, event: Any) -> None:
        """Follow the folder only while the visitor sees the room."""
        self._stop_polling()
        self._stop_polling = lambda: None
        if event.new:
            self._poll()
            self._stop_polling = self.session.every(POLL_MILLISECONDS, self._poll)

    def _poll(self) -> None:
        self._update(self.folder, self.runs)

    def _failed(self, error: Exception) -> None:
        self.shown_state = ()
        why = str(getattr(error, "strerror", None) or error)
        self.head.object = failure(f"{self.folder} cannot be read.", why)

    def _show(self, runs: tuple[RunSummary, ...]) -> None:
        self.runs = runs
        # Nothing is sent while nothing changes; that a run has stopped is a change too.
        state = tuple((run.signature, run.state()) for run in runs)
        if state == self.shown_state and runs:
            return
        self.shown_state = state
        self.head.object = headline(self.folder, runs)
        self.parts.visible = bool(runs)
        names = [run.name for run in runs if not run.error]
        if names != self.offered:
            new = [name for name in names if name not in self.offered]
            kept = [name for name in self.choice.value if name in names]
            chosen = kept + new[: max(0, SHOWN_AT_FIRST - len(kept))]
            self.offered = names
            self.choice.param.update(options=names, value=[n for n in names if n in chosen])
        self._draw()

    def _draw(self) -> None:
        chosen = [run for run in self.runs if not run.error and run.name in self.choice.value]
        styles = {run.name: line_style(i) for i, run in enumerate(chosen)}
        for name, _, _ in FIGURES:
            self._draw_figure(name, chosen, styles)
        scores = sorted({run.score for run in chosen})
        percent = ", %" if scores == ["accuracy"] else ""
        axis = self.plots["validation"].yaxis[0]
        axis.axis_label = f"validation {' and '.join(scores)}{percent}"
        self.table.object = overview(self.runs, styles)
        self.different.object = settings_table(chosen)

    def _draw_figure(self, name: str, chosen: Sequence[RunSummary], styles: Styles) -> None:
        lines = []
        logarithmic = self.plots[name].y_scale.__class__.__name__ == "LogScale"
        for run in chosen:
            curve = run.curves.get(name)
            if curve is None:
                continue
            x, y = curve[self.against.value], curve[2]
            if name == "flagged" or (name == "validation" and run.score == "accuracy"):
                y = 100.0 * y
            if logarithmic:
                x, y = x[y > 0], y[y > 0]
            if not len(x):
                continue
            lines.append(Line(np.stack([x, y], axis=1), *styles[run.name], width=1.8))
        plot = self.plots[name]
        plot.xaxis[0].axis_label = ("meta-step", "seconds of training")[self.against.value]
        every = [float(y) for line in lines for y in line.points[:, 1]]
        low, high = axis_limits(every, logarithmic, floor=0.0 if name in FROM_ZERO else None)
        plot.y_range.update(start=low, end=high)
        last = max((float(line.points[:, 0].max()) for line in lines), default=1.0)
        plot.x_range.update(start=-0.02 * last, end=1.03 * last or 1.0)
        self.lines[name].show(lines)
        self.ends[name].data = {
            "x": [float(line.points[-1, 0]) for line in lines],
            "y": [float(line.points[-1, 1]) for line in lines],
            "colour": [line.colour for line in lines],
        }


def line_style(place: int) -> tuple[str, str]:
    """The colour and the dash of a run; a colour that comes again has another dash."""
    count = len(CYCLE)
    return CYCLE[place % count], DASHES[(place + place // count) % len(DASHES)]


def axis_limits(
    values: Sequence[float], logarithmic: bool, floor: float | None = None
) -> tuple[float, float]:
    """The ends of an axis that shows all values, with some room about them.

    Args:
        values: finite; positive if the axis is logarithmic.
        logarithmic: whether the axis is.
        floor: where the axis starts; None for below the lowest value.

    Returns:
        Two different numbers, the lower one first.
    """
    low, high = min(values, default=0.1), max(values, default=1.0)
    if logarithmic:
        return low / 1.3, max(high, low * 1.05) * 1.3
    room = 0.08 * (high - low) or max(0.05, 0.05 * abs(high))
    return (low - room if floor is None else floor - 0.02 * (high + room)), high + room


def headline(folder: Path, runs: Sequence[RunSummary]) -> str:
    """What stands above the figures, as HTML."""
    where = f'<code style="overflow-wrap:anywhere">{escape(str(folder))}</code>'
    if not runs:
        return (
            f"<p>There is no run in {where} yet. One appears here as soon as "
            f"<code>{escape(command('train', '--out', folder / 'NAME'))}</code> writes.</p>"
        )
    broken = [run for run in runs if run.error]
    count = f"{len(runs)} run{'s' * (len(runs) > 1)} in {where}"
    if not broken:
        return f"<p>{count}</p>"
    items = "".join(f"<li><b>{escape(r.name)}</b>: {escape(r.error)}</li>" for r in broken)
    return (
        f'<p>{count}, <span class="bad">{len(broken)} of them broken</span>:</p>'
        f'<ul style="margin:0;padding-left:1.2rem;overflow-wrap:anywhere">{items}</ul>'
    )


def overview(runs: Sequence[RunSummary], styles: Styles) -> str:
    """A row for each readable run: how far it is, and how good.

    Args:
        runs: all runs.
        styles: of those that are drawn, by name.

    Returns:
        HTML.
    """
    head = (
        "run", "algorithm", "state", "meta-steps", "best validation", "training",
        "tasks a second", "doubtful verdicts",
    )  # fmt: skip
    return _scrolled(head, [_overview_row(run, styles) for run in runs if not run.error])


def _overview_row(run: RunSummary, styles: Styles) -> tuple[str, ...]:
    assert run.config is not None
    mark = common.swatch(styles[run.name][0]) if run.name in styles else ""
    state = run.state()
    tone = {"failed": "bad", "training": "good"}.get(state, "soft")
    why = f'<br><span class="soft">{escape(run.failure)}</span>' * bool(run.failure)
    validation, speed = run.curves["validation"][2], run.curves["tasks_per_second"][2]
    if run.score == "accuracy":
        best = number(validation.max(initial=-math.inf), ".1%", "–").replace("%", " %")
    else:
        best = number(validation.min(initial=math.inf), ".3g", "–")
    doubtful = ", ".join(f"{n} {name}" for name, n in run.verdicts.items() if name != "ok")
    return (
        f'<span style="white-space:nowrap">{mark}{escape(run.name)}</span>{why}',
        run.config.algorithm.name,
        f'<span class="{tone}">{state}</span>',
        f"{run.step} of {run.config.training.steps}",
        best,
        f"{run.seconds:.0f} s" if math.isfinite(run.seconds) else "–",
        f"{speed[-1]:.0f}" if len(speed) else "–",
        doubtful or "none",
    )


def settings_table(runs: Sequence[RunSummary]) -> str:
    """The settings in which the chosen runs differ, as HTML."""
    if len(runs) < 2:
        return ""
    rows = [(name, *map(escape, values)) for name, values in differing_settings(runs)]
    if not rows:
        return '<p class="soft">The chosen runs have the same settings.</p>'
    return _scrolled(("differs in", *(escape(run.name) for run in runs)), rows)


def _scrolled(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself where the screen is too narrow for it."""
    table = common.table(rows, head=head, style="margin-top:1rem")
    return f'<div style="overflow-x:auto" tabindex="0">{table}</div>'


ROOM = Room("runs", "Runs", LEAD, build, NOTES, CODE, height=640)
