"""Room 3. Inexact is fine, and when not: errors, their estimates, and verdicts."""

from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, Span
from jaxtyping import Float

from pullback.core import results
from pullback.core.results import Verdict
from pullback.lab import theme
from pullback.lab.room import Room
from pullback.lab.rooms.inexact import mathematics
from pullback.lab.rooms.inexact.mathematics import LINEAR_STEPS, MOST, Judged, Truth
from pullback.lab.session import Session

LOWEST, HIGHEST = 1e-6, 1e3
SHAPES = {"true": "solid", "inner": "dashed", "linear": "dotted"}
COLOURS = {"true": theme.BLUE, "inner": theme.VERMILLION, "linear": theme.GREEN}
LABELS = {
    "true": "true error",
    "inner": "estimate: inner solver's part",
    "linear": "estimate: linear solve's part",
}

LEAD = r"""
Nothing above is ever computed exactly. The inner solver stops after $k$ steps, where
$r = \nabla L(\phi) + \Lambda(\phi-\theta)$ is not quite zero; and $(H+\Lambda)\,u = v$ is solved by
some steps of conjugate gradients (CG), which leave a remainder. How wrong is $\Lambda u$ then? The
library does not know the true meta-gradient, yet it says: from one Newton correction of $\phi$ and
from CG's own directions it estimates the relative error that each of the two leaves, and above
one half its verdict is bad. Here, over sixteen parameters, the true one can be had, and the
estimate be held against it.
"""

NOTES = r"""
**When it is fine.** At $\lambda = 2$ a few steps of each will do. More CG steps do not help while
$\phi$ is far from stationary, and the other way round: the larger of the two parts rules.

**When not.** This loss has a ridge, which curves downward with $-1$, and $\theta$ lies beside it.
Lower $\lambda$ below 1: as long as the inner solver is on the ridge, $H+\Lambda$ has an eigenvalue
below zero, $\phi$ is near a saddle and not a minimum, and $(H+\Lambda)^{-1}$ is the derivative of
nothing. CG notices as soon as one of its directions $p$ has $p^\top(H+\Lambda)\,p \le 0$; it stops
before that direction, and the verdict says so, with how much more $\Lambda$ is needed. With few CG
steps no such direction may turn up. Then it is the estimate that gives the alarm. Take more inner
steps, and $\phi$ rolls off the ridge: at a minimum $H+\Lambda$ is never negative.
"""

CODE = """
import jax, jax.numpy as jnp
import pullback as pb
from pullback import codes
from pullback.lab.inexact_math import loss, task

algorithm = pb.imaml(loss, strength=0.5, solver=pb.solvers.GradientDescent(12, 0.08),
                     linear_solver=pb.linear.CG(8, rtol=0.0))
value, gradient, info = algorithm.meta_gradient(jnp.zeros(16), task(), jax.random.key(0))
print(info.inner_error, info.linear_error, results.message(info.code, info.smallest_curvature))
"""


class Asked(NamedTuple):
    """What has to be computed."""

    strength: float
    linear_steps: int


class Known(NamedTuple):
    """What one λ and one number of CG steps give, for every number of inner steps."""

    asked: Asked
    truth: Truth
    judged: Judged


def compute(asked: Asked) -> Known:
    """The meta-gradient after each number of inner steps, and the truth."""
    truth = mathematics.truth(asked.strength)
    return Known(asked, truth, mathematics.judged(asked.linear_steps, asked.strength, truth))


def sweep(strength: float) -> tuple[float, list[Judged]]:
    """The same for every number of CG steps."""
    truth = mathematics.truth(strength)
    return strength, [mathematics.judged(steps, strength, truth) for steps in LINEAR_STEPS]


def shown(values: Any) -> Float[np.ndarray, " k"]:
    """Errors as a logarithmic axis can show them; what is not finite is left out."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), np.clip(values, LOWEST, HIGHEST), np.nan)


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.inner = pn.widgets.IntSlider(label="Inner steps k", start=0, end=MOST, value=20)
        self.linear = pn.widgets.DiscreteSlider(
            label="CG steps", options=list(LINEAR_STEPS), value=8
        )
        self.strength = pn.widgets.FloatSlider(
            label="log₁₀ λ", start=-1.5, end=1.5, step=0.05, value=0.3
        )
        self.table = theme.html()
        self.by_inner = self._errors("inner steps", "By inner steps", (-1.0, MOST + 1.0))
        self.by_linear = self._errors("CG steps", "By CG steps", (0.0, LINEAR_STEPS[-1] + 1.0))
        self.spectrum = self._spectrum()
        self._known: Known | None = None
        self._all: tuple[float, list[Judged]] | None = None
        self._live = session.live(compute, self._computed, self._failed)
        self._sweep = session.live(sweep, self._swept, self._failed)
        self.inner.param.watch(lambda _: self._show(), "value")
        self.linear.param.watch(self._changed, "value")
        self.strength.param.watch(self._changed, "value")
        legend = theme.legend((COLOURS[name], SHAPES[name], LABELS[name]) for name in SHAPES)
        caption = theme.html(
            '<p class="caption">Eigenvalues of H + Λ at φ; the diamond is the least curvature '
            "that CG saw. A cross on a curve above is a bad verdict, the ring is where you are.</p>"
        )
        figures = pn.Column(
            legend, self.by_inner.plot, self.by_linear.plot, self.spectrum, caption, margin=0
        )
        self.view = theme.beside(figures, self.inner, self.linear, self.strength, self.table)
        self._changed()

    def _errors(self, label: str, title: str, x_range: tuple[float, float]) -> "_Errors":
        return _Errors(label, title, x_range)

    def _spectrum(self) -> Any:
        plot = theme.figure(
            height=100,
            label="Eigenvalues of H + Λ at φ",
            x_range=(-1.5, 14.5),
            y_range=(-1.0, 1.0),
        )
        plot.yaxis.visible = plot.ygrid.visible = False
        plot.add_layout(Span(location=0, dimension="height", line_color=theme.GREY, line_width=2))
        columns = ("x", "y", "marker", "colour", "size")
        self.eigenvalues = ColumnDataSource(
            {name: [] for name in columns}, name="inexact-eigenvalues"
        )
        plot.scatter(
            "x", "y", source=self.eigenvalues, marker="marker", size="size", color="colour",
            fill_alpha=0.6,
        )  # fmt: skip
        return plot

    def _changed(self, *_: Any) -> None:
        strength = 10.0**self.strength.value
        self._live(Asked(strength, self.linear.value))
        if self._all is None or self._all[0] != strength:
            self._sweep(strength)

    def _failed(self, error: Exception) -> None:
        self.table.object = f'<p class="bad">This could not be computed: {error}</p>'

    def _computed(self, known: Known) -> None:
        self._known = known
        self._show()

    def _swept(self, found: tuple[float, list[Judged]]) -> None:
        self._all = found
        self._show()

    def _show(self) -> None:
        known, step = self._known, self.inner.value
        if known is None:
            return
        judged = known.judged
        self.by_inner.show(np.arange(MOST + 1), _parts(judged), np.asarray(judged.info.code), step)
        same = self._all is not None and self._all[0] == known.asked.strength
        if self._all is not None and same:
            rows = self._all[1]
            parts = {name: [_parts(row)[name][step] for row in rows] for name in SHAPES}
            verdicts = np.asarray([row.info.code[step] for row in rows])
            place = LINEAR_STEPS.index(known.asked.linear_steps)
            self.by_linear.show(np.asarray(LINEAR_STEPS), parts, verdicts, place)
        eigenvalues = known.truth.curvatures[step]
        seen = float(judged.info.smallest_curvature[step])
        place = np.append(eigenvalues, seen if np.isfinite(seen) else np.nan)
        below = eigenvalues <= 0
        self.eigenvalues.data = {
            "x": np.clip(place, -1.4, 45.0),
            "y": [0.0] * eigenvalues.size + [0.55],
            "marker": ["circle"] * eigenvalues.size + ["diamond"],
            "colour": [theme.VERMILLION if low else theme.BLUE for low in below] + [theme.GREEN],
            "size": [9] * eigenvalues.size + [13],
        }
        self.spectrum.x_range.end = float(eigenvalues[-1]) + 1.5
        self.table.object = readings(known, step)


class _Errors:
    """A figure of the true error and its estimate, with the present point and the verdicts."""

    def __init__(self, label: str, title: str, x_range: tuple[float, float]):
        self.plot = theme.figure(
            height=230,
            label=f"{title}: the true relative error and its estimates",
            x_range=x_range,
            y_range=(1e-4, 1e2),
            y_axis_type="log",
            x_axis_label=label,
            y_axis_label="relative error",
        )
        slug = f"inexact-{label.split()[0]}"
        self.curves = ColumnDataSource({name: [] for name in ("x", *SHAPES)}, name=slug)
        for name, dash in SHAPES.items():
            self.plot.line(
                "x", name, source=self.curves, color=COLOURS[name], line_dash=dash,
                line_width=2,
            )  # fmt: skip
        columns = ("x", "y", "marker", "size", "fill")
        self.points = ColumnDataSource({name: [] for name in columns}, name=f"{slug}-points")
        self.plot.scatter(
            "x", "y", source=self.points, marker="marker", size="size", line_color=theme.BLUE,
            fill_color=theme.BLUE, fill_alpha="fill", line_width=2,
        )  # fmt: skip
        line = Span(location=0.5, dimension="width", line_color=theme.GREY, line_dash="dashed")
        self.plot.add_layout(line)

    def show(self, x: np.ndarray, parts: dict[str, Any], verdicts: np.ndarray, at: int) -> None:
        """Draw the curves, mark bad verdicts with a cross, and the present point with a ring."""
        self.curves.data = {"x": x, **{name: shown(values) for name, values in parts.items()}}
        errors = shown(parts["true"])
        bad = np.flatnonzero(verdicts != Verdict.OK)
        self.points.data = {
            "x": np.append(x[bad], x[at]),
            "y": np.append(errors[bad], errors[at]),
            "marker": ["x"] * bad.size + ["circle"],
            "size": [7] * bad.size + [15],
            "fill": [0.0] * bad.size + [0.25],
        }


def _parts(judged: Judged) -> dict[str, Any]:
    info = judged.info
    return {"true": judged.errors, "inner": info.inner_error, "linear": info.linear_error}


def readings(known: Known, step: int) -> str:
    """The numbers of the present point, as HTML."""
    judged, truth = known.judged, known.truth
    info = judged.info
    code, seen = int(info.code[step]), float(info.smallest_curvature[step])
    rows = [
        ("true meta-gradient, length", _number(np.linalg.norm(truth.gradient))),
        ("computed, length", _number(judged.sizes[step])),
        ("true error", _share(judged.errors[step])),
        ("estimate, inner solver's part", _share(info.inner_error[step])),
        ("estimate, linear solve's part", _share(info.linear_error[step])),
        ("stationarity of φ", _number(truth.residuals[step])),
        ("CG steps used", str(int(info.linear_steps[step]))),
        ("least eigenvalue of H + Λ", _number(truth.curvatures[step, 0])),
        ("least curvature CG saw", _number(seen)),
    ]
    body = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows)
    word = results.label(code).replace("_", " ")
    kind = "bad" if code else "good"
    text = f'<p style="margin-top:0.7rem">Verdict: <span class="{kind}">{word}</span></p>'
    if code:
        text += f'<p class="soft">{results.message(code, seen)}.</p>'
    needed = mathematics.needed(truth.curvatures[step], known.asked.strength)
    if needed > known.asked.strength:
        text += f'<p class="soft">Here H + Λ is positive definite from λ = {needed:.2f} on.</p>'
    return f"<table><tbody>{body}</tbody></table>{text}"


def _number(value: Any) -> str:
    value = float(value)
    return f"{value:.3g}" if np.isfinite(value) else "not finite"


def _share(value: Any) -> str:
    value = float(value)
    if not np.isfinite(value):
        return "not finite"
    return f"{value:.1%}" if value < 10 else f"{value:.2g} times"


ROOM = Room("inexact", "Inexact is fine, and when not", LEAD, build, NOTES, CODE, height=690)
