"""Room 1. The pull: two tasks, one θ, and the springs between them."""

import functools
from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, Label
from jaxtyping import Float

from pullback.core import results
from pullback.lab import landscapes, shapes, theme
from pullback.lab.drag import DragPoint
from pullback.lab.landscapes import REACH
from pullback.lab.room import Room
from pullback.lab.rooms.pull import mathematics
from pullback.lab.session import Session

COLOURS = (theme.BLUE, theme.VERMILLION)
START = (-0.1, -1.2)
BOTH = -1
EMPTY = (np.zeros(0), np.zeros(0))
NOTHING = (EMPTY, EMPTY)
RADIUS = 0.35
"""Of the small circle about θ whose images the Jacobians draw."""

LEAD = r"""
Each task has a loss $L_i$ on its support set, here over two parameters so that all of it can be
seen. To learn task $i$ from $\theta$ is to solve

$$\phi_i^*(\theta) = \underset{\phi}{\mathrm{argmin}} \; L_i(\phi) +
\tfrac12 (\phi-\theta)^\top \Lambda\,(\phi-\theta),$$

the loss plus a pull back to $\theta$ of strength $\Lambda$. **Drag $\theta$**, and change
$\lambda$: the weaker the pull, the closer each $\phi_i^*$ is to its own loss's valley, and the
less it cares where $\theta$ is.
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
query loss's gradient at $\phi_i^*$, and the green arrow at $\theta$ points against it. Nothing in
it asks how the solver got to $\phi_i^*$: choose another solver and the path changes, the arrow does
not, as long as the solver arrives.
"""

CODE = """
import jax, jax.numpy as jnp
import pullback as pb
from pullback.lab.landscapes import loss, tasks

task, theta, strength = tasks("quadratic")[0], jnp.array([-0.1, -1.2]), jnp.array([0.5, 0.5])
phi = pb.solve(pb.Proximal(loss, strength), theta, task.support,
               solver=pb.solvers.LBFGS(10), key=jax.random.key(0)).phi
problem = pb.Proximal(loss, strength).problem(theta, task.support)
jacobian = pb.implicit.jacobian(pb.implicit.linearise(problem, phi))
algorithm = pb.imaml(loss, strength=strength, linear_solver=pb.linear.CG(10, rtol=0.0))
outer, gradient, info = algorithm.meta_gradient(theta, task, jax.random.key(0))
"""


class Scene(NamedTuple):
    """What the visitor has set."""

    kind: str
    solver: str
    theta: tuple[float, float]
    strength: tuple[float, float]
    surfaces: tuple[str, ...]
    whose: int = BOTH


class Frame(NamedTuple):
    """What one scene looks like."""

    scene: Scene
    tasks: tuple[mathematics.Pulled, ...]
    contours: dict[str, "Curves"]


def compute(scene: Scene) -> Frame:
    """Everything that the room shows, from what the visitor has set."""
    tasks = landscapes.tasks(scene.kind)
    theta = np.asarray(scene.theta, np.float32)
    strength = np.asarray(scene.strength, np.float32)
    pulled = tuple(mathematics.pull(scene.solver, theta, strength, task) for task in tasks)
    return Frame(scene, pulled, _contours(scene))


Curves = tuple[tuple[np.ndarray, np.ndarray], ...]


def _contours(scene: Scene) -> dict[str, Curves]:
    """The contour lines that are switched on; one set of them is drawn for the pull of both."""
    theta = np.asarray(scene.theta, np.float32)
    strength = np.asarray(scene.strength, np.float32)
    lines: dict[str, Curves] = {"loss": NOTHING, "pull": NOTHING, "sum": NOTHING}

    def only(curves: Curves) -> Curves:
        return tuple(curve if scene.whose in (BOTH, n) else EMPTY for n, curve in enumerate(curves))

    if "loss" in scene.surfaces:
        lines["loss"] = only(_loss_contours(scene.kind))
    if {"pull", "sum"} & set(scene.surfaces):
        axis = landscapes.grid()
        found = [
            tuple(map(np.asarray, landscapes.surface(axis, task.support, theta, strength)))
            for task in landscapes.tasks(scene.kind)
        ]
        if "pull" in scene.surfaces:
            lines["pull"] = (_lines(axis, found[0][1]), EMPTY)
        if "sum" in scene.surfaces:
            lines["sum"] = only(tuple(_lines(axis, loss + pull) for loss, pull in found))
    return lines


@functools.cache
def _loss_contours(kind: str) -> Curves:
    axis, zero = landscapes.grid(), np.zeros(2, np.float32)
    surfaces = [landscapes.surface(axis, t.support, zero, zero) for t in landscapes.tasks(kind)]
    return tuple(_lines(axis, np.asarray(loss)) for loss, _ in surfaces)


def _lines(axis: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return landscapes.contours(axis, values, landscapes.heights(values))


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.plot = theme.figure(
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
        number: dict[str, Any] = {"start": -REACH, "end": REACH, "step": 0.1, "width": 90}
        self.numbers = [
            pn.widgets.FloatInput(label=name, value=value, **number)
            for name, value in zip(("θ₁", "θ₂"), START, strict=True)
        ]
        self.table = theme.html()
        self._draw()
        self.theta = DragPoint(self.plot, "pull-theta", START, self._moved)
        self._live = session.live(compute, self._show, self._failed)
        for widget in (self.kind, self.solver, self.first, self.second, self.surfaces, self.whose):
            widget.param.watch(self._changed, "value")
        self.diagonal.param.watch(self._split, "value")
        for widget in self.numbers:
            widget.param.watch(self._typed, "value")
        self._place = START
        self._following = False
        self._sent: dict[str, Any] = {}
        self.view = theme.beside(
            self.plot,
            pn.Row(self.kind, self.solver, margin=0),
            self.first,
            self.diagonal,
            self.second,
            self.surfaces,
            pn.Row(self.whose, *self.numbers, margin=0),
            self.table,
        )
        self._changed()

    def _draw(self) -> None:
        self.lines = {}
        for name, dash, width in (("loss", "solid", 1.0), ("sum", "dashed", 1.4)):
            self.lines[name] = [ColumnDataSource({"x": [], "y": []}) for _ in COLOURS]
            for source, colour in zip(self.lines[name], COLOURS, strict=True):
                self.plot.line(
                    "x",
                    "y",
                    source=source,
                    color=colour,
                    alpha=0.7,
                    line_dash=dash,
                    line_width=width,
                )
        self.lines["pull"] = [ColumnDataSource({"x": [], "y": []})]
        self.plot.line(
            "x",
            "y",
            source=self.lines["pull"][0],
            color=theme.GREY,
            line_dash="dotted",
            line_width=1.2,
        )
        self.curves = ColumnDataSource({"xs": [], "ys": [], "colour": [], "dash": [], "width": []})
        self.plot.multi_line(
            "xs",
            "ys",
            source=self.curves,
            line_color="colour",
            line_dash="dash",
            line_width="width",
        )
        self.points = ColumnDataSource(
            {"x": [], "y": [], "colour": [], "marker": [], "size": []}, name="pull-points"
        )
        self.plot.scatter(
            "x",
            "y",
            source=self.points,
            marker="marker",
            size="size",
            line_color="colour",
            fill_color="colour",
            fill_alpha=0.25,
            line_width=2,
        )
        self.texts = ColumnDataSource({"x": [], "y": [], "text": [], "colour": []})
        self.plot.text(
            "x",
            "y",
            "text",
            source=self.texts,
            text_color="colour",
            text_font_size="16px",
            text_font_style="bold",
            x_offset=9,
            y_offset=-9,
        )
        self.message = Label(x=10, y=10, x_units="screen", y_units="screen", text="")
        self.plot.add_layout(self.message)

    def _moved(self, x: float, y: float) -> None:
        self._place = (x, y)
        self._live(self._scene())

    def _typed(self, _: Any) -> None:
        if not self._following:
            x, y = (widget.value for widget in self.numbers)
            self._place = (float(x or 0.0), float(y or 0.0))
            self.theta.move(*self._place)
            self._live(self._scene())

    def _changed(self, *_: Any) -> None:
        self._live(self._scene())

    def _split(self, _: Any) -> None:
        self.second.visible = self.diagonal.value
        self.first.label = "log₁₀ λ₁" if self.diagonal.value else "log₁₀ λ"
        self._changed()

    def _scene(self) -> Scene:
        first = 10.0**self.first.value
        second = 10.0**self.second.value if self.diagonal.value else first
        return Scene(
            self.kind.value,
            self.solver.value,
            self._place,
            (first, second),
            tuple(self.surfaces.value),
            self.whose.value,
        )

    def _failed(self, error: Exception) -> None:
        self.message.text = f"This could not be computed: {error}"
        self.theta.answer()

    def _show(self, frame: Frame) -> None:
        theta = np.asarray(frame.scene.theta)
        for name, sources in self.lines.items():
            for source, curve in zip(sources, frame.contours[name], strict=False):
                # What has not changed since the last frame is not sent again.
                if self._sent.get(source.id) is not curve:
                    self._sent[source.id] = curve
                    source.data = dict(zip("xy", curve, strict=True))
        curves, points = [], []
        strength = np.asarray(frame.scene.strength)
        turned = shapes.ellipse(theta, np.eye(2), RADIUS)
        curves.append((turned, theme.GREY, "dotted", 1.5))
        for found, colour in zip(frame.tasks, COLOURS, strict=True):
            curves.append((found.path, colour, "solid", 2.0))
            curves.append(
                (shapes.same_pull(theta, found.optimum, strength), colour, "dotdash", 1.0)
            )
            ring = shapes.ellipse(found.optimum, found.jacobian, RADIUS)
            curves.append((ring, colour, "dotted", 2.0))
            points.append((found.optimum, colour, "circle", 11))
        gradient = np.mean([found.meta_gradient for found in frame.tasks], axis=0)
        curves.extend(
            (line, theme.GREEN, "solid", 3.0) for line in shapes.arrow(theta, -3.0 * gradient)
        )
        for task, colour in zip(landscapes.tasks(frame.scene.kind), COLOURS, strict=True):
            points.append((np.asarray(task.query.centre), colour, "x", 10))
        self.curves.data = {
            # Lists, not arrays: each array would be a message of its own.
            "xs": [curve[0][:, 0].tolist() for curve in curves],
            "ys": [curve[0][:, 1].tolist() for curve in curves],
            "colour": [curve[1] for curve in curves],
            "dash": [curve[2] for curve in curves],
            "width": [curve[3] for curve in curves],
        }
        self.points.data = {
            "x": [float(point[0][0]) for point in points],
            "y": [float(point[0][1]) for point in points],
            "colour": [point[1] for point in points],
            "marker": [point[2] for point in points],
            "size": [point[3] for point in points],
        }
        places = [theta, *(found.optimum for found in frame.tasks)]
        self.texts.data = {
            "x": [float(place[0]) for place in places],
            "y": [float(place[1]) for place in places],
            "text": ["θ", "φ*₁", "φ*₂"],
            "colour": [theme.GREY, *COLOURS],
        }
        # Widgets are dear to change; while the point moves the table has its place.
        if self.theta.rests:
            self._following = True
            for widget, value in zip(self.numbers, frame.scene.theta, strict=True):
                widget.value = round(value, 2)
            self._following = False
        if self.message.text:
            self.message.text = ""
        self.table.object = readings(frame, gradient)
        self.theta.answer()


def readings(frame: Frame, gradient: Float[np.ndarray, "2"]) -> str:
    """The numbers beside the figure, as HTML."""

    def cells(*values: str) -> str:
        return "".join(f"<td>{value}</td>" for value in values)

    rows = []
    names = [f"{theme.swatch(colour)}task {n}" for n, colour in enumerate(COLOURS, 1)]

    def pair(v: Any) -> str:
        return f"{v[0]:.2f}, {v[1]:.2f}"

    tasks = frame.tasks
    rows.append(("φ*", *(pair(t.optimum) for t in tasks)))
    rows.append(("dφ*/dθ", *(f"{pair(t.jacobian[0])}<br>{pair(t.jacobian[1])}" for t in tasks)))
    rows.append(("support loss", *(f"{t.loss:.3f}" for t in tasks)))
    rows.append(("pull", *(f"{t.pull:.3f}" for t in tasks)))
    rows.append(("query loss", *(f"{t.outer:.3f}" for t in tasks)))
    rows.append(("residual", *(f"{float(t.info.inner_residual):.1e}" for t in tasks)))
    rows.append(("verdict", *(_verdict(t) for t in tasks)))
    body = "".join(f"<tr><th>{row[0]}</th>{cells(*row[1:])}</tr>" for row in rows)
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
        f'<p class="soft" style="margin-top:0.5rem">{theme.swatch(theme.GREEN)}meta-gradient '
        f"{pair(gradient)}, length {np.linalg.norm(gradient):.3f}</p>"
    )


def _verdict(found: mathematics.Pulled) -> str:
    code = int(found.info.code)
    name = results.label(code).replace("_", " ")
    return f'<span class="{"bad" if code else "good"}">{name}</span>'


def warm() -> None:
    """Compile what the first picture needs."""
    compute(Scene("quadratic", "gradient-descent", START, (10**-0.3, 10**-0.3), ("loss",)))


ROOM = Room("pull", "The pull", LEAD, build, NOTES, CODE, height=590, warm=warm)
