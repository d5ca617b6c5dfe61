"""A point that follows the pointer, and a computation that follows the point."""

from collections.abc import Callable
from typing import Any

from bokeh.models import ColumnDataSource, CustomJS, PointDrawTool

_MOVE = """
const [x0, x1] = [plot.x_range.start, plot.x_range.end].sort((a, b) => a - b)
const [y0, y1] = [plot.y_range.start, plot.y_range.end].sort((a, b) => a - b)
const x = Math.min(Math.max(cb_obj.x, x0), x1), y = Math.min(Math.max(cb_obj.y, y0), y1)
if (!Number.isFinite(x) || !Number.isFinite(y)) return
// Only drawn here: what the server needs goes through "asked", one position at a time.
point.setv({data: {x: [x], y: [y]}}, {sync: false})
point.change.emit()
asked.latest = [x, y, cb_obj.event_name !== "pan"]
asked.send ??= () => {
  // Two at a time: one is computed while the other is painted. One that got lost is given up.
  const waiting = asked.data.n[0] - answered.data.n[0]
  const lost = performance.now() - asked.sent > 1000
  if (asked.latest == null || (waiting >= 2 && !lost)) return
  const [x, y, rests] = asked.latest
  asked.latest = null
  asked.sent = performance.now()
  // The number makes it news even where the place is the same, so that an answer comes.
  asked.data = {x: [x], y: [y], n: [asked.data.n[0] + 1],
                rests: [rests]}
}
asked.send()
"""

_ANSWERED = "asked.send?.()"


class DragPoint:
    """A point of a figure that a visitor drags, or puts somewhere with a click.

    The browser draws the point at once, and sends a new position only while fewer than two wait
    for their answer, so that the figure is never behind by more than that.

    Args:
        plot: the Bokeh figure.
        name: what the models are called, so that tests and measurements find them.
        start: where the point is at first.
        moved: called with the new position; must lead to :meth:`answer`.
    """

    def __init__(
        self,
        plot: Any,
        name: str,
        start: tuple[float, float],
        moved: Callable[[float, float], None],
    ):
        x, y = start
        self.source = ColumnDataSource({"x": [x], "y": [y]}, name=name)
        options = {"line_color": "black", "fill_color": "white", "line_width": 2}
        mark = plot.scatter("x", "y", source=self.source, size=16, **options)
        mark.nonselection_glyph = mark.selection_glyph = None
        # A tool for drags has to be there: otherwise a finger would scroll the page instead.
        tool = PointDrawTool(renderers=[mark], add=False, drag=False)
        plot.add_tools(tool)
        plot.toolbar.active_drag = tool
        self._asked = ColumnDataSource(
            {"x": [x], "y": [y], "n": [0], "rests": [True]}, name=f"{name}-asked"
        )
        self._answered = ColumnDataSource({"n": [0]}, name=f"{name}-answered")
        self._asked.on_change("data", lambda attr, old, new: moved(*self.asked))
        arguments = {
            "plot": plot,
            "point": self.source,
            "asked": self._asked,
            "answered": self._answered,
        }
        for event in ("tap", "pan", "panend"):
            plot.js_on_event(event, CustomJS(args=arguments, code=_MOVE))
        answer = CustomJS(args={"asked": self._asked}, code=_ANSWERED)
        self._answered.js_on_change("data", answer)

    @property
    def asked(self) -> tuple[float, float]:
        """The latest position that the visitor asked for."""
        data: Any = self._asked.data
        return float(data["x"][0]), float(data["y"][0])

    @property
    def rests(self) -> bool:
        """Whether the point has been let go of, as far as is known."""
        data: Any = self._asked.data
        return bool(data["rests"][0])

    def answer(self) -> None:
        """Tell the browser that the last position is computed and shown."""
        data: Any = self._asked.data
        self._answered.data = {"n": [data["n"][0]]}

    def move(self, x: float, y: float) -> None:
        """Put the point somewhere from Python."""
        self.source.data = {"x": [x], "y": [y]}
