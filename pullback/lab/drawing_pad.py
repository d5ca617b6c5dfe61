"""A square to draw a character in, or to show one."""

import base64
import io
from pathlib import Path

import numpy as np
import param
from jaxtyping import UInt8
from panel.custom import JSComponent


class DrawingPad(JSComponent):
    """A square that a visitor draws in with mouse, pen or finger.

    The browser sends ``strokes`` when a stroke ends. ``picture`` fills the square while nothing
    is drawn; next to a drawing it is small, in a corner: what a network sees of it.
    """

    strokes = param.List(default=[], doc="Lists of points (x, y) from 0 to 1, y downward.")
    picture = param.String(default="", doc="From png_data_url; nothing if empty.")
    label = param.String(default="")
    fixed = param.Boolean(default=False, doc="Whether nothing can be drawn.")
    cleared = param.Integer(default=0, doc="How often the visitor has cleared it.")

    _esm = Path(__file__).with_name("drawing_pad.js")


def png_data_url(image: UInt8[np.ndarray, "28 28"]) -> str:
    """A picture for :class:`DrawingPad`: ink is opaque, paper lets the page's colour through."""
    from PIL import Image

    stream = io.BytesIO()
    layers = Image.merge("LA", (Image.new("L", image.shape[::-1]), Image.fromarray(image)))
    layers.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
