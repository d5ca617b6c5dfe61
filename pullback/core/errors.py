"""The errors this package raises: what was given, what is allowed, how to mend it."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class PullbackError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(PullbackError, ValueError):
    """An argument, a configuration or a folder cannot be used as given.

    Raised before any compute. The message names what was given, what is allowed
    and what to do about it.
    """

    def __init__(self, problem: str, *, allowed: str | None = None, remedy: str | None = None):
        parts = [problem.rstrip(".") + "."]
        if allowed:
            parts.append(f"Allowed: {allowed.rstrip('.')}.")
        if remedy:
            parts.append(remedy if remedy.endswith("?") else remedy.rstrip(".") + ".")
        super().__init__(" ".join(parts))


class DataError(InputError):
    """A data file is missing, corrupt or unreadable."""


class StorageError(PullbackError, OSError):
    """The disk refused a write; what stood there before is still whole."""


class NumericalError(PullbackError, ArithmeticError):
    """A computation left the finite numbers, with the step and the task where it did."""


def unknown_name(
    kind: str, given: str, allowed: Iterable[str], also: str | None = None
) -> InputError:
    """The error for a name that no registry holds, with the nearest one that exists.

    Args:
        kind: what the name should have named, for instance ``"data set"``.
        given: the name as given.
        allowed: all names that exist.
        also: what else would do, in words.

    Returns:
        The error, to be raised by the caller.
    """
    names = sorted(allowed)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else None
    listed = ", ".join(names) + (f", or {also}" if also else "")
    return InputError(f"Unknown {kind} {given!r}", allowed=listed, remedy=hint)


def check_positive(owner: str, **values: float) -> None:
    """Settings that must be positive numbers.

    Raises:
        InputError: naming the first that is not.
    """
    for name, value in values.items():
        check_number(owner, f"finite {name} > 0", lambda x: 0 < x < float("inf"), **{name: value})


def check_number(owner: str, allowed: str, holds: Callable[[Any], Any], **values: Any) -> None:
    """Settings that must be numbers within bounds.

    Args:
        owner: whose settings they are, for the message.
        allowed: the bounds in words.
        holds: whether a number is within them; a NaN must not be.
        values: the settings, by name.

    Raises:
        InputError: naming the first that is no number, or out of bounds.
    """
    for name, value in values.items():
        try:
            good = not isinstance(value, bool) and bool(holds(value))
        except (TypeError, ValueError):
            good = False
        if not good:
            raise InputError(f"{owner}({name}={value!r})", allowed=allowed)


def check_counts(owner: str, **values: int) -> None:
    """Settings that must be positive whole numbers.

    Raises:
        InputError: naming the first that is not.
    """
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"{owner}({name}={value!r})", allowed="whole numbers from 1")


SEEDS = 2**32
"""A seed is below this, since with 32-bit numbers JAX takes a larger one for a smaller one."""

SEEDS_ALLOWED = f"whole numbers from 0 to {SEEDS - 1}"


def is_seed(value: object) -> bool:
    """Whether a value can be the seed of a JAX key, in either precision."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < SEEDS


def check_seed(seed: object, name: str = "seed") -> None:
    """A seed that no other one is taken for.

    Raises:
        InputError: for anything but a whole number from 0 below 2³².
    """
    if not is_seed(seed):
        raise InputError(f"{name} is {shorten(seed)}", allowed=SEEDS_ALLOWED)


def span(low: int, high: int) -> str:
    """Two bounds in words; one number where they are the same."""
    return str(low) if low == high else f"{low} to {high}"


def shorten(value: object, most: int = 80) -> str:
    """A value as it was given, on one line and without the middle of a long one."""
    try:
        text = " ".join(repr(value).split())
    # Python refuses to write out a whole number of thousands of digits.
    except ValueError:
        return f"a {type(value).__name__} too long to print"
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 4 :]}"
