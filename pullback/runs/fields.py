"""The kinds of values that settings may have, each checked with the allowed ones in words."""

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field
from typing import Any

from pullback.core.errors import InputError, unknown_name


@dataclass(frozen=True)
class Kind:
    """What values a setting may have.

    Args:
        allowed: the same in words.
        read: gives the value in its own type; raises ValueError for any other.
    """

    allowed: str
    read: Callable[[Any], Any]


def whole(least: int) -> Kind:
    """Whole numbers from one on."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError
        return value

    return Kind(f"whole numbers from {least}", read)


def number(allowed: str, fits: Callable[[float], bool]) -> Kind:
    """Finite numbers that fit."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        if not math.isfinite(value) or not fits(value):
            raise ValueError
        return float(value)

    return Kind(allowed, read)


def text(value: Any) -> str:
    """The same value, if it is a text."""
    if not isinstance(value, str):
        raise ValueError
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _widths(value: Any) -> tuple[int, ...]:
    each = whole(1)
    if not isinstance(value, list | tuple) or not value:
        raise ValueError
    return tuple(each.read(item) for item in value)


POSITIVE = number("numbers above 0", lambda x: x > 0)
FROM_ZERO = number("numbers from 0", lambda x: x >= 0)
SHARE = number("0 ≤ number < 1", lambda x: 0 <= x < 1)
WHOLE_SHARE = number("numbers from 0 to 1", lambda x: 0 <= x <= 1)
FLAG = Kind("true or false", _flag)
WIDTHS = Kind("a list of whole numbers from 1", _widths)
FOLDER = Kind("a folder, or empty", text)


def one_of(what: str, names: Any) -> Kind:
    """A name out of a collection; the wrong one is told the nearest."""

    def read(value: Any) -> str:
        if text(value) not in names:
            raise unknown_name(what, value, names)
        return value

    return Kind(", ".join(names), read)


def setting(kind: Kind, default: Any = MISSING) -> Any:
    """A field of a dataclass that holds a value of that kind."""
    return field(default=default, metadata={"kind": kind})


def read(kind: Kind, name: str, value: Any) -> Any:
    """A value in the type of its kind.

    Args:
        kind: what is allowed.
        name: of the setting, for the message.
        value: as given.

    Returns:
        The value.

    Raises:
        InputError: if the value is not of that kind.
    """
    try:
        return kind.read(value)
    except InputError:
        raise
    except ValueError:
        raise InputError(f"{name} is {value!r}", allowed=kind.allowed) from None
