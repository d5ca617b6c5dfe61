"""Inexact is fine, and when not: errors, their estimates, and verdicts."""

from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import Span
from jaxtyping import Float

from pullback.core import results
from pullback.core.results import Verdict
from pullback.lab import common
from pullback.lab.common import number
from pullback.lab.room import Room
from pullback.lab.rooms.inexact import mathematics
from pullback.lab.rooms.inexact.mathematics import (
    LINEAR_STEPS,
    MAX_INNER_STEPS,
    Estimates,
    Reference,
)
from pullback.lab.session import Session

LOWEST, HIGHEST = 1e-6, 1e3
CURVES = {
    "true": (common.BLUE, "solid", "true error"),
    "inner": (common.VERMILLION, "dashed", "estimate: inner solver's part"),
    "linear": (common.GREEN, "dotted", "estimate: linear solve's part"),
}
"""Colour, dash and meaning of the curves of errors."""

LEAD = r"""
Nothing above is ever computed exactly. The inner solver stops after $k$ steps, where
$r = \nabla L(\phi) + \Lambda(\phi-\theta)$ is not quite zero; and $(H+\Lambda)\,u = v$ is solved by
some steps of conjugate gradients (CG), which leave a residual. How wrong is $\Lambda u$ then? The
library does not know the true meta-gradient, but it estimates the relative error that each of the
two leaves, from one Newton correction of $\phi$ and from CG's own directions; if one of them is
above one half, the verdict is bad. Here, over sixteen parameters, the true meta-gradient can be
computed, and the estimates compared with it.
"""

NOTES = r"""
**When it is fine.** At $\lambda = 2$ a few steps of each will do. More CG steps do not help while
$\phi$ is far from stationary, and the other way round: the larger of the two parts rules.

**When not.** This loss has a ridge, which curves downward with $-1$, and $\theta$ lies beside it.
Lower $\lambda$ below 1: as long as the inner solver is on the ridge, $H+\Lambda$ has an eigenvalue
below zero, $\phi$ is near a saddle and not a minimum, and $(H+\Lambda)^{-1}$ is the derivative of
nothing. CG notices as soon as one of its directions $p$ has $p^\top(H+\Lambda)\,p \le 0$; it stops
before that direction, and the verdict says so, with how much larger $\Lambda$ must be. With few CG
steps there may be no such direction. Then it is the estimate that gives the alarm. Take more inner
steps, and $\phi$ rolls off the ridge: at a minimum $H+\Lambda$ has no eigenvalue below zero.
"""

CODE = """
import jax, jax.numpy as jnp
import pullback as pb
from pullback.core import results
from pullback.lab.rooms.inexact.mathematics import loss, task

algorithm = pb.imaml(loss, strength=0.5, solver=pb.solvers.GradientDescent(12, 0.08),
                     linear_solver=pb.linear.CG(8, rtol=0.0))
value, gradient, info = algorithm.meta_gradient(jnp.zeros(16), task(), jax.random.key(0))
print(info.inner_error, info.linear_error, results.message(info.code, info.smallest_curvature))
"""


class Settings(NamedTuple):
    """What the visitor has set, but for the number of inner steps."""

    strength: float
    linear_steps: int


class Computed(NamedTuple):
    """What one choice of settings gives, for every number of inner steps."""

    settings: Settings
    reference: Reference
    estimates: Estimates


def compute(settings: Settings) -> Computed:
    """The true meta-gradient, and the computed one after each number of inner steps."""
    reference = mathematics.reference(settings.strength)
    estimates = mathematics.estimates(settings.linear_steps, settings.strength, reference)
    return Computed(settings, reference, estimates)


def compute_all(strength: float) -> tuple[float, list[Estimates]]:
    """The estimates for every number of CG steps."""
    reference = mathematics.reference(strength)
    return strength, [mathematics.estimates(steps, strength, reference) for steps in LINEAR_STEPS]


def clipped(values: Any) -> Float[np.ndarray, " k"]:
    """Errors within what a logarithmic axis can show; what is not finite becomes a gap."""
    values = np.asarray(values, float)
    return np.where(np.isfinite(values), np.clip(values, LOWEST, HIGHEST), np.nan)


def build(session: Session) -> Any:
    """The room for one visitor."""
    return _View(session).view


class _View:
    def __init__(self, session: Session):
        self.inner = pn.widgets.IntSlider(
            label="Inner steps k", start=0, end=MAX_INNER_STEPS, value=20
        )
        self.linear = pn.widgets.DiscreteSlider(
            label="CG steps", options=list(LINEAR_STEPS), value=8
        )
        self.strength = pn.widgets.FloatSlider(
            label="log₁₀ λ", start=-1.5, end=1.5, step=0.05, value=0.3
        )
        self.table = common.html()
        self.by_inner = _ErrorFigure("inner steps", (-1.0, MAX_INNER_STEPS + 1.0))
        self.by_linear = _ErrorFigure("CG steps", (0.0, LINEAR_STEPS[-1] + 1.0))
        self.spectrum = self._spectrum()
        self._computed: Computed | None = None
        self._all: tuple[float, list[Estimates]] | None = None
        self._update = session.updater(compute, self._show_computed, self._failed)
        self._update_all = session.updater(compute_all, self._show_all, self._failed)
        self.inner.param.watch(lambda _: self._show(), "value")
        self.linear.param.watch(self._changed, "value")
        self.strength.param.watch(self._changed, "value")
        caption = common.html(
            '<p class="caption">Eigenvalues of H + Λ at φ; the diamond is the least curvature '
            "that CG saw. A cross on a curve above is a bad verdict, the ring is where you are.</p>"
        )
        figures = pn.Column(
            common.legend(CURVES.values()),
            self.by_inner.plot,
            self.by_linear.plot,
            self.spectrum,
            caption,
            margin=0,
        )
        self.view = common.beside(figures, self.inner, self.linear, self.strength, self.table)
        self._changed()

    def _spectrum(self) -> Any:
        plot = common.figure(
            height=100,
            label="Eigenvalues of H + Λ at φ",
            x_range=(-1.5, 14.5),
            y_range=(-1.0, 1.0),
        )
        plot.yaxis.visible = plot.ygrid.visible = False
        plot.add_layout(Span(location=0, dimension="height", line_color=common.GREY, line_width=2))
        self.eigenvalues = common.empty_source(
            "x", "y", "marker", "colour", "size", name="inexact-eigenvalues"
        )
        plot.scatter(
            "x", "y", source=self.eigenvalues, marker="marker", size="size", color="colour",
            fill_alpha=0.6,
        )  # fmt: skip
        return plot

    def _changed(self, *_: Any) -> None:
        strength = 10.0**self.strength.value
        self._update(Settings(strength, self.linear.value))
        if self._all is None or self._all[0] != strength:
            self._update_all(strength)

    def _failed(self, error: Exception) -> None:
        self.table.object = common.not_computed(error)

    def _show_computed(self, computed: Computed) -> None:
        self._computed = computed
        self._show()

    def _show_all(self, found: tuple[float, list[Estimates]]) -> None:
        self._all = found
        self._show()

    def _show(self) -> None:
        computed, step = self._computed, self.inner.value
        if computed is None:
            return
        estimates, settings = computed.estimates, computed.settings
        self.by_inner.show(
            np.arange(MAX_INNER_STEPS + 1),
            _errors(estimates),
            np.asarray(estimates.info.code),
            step,
        )
        if self._all is not None and self._all[0] == settings.strength:
            rows = self._all[1]
            errors = {name: [_errors(row)[name][step] for row in rows] for name in CURVES}
            verdicts = np.asarray([row.info.code[step] for row in rows])
            place = LINEAR_STEPS.index(settings.linear_steps)
            self.by_linear.show(np.asarray(LINEAR_STEPS), errors, verdicts, place)
        self._show_spectrum(computed, step)
        self.table.object = readings(computed, step)

    def _show_spectrum(self, computed: Computed, step: int) -> None:
        eigenvalues = computed.reference.eigenvalues[step]
        seen = float(computed.estimates.info.smallest_curvature[step])
        x = np.append(eigenvalues, seen if np.isfinite(seen) else np.nan)
        self.eigenvalues.data = {
            "x": np.clip(x, -1.4, 45.0),
            "y": [0.0] * eigenvalues.size + [0.55],
            "marker": ["circle"] * eigenvalues.size + ["diamond"],
            "colour": [common.VERMILLION if value <= 0 else common.BLUE for value in eigenvalues]
            + [common.GREEN],
            "size": [9] * eigenvalues.size + [13],
        }
        self.spectrum.x_range.end = float(eigenvalues[-1]) + 1.5


class _ErrorFigure:
    """A figure of the true error and its estimates, with the present point and the verdicts."""

    def __init__(self, x_label: str, x_range: tuple[float, float]):
        self.plot = common.figure(
            height=230,
            label=f"By {x_label}: the true relative error and its estimates",
            x_range=x_range,
            y_range=(1e-4, 1e2),
            y_axis_type="log",
            x_axis_label=x_label,
            y_axis_label="relative error",
        )
        name = f"inexact-{x_label.split()[0]}"
        self.curves = common.empty_source("x", *CURVES, name=name)
        for curve, (colour, dash, _) in CURVES.items():
            self.plot.line(
                "x", curve, source=self.curves, color=colour, line_dash=dash, line_width=2
            )
        self.points = common.empty_source("x", "y", "marker", "size", "fill", name=f"{name}-points")
        self.plot.scatter(
            "x", "y", source=self.points, marker="marker", size="size", line_color=common.BLUE,
            fill_color=common.BLUE, fill_alpha="fill", line_width=2,
        )  # fmt: skip
        line = Span(location=0.5, dimension="width", line_color=common.GREY, line_dash="dashed")
        self.plot.add_layout(line)

    def show(self, x: np.ndarray, errors: dict[str, Any], verdicts: np.ndarray, at: int) -> None:
        """Draw the curves, mark bad verdicts with a cross, and the present point with a ring."""
        self.curves.data = {"x": x, **{name: clipped(values) for name, values in errors.items()}}
        y = clipped(errors["true"])
        bad = np.flatnonzero(verdicts != Verdict.OK)
        self.points.data = {
            "x": np.append(x[bad], x[at]),
            "y": np.append(y[bad], y[at]),
            "marker": ["x"] * bad.size + ["circle"],
            "size": [7] * bad.size + [15],
            "fill": [0.0] * bad.size + [0.25],
        }


def _errors(estimates: Estimates) -> dict[str, Any]:
    info = estimates.info
    return {"true": estimates.errors, "inner": info.inner_error, "linear": info.linear_error}


def readings(computed: Computed, step: int) -> str:
    """The numbers of the present point, as HTML."""
    settings, reference, estimates = computed
    info, eigenvalues = estimates.info, reference.eigenvalues[step]
    code, seen = int(info.code[step]), float(info.smallest_curvature[step])
    rows = (
        ("true meta-gradient, length", number(np.linalg.norm(reference.gradient))),
        ("computed, length", number(estimates.lengths[step])),
        ("true error", _share(estimates.errors[step])),
        ("estimate, inner solver's part", _share(info.inner_error[step])),
        ("estimate, linear solve's part", _share(info.linear_error[step])),
        ("stationarity of φ", number(reference.residuals[step])),
        ("CG steps used", str(int(info.linear_steps[step]))),
        ("least eigenvalue of H + Λ", number(eigenvalues[0])),
        ("least curvature CG saw", number(seen)),
    )
    text = f'<p style="margin-top:0.7rem">Verdict: {common.verdict([code])}</p>'
    if code:
        text += f'<p class="soft">{results.message(code, seen)}.</p>'
    sufficient = mathematics.sufficient_strength(eigenvalues, settings.strength)
    if sufficient > settings.strength:
        text += f'<p class="soft">Here H + Λ is positive definite from λ = {sufficient:.2f} on.</p>'
    return common.table(rows) + text


def _share(error: Any) -> str:
    if np.isfinite(error) and error >= 10:
        return f"{float(error):.2g} times"
    return number(error, ".1%")


ROOM = Room("inexact", "Inexact is fine, and when not", LEAD, build, NOTES, CODE, height=690)
