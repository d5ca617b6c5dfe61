"""A room of the lab: a section of the page with a figure that is computed live."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pullback.lab.session import Session


@dataclass(frozen=True)
class Room:
    """One room: text, a figure that is computed live, and the lines of Python behind it.

    The texts are Markdown with ``$…$`` and ``$$…$$`` for formulas. They are part of the page
    from the first paint on; ``build`` runs when the room comes into view.

    Args:
        name: as in the registry; the room's anchor in the page.
        title: its heading.
        lead: the text before the figure.
        build: ``build(session) -> viewable``: makes the Panel object. It must be quick; what
            computes goes through :meth:`pullback.lab.session.Session.updater`.
        notes: the text after the figure.
        code: Python that computes what the figure shows; it must run as it stands.
        height: pixels to keep free until the figure is there.
        warm_up: compiles what the figure needs at the start; called for the first room of the
            page while the server starts.
    """

    name: str
    title: str
    lead: str
    build: Callable[["Session"], Any]
    notes: str = ""
    code: str = ""
    height: int = 560
    warm_up: Callable[[], Any] | None = None
