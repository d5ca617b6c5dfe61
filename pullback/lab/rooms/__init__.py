"""The rooms of the page, in their order: one line each."""

from pullback.lab.room import Room
from pullback.lab.rooms import arrows, inexact, pull, runs, sine

ROOMS: tuple[Room, ...] = (
    pull.ROOM,
    arrows.ROOM,
    inexact.ROOM,
    sine.ROOM,
    runs.ROOM,
)
