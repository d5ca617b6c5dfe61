"""Colours, sizes and figures in the lab's style.

The page's own colours are CSS variables in ``page.css``; Bokeh reads those of axes, titles and
legends from there too, so that a figure follows the page from light to dark by itself. The
colours of curves and points are fixed: Okabe and Ito's palette, which people who see colours
differently can tell apart, its blue a little lighter and its purple a little darker so that all of
the first four stand out on both grounds. Shapes and dashes say the same again.
"""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.plotting import figure as bokeh_figure
from panel.theme.base import Design, Inherit
from panel.viewable import Viewable

from pullback.lab.formula import prose

BLUE, VERMILLION, GREEN, PURPLE = "#2182c4", "#d55e00", "#009e73", "#b8609a"
SKY, ORANGE = "#56b4e9", "#e69f00"
GREY = "#7d8590"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
"""Colours for several things of one kind, in this order."""

ALGORITHM_COLOURS = {"imaml": BLUE, "maml": VERMILLION, "fomaml": PURPLE, "reptile": GREEN}

_INHERIT = """
:host { color: var(--ink); font-family: var(--font); }
a { color: var(--link); }
table { border-collapse: collapse; font-size: 0.875rem; width: 100%; }
caption { text-align: left; color: var(--ink-soft); padding-bottom: 0.25rem; }
th, td { text-align: right; padding: 0.18rem 0.45rem; border-bottom: 1px solid var(--line);
         font-variant-numeric: tabular-nums; font-weight: 400; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: nowrap; }
.legend { display: flex; flex-wrap: wrap; gap: 0.1rem 1.1rem; font-size: 0.8125rem;
          color: var(--ink-soft); }
.legend i { display: inline-block; width: 1.6em; margin-right: 0.5em; vertical-align: 0.22em; }
.caption { font-size: 0.8125rem; color: var(--ink-soft); }
thead th { color: var(--ink-soft); }
p { margin: 0 0 0.5rem; line-height: 1.5; font-size: 0.9375rem; }
@media (max-width: 480px) { table { font-size: 0.8125rem; } th, td { padding: 0.18rem 0.25rem; } }
.good { color: var(--good); } .bad { color: var(--bad); font-weight: 600; }
.soft { color: var(--ink-soft); }
.swatch { display: inline-block; width: 0.75em; height: 0.75em; border-radius: 50%;
          margin-right: 0.4em; vertical-align: -0.05em; }
"""


class LabDesign(Design):
    """Every widget in the page's colours, without a style sheet for each."""

    modifiers = {  # noqa: RUF012 - Panel reads it from the class
        Viewable: {
            "stylesheets": [
                Inherit,
                Path(__file__).with_name("widgets.css").read_text(encoding="utf-8"),
            ]
        }
    }


def figure(*, height: int | None = 360, label: str, **options: Any) -> Any:
    """An empty Bokeh figure in the lab's style: it fills the width, and has no toolbar.

    Args:
        height: in pixels; None for as high as wide.
        label: what the figure shows, for those who hear the page.
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


def style_legend(plot: Any, location: str = "top_right") -> None:
    """Set a figure's legend in the lab's style, once it has one.

    Args:
        plot: the figure.
        location: in the figure; :func:`legend` is for where it would hide something.
    """
    plot.legend.location = location
    plot.legend.label_text_font_size = "12px"
    plot.legend.label_text_color = GREY
    plot.legend.spacing = 0
    plot.legend.padding = plot.legend.margin = 4
    plot.legend.glyph_width = 16
    plot.legend.border_line_alpha = plot.legend.background_fill_alpha = 0.0


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


def html(text: str = "", **options: Any) -> pn.pane.HTML:
    """HTML in the page's type and colours: tables, readings, a paragraph.

    Args:
        text: the HTML; set ``.object`` to change it.
        **options: of ``panel.pane.HTML``.

    Returns:
        The pane.
    """
    options = {"sizing_mode": "stretch_width", "margin": (4, 10)} | options
    return pn.pane.HTML(text, stylesheets=[_INHERIT], **options)


def swatch(colour: str) -> str:
    """A dot of one colour, for tables that stand for a legend."""
    return f'<span class="swatch" style="background:{colour}"></span>'


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


def problem(title: str, text: str) -> pn.pane.HTML:
    """A message in place of something that could not be shown."""
    return html(f'<p><span class="bad">{escape(title)}</span> {escape(text)}</p>')


def text(markdown: str) -> pn.pane.HTML:
    """A paragraph between two figures: Markdown with ``$…$`` for formulas."""
    return html(prose(markdown), styles={"max-width": "42rem"})
