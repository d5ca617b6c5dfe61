"""Room 5. Sine in five points: four initialisations learn a curve while you place its points."""

from functools import partial
from html import escape
from typing import Any, NamedTuple

import jax
import numpy as np
import panel as pn
from bokeh.events import DoubleTap, Tap
from bokeh.models import ColumnDataSource
from jaxtyping import Float

from pullback.core.results import Verdict
from pullback.lab import background, theme
from pullback.lab.background import Kept
from pullback.lab.room import Room
from pullback.lab.rooms.sine import mathematics
from pullback.lab.rooms.sine.mathematics import MOST_POINTS, RECIPES, X_RANGE, Y_RANGE, Fit
from pullback.lab.session import Session
from pullback.tasks import Sinusoid

TITLES = {"imaml": "iMAML", "maml": "MAML", "fomaml": "FOMAML", "reptile": "Reptile"}
DASHES = {"imaml": "solid", "maml": "dashed", "fomaml": "dotted", "reptile": "dotdash"}
NEAR = (0.25, 0.3)
"""A click this close to a point takes it away."""

LEAD = r"""
A task is a sine wave $y = a \sin(x - p)$ of unknown amplitude and phase, seen at a few points. A
network trained on five points alone would draw anything between them; one that starts from a
meta-learned $\theta$ has seen many sine waves. **Click to place points**, or on a point to take it
away. Dots are the four initialisations before, lines what becomes of them:
$\phi^* = \mathrm{argmin}_\phi\, L(\phi) + \tfrac{\lambda}{2}\|\phi - \theta\|^2$ by L-BFGS for
iMAML, $k$ plain gradient steps for the others.
"""

NOTES = r"""
Two numbers hold a curve back. $\lambda$ is how strongly iMAML is pulled to its $\theta$: when it is
large the curve stays the dotted one, when it is small the points are met and the shape learned from
other tasks is forgotten between them. The number of steps does the same for the others, less
explicitly: they end where they stop. Place points that no sine wave goes through, and see which of
the four give in.

All four were trained on your machine, from the same random parameters and on the same tasks. Equal
time was not given to them: the table says how long each took.
"""

CODE = """
import jax
import pullback as pb

model = pb.models.MLP()
loss = pb.models.mean_squared_error(model.apply)
algorithm = pb.imaml(loss, strength=2.0, solver=pb.solvers.LBFGS(16))
theta = pb.train(algorithm, model.init(jax.random.key(0)), pb.tasks.Sinusoid(shots=5), steps=10,
                 key=jax.random.key(0)).theta
support = pb.tasks.Sinusoid(shots=5).sample(jax.random.key(1)).support
phi, report = algorithm.adapt(theta, support, jax.random.key(0))
"""


class Scene(NamedTuple):
    """What the visitor has set, and what is trained so far."""

    points: tuple[tuple[float, float], ...]
    strength: float
    steps: int
    thetas: dict[str, Any]


def compute(scene: Scene) -> tuple[Scene, dict[str, Fit]]:
    """Every trained initialisation, adapted to the points."""
    points = np.asarray(scene.points, np.float32).reshape(-1, 2)
    fits = {
        name: mathematics.fit(name, theta, points, scene.strength, scene.steps)
        for name, theta in scene.thetas.items()
    }
    return scene, fits


def toggled(
    points: tuple[tuple[float, float], ...], x: float, y: float
) -> tuple[tuple[float, float], ...]:
    """The points with one more, or without the one that was clicked on.

    Args:
        points: the points so far, oldest first.
        x: where the click was.
        y: likewise.

    Returns:
        The new points; beyond :data:`MOST_POINTS` the oldest is given up.
    """
    if not (np.isfinite(x) and np.isfinite(y)):
        return points
    x, y = float(np.clip(x, *X_RANGE)), float(np.clip(y, *Y_RANGE))
    left = tuple(p for p in points if abs(p[0] - x) > NEAR[0] or abs(p[1] - y) > NEAR[1])
    return left if len(left) < len(points) else (*points, (x, y))[-MOST_POINTS:]


def wave(seed: int) -> tuple[tuple[tuple[float, float], ...], Float[np.ndarray, " n"]]:
    """A task of the library's: its five support points, and the whole sine wave."""
    line = mathematics.line()
    task = Sinusoid(5, 10).sample(jax.random.key(seed))
    x, y = (np.asarray(part, float)[:, 0] for part in task.support)
    # The wave through the points, from its two unknowns, which the task does not tell.
    basis = np.stack([np.sin(x), np.cos(x)], axis=1)
    weights = np.linalg.lstsq(basis, y, rcond=None)[0]
    truth = np.stack([np.sin(line), np.cos(line)], axis=1) @ weights
    return tuple(zip(x.tolist(), y.tolist(), strict=True)), truth


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.session = session
        self.points: tuple[tuple[float, float], ...] = ()
        self.thetas: dict[str, Any] = {}
        self.said: dict[str, str] = dict.fromkeys(RECIPES, "waiting")
        self.fits: dict[str, Fit] = {}
        self.drawn = 0
        self.plot = theme.figure(
            height=430,
            label="Support points, and four curves before and after adaptation to them",
            x_range=X_RANGE,
            y_range=Y_RANGE,
            x_axis_label="x",
            y_axis_label="y",
        )
        self.strength = pn.widgets.FloatSlider(
            label="log₁₀ λ (iMAML; trained with 0.3)", start=-3.0, end=3.0, step=0.1, value=0.3
        )
        self.steps = pn.widgets.DiscreteSlider(
            label="Inner steps", options=list(mathematics.STEPS), value=16
        )
        self.shown = pn.widgets.CheckBoxGroup(
            label="Shown",
            options={title: name for name, title in TITLES.items()},
            value=list(TITLES),
            inline=True,
        )
        self.another = pn.widgets.Button(label="Another sine wave")
        self.clear = pn.widgets.Button(label="Clear")
        number: dict[str, Any] = {"step": 0.5, "width": 80}
        self.x = pn.widgets.FloatInput(label="x", value=0.0, start=-5.0, end=5.0, **number)
        self.y = pn.widgets.FloatInput(label="y", value=1.0, start=-6.0, end=6.0, **number)
        self.add = pn.widgets.Button(label="Place", margin=(22, 10, 5, 10))
        self.table = theme.html()
        self._draw()
        self._live = session.live(compute, self._show, self._failed)
        self._wave = session.live(wave, self._placed)
        self._watch()
        self.view = theme.beside(
            self.plot,
            pn.Row(self.another, self.clear, margin=0),
            self.strength,
            self.steps,
            self.shown,
            pn.Row(self.x, self.y, self.add, margin=0),
            self.table,
        )
        self._begin()

    def _draw(self) -> None:
        self.truth = ColumnDataSource({"x": [], "y": []})
        self.plot.line("x", "y", source=self.truth, color=theme.GREY, line_width=6, alpha=0.35)
        self.curves, self.renderers = {}, {}
        for name, colour in theme.ALGORITHM_COLOURS.items():
            for when, dash, width, alpha in (
                ("before", "dotted", 1.2, 0.75),
                ("after", DASHES[name], 2.2, 1.0),
            ):
                source = ColumnDataSource({"x": [], "y": []}, name=f"sine-{name}-{when}")
                self.curves[name, when] = source
                self.renderers[name, when] = self.plot.line(
                    "x", "y", source=source, color=colour, line_dash=dash, line_width=width,
                    alpha=alpha,
                )  # fmt: skip
        self.marks = ColumnDataSource({"x": [], "y": []}, name="sine-points")
        self.plot.scatter(
            "x", "y", source=self.marks, size=12, fill_color="white", line_color="black",
            line_width=2,
        )  # fmt: skip

    def _watch(self) -> None:
        self.plot.on_event(Tap, lambda event: self._tapped(event.x, event.y))
        # Two quick clicks in two places come as a tap and a double tap.
        self.plot.on_event(DoubleTap, lambda event: self._tapped(event.x, event.y, twice=True))
        self.add.on_click(lambda _: self._tapped(self.x.value, self.y.value))
        self.clear.on_click(lambda _: self._put(()))
        self.another.on_click(lambda _: self._another())
        for widget in (self.strength, self.steps):
            widget.param.watch(lambda _: self._ask(), "value")
        self.shown.param.watch(self._choose, "value")

    def _begin(self) -> None:
        self._another()
        for recipe in RECIPES.values():
            if self.session.document is None:
                # An export shows what is kept already, and trains nothing.
                kept = mathematics.shelf(recipe).get()
                if kept is not None:
                    self._trained(recipe.name, kept)
                else:
                    self.said[recipe.name] = "trained once the page is alive"
                continue
            background.begin(
                self.session,
                partial(mathematics.train, recipe),
                told=partial(self._told, recipe),
                done=partial(self._trained, recipe.name),
                failed=partial(self._not_trained, recipe.name),
            )
        self._write()

    def _told(self, recipe: mathematics.Recipe, step: int, seconds: float) -> None:
        what = f"step {step} of {recipe.steps}" if step else "compiling"
        self.said[recipe.name] = f"{what}, {seconds:.0f} s"
        self._write()

    def _trained(self, name: str, kept: Kept) -> None:
        when = "" if kept.fresh else ", earlier"
        self.said[name] = f"{kept.facts['steps']} steps in {kept.facts['seconds']:.1f} s{when}"
        self.thetas = self.thetas | {name: kept.arrays}
        self._ask()

    def _not_trained(self, name: str, error: Exception) -> None:
        self.said[name] = f'<span class="bad">failed: {escape(str(error))}</span>'
        self._write()

    def _tapped(self, x: float | None, y: float | None, *, twice: bool = False) -> None:
        if x is None or y is None:
            return
        points = toggled(self.points, x, y)
        # A double click on one place has put a point there already, which is to stay.
        if not twice or len(points) > len(self.points):
            self._put(points)

    def _another(self) -> None:
        self.drawn += 1
        self._wave(self.drawn)

    def _placed(self, found: tuple[Any, Any]) -> None:
        self._put(found[0], found[1])

    def _put(self, points: tuple[tuple[float, float], ...], truth: Any = None) -> None:
        """New points; the wave they were drawn from is forgotten when a person changes them."""
        self.points = points
        line = mathematics.line() if truth is not None else []
        self.truth.data = {"x": line, "y": truth if truth is not None else []}
        self.marks.data = {"x": [p[0] for p in points], "y": [p[1] for p in points]}
        self._ask()

    def _choose(self, _: Any) -> None:
        for (name, _when), renderer in self.renderers.items():
            renderer.visible = name in self.shown.value

    def _ask(self) -> None:
        self._write()
        strength = 10.0**self.strength.value
        self._live(Scene(self.points, strength, self.steps.value, self.thetas))

    def _failed(self, error: Exception) -> None:
        self.table.object = f'<p class="bad">This could not be computed: {escape(str(error))}</p>'

    def _show(self, result: tuple[Scene, dict[str, Fit]]) -> None:
        _, self.fits = result
        x = mathematics.line()
        for name, fit in self.fits.items():
            for when, y in (("before", fit.before), ("after", fit.after)):
                whole = bool(np.isfinite(y).all())
                # Far outside the figure a line would only lead the eye astray.
                y = np.clip(y, -50.0, 50.0) if whole else []
                self.curves[name, when].data = {"x": x if whole else [], "y": y}
        self._write()

    def _write(self) -> None:
        self.table.object = readings(self.said, self.fits, len(self.points))


def readings(said: dict[str, str], fits: dict[str, Fit], points: int) -> str:
    """What stands beside the figure, as HTML: how each was trained, and how well it fits.

    Args:
        said: what is known about each training, as HTML.
        fits: the fits of those that are trained.
        points: how many points there are.

    Returns:
        A table.
    """
    rows = []
    for name, title in TITLES.items():
        label = f"{theme.swatch(theme.ALGORITHM_COLOURS[name])}{title}"
        cells = [label, *_fit_cells(fits.get(name), points), said[name]]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = ("", "before", "after", "meta-training")
    head = "".join(f"<th>{text}</th>" for text in heads)
    return (
        f"<table><caption>Mean squared error on the {points} points</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _fit_cells(fit: Fit | None, points: int) -> tuple[str, str]:
    if fit is None or not points:
        return "–", "–"
    before, after = float(fit.loss_before), float(fit.loss_after)
    if int(fit.report.code) == Verdict.NOT_FINITE or not np.isfinite(after):
        return f"{before:.3g}", '<span class="bad">diverged</span>'
    return f"{before:.3g}", f"{after:.3g}"


ROOM = Room("sine", "Sine in five points", LEAD, build, NOTES, CODE, height=460)
