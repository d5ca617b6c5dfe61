"""The style sheets that Panel's objects get, in the page's colours.

The page's own colours are CSS variables in ``page.css``, for light and for dark. Panel puts each of
its objects into a shadow root of its own, where a style sheet of the page does not reach.
"""

from pathlib import Path

from panel.theme.base import Design, Inherit
from panel.viewable import Viewable

HERE = Path(__file__).parent


class LabDesign(Design):
    """Every widget in the page's colours, without a style sheet for each."""

    modifiers = {  # noqa: RUF012 - Panel reads it from the class
        Viewable: {"stylesheets": [Inherit, (HERE / "widgets.css").read_text(encoding="utf-8")]}
    }


HTML_STYLE = (HERE / "html.css").read_text(encoding="utf-8")
"""For tables, readings and paragraphs."""
