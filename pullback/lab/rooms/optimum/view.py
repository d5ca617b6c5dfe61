"""Which optimum? Two hundred noisy descents, and the implicit gradient where each one ends."""

from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import Range1d
from jaxtyping import Float

from pullback.lab import common
from pullback.lab.code import ShownCode, decimal
from pullback.lab.common import WHITE_DOT, Line, Lines, number
from pullback.lab.room import Room
from pullback.lab.rooms.optimum import mathematics
from pullback.lab.rooms.optimum.mathematics import RUNS, STEPS, Descents, Settings
from pullback.lab.session import Session

X_RANGE = (-2.5, 3.5)
MARKERS = ("circle", "square", "triangle", "diamond", "inverted_triangle", "hex")
BINS = 60
MAX_ROWS = 6
"""Wells that have a row of their own in the table; others are counted together."""

LEAD = r"""
Here the support loss has a well near every whole number, and the inner solver is stochastic:
gradient descent from $\theta$ with noise in each gradient. Its first step is $0.55/(10+\lambda)$,
where $10+\lambda$ is the largest curvature, and later ones are shorter. Run it two hundred times:
where the pull is weak and the noise strong enough, the runs stop in several wells. Each is then
followed down to the optimum $\phi_k^*$ of $L + \tfrac{\lambda}{2}(\phi-\theta)^2$ in its well,
which has an implicit gradient,

$$\frac{dL_k}{d\theta} = \frac{\lambda}{H_k+\lambda}\, \nabla L^{\text{query}}(\phi_k^*)$$

with $L_k = L^{\text{query}}(\phi_k^*)$ and the curvature $H_k = \nabla^2 L(\phi_k^*)$. The way
there does not occur in it: all runs that end in one well have the *same* gradient, whatever the
noise did to them. The arrows point against it. Unrolling differentiates each noisy path, and
differs from run to run.
"""

NOTES = r"""
So far the promise. What it leaves out: $\theta$ also moves the *odds*. The loss to expect is
$J(\theta) = \sum_k p_k(\theta)\, L_k(\theta)$, and its derivative has two parts,
$\sum_k p_k\, dL_k/d\theta$ and $\sum_k (dp_k/d\theta)\, L_k$. The average of the implicit gradients
is the first. The table sets it beside the derivative of $J$ itself. That adds the second part,
from ten thousand more runs on either side of $\theta$ with the same noise: how many of them stop
beyond each ridge between two wells. From $\lambda = 10$ on only one well is left, and the two
agree. With $\theta = 0.53$, on a ridge, and $\lambda = 1$, turn the noise down: they part.

Where $H_k + \lambda$ is zero, as for $\theta = 0.53$ and $\lambda = 10$, $\phi_k^*$ has no
derivative, and the table says so.
"""

START = Settings(theta=0.55, strength=1.0, noise=6.0, steps=20, seed=0)


def code(settings: Settings) -> str:
    """What the room computes for these settings, in Python."""
    numbers = {name: decimal(value) for name, value in settings._asdict().items()}
    numbers |= {"steps": str(settings.steps), "seed": str(settings.seed)}
    given = ", ".join(f"{name}={value}" for name, value in numbers.items())
    return f"""
from pullback.lab.rooms.optimum.mathematics import Settings, descend

descents = descend(Settings({given}))
for well in descents.wells:
    print(well)
print("average:", descents.implicit, "unrolled:", descents.unrolled)
print("derivative of the expected loss:", descents.true)
""".strip()


CURVES = (
    ("support loss", common.GREY, "dotted", 1.5),
    ("with the pull", common.GREY, "solid", 2.0),
    ("query loss", common.GREEN, "dashed", 1.5),
)
"""Title, colour, dash and width, in the order of :func:`mathematics.curves`."""


class Computed(NamedTuple):
    """What the room shows for one choice of settings: the descents, and the curves over ``phi``."""

    descents: Descents
    phi: Float[np.ndarray, " n"]
    curves: tuple[Float[np.ndarray, " n"], ...]


def compute(settings: Settings) -> Computed:
    """Everything that the room shows."""
    phi = np.linspace(*X_RANGE, 361)
    return Computed(mathematics.descend(settings), phi, mathematics.curves(settings, phi))


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.plot = common.figure(
            height=330,
            label="The inner loss with its wells, and where two hundred noisy descents ended",
            x_range=Range1d(start=X_RANGE[0], end=X_RANGE[1]),
            y_range=Range1d(start=-1, end=3),
            y_axis_label="loss",
        )
        self.counts = common.figure(
            height=150,
            label="How many descents stopped where",
            x_range=self.plot.x_range,
            y_range=Range1d(start=0, end=100),
            x_axis_label="φ",
            y_axis_label="runs",
        )
        self._draw()
        sliders = pn.widgets.FloatSlider
        self.theta = sliders(label="θ", start=-1.0, end=2.0, step=0.01, value=START.theta)
        self.strength = sliders(label="log₁₀ λ", start=-1.0, end=2.0, step=0.05, value=0.0)
        self.noise = sliders(
            label="Noise of a gradient", start=0.01, end=20.0, step=0.5, value=START.noise
        )
        self.steps = pn.widgets.DiscreteSlider(
            label="Noisy steps", options=list(STEPS), value=START.steps
        )
        self.other_noise = pn.widgets.Button(label="Other noise")
        self.seed = START.seed
        self.table = common.html("<p>Compiling …</p>")
        self.code = ShownCode("optimum", code(START))
        self._update = session.updater(compute, self._show, self._failed)
        for widget in (self.theta, self.strength, self.noise, self.steps):
            widget.param.watch(lambda _: self._ask(), "value")
        self.other_noise.on_click(lambda _: self._next_seed())
        self.view = common.beside(
            pn.Column(self.plot, self.counts, sizing_mode="stretch_width", margin=0),
            self.theta,
            self.strength,
            self.noise,
            self.steps,
            self.other_noise,
            common.legend((colour, dash, title) for title, colour, dash, _ in CURVES),
            self.table,
            self.code,
        )
        self._ask()

    def _draw(self) -> None:
        self.curves = []
        for _, colour, dash, width in CURVES:
            source = common.empty_source("x", "y")
            self.plot.line("x", "y", source=source, color=colour, line_dash=dash, line_width=width)
            self.curves.append(source)
        self.points = common.empty_source(
            "x", "y", "colour", "marker", "size", name="optimum-points"
        )
        self.plot.scatter(
            "x", "y", source=self.points, marker="marker", size="size", color="colour",
            fill_alpha=0.35,
        )  # fmt: skip
        self.arrows = Lines(self.plot)
        self.start = common.empty_source("x", "y")
        self.plot.scatter("x", "y", source=self.start, size=14, **WHITE_DOT)
        self.bars = common.empty_source(*BAR_COLUMNS)
        self.counts.quad(
            "left", "right", "top", "bottom", source=self.bars, color="colour", fill_alpha=0.75,
            line_alpha=0,
        )  # fmt: skip

    def _next_seed(self) -> None:
        self.seed += 1
        self._ask()

    def _ask(self) -> None:
        strength = 10.0**self.strength.value
        self._update(
            Settings(self.theta.value, strength, self.noise.value, self.steps.value, self.seed)
        )

    def _failed(self, error: Exception) -> None:
        self.table.object = common.not_computed(error)

    def _show(self, computed: Computed) -> None:
        found = computed.descents
        for source, y in zip(self.curves, computed.curves, strict=True):
            source.data = {"x": computed.phi, "y": y}
        theta, heights = found.settings.theta, _height(found, found.raw)
        self._show_points(found, heights)
        self._show_arrows(found)
        self.start.data = {"x": [theta], "y": [float(_height(found, theta))]}
        self.bars.data = histogram(found)
        self.counts.y_range.update(end=1.1 * max(self.bars.data["top"], default=1))
        inside = (found.raw > X_RANGE[0]) & (found.raw < X_RANGE[1])
        highest = max(2.0, *heights[inside].tolist(), *self.start.data["y"])
        self.plot.y_range.update(start=-0.8, end=min(12.0, 1.25 * highest + 0.5))
        self.table.object = readings(found)
        self.code.text = code(found.settings)

    def _show_points(self, found: Descents, heights: Float[np.ndarray, " runs"]) -> None:
        """Small marks where the noisy steps stopped, large ones at the optima."""
        optima = [well.phi for well in found.wells]
        wells = [*found.well.tolist(), *range(len(optima))]
        self.points.data = {
            "x": [*found.raw.tolist(), *optima],
            "y": [*heights.tolist(), *(float(_height(found, phi)) for phi in optima)],
            "colour": [colour_of(well) for well in wells],
            "marker": [marker_of(well) for well in wells],
            "size": [5] * len(found.raw)
            + [10 + 14 * (well.runs / RUNS) ** 0.5 for well in found.wells],
        }

    def _show_arrows(self, found: Descents) -> None:
        lines = []
        for k, well in enumerate(found.wells):
            start = np.array([well.phi, float(_height(found, well.phi))])
            vector = np.array([-well.gradient, 0.0])
            arrow = common.arrow(start, vector, longest=0.9, head=(0.07, 0.07))
            lines.extend(Line(points, colour_of(k), width=2.5) for points in arrow)
        self.arrows.show(lines)


def _height(found: Descents, phi: Any) -> Any:
    """The inner loss at φ: where the figure draws a point."""
    return mathematics.curves(found.settings, np.asarray(phi, float))[1]


def colour_of(well: int) -> str:
    """The colour of an optimum and its runs."""
    return common.CYCLE[well % len(common.CYCLE)]


def marker_of(well: int) -> str:
    """The shape of an optimum and its runs."""
    return MARKERS[well % len(MARKERS)]


BAR_COLUMNS = ("left", "right", "bottom", "top", "colour")


def histogram(found: Descents) -> dict[str, Any]:
    """Bars of how many runs stopped where, stacked by the optimum they belong to."""
    edges = np.linspace(*X_RANGE, BINS + 1)
    bottom = np.zeros(BINS)
    data: dict[str, Any] = {column: [] for column in BAR_COLUMNS}
    for k in range(len(found.wells)):
        count = np.histogram(found.raw[found.well == k], edges)[0]
        for i in np.flatnonzero(count):
            data["left"].append(edges[i])
            data["right"].append(edges[i + 1])
            data["bottom"].append(bottom[i])
            data["top"].append(bottom[i] + count[i])
            data["colour"].append(colour_of(k))
        bottom += count
    return data


def readings(found: Descents) -> str:
    """The numbers beside the figure, as HTML."""
    named = sorted(range(len(found.wells)), key=lambda k: -found.wells[k].runs)[:MAX_ROWS]
    rows = []
    for k in sorted(named):
        well = found.wells[k]
        label = f"{common.swatch(colour_of(k))}{well.phi:.3f}"
        rows.append((label, _share(well.runs), _reading(well.outer), _reading(well.gradient)))
    others = [well.runs for k, well in enumerate(found.wells) if k not in named]
    if others:
        rows.append((f"{len(others)} more", _share(sum(others)), "", ""))
    gradients = (
        ("implicit gradients, average", _with_interval(found.implicit)),
        ("unrolled through the noise, average", _with_interval(found.unrolled)),
        ("the largest of the unrolled", _reading(found.largest)),
        ("derivative of the expected loss", _with_interval(found.true)),
    )
    return common.table(
        rows, head=("φ*", "runs", "query loss", "implicit gradient")
    ) + common.table(gradients, style="margin-top:0.9rem")


def _share(runs: int) -> str:
    return f"{100 * runs / RUNS:.0f} %"


def _with_interval(given: dict[str, float]) -> str:
    if not np.isfinite(given["mean"]):
        return "no derivative"
    both = f"{_reading(given['mean'])} ± {_reading(given['interval'])}"
    return f'<span style="white-space:nowrap">{both}</span>'


def _reading(value: float) -> str:
    return number(value, ".3f" if abs(value) < 1e3 else ".1e", "no derivative")


ROOM = Room("optimum", "Which optimum?", LEAD, build, NOTES, code(START), height=520)
