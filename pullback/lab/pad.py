"""A square to draw a character in, or to show one."""

import base64
import io
from pathlib import Path

import numpy as np
import param
from jaxtyping import UInt8
from panel.custom import JSComponent


class Pad(JSComponent):
    """Drawn in with mouse, pen or finger.

    ``strokes`` are lists of points (x, y) from 0 to 1, y downward, as the browser sends them when
    a stroke ends; ``cleared`` counts how often the visitor wiped it. ``picture`` is shown as it
    is where nothing is drawn, and small in a corner where something is: what a network sees.
    """

    strokes = param.List(default=[])
    picture = param.String(default="")
    label = param.String(default="")
    fixed = param.Boolean(default=False, doc="Nothing can be drawn.")
    cleared = param.Integer(default=0)

    _esm = Path(__file__).with_name("pad.js")


def data_url(image: UInt8[np.ndarray, "28 28"]) -> str:
    """A picture for :class:`Pad`: ink as opacity, so that the page's colour shows through it."""
    from PIL import Image

    stream = io.BytesIO()
    layers = Image.merge("LA", (Image.new("L", image.shape[::-1]), Image.fromarray(image)))
    layers.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
