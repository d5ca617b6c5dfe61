"""The rooms of the lab, a folder each; :data:`pullback.registries.ROOMS` is their order."""

from pullback.lab.room import Room
from pullback.registries import ROOMS


def all_rooms() -> tuple[Room, ...]:
    """The registered rooms, in their order on the page."""
    return tuple(entry.load() for entry in ROOMS.values())
