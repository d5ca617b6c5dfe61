"""What a room of the lab is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pullback.lab.session import Session


@dataclass(frozen=True)
class Room:
    """One room: text, a figure that is alive, and the lines of Python behind it.

    The texts are Markdown with ``$…$`` and ``$$…$$`` for formulas. They are part of the page
    from the first paint on; ``build`` runs when the room comes into view.

    Args:
        name: short and unique; the room's anchor in the page.
        title: its heading.
        lead: the text before the figure.
        build: ``build(session) -> viewable``: makes the Panel object. It must be quick; what
            computes goes through :meth:`pullback.lab.session.Session.live`.
        notes: the text after the figure.
        code: Python that computes what the figure shows; it must run as it stands.
        height: pixels to keep free until the figure is there.
        warm: compiles what the first picture needs; called for the first room while the server
            starts.
    """

    name: str
    title: str
    lead: str
    build: Callable[["Session"], Any]
    notes: str = ""
    code: str = ""
    height: int = 560
    warm: Callable[[], Any] | None = None
