"""The pull: two tasks, one θ, and how strongly each solution is pulled toward it."""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import Label
from jaxtyping import Float

from pullback.lab import common, landscapes
from pullback.lab.code import ShownCode
from pullback.lab.common import Line, Lines, number
from pullback.lab.drag import CoordinateInputs, DragPoint
from pullback.lab.landscapes import REACH
from pullback.lab.room import Room
from pullback.lab.rooms.pull import mathematics
from pullback.lab.rooms.pull.code import BOTH, START, START_SETTINGS, Settings, code
from pullback.lab.rooms.pull.mathematics import TaskSolution, Values
from pullback.lab.session import Session

COLOURS = (common.BLUE, common.VERMILLION)
EMPTY = (np.zeros(0), np.zeros(0))
RADIUS = 0.35
"""Of the small circle about θ that is drawn again at each φ* as the Jacobian maps it."""

LEAD = r"""
Each task has a loss $L_i$ on its support set, here over two parameters so that all of it can be
seen. To learn task $i$ from $\theta$ is to solve

$$\phi_i^*(\theta) = \underset{\phi}{\mathrm{argmin}} \; L_i(\phi) +
\tfrac12 (\phi-\theta)^\top \Lambda\,(\phi-\theta),$$

the loss plus a pull back to $\theta$ of strength $\Lambda$. **Drag $\theta$**, and change
$\lambda$: the weaker the pull on the quadratic losses, the closer each $\phi_i^*$ is to the lowest
point of its own loss, and the less it cares where $\theta$ is.
"""

NOTES = r"""
The thin curve through each $\phi_i^*$ joins the points where the pull is as large as there: a
circle, or with a $\lambda$ for each parameter an ellipse. There it touches a contour line of
the loss.

How much it cares is the Jacobian $d\phi^*/d\theta = (H + \Lambda)^{-1}\Lambda$ with
$H = \nabla^2 L(\phi^*)$. The dotted circle about $\theta$ is drawn again at each $\phi_i^*$ as
that matrix maps it: a circle of the same size means that $\phi_i^*$ moves as $\theta$ does, a
point that it does not move at all.

What should $\theta$ be? Good for *new* data of each task: the outer loss is measured on the query
set, $\tfrac12\sum_i L_i^{\text{query}}(\phi_i^*(\theta))$; the crosses are where each
$L_i^{\text{query}}$ is lowest. Its gradient is the Jacobian's transpose times the
query loss's gradient at $\phi_i^*$, and the dotted green arrow at $\theta$ points against it.
Nothing in it asks how the solver got to $\phi_i^*$.

A solver takes a few steps and stops: its path ends there, and the second table is of that point.
iMAML puts it in the place of $\phi_i^*$, and the solid green arrow points against what comes out.
Choose another solver that goes to the same $\phi_i^*$: the path changes and the solid arrow may,
the dotted one does not.
"""


Curve = tuple[np.ndarray, np.ndarray]
Contours = dict[str, tuple[Curve, ...]]
"""For each surface the contour lines of each task, as one curve."""


class Computed(NamedTuple):
    """What the room shows for one choice of settings."""

    settings: Settings
    solutions: tuple[TaskSolution, ...]
    contours: Contours


def compute(settings: Settings) -> Computed:
    """Everything that the room shows."""
    theta = np.asarray(settings.theta, np.float32)
    strength = np.asarray(settings.strength, np.float32)
    solutions = tuple(
        mathematics.solve_task(settings.solver, theta, strength, task)
        for task in landscapes.tasks(settings.kind)
    )
    return Computed(settings, solutions, _contours(settings, theta, strength))


def _contours(
    settings: Settings, theta: Float[np.ndarray, "2"], strength: Float[np.ndarray, "2"]
) -> Contours:
    """The contour lines that are switched on. Those of the pull are the same for both tasks."""
    contours: Contours = dict.fromkeys(("loss", "pull", "sum"), (EMPTY, EMPTY))

    def chosen(curves: Iterable[Curve]) -> tuple[Curve, ...]:
        return tuple(
            curve if settings.whose in (BOTH, task) else EMPTY for task, curve in enumerate(curves)
        )

    if "loss" in settings.surfaces:
        contours["loss"] = chosen(_loss_contours(settings.kind))
    if {"pull", "sum"} & set(settings.surfaces):
        axis = landscapes.grid()
        surfaces = [
            tuple(map(np.asarray, landscapes.surface(axis, task.support, theta, strength)))
            for task in landscapes.tasks(settings.kind)
        ]
        if "pull" in settings.surfaces:
            contours["pull"] = (_lines(axis, surfaces[0][1]), EMPTY)
        if "sum" in settings.surfaces:
            contours["sum"] = chosen(_lines(axis, loss + pull) for loss, pull in surfaces)
    return contours


@functools.cache
def _loss_contours(kind: str) -> tuple[Curve, ...]:
    axis, zero = landscapes.grid(), np.zeros(2, np.float32)
    surfaces = [landscapes.surface(axis, t.support, zero, zero) for t in landscapes.tasks(kind)]
    return tuple(_lines(axis, np.asarray(loss)) for loss, _ in surfaces)


def _lines(axis: np.ndarray, values: np.ndarray) -> Curve:
    return landscapes.contours(axis, values, landscapes.contour_levels(values))


def same_pull(
    theta: Float[np.ndarray, "2"], point: Float[np.ndarray, "2"], strength: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "n 2"]:
    """The curve of all points with the same proximal term as ``point``: a circle or an ellipse."""
    size = float(np.sqrt(np.sum(strength * (point - theta) ** 2)))
    return common.ellipse(theta, np.diag(1 / np.sqrt(strength)), size, points=73)


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.plot = common.figure(
            height=None,
            name="pull-figure",
            label="Contours of two tasks' losses over two parameters, with θ and both optima",
            x_range=(-REACH, REACH),
            y_range=(-REACH, REACH),
        )
        self.plot.grid.visible = False
        self.kind = pn.widgets.Select(
            label="Losses", options={text: name for name, text in landscapes.KINDS.items()}
        )
        self.solver = pn.widgets.Select(
            label="Inner solver",
            options={text: name for name, text in mathematics.SOLVERS.items()},
            value="gradient-descent",
        )
        options: dict[str, Any] = {"start": -2.0, "end": 2.0, "step": 0.05, "value": -0.3}
        self.first = pn.widgets.FloatSlider(label="log₁₀ λ", **options)
        self.second = pn.widgets.FloatSlider(label="log₁₀ λ₂", visible=False, **options)
        self.diagonal = pn.widgets.Checkbox(label="Λ with a λ for each parameter")
        self.surfaces = pn.widgets.CheckBoxGroup(
            label="Surfaces",
            options={"task losses": "loss", "pull": "pull", "their sums": "sum"},
            value=["loss"],
            inline=True,
        )
        self.whose = pn.widgets.Select(
            label="Surfaces of", options={"both tasks": BOTH, "task 1": 0, "task 2": 1}
        )
        self.inputs = CoordinateInputs(("θ₁", "θ₂"), START, REACH, self._typed)
        self.table = common.html()
        self.code = ShownCode("pull", code(START_SETTINGS))
        self._draw()
        self.point = DragPoint(self.plot, "pull-theta", START, self._dragged)
        self._update = session.updater(compute, self._show, self._failed)
        for widget in (self.kind, self.solver, self.first, self.second, self.surfaces, self.whose):
            widget.param.watch(lambda _: self._ask(), "value")
        self.diagonal.param.watch(self._split, "value")
        self._theta = START
        self._sent: dict[str, Curve] = {}
        self.view = common.beside(
            self.plot,
            pn.Row(self.kind, self.solver, margin=0),
            self.first,
            self.diagonal,
            self.second,
            self.surfaces,
            pn.Row(self.whose, *self.inputs.widgets, margin=0),
            self.table,
            self.code,
        )
        self._ask()

    def _draw(self) -> None:
        looks = {
            "loss": (COLOURS, {"alpha": 0.7, "line_dash": "solid", "line_width": 1.0}),
            "sum": (COLOURS, {"alpha": 0.7, "line_dash": "dashed", "line_width": 1.4}),
            "pull": ((common.GREY,), {"line_dash": "dotted", "line_width": 1.2}),
        }
        self.contours = {}
        for name, (colours, style) in looks.items():
            self.contours[name] = [common.empty_source("x", "y") for _ in colours]
            for source, colour in zip(self.contours[name], colours, strict=True):
                self.plot.line("x", "y", source=source, color=colour, **style)
        self.lines = Lines(self.plot)
        self.points = common.empty_source("x", "y", "colour", "marker", "size", name="pull-points")
        self.plot.scatter(
            "x", "y", source=self.points, marker="marker", size="size", line_color="colour",
            fill_color="colour", fill_alpha=0.25, line_width=2,
        )  # fmt: skip
        self.texts = common.empty_source("x", "y", "text", "colour")
        self.plot.text(
            "x", "y", "text", source=self.texts, text_color="colour", text_font_size="16px",
            text_font_style="bold", x_offset=9, y_offset=-9,
        )  # fmt: skip
        self.message = Label(x=10, y=10, x_units="screen", y_units="screen", text="")
        self.plot.add_layout(self.message)

    def _dragged(self, x: float, y: float) -> None:
        self._theta = (x, y)
        self._ask()

    def _typed(self, x: float, y: float) -> None:
        self._theta = (x, y)
        self.point.move_to(x, y)
        self._ask()

    def _split(self, _: Any) -> None:
        self.second.visible = self.diagonal.value
        self.first.label = "log₁₀ λ₁" if self.diagonal.value else "log₁₀ λ"
        self._ask()

    def _ask(self) -> None:
        first = 10.0**self.first.value
        second = 10.0**self.second.value if self.diagonal.value else first
        self._update(
            Settings(
                self.kind.value, self.solver.value, self._theta, (first, second),
                tuple(self.surfaces.value), self.whose.value,
            )
        )  # fmt: skip

    def _failed(self, error: Exception) -> None:
        self.message.text = f"This could not be computed: {error}"
        self.point.acknowledge()

    def _show(self, computed: Computed) -> None:
        self._show_contours(computed.contours)
        self._show_lines(computed)
        self._show_points(computed)
        if self.message.text:
            self.message.text = ""
        self.table.object = readings(computed)
        # Widgets are slow to change: while the point moves, the inputs stay as they are.
        if self.point.released:
            self.inputs.follow(*computed.settings.theta)
            self.code.text = code(computed.settings)
        self.point.acknowledge()

    def _show_contours(self, contours: Contours) -> None:
        for name, sources in self.contours.items():
            for source, curve in zip(sources, contours[name], strict=False):
                # What has not changed since the last time is not sent again.
                if self._sent.get(source.id) is not curve:
                    self._sent[source.id] = curve
                    source.data = dict(zip("xy", curve, strict=True))

    def _show_lines(self, computed: Computed) -> None:
        theta, strength = (
            np.asarray(pair) for pair in (computed.settings.theta, computed.settings.strength)
        )
        lines = [Line(common.ellipse(theta, np.eye(2), RADIUS), common.GREY, "dotted", 1.5)]
        for found, colour in zip(computed.solutions, COLOURS, strict=True):
            optimum = found.solved.phi
            ring = common.ellipse(optimum, found.jacobian, RADIUS)
            lines += [
                Line(found.path, colour),
                Line(same_pull(theta, optimum, strength), colour, "dotdash", 1.0),
                Line(ring, colour, "dotted"),
            ]
        for gradient, dash, width in zip(
            meta_gradients(computed), ("dotted", "solid"), (5.0, 2.5), strict=True
        ):
            arrow = common.arrow(theta, -3.0 * gradient)
            lines.extend(Line(points, common.GREEN, dash, width) for points in arrow)
        self.lines.show(lines)

    def _show_points(self, computed: Computed) -> None:
        theta = np.asarray(computed.settings.theta)
        optima = [found.solved.phi for found in computed.solutions]
        centres = [task.query.centre for task in landscapes.tasks(computed.settings.kind)]
        self.points.data = {
            **_columns([*optima, *centres]),
            "colour": [*COLOURS, *COLOURS],
            "marker": ["circle"] * len(optima) + ["x"] * len(centres),
            "size": [11] * len(optima) + [10] * len(centres),
        }
        self.texts.data = {
            **_columns([theta, *optima]),
            "text": ["θ", "φ*₁", "φ*₂"],
            "colour": [common.GREY, *COLOURS],
        }


def _columns(points: Sequence[Any]) -> dict[str, list[float]]:
    return {"x": [float(point[0]) for point in points], "y": [float(point[1]) for point in points]}


def meta_gradients(computed: Computed) -> tuple[Float[np.ndarray, "2"], Float[np.ndarray, "2"]]:
    """The gradient of the outer loss at φ*, and as iMAML computes it where the solvers stopped."""
    found = computed.solutions
    solved = np.mean([solution.solved.meta_gradient for solution in found], axis=0)
    return solved, np.mean([solution.stopped.meta_gradient for solution in found], axis=0)


def readings(computed: Computed) -> str:
    """The numbers beside the figure, as HTML: at φ*, and where the solver stopped."""
    found = computed.solutions
    solved, stopped = meta_gradients(computed)
    names = [f"{common.swatch(colour)}task {n}" for n, colour in enumerate(COLOURS, 1)]
    jacobians = (f"{_pair(s.jacobian[0])}<br>{_pair(s.jacobian[1])}" for s in found)
    verdicts = (
        ("residual", *(number(s.info.inner_residual, ".1e") for s in found)),
        ("verdict", *(common.verdict([s.info.code]) for s in found)),
    )
    return (
        common.table(
            [*_rows("φ*", [s.solved for s in found]), ("dφ*/dθ", *jacobians)],
            head=("at φ*", *names),
        )
        + _meta_gradient("gradient of the outer loss", solved)
        + common.table(
            [*_rows("φ", [s.stopped for s in found]), *verdicts],
            head=("where the solver stopped", *names),
            style="margin-top:0.9rem",
        )
        + _meta_gradient("meta-gradient from there", stopped)
    )


def _rows(name: str, values: Sequence[Values]) -> list[tuple[str, ...]]:
    return [
        (name, *(_pair(v.phi) for v in values)),
        ("support loss", *(number(v.loss, ".3f") for v in values)),
        ("pull", *(number(v.pull, ".3f") for v in values)),
        ("query loss", *(number(v.outer, ".3f") for v in values)),
    ]


def _meta_gradient(name: str, gradient: Float[np.ndarray, "2"]) -> str:
    return (
        f'<p class="soft" style="margin-top:0.4rem">{common.swatch(common.GREEN)}{name}: '
        f"{_pair(gradient)}, length {number(np.linalg.norm(gradient), '.3f')}</p>"
    )


def _pair(vector: Any) -> str:
    return f"{number(vector[0], '.2f')}, {number(vector[1], '.2f')}"


def warm_up() -> None:
    """Compile what the figure needs at the start."""
    compute(START_SETTINGS)


ROOM = Room(
    "pull", "The pull", LEAD, build, NOTES, code(START_SETTINGS), height=740, warm_up=warm_up
)
