"""The rooms of the lab, in their order on the page.

To add a room, write its module and add its line to :data:`ROOMS` (docs/lab.md has a skeleton).
"""

import importlib
from typing import NamedTuple

from pullback.lab.room import Room


class Entry(NamedTuple):
    """A line of the registry.

    Args:
        name: of the room.
        summary: what it shows, in one line.
        target: where the room is, as ``"module:attribute"``; imported when the page is made.
    """

    name: str
    summary: str
    target: str


ROOMS = (
    Entry("pull", "The pull: two tasks, one θ", "pullback.lab.rooms.pull.view:ROOM"),
    Entry("arrows", "The updates of four algorithms", "pullback.lab.rooms.arrows.view:ROOM"),
    Entry("inexact", "Errors and their estimates", "pullback.lab.rooms.inexact.view:ROOM"),
    Entry("optimum", "An inner loss with several minima", "pullback.lab.rooms.optimum.view:ROOM"),
    Entry("sine", "Sine waves from a few points", "pullback.lab.rooms.sine.view:ROOM"),
    Entry("game", "A game of one-shot classification", "pullback.lab.rooms.game.view:ROOM"),
    Entry("runs", "Training runs side by side", "pullback.lab.rooms.runs.view:ROOM"),
)


def all_rooms() -> tuple[Room, ...]:
    """The registered rooms, in their order on the page."""
    return tuple(_load(entry) for entry in ROOMS)


def _load(entry: Entry) -> Room:
    module, _, attribute = entry.target.partition(":")
    return getattr(importlib.import_module(module), attribute)
