"""The page: made anew for each visitor; a room is built when it comes into view."""

import logging
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import panel as pn

from pullback.lab.common import failure, html
from pullback.lab.formula import prose
from pullback.lab.room import Room
from pullback.lab.session import Session
from pullback.lab.theme import LabDesign
from pullback.lab.visibility import VisibilityObserver

pn.config.sizing_mode = "stretch_width"

log = logging.getLogger("pullback.lab")

HERE = Path(__file__).parent

INTRO = """
Many small tasks are alike. Meta-learning looks for one starting point $\\theta$ from which each
of them is learned quickly; iMAML does so with gradients that need to know only *where* the
learning of a task ended, not how it got there. Here you can take hold of each piece of that.

All that you see is computed while you look, by the same functions that train with `pullback`;
below each figure are the lines that compute it.
"""

EXPORTED = """
This is a copy without a server: the figures show where they start. `pip install 'pullback[lab]'`
and `pullback lab` give the page that moves.
"""


def page(rooms: Sequence[Room], session: Session, *, live: bool = True) -> pn.Template:
    """The whole page for one visitor.

    Args:
        rooms: in their order on the page; the first is built at once.
        session: the visitor's.
        live: whether a server answers. If so, the other rooms are built when they come into
            view; if not, all at once, with their widgets disabled.

    Returns:
        The template, to be served or saved.
    """
    template = pn.Template((HERE / "page.html").read_text(encoding="utf-8"), design=LabDesign)
    intro = prose(INTRO if live else INTRO + EXPORTED)
    template.add_variable("lab_intro", intro)
    template.add_variable("lab_css", (HERE / "page.css").read_text(encoding="utf-8"))
    template.add_variable("lab_js", (HERE / "page.js").read_text(encoding="utf-8"))
    template.add_variable("lab_rooms", [_texts(room) for room in rooms])
    for number, room in enumerate(rooms):
        later = live and number > 0
        content = _when_in_view(room, session) if later else _built(room, session)
        root = pn.Column(content, sizing_mode="stretch_width", margin=0)
        if not live:
            for widget in root.select(pn.widgets.Widget):
                widget.param.update(disabled=True)
        template.add_panel(room.name, root)
    return template


def _texts(room: Room) -> dict[str, Any]:
    return {
        "name": room.name,
        "title": escape(room.title),
        "lead": prose(room.lead),
        "notes": prose(room.notes),
        "code": escape(room.code.strip()),
        "height": room.height,
    }


def _built(room: Room, session: Session) -> Any:
    """The room, or why it could not be built: one that fails must not take the others along."""
    try:
        return room.build(session)
    except Exception as error:
        log.exception("the room %r could not be built", room.name)
        return html(failure("This room could not be built.", f"{type(error).__name__}: {error}"))


def _when_in_view(room: Room, session: Session) -> Any:
    """A place in the page where the room is built once the visitor comes near."""
    approach = VisibilityObserver(margin="400px 0px")
    place = pn.Column(approach, sizing_mode="stretch_width", margin=0)

    def build(event: Any) -> None:
        if event.new:
            approach.param.unwatch(watcher)
            own, observer = session.for_room(), VisibilityObserver()
            observer.param.watch(lambda _: own.mounted(), "mounted")
            place[:] = [observer, _built(room, own)]

    watcher = approach.param.watch(build, "in_view")
    return place
