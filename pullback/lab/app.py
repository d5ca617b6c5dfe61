"""The page: put together anew for each visitor, each room when it comes into view."""

import html
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import panel as pn
import param
from panel.custom import JSComponent

from pullback.lab.formula import prose
from pullback.lab.in_view import InView
from pullback.lab.room import Room
from pullback.lab.session import Session
from pullback.lab.theme import LabDesign, problem

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


class Sentinel(JSComponent):
    """Tells Python once that it has come into view, or nearly so."""

    seen = param.Boolean(default=False)

    _esm = """
    export function render({model, el}) {
      el.style.cssText = "display:block;width:1px;height:1px"
      const observer = new IntersectionObserver((entries) => {
        if (entries.some((entry) => entry.isIntersecting)) {
          observer.disconnect()
          model.seen = true
        }
      }, {rootMargin: "400px 0px"})
      observer.observe(el)
    }
    """


def page(rooms: Sequence[Room], session: Session, *, live: bool = True) -> pn.Template:
    """The whole page for one visitor.

    Args:
        rooms: in their order on the page; the first is built at once.
        session: the visitor's.
        live: whether a server answers: then the other rooms are built when they come into view;
            otherwise all at once, with their widgets disabled.

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
        content = _when_seen(room, session) if later else _built(room, session)
        root = pn.Column(content, sizing_mode="stretch_width", margin=0)
        if not live:
            for widget in root.select(pn.widgets.Widget):
                widget.param.update(disabled=True)
        template.add_panel(room.name, root)
    return template


def _texts(room: Room) -> dict[str, Any]:
    return {
        "name": room.name,
        "title": html.escape(room.title),
        "lead": prose(room.lead),
        "notes": prose(room.notes),
        "code": html.escape(room.code.strip()),
        "height": room.height,
    }


def _built(room: Room, session: Session) -> Any:
    """The room, or what went wrong in its place: the others are not to suffer."""
    try:
        return room.build(session)
    except Exception as error:
        log.exception("the room %r could not be built", room.name)
        return problem("This room could not be built.", f"{type(error).__name__}: {error}")


def _when_seen(room: Room, session: Session) -> Any:
    sentinel = Sentinel()
    place = pn.Column(sentinel, sizing_mode="stretch_width", margin=0)

    def build(event: Any) -> None:
        if event.new:
            watcher_off()
            own, eye = session.for_room(), InView()
            eye.param.watch(lambda _: own.arrived(), "there")
            place[:] = [eye, _built(room, own)]

    watcher = sentinel.param.watch(build, "seen")

    def watcher_off() -> None:
        sentinel.param.unwatch(watcher)

    return place
