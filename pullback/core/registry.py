"""Names for things that are built from a configuration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pullback.core.errors import unknown_name


@dataclass(frozen=True)
class Entry:
    """A registry line: a name, what it stands for, and how it is built.

    Args:
        name: as given on the command line.
        summary: one line for a newcomer.
        make: builds it from the settings of a configuration.
    """

    name: str
    summary: str
    make: Callable[..., Any]


Line = TypeVar("Line")


def find(kind: str, registry: Mapping[str, Line], name: str) -> Line:
    """The line of that name.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    if name not in registry:
        raise unknown_name(kind, name, registry)
    return registry[name]
