"""Groups by name, as numbers."""

import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from sklearn.utils import check_consistent_length, column_or_1d

from pullback.core.errors import InputError


def read(groups: Any, like: Any) -> Shaped[np.ndarray, " rows"]:
    """The group of each row, checked.

    Args:
        groups: one name for each row: numbers, texts, or anything that can be hashed.
        like: the rows.

    Returns:
        An array.

    Raises:
        InputError: if a name is missing.
        ValueError: if there are more or fewer than rows.
    """
    names = column_or_1d(groups)
    check_consistent_length(like, names)
    missing = np.array([name is None or name != name for name in names], bool)
    if missing.any():
        raise InputError(
            f"groups misses {int(missing.sum())} of {len(names)} names",
            remedy="Leave those rows out, or give each a group of its own",
        )
    return names


def number(
    names: Shaped[np.ndarray, " rows"],
) -> tuple[list[Hashable], Int[np.ndarray, " rows"]]:
    """The groups in the order of their first rows, and the number of each row's."""
    seen: dict[Hashable, int] = {}
    found = np.array([seen.setdefault(name, len(seen)) for name in names.tolist()], int)
    return list(seen), found


def find(
    names: Shaped[np.ndarray, " rows"], known: dict[Hashable, int], *, stacklevel: int = 2
) -> Int[np.ndarray, " rows"]:
    """The number of each row's group; that of an unknown one is how many are known.

    Names of another type than those known are none of them, which is warned of.
    """
    given = names.tolist()
    kinds, before = ({type(name).__name__ for name in some} for some in (given, known))
    if given and known and not kinds & before:
        warnings.warn(
            f"The names of groups are {', '.join(sorted(kinds))} here and were "
            f"{', '.join(sorted(before))} in fit, so that none of these groups is known",
            UserWarning,
            stacklevel=stacklevel + 1,
        )
    return np.array([known.get(name, len(known)) for name in given], int)
