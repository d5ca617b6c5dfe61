"""Room 7. Runs: a folder of trainings, side by side, while they train."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.models import ColumnDataSource, LogTicker, PrintfTickFormatter, Range1d

from pullback.lab import theme
from pullback.lab.in_view import InView
from pullback.lab.room import Room
from pullback.lab.rooms.runs import run_reading
from pullback.lab.rooms.runs.run_reading import Reading
from pullback.lab.session import Session

POLL = 2000
"""Milliseconds between two looks at the folder."""

DASHES = ("solid", "dashed", "dotted", "dotdash", "dashdot", "solid")
FIRST = len(theme.CYCLE)
"""Runs shown at first; each has a colour of its own."""

LEAD = r"""
What `pullback train` writes into a run's folder, run beside run. The first curve is the outer
loss: the *query* loss after adaptation, which is what meta-training lowers. Validation scores the
same on classes that meta-training never sees. The inner residual
$\|\nabla L(\phi) + \Lambda(\phi-\theta)\| \,/\, \|\nabla L(\phi)\|$ says how far the inner
solver stopped from $\phi^*$, and *doubtful* are the tasks that had a meta-gradient whose
certificate was not content with that. While a run trains, its curves grow here.
"""

NOTES = """
Compare by seconds as well as by meta-steps: an algorithm that needs fewer steps may need more time
for each. Seconds are those of training, with compilation and validation left out.
"""

CODE = """
import tempfile
from pathlib import Path
from pullback.lab import run_reading

folder = Path(tempfile.mkdtemp())  # or the folder of your runs
runs = run_reading.read_all(folder)
different = run_reading.differences(runs)
"""

NO_FOLDER = """
The lab was not pointed at any runs. Train some, for instance

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


def build(session: Session) -> Any:
    """The room for one visitor."""
    if session.run is None:
        return theme.text(NO_FOLDER)
    return _View(session, session.run).view


class _View:
    def __init__(self, session: Session, folder: Path):
        self.session, self.folder = session, folder
        self.readings: tuple[Reading, ...] = ()
        self.shown: tuple[Any, ...] = ()
        self.offered: list[str] = []
        self.against = pn.widgets.RadioButtonGroup(
            label="Against", options={"meta-steps": 0, "seconds": 1}, value=0, width=220
        )
        self.choice = pn.widgets.CheckBoxGroup(label="Runs", options=[], inline=True)
        self.head = theme.html(f"<p>Reading {escape(str(folder))} …</p>")
        self.table, self.different = theme.html(), theme.html()
        self.sources, self.plots = {}, {}
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
        eye = InView()
        eye.param.watch(self._seen, "seen")
        self.view = pn.Column(eye, self.head, self.parts, sizing_mode="stretch_width", margin=0)
        self._stop = lambda: None
        self._live = session.live(run_reading.read_all, self._read, self._failed)
        self._live(folder)

    def _figure(self, name: str, title: str, scale: str) -> Any:
        plot = theme.figure(
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
        self.sources[name] = ColumnDataSource(
            {key: [] for key in ("xs", "ys", "colour", "dash")}, name=f"runs-{name}"
        )
        plot.multi_line(
            "xs", "ys", source=self.sources[name], line_color="colour", line_dash="dash",
            line_width=1.8,
        )  # fmt: skip
        self.sources[f"{name}-ends"] = ColumnDataSource({key: [] for key in ("x", "y", "colour")})
        plot.scatter("x", "y", source=self.sources[f"{name}-ends"], color="colour", size=5)
        return plot

    def _seen(self, event: Any) -> None:
        self._stop()
        self._stop = lambda: None
        if event.new:
            self._look()
            self._stop = self.session.every(POLL, self._look)

    def _look(self) -> None:
        self._live(self.folder, self.readings)

    def _failed(self, error: Exception) -> None:
        self.shown = ()
        why = escape(str(getattr(error, "strerror", None) or error))
        folder = escape(str(self.folder))
        self.head.object = f'<p><span class="bad">{folder} cannot be read.</span> {why}</p>'

    def _read(self, readings: tuple[Reading, ...]) -> None:
        self.readings = readings
        # Nothing is sent while nothing changes; a run that falls silent is a change too.
        now = tuple((reading.signature, reading.state()) for reading in readings)
        if now == self.shown and readings:
            return
        self.shown = now
        self.head.object = headline(self.folder, readings)
        self.parts.visible = bool(readings)
        names = [reading.name for reading in readings if not reading.trouble]
        if names != self.offered:
            new = [name for name in names if name not in self.offered]
            kept = [name for name in self.choice.value if name in names]
            chosen = kept + new[: max(0, FIRST - len(kept))]
            self.offered = names
            self.choice.param.update(options=names, value=[n for n in names if n in chosen])
        self._draw()

    def _draw(self) -> None:
        chosen = [r for r in self.readings if not r.trouble and r.name in self.choice.value]
        looks = {r.name: look(i) for i, r in enumerate(chosen)}
        for name, _, _ in FIGURES:
            self._draw_one(name, chosen, looks)
        scores = sorted({reading.score for reading in chosen})
        percent = ", %" if scores == ["accuracy"] else ""
        axis = self.plots["validation"].yaxis[0]
        axis.axis_label = f"validation {' and '.join(scores)}{percent}"
        self.table.object = overview(self.readings, looks)
        self.different.object = difference_table(chosen)

    def _draw_one(self, name: str, chosen: Sequence[Reading], looks: dict[str, Any]) -> None:
        data: dict[str, list[Any]] = {key: [] for key in ("xs", "ys", "colour", "dash")}
        ends: dict[str, list[Any]] = {key: [] for key in ("x", "y", "colour")}
        logarithmic = self.plots[name].y_scale.__class__.__name__ == "LogScale"
        for reading in chosen:
            curve = reading.curves.get(name)
            if curve is None:
                continue
            x, y = curve[self.against.value], curve[2]
            if name == "flagged" or (name == "validation" and reading.score == "accuracy"):
                y = 100.0 * y
            if logarithmic:
                x, y = x[y > 0], y[y > 0]
            if not len(x):
                continue
            colour, dash = looks[reading.name]
            data["xs"].append(x)
            data["ys"].append(y)
            data["colour"].append(colour)
            data["dash"].append(dash)
            ends["x"].append(float(x[-1]))
            ends["y"].append(float(y[-1]))
            ends["colour"].append(colour)
        plot = self.plots[name]
        plot.xaxis[0].axis_label = ("meta-step", "seconds of training")[self.against.value]
        every = [float(v) for ys in data["ys"] for v in (ys.min(), ys.max())]
        low, high = limits(every, logarithmic, floor=0.0 if name in FROM_ZERO else None)
        plot.y_range.update(start=low, end=high)
        last = max((float(xs.max()) for xs in data["xs"]), default=1.0)
        plot.x_range.update(start=-0.02 * last, end=1.03 * last or 1.0)
        self.sources[name].data = data
        self.sources[f"{name}-ends"].data = ends


def look(place: int) -> tuple[str, str]:
    """The colour and the dash of a run by its place; after the colours, other dashes."""
    count = len(theme.CYCLE)
    return theme.CYCLE[place % count], DASHES[(place + place // count) % len(DASHES)]


def limits(
    values: Sequence[float], logarithmic: bool, floor: float | None = None
) -> tuple[float, float]:
    """The ends of an axis that shows all values, with some room about them.

    Args:
        values: finite; positive if the axis is logarithmic.
        logarithmic: whether it is.
        floor: where the axis starts; by the values if None.

    Returns:
        Two different numbers, the lower one first.
    """
    low, high = min(values, default=0.1), max(values, default=1.0)
    if logarithmic:
        return low / 1.3, max(high, low * 1.05) * 1.3
    room = 0.08 * (high - low) or max(0.05, 0.05 * abs(high))
    return (low - room if floor is None else floor - 0.02 * (high + room)), high + room


def headline(folder: Path, readings: Sequence[Reading]) -> str:
    """What stands above the figures, as HTML."""
    where = f'<code style="overflow-wrap:anywhere">{escape(str(folder))}</code>'
    if not readings:
        return (
            f"<p>There is no run in {where} yet. One appears here as soon as "
            f"<code>pullback train --out {escape(str(folder / 'NAME'))}</code> writes.</p>"
        )
    broken = [reading for reading in readings if reading.trouble]
    count = f"{len(readings)} run{'s' * (len(readings) > 1)} in {where}"
    if not broken:
        return f"<p>{count}</p>"
    items = "".join(f"<li><b>{escape(r.name)}</b>: {escape(r.trouble)}</li>" for r in broken)
    return (
        f'<p>{count}, <span class="bad">{len(broken)} of them broken</span>:</p>'
        f'<ul style="margin:0;padding-left:1.2rem;overflow-wrap:anywhere">{items}</ul>'
    )


def overview(readings: Sequence[Reading], looks: dict[str, tuple[str, str]]) -> str:
    """A line for each run that is whole: how far it is, and how good."""
    rows = []
    for reading in readings:
        if reading.trouble or reading.config is None:
            continue
        mark = theme.swatch(looks[reading.name][0]) if reading.name in looks else ""
        state = reading.state()
        tone = {"failed": "bad", "training": "good"}.get(state, "soft")
        why = f'<br><span class="soft">{escape(reading.failure)}</span>' * bool(reading.failure)
        validation = reading.curves["validation"][2]
        pace = reading.curves["tasks_per_second"][2]
        accuracy = reading.score == "accuracy"
        best = (validation.max() if accuracy else validation.min()) if len(validation) else math.nan
        flagged = ", ".join(f"{n} {name}" for name, n in reading.verdicts.items() if name != "ok")
        cells = (
            f'<span style="white-space:nowrap">{mark}{escape(reading.name)}</span>{why}',
            reading.config.algorithm.name,
            f'<span class="{tone}">{state}</span>',
            f"{reading.step} of {reading.config.training.steps}",
            _reading(100 * best if accuracy else best, "{:.1f} %" if accuracy else "{:.3g}"),
            _reading(reading.seconds, "{:.0f} s"),
            _reading(pace[-1] if len(pace) else math.nan, "{:.0f}"),
            flagged or "none",
        )
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = (
        "run", "algorithm", "state", "meta-steps", "best validation", "training",
        "tasks a second", "doubtful verdicts",
    )  # fmt: skip
    return _scrolled(heads, rows)


def difference_table(readings: Sequence[Reading]) -> str:
    """The settings in which the chosen runs differ."""
    if len(readings) < 2:
        return ""
    rows = [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in (name, *values)) + "</tr>"
        for name, values in run_reading.differences(readings)
    ]
    if not rows:
        return '<p class="soft">The chosen runs have the same settings.</p>'
    heads = ("differs in", *(escape(reading.name) for reading in readings))
    return _scrolled(heads, rows)


def _scrolled(heads: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{text}</th>" for text in heads)
    return (
        '<div style="overflow-x:auto" tabindex="0"><table style="margin-top:1rem">'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _reading(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "–"


ROOM = Room("runs", "Runs", LEAD, build, NOTES, CODE, height=640)
