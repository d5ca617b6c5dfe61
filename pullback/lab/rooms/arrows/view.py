"""Room 2. Four arrows: where four algorithms would move the same θ, and where they end."""

from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource
from jaxtyping import Float

from pullback.core import results
from pullback.lab import landscapes, shapes, theme
from pullback.lab.drag import DragPoint
from pullback.lab.landscapes import REACH
from pullback.lab.room import Room
from pullback.lab.rooms.arrows import mathematics
from pullback.lab.rooms.arrows.mathematics import NAMES, OUTER_RATE, TITLES, Arrows
from pullback.lab.session import Session

START = (2.1, -1.6)
DASHES = {"imaml": "solid", "maml": "dashed", "fomaml": "dotted", "reptile": "dotdash"}
MARKERS = {"imaml": "circle", "maml": "square", "fomaml": "triangle", "reptile": "diamond"}
MOST = 400
"""Meta-steps after which a path starts anew only by reset."""

LEAD = r"""
Three tasks now, and four ways to move $\theta$ so that adapting from it goes well. All four take
the same $k$ plain gradient steps $\phi_{j+1} = \phi_j - 0.3\,\nabla L_i(\phi_j)$ from $\theta$;
they differ in what they make of the query loss at the end:

| | moves $\theta$ against |
| --- | --- |
| iMAML | $\Lambda(H+\Lambda)^{-1}\,\nabla L^{\text{query}}(\phi_k)$, the pull in its inner loss |
| MAML | $\left(\prod_j (I - 0.3\,\nabla^2 L(\phi_j))\right)\nabla L^{\text{query}}(\phi_k)$ |
| FOMAML | $\nabla L^{\text{query}}(\phi_k)$ |
| Reptile | $\theta - \phi_k$, on the support set alone |

Step, or play, and move the start. The grey lines are an outer loss: the mean query loss *after*
adaptation, as a function of $\theta$.
"""

NOTES = r"""
With one step the four nearly agree: there is little to differentiate. With more, MAML's product
of $k$ factors shrinks every direction in which the loss is curved, until nearly nothing of the
gradient is left where $\phi_k$ has forgotten $\theta$; FOMAML keeps what MAML takes away, so it
points elsewhere and does not come to rest where MAML does; Reptile never sees the query set. The
pull keeps $\phi^*$ from forgetting: iMAML's direction stays useful however many steps there are,
at a price that does not grow with them, and a weaker $\lambda$ is a longer memory to give up.
MAML's and iMAML's minima differ, since their outer losses do: switch the grey lines to see both.

A *gradient* is one evaluation of $\nabla L$ for one task, a *product* one of a Hessian with a
vector, about as dear as two gradients. *Kept* counts the numbers per parameter that have to be
remembered for the way back, as JAX reports them for these losses.
"""

CODE = """
import jax, jax.numpy as jnp
import pullback as pb
from pullback.lab.landscapes import loss, tasks

theta, task, solver = jnp.array([2.1, -1.6]), tasks("valley")[0], pb.solvers.GradientDescent(5, 0.3)
algorithms = (pb.imaml(loss, strength=1.0, solver=solver), pb.maml(loss, solver=solver),
              pb.fomaml(loss, solver=solver), pb.reptile(loss, solver=solver, fit="support"))
arrows = [-a.meta_gradient(theta, task, jax.random.key(0))[1] for a in algorithms]
"""


class Scene(NamedTuple):
    """What the visitor has set, and where the four are."""

    kind: str
    steps: int
    strength: float
    thetas: tuple[tuple[float, float], ...]


class Ground(NamedTuple):
    """What the grey lines depend on."""

    kind: str
    strength: float
    steps: int | None


def compute(scene: Scene) -> tuple[Scene, Arrows]:
    """The four directions at a scene's four places."""
    thetas = np.asarray(scene.thetas)
    return scene, mathematics.arrows(scene.kind, scene.steps, thetas, scene.strength)


def ground(asked: Ground) -> tuple[np.ndarray, np.ndarray]:
    """The grey lines, as one curve."""
    axis = landscapes.grid(points=49)
    values = mathematics.outer_loss(asked.kind, asked.strength, axis, asked.steps)
    return landscapes.contours(axis, values, landscapes.heights(values, 10))


def moved(thetas: Float[np.ndarray, "4 2"], found: Arrows) -> Float[np.ndarray, "4 2"]:
    """One meta-step of each algorithm; one that would leave the figure's surroundings stays."""
    new = thetas - OUTER_RATE * found.gradients
    inside = np.all(np.isfinite(new) & (np.abs(new) < 3 * REACH), axis=1, keepdims=True)
    return np.where(inside, new, thetas)


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.session = session
        self.plot = theme.figure(
            height=None,
            name="arrows-figure",
            label="Paths of θ under four algorithms over contours of an outer loss",
            x_range=(-REACH, REACH),
            y_range=(-REACH, REACH),
        )
        self.plot.grid.visible = False
        kinds = {text: name for name, text in landscapes.KINDS.items()}
        self.kind = pn.widgets.Select(label="Losses", options=kinds, value="valley")
        self.under = pn.widgets.Select(
            label="Grey lines", options={"iMAML's outer loss": "imaml", "MAML's outer loss": "maml"}
        )
        self.steps = pn.widgets.DiscreteSlider(
            label="Inner steps k", options=list(mathematics.STEPS), value=5
        )
        self.strength = pn.widgets.FloatSlider(
            label="log₁₀ λ (iMAML)", start=-2.0, end=2.0, step=0.1, value=0.0
        )
        self.step = pn.widgets.Button(label="Step")
        self.play = pn.widgets.Toggle(label="Play")
        self.reset = pn.widgets.Button(label="Reset")
        number: dict[str, Any] = {"start": -REACH, "end": REACH, "step": 0.1, "width": 90}
        self.numbers = [
            pn.widgets.FloatInput(label=f"start θ{sign}", value=value, **number)
            for sign, value in zip("₁₂", START, strict=True)
        ]
        self.tables = theme.html()
        self._draw()
        self.start = DragPoint(self.plot, "arrows-start", START, self._placed)
        self._live = session.live(compute, self._show, self._failed)
        self._ground = session.live(ground, self._show_ground)
        self._stop = lambda: None
        self._busy = self._following = False
        self._found: Arrows | None = None
        self._start = START
        self._begin()
        self._watch()
        self.view = theme.beside(
            self.plot,
            pn.Row(self.kind, self.under, margin=0),
            self.steps,
            self.strength,
            pn.Row(self.step, self.play, self.reset, margin=0),
            pn.Row(*self.numbers, margin=0),
            self.tables,
        )
        self._changed()

    def _draw(self) -> None:
        self.lines = ColumnDataSource({"x": [], "y": []})
        self.plot.line("x", "y", source=self.lines, color=theme.GREY, alpha=0.6)
        columns = ("xs", "ys", "colour", "dash", "width")
        self.curves = ColumnDataSource({name: [] for name in columns})
        self.plot.multi_line(
            "xs", "ys", source=self.curves, line_color="colour", line_dash="dash",
            line_width="width",
        )  # fmt: skip
        self.points = ColumnDataSource(
            {name: [] for name in ("x", "y", "colour", "marker")}, name="arrows-points"
        )
        self.plot.scatter(
            "x", "y", source=self.points, marker="marker", size=9, color="colour"
        )  # fmt: skip

    def _watch(self) -> None:
        for widget in (self.kind, self.steps, self.strength):
            widget.param.watch(self._changed, "value")
        self.under.param.watch(lambda _: self._underlay(), "value")
        self.step.on_click(lambda _: self._advance())
        self.reset.on_click(lambda _: self._changed())
        self.play.param.watch(self._played, "value")
        for widget in self.numbers:
            widget.param.watch(self._typed, "value")

    def _begin(self) -> None:
        self.thetas = np.tile(np.asarray(self._start, float), (len(NAMES), 1))
        self.paths = [self.thetas.copy()]

    def _changed(self, *_: Any) -> None:
        self._begin()
        self._underlay()
        self._ask()

    def _underlay(self) -> None:
        steps = self.steps.value if self.under.value == "maml" else None
        self._ground(Ground(self.kind.value, 10.0**self.strength.value, steps))

    def _ask(self) -> None:
        self._busy = True
        places = tuple((float(x), float(y)) for x, y in self.thetas)
        self._live(Scene(self.kind.value, self.steps.value, 10.0**self.strength.value, places))

    def _placed(self, x: float, y: float) -> None:
        self._start = (x, y)
        if self.start.rests:
            self._follow(x, y)
        self.thetas = np.tile(np.asarray([x, y]), (len(NAMES), 1))
        self.paths = [self.thetas.copy()]
        self._ask()

    def _follow(self, x: float, y: float) -> None:
        self._following = True
        for widget, value in zip(self.numbers, (x, y), strict=True):
            widget.value = round(value, 2)
        self._following = False

    def _typed(self, _: Any) -> None:
        if not self._following:
            x, y = (float(widget.value or 0.0) for widget in self.numbers)
            self._start = (x, y)
            self.start.move(x, y)
            self._changed()

    def _played(self, event: Any) -> None:
        self._stop()
        self.play.label = "Pause" if event.new else "Play"
        self._stop = self.session.every(100, self._advance) if event.new else lambda: None

    def _advance(self) -> None:
        if self._busy or self._found is None:
            return
        if len(self.paths) > MOST:
            self.play.value = False
            return
        self.thetas = moved(self.thetas, self._found)
        self.paths.append(self.thetas.copy())
        self._ask()

    def _failed(self, error: Exception) -> None:
        self._busy = False
        self.tables.object = f'<p class="bad">This could not be computed: {error}</p>'
        self.start.answer()

    def _show_ground(self, curve: tuple[np.ndarray, np.ndarray]) -> None:
        self.lines.data = {"x": curve[0], "y": curve[1]}

    def _show(self, result: tuple[Scene, Arrows]) -> None:
        scene, self._found = result
        self._busy = False
        thetas = np.asarray(scene.thetas)
        paths = np.stack(self.paths, axis=1)
        curves = []
        for name, path, theta, gradient in zip(
            NAMES, paths, thetas, self._found.gradients, strict=True
        ):
            colour = theme.ALGORITHM_COLOURS[name]
            curves.append((path, colour, DASHES[name], 2.0))
            size = float(np.linalg.norm(gradient))
            # All arrows are alike in length, so that directions can be compared; the table has
            # the lengths.
            unit = -2.0 * gradient / size if size > 1e-3 else np.zeros(2)
            head = shapes.arrow(theta, unit, longest=0.9)
            curves.extend((line, colour, "solid", 2.5) for line in head)
        self.curves.data = {
            # Lists, not arrays: each array would be a message of its own.
            "xs": [curve[0][:, 0].tolist() for curve in curves],
            "ys": [curve[0][:, 1].tolist() for curve in curves],
            "colour": [curve[1] for curve in curves],
            "dash": [curve[2] for curve in curves],
            "width": [curve[3] for curve in curves],
        }
        self.points.data = {
            "x": thetas[:, 0].tolist(),
            "y": thetas[:, 1].tolist(),
            "colour": [theme.ALGORITHM_COLOURS[name] for name in NAMES],
            "marker": [MARKERS[name] for name in NAMES],
        }
        self.tables.object = tables(scene, self._found, len(self.paths) - 1)
        self.start.answer()


def tables(scene: Scene, found: Arrows, meta_steps: int) -> str:
    """The readings beside the figure, as HTML: costs, lengths and angles."""
    labels = {n: f"{theme.swatch(theme.ALGORITHM_COLOURS[n])}{TITLES[n]}" for n in NAMES}
    rows = []
    for name, gradient, loss in zip(NAMES, found.gradients, found.losses, strict=True):
        cost = mathematics.cost(name, scene.steps, found.products)
        cells = (
            _number(loss, 3), _number(np.linalg.norm(gradient), 3), cost.gradients,
            cost.products, f"{cost.kept:g}",
        )  # fmt: skip
        body = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f"<tr><th>{labels[name]}</th>{body}</tr>")
    heads = ("query loss", "length", "gradients", "products", "kept")
    head = "".join(f"<th>{text}</th>" for text in heads)
    costs = (
        f"<table><caption>After {meta_steps} meta-steps</caption>"
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    turned = mathematics.angles(found.gradients)
    rows = []
    for i, name in enumerate(NAMES[:-1]):
        cells = "".join(
            f"<td>{_number(turned[i, j], 0)}{'°' if np.isfinite(turned[i, j]) else ''}</td>"
            if j > i
            else "<td></td>"
            for j in range(1, len(NAMES))
        )
        rows.append(f"<tr><th>{labels[name]}</th>{cells}</tr>")
    head = "".join(f"<th>{TITLES[name]}</th>" for name in NAMES[1:])
    between = (
        f'<table style="margin-top:0.9rem"><caption>Angles between the directions</caption>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )
    bad = sorted({results.label(int(code)).replace("_", " ") for code in found.codes if code})
    verdict = (
        f'<span class="bad">{", ".join(bad)}</span>' if bad else '<span class="good">ok</span>'
    )
    return f"{costs}{between}<p style='margin-top:0.6rem'>iMAML's verdict on itself: {verdict}</p>"


def _number(value: Any, digits: int) -> str:
    return f"{float(value):.{digits}f}" if np.isfinite(value) else "–"


ROOM = Room("arrows", "Four arrows", LEAD, build, NOTES, CODE, height=620)
