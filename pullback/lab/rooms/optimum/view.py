"""Room 4. Which optimum? Two hundred noisy descents, and the gradient of each landing."""

from html import escape
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, Range1d
from jaxtyping import Float

from pullback.lab import theme
from pullback.lab.room import Room
from pullback.lab.rooms.optimum import mathematics
from pullback.lab.rooms.optimum.mathematics import RUNS, STEPS, Landings, Scene
from pullback.lab.session import Session

X_RANGE = (-2.5, 3.5)
MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")
BINS = 60
ROWS = 6
"""Wells that the table names; others are counted together."""

LEAD = r"""
Here the support loss has a well at every whole number, and the inner solver is stochastic: gradient
descent from $\theta$ with noise in each gradient. Run it two hundred times and it lands in several
wells. Each landing $\phi_k^*$ is an optimum of $L + \tfrac{\lambda}{2}(\phi-\theta)^2$, and has an
implicit gradient,

$$\frac{dL_k}{d\theta} = \frac{\lambda}{H_k+\lambda}\, \nabla L^{\text{query}}(\phi_k^*)$$

with $L_k = L^{\text{query}}(\phi_k^*)$ and the curvature $H_k = \nabla^2 L(\phi_k^*)$. The way
there does not occur in it: all runs that land in one well have the *same* gradient, whatever the
noise did to them. The arrows point against it. Unrolling differentiates each noisy path, and
differs from run to run.
"""

NOTES = r"""
So far the promise. What it leaves out: $\theta$ also moves the *odds*. The loss to expect is
$J(\theta) = \sum_k p_k(\theta)\, L_k(\theta)$, and its derivative has two parts,
$\sum_k p_k\, dL_k/d\theta$ and $\sum_k (dp_k/d\theta)\, L_k$. The average of the implicit gradients
is the first. The table sets it beside the derivative of $J$ itself, from finite differences over
ten thousand pairs of runs with the same noise. Raise $\lambda$ until only one well is left, and the
two agree; turn the noise down with $\theta$ on a ridge between two wells, and they part.
"""

CODE = """
from pullback.lab.optimum_math import Scene, land

landings = land(Scene(theta=0.55, strength=1.0, noise=6.0, steps=20, seed=0))
average, truth = landings.implicit["mean"], landings.true["mean"]
"""

LINES = (
    ("support", "support loss", theme.GREY, "dotted", 1.5),
    ("inner", "with the pull", theme.GREY, "solid", 2.0),
    ("query", "query loss", theme.GREEN, "dashed", 1.5),
)


def compute(scene: Scene) -> tuple[Landings, tuple[Float[np.ndarray, " n"], ...]]:
    """Everything that the room shows."""
    phi = np.linspace(*X_RANGE, 361)
    return mathematics.land(scene), (phi, *mathematics.curves(scene, phi))


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.plot = theme.figure(
            height=330,
            label="The inner loss with its wells, and where two hundred noisy descents landed",
            x_range=Range1d(start=X_RANGE[0], end=X_RANGE[1]),
            y_range=Range1d(start=-1, end=3),
            y_axis_label="loss",
        )
        self.counts = theme.figure(
            height=150,
            label="How many descents stopped where",
            x_range=self.plot.x_range,
            y_range=Range1d(start=0, end=100),
            x_axis_label="φ",
            y_axis_label="runs",
        )
        self._draw()
        sliders = pn.widgets.FloatSlider
        self.theta = sliders(label="θ", start=-1.0, end=2.0, step=0.01, value=0.55)
        self.strength = sliders(label="log₁₀ λ", start=-1.0, end=2.0, step=0.05, value=0.0)
        self.noise = sliders(label="Noise of a gradient", start=0.01, end=20.0, step=0.5, value=6.0)
        self.steps = pn.widgets.DiscreteSlider(label="Noisy steps", options=list(STEPS), value=20)
        self.again = pn.widgets.Button(label="Other noise")
        self.seed = 0
        self.table = theme.html("<p>Compiling …</p>")
        self._live = session.live(compute, self._show, self._failed)
        for widget in (self.theta, self.strength, self.noise, self.steps):
            widget.param.watch(lambda _: self._ask(), "value")
        self.again.on_click(lambda _: self._other())
        self.view = theme.beside(
            pn.Column(self.plot, self.counts, sizing_mode="stretch_width", margin=0),
            self.theta,
            self.strength,
            self.noise,
            self.steps,
            self.again,
            theme.html(legend()),
            self.table,
        )
        self._ask()

    def _draw(self) -> None:
        self.lines = {}
        for name, _, colour, dash, width in LINES:
            self.lines[name] = ColumnDataSource({"x": [], "y": []})
            self.plot.line(
                "x", "y", source=self.lines[name], color=colour, line_dash=dash,
                line_width=width,
            )  # fmt: skip
        columns = ("x", "y", "colour", "marker", "size")
        self.landed = ColumnDataSource({c: [] for c in columns}, name="optimum-landings")
        self.plot.scatter(
            "x", "y", source=self.landed, marker="marker", size="size", color="colour",
            fill_alpha=0.35,
        )  # fmt: skip
        self.arrows = ColumnDataSource({"xs": [], "ys": [], "colour": []})
        self.plot.multi_line(
            "xs", "ys", source=self.arrows, line_color="colour", line_width=2.5
        )  # fmt: skip
        self.start = ColumnDataSource({"x": [], "y": []})
        self.plot.scatter(
            "x", "y", source=self.start, size=14, fill_color="white", line_color="black",
            line_width=2,
        )  # fmt: skip
        self.bars = ColumnDataSource({c: [] for c in ("left", "right", "bottom", "top", "colour")})
        self.counts.quad(
            "left", "right", "top", "bottom", source=self.bars, color="colour", fill_alpha=0.75,
            line_alpha=0,
        )  # fmt: skip

    def _other(self) -> None:
        self.seed += 1
        self._ask()

    def _ask(self) -> None:
        strength = 10.0**self.strength.value
        self._live(Scene(self.theta.value, strength, self.noise.value, self.steps.value, self.seed))

    def _failed(self, error: Exception) -> None:
        self.table.object = f'<p class="bad">This could not be computed: {escape(str(error))}</p>'

    def _show(self, result: tuple[Landings, tuple[Float[np.ndarray, " n"], ...]]) -> None:
        found, (phi, support, inner, query) = result
        for name, y in (("support", support), ("inner", inner), ("query", query)):
            self.lines[name].data = {"x": phi, "y": y}
        scene = found.scene

        def height(at: Any) -> Any:
            return mathematics.curves(scene, np.asarray(at, float))[1]

        looks = [colour_of(k) for k in found.well]
        data: dict[str, Any] = {"x": found.raw.tolist(), "y": height(found.raw).tolist()}
        data |= {"colour": looks, "marker": [marker_of(k) for k in found.well]}
        data["size"] = [5] * len(looks)
        arrows: dict[str, Any] = {"xs": [], "ys": [], "colour": []}
        for k, well in enumerate(found.wells):
            level = float(height(well.phi))
            data["x"].append(well.phi)
            data["y"].append(level)
            data["colour"].append(colour_of(k))
            data["marker"].append(marker_of(k))
            data["size"].append(10 + 14 * (well.runs / RUNS) ** 0.5)
            for xs, ys in arrow(well.phi, level, -well.gradient):
                arrows["xs"].append(xs)
                arrows["ys"].append(ys)
                arrows["colour"].append(colour_of(k))
        self.landed.data, self.arrows.data = data, arrows
        self.start.data = {"x": [scene.theta], "y": [float(height(scene.theta))]}
        self.bars.data = histogram(found)
        self.counts.y_range.update(end=1.1 * max(self.bars.data["top"], default=1))
        shown = height(found.raw[(found.raw > X_RANGE[0]) & (found.raw < X_RANGE[1])])
        top = float(np.max(np.append(shown, [2.0, height(scene.theta)])))
        self.plot.y_range.update(start=-0.8, end=min(12.0, 1.25 * top + 0.5))
        self.table.object = readings(found)


def legend() -> str:
    """What the lines are, as HTML."""
    lines = (
        f'<span style="white-space:nowrap;margin-right:1rem"><span style="display:inline-block;'
        f"width:1.6rem;border-top:2.5px {dash} {colour};vertical-align:0.25em;"
        f'margin-right:0.4rem"></span>{label}</span>'
        for _, label, colour, dash, _ in LINES
    )
    return f'<p class="soft" style="font-size:0.8125rem">{"".join(lines)}</p>'


def colour_of(well: int) -> str:
    """The colour of an optimum; grey for a run in none."""
    return theme.CYCLE[well % len(theme.CYCLE)] if well >= 0 else theme.GREY


def marker_of(well: int) -> str:
    """The shape of an optimum's runs."""
    return MARKERS[well % len(MARKERS)] if well >= 0 else "x"


def arrow(x: float, y: float, length: float) -> list[tuple[list[float], list[float]]]:
    """A level arrow, drawn shorter where it is long; nothing for what is not finite."""
    if not np.isfinite(length) or abs(length) < 1e-3:
        return []
    tip = x + 0.9 * float(np.tanh(length))
    back = 0.07 * float(np.sign(length))
    return [([x, tip], [y, y]), ([tip - back, tip, tip - back], [y + 0.07, y, y - 0.07])]


def histogram(found: Landings) -> dict[str, Any]:
    """Bars of how many runs stopped where, stacked by the optimum they belong to."""
    edges = np.linspace(*X_RANGE, BINS + 1)
    bottom = np.zeros(BINS)
    data: dict[str, Any] = {c: [] for c in ("left", "right", "bottom", "top", "colour")}
    for k in range(-1, len(found.wells)):
        count = np.histogram(found.raw[found.well == k], edges)[0]
        for i in np.flatnonzero(count):
            data["left"].append(edges[i])
            data["right"].append(edges[i + 1])
            data["bottom"].append(bottom[i])
            data["top"].append(bottom[i] + count[i])
            data["colour"].append(colour_of(k))
        bottom += count
    return data


def readings(found: Landings) -> str:
    """The numbers beside the figure, as HTML."""
    ranked = sorted(range(len(found.wells)), key=lambda k: -found.wells[k].runs)[:ROWS]
    rows = []
    for k in sorted(ranked):
        well = found.wells[k]
        share = f"{100 * well.runs / RUNS:.0f} %"
        cells = (f"{theme.swatch(colour_of(k))}{well.phi:.3f}", share)
        cells += (_number(well.outer), _number(well.gradient))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    others = len(found.wells) - len(ranked)
    if others:
        left = sum(w.runs for k, w in enumerate(found.wells) if k not in ranked)
        rows.append(f"<tr><td>{others} more</td><td>{100 * left / RUNS:.0f} %</td><td></td>"
                    "<td></td></tr>")  # fmt: skip
    saddle = int(np.sum(found.well < 0))
    if saddle:
        share = f"{100 * saddle / RUNS:.0f} %"
        rows.append(f"<tr><td>in none</td><td>{share}</td><td></td><td></td></tr>")
    heads = "".join(f"<th>{h}</th>" for h in ("φ*", "runs", "query loss", "implicit gradient"))
    first = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    lines = (
        ("implicit gradients, average", _with_interval(found.implicit)),
        ("unrolled through the noise, average", _with_interval(found.unrolled)),
        ("the largest of the unrolled", _number(found.largest)),
        ("derivative of the expected loss", _with_interval(found.true)),
    )
    cell = '<td style="white-space:nowrap">'
    body = "".join(f"<tr><td>{name}</td>{cell}{value}</td></tr>" for name, value in lines)
    return f'{first}<table style="margin-top:0.9rem"><tbody>{body}</tbody></table>'


def _with_interval(given: dict[str, float]) -> str:
    if not np.isfinite(given["mean"]):
        return "not to be had here"
    return f"{_number(given['mean'])} ± {_number(given['interval'])}"


def _number(value: float) -> str:
    if not np.isfinite(value):
        return "not finite"
    return f"{value:.3f}" if abs(value) < 1e3 else f"{value:.1e}"


ROOM = Room("optimum", "Which optimum?", LEAD, build, NOTES, CODE, height=520)
