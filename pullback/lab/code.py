"""The lines of Python under a room, which follow what the visitor sets."""

from typing import Any

import param
from panel.custom import JSComponent


class ShownCode(JSComponent):
    """Keeps the Python under a room to what its figure shows. It has no place of its own.

    Put it among the room's controls, and set ``text`` where the numbers are shown. At first the
    page shows the room's ``code``.
    """

    room = param.String(doc="The room's name.")
    text = param.String(doc="What is shown.")

    _esm = """
    export function render({model, el}) {
      el.style.display = "none"
      const show = () => {
        const place = document.getElementById(`${model.room}-code`)
        if (place) place.textContent = model.text
      }
      model.on("text", show)
      show()
    }
    """

    def __init__(self, room: str, text: str, **options: Any):
        super().__init__(room=room, text=text, margin=0, **options)


def decimal(value: float) -> str:
    """A number as code has it, to six digits."""
    return repr(float(f"{float(value):.6g}"))


def pair(values: Any) -> str:
    """Two numbers or more as code has a list of them."""
    return "[" + ", ".join(map(decimal, values)) + "]"
