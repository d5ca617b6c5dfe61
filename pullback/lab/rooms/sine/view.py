"""Sine in five points: four initialisations learn a curve while you place its points."""

from functools import partial
from html import escape
from typing import Any, NamedTuple

import jax
import numpy as np
import panel as pn
from bokeh.events import DoubleTap, Tap
from jaxtyping import Float

from pullback.core.results import Verdict
from pullback.lab import common
from pullback.lab.background import run_in_background
from pullback.lab.common import ALGORITHM_STYLES, WHITE_DOT
from pullback.lab.result_cache import CachedResult
from pullback.lab.room import Room
from pullback.lab.rooms.sine import mathematics
from pullback.lab.rooms.sine.mathematics import MAX_POINTS, RECIPES, X_RANGE, Y_RANGE, Fit
from pullback.lab.session import Session
from pullback.tasks import Sinusoid

STYLES = {name: ALGORITHM_STYLES[name] for name in RECIPES}
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
phi, report = jax.jit(algorithm.adapt)(theta, support, jax.random.key(0))
"""


class Settings(NamedTuple):
    """What the visitor has set, and what is trained so far."""

    points: tuple[tuple[float, float], ...]
    strength: float
    steps: int
    thetas: dict[str, Any]


def compute(settings: Settings) -> dict[str, Fit]:
    """Every trained initialisation, adapted to the points."""
    points = np.asarray(settings.points, np.float32).reshape(-1, 2)
    return {
        name: mathematics.fit(name, theta, points, settings.strength, settings.steps)
        for name, theta in settings.thetas.items()
    }


def toggled(
    points: tuple[tuple[float, float], ...], x: float, y: float
) -> tuple[tuple[float, float], ...]:
    """The points with one more, or without the one that was clicked on.

    Args:
        points: the points so far, oldest first.
        x: the click's first coordinate.
        y: its second coordinate.

    Returns:
        The new points; with more than :data:`MAX_POINTS` the oldest is dropped.
    """
    if not (np.isfinite(x) and np.isfinite(y)):
        return points
    x, y = float(np.clip(x, *X_RANGE)), float(np.clip(y, *Y_RANGE))
    left = tuple(p for p in points if abs(p[0] - x) > NEAR[0] or abs(p[1] - y) > NEAR[1])
    return left if len(left) < len(points) else (*points, (x, y))[-MAX_POINTS:]


def draw_wave(seed: int) -> tuple[tuple[tuple[float, float], ...], Float[np.ndarray, " n"]]:
    """A task of the library's: its five support points, and the whole sine wave."""
    grid = mathematics.grid()
    task = Sinusoid(5, 10).sample(jax.random.key(seed))
    x, y = (np.asarray(part, float)[:, 0] for part in task.support)
    # The task does not tell its amplitude and phase, but two coefficients follow from the points.
    basis = np.stack([np.sin(x), np.cos(x)], axis=1)
    weights = np.linalg.lstsq(basis, y, rcond=None)[0]
    truth = np.stack([np.sin(grid), np.cos(grid)], axis=1) @ weights
    return tuple(zip(x.tolist(), y.tolist(), strict=True)), truth


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.session = session
        self.points: tuple[tuple[float, float], ...] = ()
        self.thetas: dict[str, Any] = {}
        self.states: dict[str, str] = dict.fromkeys(RECIPES, "waiting")
        self.fits: dict[str, Fit] = {}
        self.seed = 0
        self.plot = common.figure(
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
            options={style.title: name for name, style in STYLES.items()},
            value=list(STYLES),
            inline=True,
        )
        self.another = pn.widgets.Button(label="Another sine wave")
        self.clear = pn.widgets.Button(label="Clear")
        number: dict[str, Any] = {"step": 0.5, "width": 80}
        self.x = pn.widgets.FloatInput(label="x", value=0.0, start=-5.0, end=5.0, **number)
        self.y = pn.widgets.FloatInput(label="y", value=1.0, start=-6.0, end=6.0, **number)
        self.add = pn.widgets.Button(label="Place", margin=(22, 10, 5, 10))
        self.table = common.html()
        self._draw()
        self._update = session.updater(compute, self._show, self._failed)
        self._update_wave = session.updater(draw_wave, self._show_wave)
        self._watch()
        self.view = common.beside(
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
        self.truth = common.empty_source("x", "y")
        self.plot.line("x", "y", source=self.truth, color=common.GREY, line_width=6, alpha=0.35)
        self.curves, self.renderers = {}, {}
        for name, style in STYLES.items():
            for when, dash, width, alpha in (
                ("before", "dotted", 1.2, 0.75),
                ("after", style.dash, 2.2, 1.0),
            ):
                source = common.empty_source("x", "y", name=f"sine-{name}-{when}")
                self.curves[name, when] = source
                self.renderers[name, when] = self.plot.line(
                    "x", "y", source=source, color=style.colour, line_dash=dash,
                    line_width=width, alpha=alpha,
                )  # fmt: skip
        self.marks = common.empty_source("x", "y", name="sine-points")
        self.plot.scatter("x", "y", source=self.marks, size=12, **WHITE_DOT)

    def _watch(self) -> None:
        self.plot.on_event(Tap, lambda event: self._tapped(event.x, event.y))
        # Two quick clicks in two places come as a tap and a double tap.
        self.plot.on_event(DoubleTap, lambda event: self._tapped(event.x, event.y, twice=True))
        self.add.on_click(lambda _: self._tapped(self.x.value, self.y.value))
        self.clear.on_click(lambda _: self._set_points(()))
        self.another.on_click(lambda _: self._draw_wave())
        for widget in (self.strength, self.steps):
            widget.param.watch(lambda _: self._ask(), "value")
        self.shown.param.watch(self._show_chosen, "value")

    def _begin(self) -> None:
        self._draw_wave()
        for recipe in RECIPES.values():
            if self.session.document is None:
                # An export shows what is in the cache, and trains nothing.
                cached = mathematics.result_cache(recipe).get()
                if cached is not None:
                    self._trained(recipe.name, cached)
                else:
                    self.states[recipe.name] = "trained on the live page"
                continue
            run_in_background(
                self.session,
                partial(mathematics.train, recipe),
                on_progress=partial(self._progressed, recipe),
                on_done=partial(self._trained, recipe.name),
                on_error=partial(self._not_trained, recipe.name),
            )
        self._show_table()

    def _progressed(self, recipe: mathematics.Recipe, step: int, seconds: float) -> None:
        what = f"step {step} of {recipe.steps}" if step else "compiling"
        self.states[recipe.name] = f"{what}, {seconds:.0f} s"
        self._show_table()

    def _trained(self, name: str, result: CachedResult) -> None:
        when = "" if result.fresh else ", earlier"
        steps, seconds = result.facts["steps"], result.facts["seconds"]
        self.states[name] = f"{steps} steps in {seconds:.1f} s{when}"
        self.thetas = self.thetas | {name: result.arrays}
        self._ask()

    def _not_trained(self, name: str, error: Exception) -> None:
        self.states[name] = f'<span class="bad">failed: {escape(str(error))}</span>'
        self._show_table()

    def _tapped(self, x: float | None, y: float | None, *, twice: bool = False) -> None:
        if x is None or y is None:
            return
        points = toggled(self.points, x, y)
        # A double click at one place comes as a tap first, whose point is to stay.
        if not twice or len(points) > len(self.points):
            self._set_points(points)

    def _draw_wave(self) -> None:
        self.seed += 1
        self._update_wave(self.seed)

    def _show_wave(self, found: tuple[Any, Any]) -> None:
        self._set_points(*found)

    def _set_points(self, points: tuple[tuple[float, float], ...], truth: Any = None) -> None:
        """New points, and the wave that goes through them, if it is known."""
        self.points = points
        known = truth is not None
        self.truth.data = {"x": mathematics.grid() if known else [], "y": truth if known else []}
        self.marks.data = {"x": [p[0] for p in points], "y": [p[1] for p in points]}
        self._ask()

    def _show_chosen(self, _: Any) -> None:
        for (name, _when), renderer in self.renderers.items():
            renderer.visible = name in self.shown.value

    def _ask(self) -> None:
        self._show_table()
        strength = 10.0**self.strength.value
        self._update(Settings(self.points, strength, self.steps.value, self.thetas))

    def _failed(self, error: Exception) -> None:
        self.table.object = common.not_computed(error)

    def _show(self, fits: dict[str, Fit]) -> None:
        self.fits = fits
        x = mathematics.grid()
        for name, fit in self.fits.items():
            for when, y in (("before", fit.before), ("after", fit.after)):
                whole = bool(np.isfinite(y).all())
                # Far outside the figure a line would only lead the eye astray.
                y = np.clip(y, -50.0, 50.0) if whole else []
                self.curves[name, when].data = {"x": x if whole else [], "y": y}
        self._show_table()

    def _show_table(self) -> None:
        self.table.object = readings(self.states, self.fits, len(self.points))


def readings(states: dict[str, str], fits: dict[str, Fit], points: int) -> str:
    """The numbers beside the figure, as HTML: how each was trained, and how well it fits.

    Args:
        states: how far each training is, as HTML.
        fits: the fits of those that are trained.
        points: how many points there are.

    Returns:
        A table.
    """
    return common.table(
        (
            (style.label, *_fit_cells(fits.get(name), points), states[name])
            for name, style in STYLES.items()
        ),
        head=("", "before", "after", "meta-training"),
        caption=f"Mean squared error on the {points} points",
    )


def _fit_cells(fit: Fit | None, points: int) -> tuple[str, str]:
    if fit is None or not points:
        return "–", "–"
    before, after = float(fit.loss_before), float(fit.loss_after)
    if int(fit.report.code) == Verdict.NOT_FINITE or not np.isfinite(after):
        return f"{before:.3g}", '<span class="bad">diverged</span>'
    return f"{before:.3g}", f"{after:.3g}"


ROOM = Room("sine", "Sine in five points", LEAD, build, NOTES, CODE, height=460)
