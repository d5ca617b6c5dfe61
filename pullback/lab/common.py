"""What rooms are made of: colours, figures, legends, tables, and words for numbers.

The page's own colours are CSS variables in ``page.css``; Bokeh reads those of axes, titles and
legends from there too, so that a figure follows the page from light to dark by itself. The
colours of curves and points are fixed: Okabe and Ito's palette, which people who see colours
differently can tell apart, its blue a little lighter and its purple a little darker so that all of
the first four stand out on both grounds. Shapes and dashes say the same again.
"""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource
from bokeh.plotting import figure as bokeh_figure
from jaxtyping import Float

from pullback.core import results
from pullback.lab.formula import prose
from pullback.lab.theme import HTML_STYLE

BLUE, VERMILLION, GREEN, PURPLE = "#2182c4", "#d55e00", "#009e73", "#b8609a"
SKY, ORANGE = "#56b4e9", "#e69f00"
GREY = "#7d8590"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""Colours for several things of one kind, in this order."""

WHITE_DOT: dict[str, Any] = {"fill_color": "white", "line_color": "black", "line_width": 2}
"""How a point is drawn that the visitor has put where it is."""


class AlgorithmStyle(NamedTuple):
    """How an algorithm is called and drawn, the same in every room."""

    title: str
    colour: str
    dash: str
    marker: str

    @property
    def label(self) -> str:
        """Its colour and its title, as HTML for a table that stands for a legend."""
        return swatch(self.colour) + self.title


ALGORITHM_STYLES = {
    "imaml": AlgorithmStyle("iMAML", BLUE, "solid", "circle"),
    "maml": AlgorithmStyle("MAML", VERMILLION, "dashed", "square"),
    "fomaml": AlgorithmStyle("FOMAML", PURPLE, "dotted", "triangle"),
    "reptile": AlgorithmStyle("Reptile", GREEN, "dotdash", "diamond"),
}


# Figures.


def figure(*, height: int | None = 360, label: str, **options: Any) -> Any:
    """An empty Bokeh figure in the lab's style: it fills the width, and has no toolbar.

    Args:
        height: in pixels; None for as high as wide.
        label: what the figure shows, for screen readers.
        **options: of ``bokeh.plotting.figure``.

    Returns:
        The figure.
    """
    shape = {"height": height, "sizing_mode": "stretch_width"}
    if height is None:
        shape = {"aspect_ratio": 1, "sizing_mode": "scale_width", "max_width": 620}
    settings: dict[str, Any] = {
        "toolbar_location": None,
        "tools": "",
        "lod_threshold": None,
        "min_border": 8,
        "html_attributes": {"role": "img", "aria-label": label},
    }
    plot = bokeh_figure(**(shape | settings | options))
    plot.background_fill_alpha = plot.border_fill_alpha = 0.0
    plot.outline_line_alpha = 0.0
    for axis in plot.axis:
        axis.minor_tick_line_color = None
        axis.major_label_text_font_size = "12px"
        axis.axis_label_text_font_size = "13px"
        axis.axis_label_text_font_style = "normal"
        axis.axis_label_standoff = 4
    return plot


def empty_source(*columns: str, name: str | None = None) -> ColumnDataSource:
    """A source of columns without rows.

    Args:
        *columns: their names.
        name: by which tests and measurements find the source in the page.

    Returns:
        The source; set its ``.data`` to fill it.
    """
    return ColumnDataSource({column: [] for column in columns}, name=name)


class Line(NamedTuple):
    """One of several lines that are drawn together."""

    points: Float[np.ndarray, "n 2"]
    colour: str
    dash: str = "solid"
    width: float = 2.0


class Lines:
    """Lines of different colours and dashes that change together.

    Args:
        plot: the figure that they are drawn in.
        name: of the source, as for :func:`empty_source`.
    """

    def __init__(self, plot: Any, name: str | None = None):
        self.source = empty_source("xs", "ys", "colour", "dash", "width", name=name)
        plot.multi_line(
            "xs", "ys", source=self.source, line_color="colour", line_dash="dash",
            line_width="width",
        )  # fmt: skip

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines in place of the ones before."""
        self.source.data = {
            # Lists, not arrays: each array would be a message of its own.
            "xs": [line.points[:, 0].tolist() for line in lines],
            "ys": [line.points[:, 1].tolist() for line in lines],
            "colour": [line.colour for line in lines],
            "dash": [line.dash for line in lines],
            "width": [line.width for line in lines],
        }


def arrow(
    start: Float[np.ndarray, "2"],
    vector: Float[np.ndarray, "2"],
    longest: float = 1.2,
    head: tuple[float, float] = (0.12, 0.06),
) -> list[Float[np.ndarray, "n 2"]]:
    """A vector as a shaft and a head.

    Args:
        start: where it begins.
        vector: the vector. Its length is drawn as ``longest · tanh(length)``, so that it stays in
            sight.
        longest: the length that is never exceeded.
        head: how far the head's two strokes reach back and to the side, where it is not small.

    Returns:
        Two lines; none for a vector that is not finite or has no length.
    """
    size = float(np.linalg.norm(vector))
    if not np.isfinite(size) or size < 1e-6:
        return []
    unit = vector / size
    tip = start + unit * longest * np.tanh(size)
    scale = min(1.0, 4 * float(np.tanh(size)))
    back, side = scale * head[0] * unit, scale * head[1] * np.array([-unit[1], unit[0]])
    return [np.stack([start, tip]), np.stack([tip - back - side, tip, tip - back + side])]


def ellipse(
    centre: Float[np.ndarray, "2"],
    matrix: Float[np.ndarray, "2 2"],
    radius: float,
    points: int = 49,
) -> Float[np.ndarray, "points 2"]:
    """The image of a circle of that radius under a matrix, about a centre."""
    turn = np.linspace(0.0, 2 * np.pi, points)
    return centre + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1) @ matrix.T


# Parts of the page.


def html(text: str = "", **options: Any) -> pn.pane.HTML:
    """HTML in the page's type and colours: tables, readings, a paragraph.

    Args:
        text: the HTML; set ``.object`` to change it.
        **options: of ``panel.pane.HTML``.

    Returns:
        The pane.
    """
    options = {"sizing_mode": "stretch_width", "margin": (4, 10)} | options
    return pn.pane.HTML(text, stylesheets=[HTML_STYLE], **options)


def text(markdown: str) -> pn.pane.HTML:
    """A paragraph between two figures: Markdown with ``$…$`` for formulas."""
    return html(prose(markdown), styles={"max-width": "42rem"})


def legend(entries: Iterable[tuple[str, str, str]]) -> pn.pane.HTML:
    """A legend outside of the figure.

    Args:
        entries: for each line its colour, ``"solid"``, ``"dashed"`` or ``"dotted"``, and its
            meaning.

    Returns:
        The pane.
    """
    shown = (
        f'<span><i style="border-top:3px {dash} {colour}"></i>{escape(meaning)}</span>'
        for colour, dash, meaning in entries
    )
    return html(f'<div class="legend">{"".join(shown)}</div>')


def beside(plot: Any, *controls: Any) -> pn.FlexBox:
    """A figure with its controls beside it, or under it on a narrow screen.

    Args:
        plot: a Bokeh figure or a Panel object.
        *controls: Panel objects, from top to bottom.

    Returns:
        The whole.
    """
    left = pn.Column(plot, styles={"flex": "5 1 320px", "min-width": "0"}, margin=0)
    right = pn.Column(*controls, styles={"flex": "3 1 280px", "min-width": "0"}, margin=0)
    return pn.FlexBox(left, right, gap="24px", sizing_mode="stretch_width", margin=0)


# Strings of HTML.


def table(
    rows: Iterable[Sequence[str]], *, head: Sequence[str] = (), caption: str = "", style: str = ""
) -> str:
    """A table of numbers.

    Args:
        rows: the cells of each row, as HTML; the first one says what the row is about.
        head: what stands above each column, as HTML.
        caption: what stands above the table, as HTML.
        style: CSS of the table.

    Returns:
        HTML.
    """
    body = "".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    top = "".join(f"<th>{cell}</th>" for cell in head)
    return (
        f'<table style="{style}">'
        + (f"<caption>{caption}</caption>" if caption else "")
        + (f"<thead><tr>{top}</tr></thead>" if top else "")
        + f"<tbody>{body}</tbody></table>"
    )


def swatch(colour: str) -> str:
    """A dot of one colour, for tables that stand for a legend."""
    return f'<span class="swatch" style="background:{colour}"></span>'


def number(value: Any, form: str = ".3g", otherwise: str = "not finite") -> str:
    """A number in words.

    Args:
        value: the number.
        form: how it is written, as ``format`` has it.
        otherwise: what is written for NaN and infinity.

    Returns:
        The text.
    """
    return format(float(value), form) if np.isfinite(value) else otherwise


def verdict_name(code: int) -> str:
    """The name of a verdict in words, as in ``"negative curvature"``."""
    return results.label(code).replace("_", " ")


def verdict(codes: Iterable[Any]) -> str:
    """What became of one or several meta-gradients, as HTML: every bad verdict, or ``"ok"``."""
    bad = sorted({verdict_name(int(code)) for code in codes if code})
    return f'<span class="{"bad" if bad else "good"}">{", ".join(bad) or "ok"}</span>'


def failure(what: str, why: str) -> str:
    """A paragraph that says what went wrong and why, as HTML."""
    return f'<p><span class="bad">{escape(what)}</span> {escape(why)}</p>'


def not_computed(error: Exception) -> str:
    """A paragraph in place of numbers that could not be computed, as HTML."""
    return failure("This could not be computed:", str(error))
