"""The rooms of the page, in their order: one line each."""

from pullback.lab.room import Room
from pullback.lab.rooms.arrows.view import ROOM as ARROWS
from pullback.lab.rooms.game.view import ROOM as GAME
from pullback.lab.rooms.inexact.view import ROOM as INEXACT
from pullback.lab.rooms.optimum.view import ROOM as OPTIMUM
from pullback.lab.rooms.pull.view import ROOM as PULL
from pullback.lab.rooms.runs.view import ROOM as RUNS
from pullback.lab.rooms.sine.view import ROOM as SINE

ROOMS: tuple[Room, ...] = (
    PULL,
    ARROWS,
    INEXACT,
    OPTIMUM,
    SINE,
    GAME,
    RUNS,
)
