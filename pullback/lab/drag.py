"""A point that follows the pointer, and a computation that follows the point."""

from collections.abc import Callable
from typing import Any

import panel as pn
from bokeh.models import ColumnDataSource, CustomJS, PointDrawTool

from pullback.lab.common import WHITE_DOT

_MOVE = """
const [x0, x1] = [plot.x_range.start, plot.x_range.end].sort((a, b) => a - b)
const [y0, y1] = [plot.y_range.start, plot.y_range.end].sort((a, b) => a - b)
const x = Math.min(Math.max(cb_obj.x, x0), x1), y = Math.min(Math.max(cb_obj.y, y0), y1)
if (!Number.isFinite(x) || !Number.isFinite(y)) return
// Only drawn here: what the server needs goes through "requested", one position at a time.
point.setv({data: {x: [x], y: [y]}}, {sync: false})
point.change.emit()
requested.latest = [x, y, cb_obj.event_name !== "pan"]
requested.send ??= () => {
  // Two at a time: one is computed while the other is painted. One that got lost is given up.
  const waiting = requested.data.n[0] - acknowledged.data.n[0]
  const lost = performance.now() - requested.sent > 1000
  if (requested.latest == null || (waiting >= 2 && !lost)) return
  const [x, y, released] = requested.latest
  requested.latest = null
  requested.sent = performance.now()
  // The number makes it a change even where the place is the same, so that an answer comes.
  requested.data = {x: [x], y: [y], n: [requested.data.n[0] + 1], released: [released]}
}
requested.send()
"""

_ACKNOWLEDGED = "requested.send?.()"


class DragPoint:
    """A point of a figure that a visitor drags, or puts somewhere with a click.

    The browser draws the point at once. It sends a position only while fewer than two are
    unacknowledged, so that the figure is never further behind than that.

    Args:
        plot: the Bokeh figure.
        name: what the models are called, so that tests and measurements find them.
        start: where the point is at first.
        on_move: called with each new position; what it leads to ends with :meth:`acknowledge`.
    """

    def __init__(
        self,
        plot: Any,
        name: str,
        start: tuple[float, float],
        on_move: Callable[[float, float], None],
    ):
        x, y = start
        self.source = ColumnDataSource({"x": [x], "y": [y]}, name=name)
        mark = plot.scatter("x", "y", source=self.source, size=16, **WHITE_DOT)
        mark.nonselection_glyph = mark.selection_glyph = None
        # A tool for drags has to be there: otherwise a finger would scroll the page instead.
        tool = PointDrawTool(renderers=[mark], add=False, drag=False)
        plot.add_tools(tool)
        plot.toolbar.active_drag = tool
        self._requested = ColumnDataSource(
            {"x": [x], "y": [y], "n": [0], "released": [True]}, name=f"{name}-requested"
        )
        self._acknowledged = ColumnDataSource({"n": [0]}, name=f"{name}-acknowledged")
        self._requested.on_change("data", lambda attr, old, new: on_move(*self.requested))
        arguments = {
            "plot": plot,
            "point": self.source,
            "requested": self._requested,
            "acknowledged": self._acknowledged,
        }
        for event in ("tap", "pan", "panend"):
            plot.js_on_event(event, CustomJS(args=arguments, code=_MOVE))
        answer = CustomJS(args={"requested": self._requested}, code=_ACKNOWLEDGED)
        self._acknowledged.js_on_change("data", answer)

    @property
    def requested(self) -> tuple[float, float]:
        """The latest position that the visitor asked for."""
        data: Any = self._requested.data
        return float(data["x"][0]), float(data["y"][0])

    @property
    def released(self) -> bool:
        """Whether the visitor has let go of the point, as far as is known."""
        data: Any = self._requested.data
        return bool(data["released"][0])

    def acknowledge(self) -> None:
        """Tell the browser that the last position is computed and shown."""
        data: Any = self._requested.data
        self._acknowledged.data = {"n": [data["n"][0]]}

    def move_to(self, x: float, y: float) -> None:
        """Put the point somewhere from Python."""
        self.source.data = {"x": [x], "y": [y]}


class CoordinateInputs:
    """Two number inputs for a point that can be dragged, for whoever uses the keyboard.

    Args:
        labels: of the two inputs.
        start: where the point is at first.
        reach: the inputs take −reach to reach.
        on_typed: called with the position that was typed.
    """

    def __init__(
        self,
        labels: tuple[str, str],
        start: tuple[float, float],
        reach: float,
        on_typed: Callable[[float, float], None],
    ):
        self._on_typed, self._following = on_typed, False
        options: dict[str, Any] = {"start": -reach, "end": reach, "step": 0.1, "width": 90}
        self.widgets = [
            pn.widgets.FloatInput(label=label, value=value, **options)
            for label, value in zip(labels, start, strict=True)
        ]
        for widget in self.widgets:
            widget.param.watch(self._changed, "value")

    def follow(self, x: float, y: float) -> None:
        """Show where the point was dragged."""
        self._following = True
        for widget, value in zip(self.widgets, (x, y), strict=True):
            widget.value = round(value, 2)
        self._following = False

    def _changed(self, _: Any) -> None:
        if not self._following:
            x, y = (float(widget.value or 0.0) for widget in self.widgets)
            self._on_typed(x, y)
