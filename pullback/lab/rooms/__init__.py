"""The rooms of the page, in their order: one line each."""

from pullback.lab.room import Room
from pullback.lab.rooms import arrows, inexact, pull, runs

ROOMS: tuple[Room, ...] = (
    pull.ROOM,
    arrows.ROOM,
    inexact.ROOM,
    runs.ROOM,
)
