"""The fields of a schema: what values a setting may have, its default, and what it is for.

A setting is written once, as a field of a dataclass. The reader of configurations, the options of
the command line and the table of the documents all come from there.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pullback.core.errors import SEEDS, InputError, shorten, unknown_name
from pullback.core.registry import Registry


@dataclass(frozen=True)
class Kind:
    """What values a setting may have.

    Args:
        allowed: the same in words.
        read: gives the value in its own type; raises ValueError for any other, perhaps with
            words that say better what is allowed.
        option: the type of the command line's option.
        parse: the value of an option's text, where the option's type is not the setting's own.
        written: how that text is written, in words.
    """

    allowed: str
    read: Callable[[Any], Any]
    option: type = str
    parse: Callable[[str], Any] | None = None
    written: str = ""


@dataclass(frozen=True)
class Default:
    """A default that depends on other settings.

    Args:
        text: what it comes to, in words.
        of: the value, from what the settings before it have chosen.
    """

    text: str
    of: Callable[[Any], Any]


@dataclass(frozen=True)
class Applies:
    """When a run has a use for a setting.

    Args:
        text: in words: ``"algorithms that solve a linear system"``.
        to: whether it applies, from what the run is made of.
        owner: what it would belong to, for the message where it does not apply.
    """

    text: str
    to: Callable[[Any], bool]
    owner: Callable[[Any], str]


ALWAYS = Applies("always", lambda made_of: True, lambda made_of: "every run")


@dataclass(frozen=True)
class Setting:
    """Everything about one setting.

    Args:
        kind: its values.
        default: a value, or a :class:`Default`; None where the owner alone decides.
        help: one or two sentences for a person.
        applies: when a run has a use for it.
        resumable: whether a run that goes on may have another value.
        flag: the command line's option without dashes, if it is not the name.
        former: what the setting was called in earlier versions; still read, and a hidden option.
    """

    kind: Kind
    default: Any
    help: str
    applies: Applies = ALWAYS
    resumable: bool = False
    flag: str | None = None
    former: str | None = None


def setting(kind: Kind, default: Any, help: str, **more: Any) -> Any:
    """A field of a dataclass that is a setting; the arguments are those of :class:`Setting`."""
    described = Setting(kind, default, help, **more)
    return dataclasses.field(default=None, metadata={"setting": described})


def settings_of(section: type) -> dict[str, Setting]:
    """The settings of a dataclass, by name."""
    return {f.name: f.metadata["setting"] for f in dataclasses.fields(section)}


MOST = 2**31 - 1
"""The largest whole number of a setting: steps and sizes are 32-bit numbers on the device."""


def whole(least: int, most: int = MOST) -> Kind:
    """Whole numbers from one to another."""

    def read(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError
        if value > most:
            raise ValueError(f"whole numbers from {least} to {most}")
        return value

    return Kind(f"whole numbers from {least}" + f" to {most}" * (most != MOST), read, int)


def number(allowed: str, fits: Callable[[float], bool]) -> Kind:
    """Finite numbers that fit."""

    def read(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        try:
            value = float(value)
        except OverflowError:
            raise ValueError from None
        if not math.isfinite(value) or not fits(value):
            raise ValueError
        return value

    return Kind(allowed, read, float)


def text(value: Any) -> str:
    """The same value, if it is a text."""
    if not isinstance(value, str):
        raise ValueError
    return value


def _path(value: Any) -> str:
    if "\0" in text(value):
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


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(n, str) for n in value):
        raise ValueError
    return tuple(name.strip() for name in value if name.strip())


def _parts(given: str) -> list[str]:
    return given.split(",")


SEED = whole(0, SEEDS - 1)
POSITIVE = number("numbers above 0", lambda x: x > 0)
FROM_ZERO = number("numbers from 0", lambda x: x >= 0)
SHARE = number("0 ≤ number < 1", lambda x: 0 <= x < 1)
WHOLE_SHARE = number("numbers from 0 to 1", lambda x: 0 <= x <= 1)
FLAG = Kind("true or false", _flag, bool)
WIDTHS = Kind(
    "a list of whole numbers from 1",
    _widths,
    parse=lambda given: [int(part) for part in _parts(given)],
    written="whole numbers with commas, as in 40,40",
)
NAMES = Kind("a list of names", _names, parse=_parts, written="names with commas")
FOLDER = Kind("a folder, or empty", _path)
PLACE = Kind("a folder or a file, or empty", _path)


def one_of(what: str, names: Iterable[str]) -> Kind:
    """A name out of a collection; the wrong one is told the nearest.

    Args:
        what: the name names.
        names: a collection, or a registry, whose entries may also be given as
            ``package.module:attribute``.
    """

    def read(value: Any) -> str:
        if isinstance(names, Registry):
            return names.find(text(value)).name
        if text(value) not in names:
            raise unknown_name(what, value, names)
        return value

    return Kind(", ".join(names), read)


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
    except ValueError as error:
        allowed = str(error) or kind.allowed
        raise InputError(f"{name} is {shorten(value)}", allowed=allowed) from None


def parse(kind: Kind, name: str, given: Any) -> Any:
    """What an option of the command line means; not yet checked for its range.

    Raises:
        InputError: if the text cannot be parsed.
    """
    if kind.parse is None:
        return given
    try:
        return kind.parse(given)
    except ValueError:
        raise InputError(f"{name} is {shorten(given)}", allowed=kind.written) from None
