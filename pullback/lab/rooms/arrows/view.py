"""Four arrows: where four algorithms would move the same θ, and where they end."""

from typing import Any, NamedTuple

import numpy as np
import panel as pn
from jaxtyping import Float

from pullback.lab import common, landscapes
from pullback.lab.code import ShownCode
from pullback.lab.common import ALGORITHM_STYLES, Line, Lines
from pullback.lab.drag import CoordinateInputs, DragPoint
from pullback.lab.landscapes import REACH
from pullback.lab.room import Room
from pullback.lab.rooms.arrows import mathematics
from pullback.lab.rooms.arrows.code import START, START_SETTINGS, Settings, code
from pullback.lab.rooms.arrows.mathematics import NAMES, MetaGradients
from pullback.lab.session import Session

STYLES = [ALGORITHM_STYLES[name] for name in NAMES]
MAX_META_STEPS = 400
"""Playing ends here."""

LEAD = r"""
Three tasks now, and four ways to move $\theta$ so that adapting from it goes well. All four take
$k$ plain gradient steps $\phi_{j+1} = \phi_j - \tfrac18\nabla L_i(\phi_j)$ from $\theta$, iMAML
shorter ones, $1/(8+\lambda)$, down its loss with the pull;
they differ in what they make of the query loss at the end:

| | moves $\theta$ against |
| --- | --- |
| iMAML | $\Lambda(H+\Lambda)^{-1}\,\nabla L^{\text{query}}(\phi_k)$, the pull in its inner loss |
| MAML | $\left(\prod_j (I - \tfrac18\nabla^2 L(\phi_j))\right)\nabla L^{\text{query}}(\phi_k)$ |
| FOMAML | $\nabla L^{\text{query}}(\phi_k)$ |
| Reptile | $\theta - \phi_k$, on the support set alone |

Step, or play, and move the start. The grey lines are an outer loss, the mean query loss *after*
adaptation as a function of $\theta$: iMAML's at the $\phi^*$ that its steps lead to, or MAML's at
$\phi_k$.
"""

NOTES = r"""
On the quadratic losses MAML's product of $k$ factors shrinks every direction, the more the larger
$k$ is, and the weaker $\lambda$ is, the more iMAML's solve shrinks it. FOMAML keeps what both take
away; Reptile never sees the query set. iMAML needs the last point only: what it stores does not
grow with the steps.

The angles are those between the four directions at the start, where all four have the same
$\theta$. After a meta-step each is at its own, and so are its query loss and its length. One that
leaves the figure stops there. With few steps under a weak pull $\phi_k$ is not $\phi^*$ yet; where
$H+\Lambda$ is not positive definite there, iMAML's verdict says so.

A *gradient* is one evaluation of $\nabla L$ for one task, a *product* one of a Hessian with a
vector. *Stored* counts the numbers per parameter that have to be stored for the backward pass, as
JAX reports them for these losses.
"""


class OuterLossSettings(NamedTuple):
    """What the contours of the outer loss depend on: ``steps`` is None for iMAML's."""

    kind: str
    strength: float
    steps: int | None


Thetas = Float[np.ndarray, "4 2"]


def compute(settings: Settings, thetas: Thetas) -> tuple[Settings, Thetas, MetaGradients]:
    """Each algorithm's meta-gradient at its θ."""
    found = mathematics.meta_gradients(settings.kind, settings.steps, thetas, settings.strength)
    return settings, thetas, found


def outer_loss_contours(settings: OuterLossSettings) -> tuple[np.ndarray, np.ndarray]:
    """The grey lines, as one curve."""
    axis = landscapes.grid(points=49)
    values = mathematics.outer_loss(settings.kind, settings.strength, axis, settings.steps)
    return landscapes.contours(axis, values, landscapes.contour_levels(values, 10))


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.session = session
        self.plot = common.figure(
            height=None,
            name="arrows-figure",
            label="Paths of θ under four algorithms over contours of an outer loss",
            x_range=(-REACH, REACH),
            y_range=(-REACH, REACH),
        )
        self.plot.grid.visible = False
        kinds = {text: name for name, text in landscapes.KINDS.items()}
        self.kind = pn.widgets.Select(label="Losses", options=kinds, value="valley")
        self.whose_loss = pn.widgets.Select(
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
        self.inputs = CoordinateInputs(("start θ₁", "start θ₂"), START, REACH, self._typed)
        self.tables = common.html()
        self.code = ShownCode("arrows", code(START_SETTINGS))
        self._draw()
        self.point = DragPoint(self.plot, "arrows-start", START, self._dragged)
        self._update = session.updater(compute, self._show, self._failed)
        self._update_contours = session.updater(outer_loss_contours, self._show_contours)
        self._stop_playing = lambda: None
        self._busy = False
        self._found: MetaGradients | None = None
        self._at_start: MetaGradients | None = None
        self._start = START
        self._watch()
        self.view = common.beside(
            self.plot,
            pn.Row(self.kind, self.whose_loss, margin=0),
            self.steps,
            self.strength,
            pn.Row(self.step, self.play, self.reset, margin=0),
            pn.Row(*self.inputs.widgets, margin=0),
            self.tables,
            self.code,
        )
        self._changed()

    def _draw(self) -> None:
        self.contours = common.empty_source("x", "y")
        self.plot.line("x", "y", source=self.contours, color=common.GREY, alpha=0.6)
        self.lines = Lines(self.plot)
        self.points = common.empty_source("x", "y", "colour", "marker", name="arrows-points")
        self.plot.scatter("x", "y", source=self.points, marker="marker", size=9, color="colour")

    def _watch(self) -> None:
        for widget in (self.kind, self.steps, self.strength):
            widget.param.watch(self._changed, "value")
        self.whose_loss.param.watch(lambda _: self._ask_for_contours(), "value")
        self.step.on_click(lambda _: self._advance())
        self.reset.on_click(lambda _: self._changed())
        self.play.param.watch(self._played, "value")

    def _changed(self, *_: Any) -> None:
        """Begin anew at the start, with what the visitor has set."""
        self._ask_for_contours()
        self._begin()

    def _begin(self) -> None:
        self.thetas = np.tile(np.asarray(self._start, float), (len(NAMES), 1))
        self.paths = [self.thetas.copy()]
        self._ask()

    def _ask_for_contours(self) -> None:
        steps = self.steps.value if self.whose_loss.value == "maml" else None
        self._update_contours(OuterLossSettings(self.kind.value, 10.0**self.strength.value, steps))

    def _ask(self) -> None:
        self._busy = True
        settings = Settings(
            self.kind.value, self.steps.value, 10.0**self.strength.value, self._start,
            len(self.paths) - 1,
        )  # fmt: skip
        self._update(settings, self.thetas)

    def _dragged(self, x: float, y: float) -> None:
        self._start = (x, y)
        if self.point.released:
            self.inputs.follow(x, y)
        self._begin()

    def _typed(self, x: float, y: float) -> None:
        self._start = (x, y)
        self.point.move_to(x, y)
        self._changed()

    def _played(self, event: Any) -> None:
        self._stop_playing()
        self.play.label = "Pause" if event.new else "Play"
        self._stop_playing = self.session.every(100, self._advance) if event.new else lambda: None

    def _advance(self) -> None:
        if self._busy or self._found is None:
            return
        if len(self.paths) > MAX_META_STEPS:
            self.play.value = False
            return
        self.thetas = mathematics.meta_step(self.thetas, self._found)
        self.paths.append(self.thetas.copy())
        self._ask()

    def _failed(self, error: Exception) -> None:
        self._busy = False
        self.tables.object = common.not_computed(error)
        self.point.acknowledge()

    def _show_contours(self, curve: tuple[np.ndarray, np.ndarray]) -> None:
        self.contours.data = {"x": curve[0], "y": curve[1]}

    def _show(self, result: tuple[Settings, Thetas, MetaGradients]) -> None:
        settings, thetas, self._found = result
        self._busy = False
        if not settings.meta_steps:
            self._at_start = self._found
        paths = np.stack(self.paths, axis=1)
        lines = []
        for style, path, theta, gradient in zip(
            STYLES, paths, thetas, self._found.gradients, strict=True
        ):
            lines.append(Line(path, style.colour, style.dash))
            size = float(np.linalg.norm(gradient))
            # All arrows are alike in length, so that directions can be compared; the table has
            # the lengths.
            vector = -2.0 * gradient / size if size > 1e-3 else np.zeros(2)
            arrow = common.arrow(theta, vector, longest=0.9)
            lines.extend(Line(points, style.colour, width=2.5) for points in arrow)
        self.lines.show(lines)
        self.points.data = {
            "x": thetas[:, 0].tolist(),
            "y": thetas[:, 1].tolist(),
            "colour": [style.colour for style in STYLES],
            "marker": [style.marker for style in STYLES],
        }
        if self._at_start is not None:
            self.tables.object = tables(settings, self._found, self._at_start)
        if self.point.released:
            self.code.text = code(settings)
        self.point.acknowledge()


def tables(settings: Settings, found: MetaGradients, at_start: MetaGradients) -> str:
    """The numbers beside the figure, as HTML: costs, lengths and angles.

    Args:
        settings: what they belong to.
        found: each algorithm at its own θ.
        at_start: all of them at the start.
    """
    costs = []
    for row, (name, style) in enumerate(zip(NAMES, STYLES, strict=True)):
        cost = mathematics.cost(name, settings.steps, found.products)
        counts = (str(cost.gradients), str(cost.products), f"{cost.stored:g}")
        costs.append((style.label, *_values(found, row), *counts))
    angles = mathematics.angles(at_start.gradients)
    between = [
        (style.label, *[""] * i, *(_angle(value) for value in angles[i, i + 1 :]))
        for i, style in enumerate(STYLES[:-1])
    ]
    return (
        common.table(
            costs,
            head=("", "query loss", "length", "gradients", "products", "stored"),
            caption=f"After {settings.meta_steps} meta-steps",
        )
        + common.table(
            between,
            head=("", *(style.title for style in STYLES[1:])),
            caption="Angles between the directions at the start",
            style="margin-top:0.9rem",
        )
        + '<p style="margin-top:0.6rem">iMAML\'s verdict on itself: '
        + ("–" if found.left[0] else common.verdict(found.codes))
        + "</p>"
    )


def _values(found: MetaGradients, row: int) -> tuple[str, str]:
    """The query loss and the length of one algorithm, or why there are none."""
    if found.left[row]:
        return "left the figure", "–"
    if found.diverged[row]:
        return '<span class="bad">diverged</span>', "–"
    return f"{found.losses[row]:.3f}", f"{np.linalg.norm(found.gradients[row]):.3f}"


def _angle(degrees: float) -> str:
    return f"{degrees:.0f}°" if np.isfinite(degrees) else "–"


ROOM = Room("arrows", "Four arrows", LEAD, build, NOTES, code(START_SETTINGS), height=620)
