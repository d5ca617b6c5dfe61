"""The rooms of the page, in their order: one line each."""

from pullback.lab.room import Room
from pullback.lab.rooms import arrows, game, inexact, optimum, pull, runs, sine

ROOMS: tuple[Room, ...] = (
    pull.ROOM,
    arrows.ROOM,
    inexact.ROOM,
    optimum.ROOM,
    sine.ROOM,
    game.ROOM,
    runs.ROOM,
)
