"""What a comparison compares: the algorithms, their inner loops, and what they share."""

from collections.abc import Mapping, Sequence
from typing import Any

from pullback.core.errors import InputError, unknown_name
from pullback.registries import ALGORITHMS, INNER_LOOPS
from pullback.runs import config as configs
from pullback.runs.config import Given, RunConfig

SAME_SOLVER, SAME_STEPS = "nesterov", 16
"""The inner solver that all share where all have the same."""


def plan(names: Sequence[str], inner: str, given: Given) -> dict[str, RunConfig]:
    """The configuration of each algorithm of a comparison.

    Args:
        names: of algorithms.
        inner: ``"customary"`` or ``"same"``.
        given: settings that all share, as far as they have a use for them. For ``"customary"``
            ``strength`` is iMAML's alone, and ``solver`` and ``inner_steps`` are not to be given.

    Returns:
        Configurations by name of the algorithm.

    Raises:
        InputError: for unknown names, or settings that do not fit.
    """
    if inner not in INNER_LOOPS:
        raise unknown_name("kind of inner loop", inner, INNER_LOOPS)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"The algorithms are {', '.join(names) or 'none'}",
            allowed=f"each of {', '.join(ALGORITHMS)} at most once",
        )
    # resolve() finds everything else that is wrong with a section.
    shared = _section(given, "algorithm")
    if "name" in shared:
        raise InputError(
            f"The algorithms of a comparison are {', '.join(names)}, but [algorithm] has the name "
            f"{shared['name']!r} too",
            remedy="Leave the name out",
        )
    if inner == "customary":
        fixed = [name for name in ("solver", "inner_steps") if name in shared]
        if fixed:
            raise InputError(
                f"{fixed[0]} was given, but with the customary inner loops each algorithm has "
                "its own",
                remedy="Leave it out, or compare with --inner same",
            )
    known = {n: v for section in ("data", "model") for n, v in _section(given, section).items()}
    if inner == "same":
        strength = configs.defaults(configs.find_parts(known))["strength"]
        shared = {"strength": strength, "solver": SAME_SOLVER, "inner_steps": SAME_STEPS} | shared
    uses = {}
    for name in names:
        parts = configs.find_parts(known | shared | {"name": name})
        uses[name] = set(configs.defaults(parts))
        if inner == "customary" and not parts.algorithm.proximal:
            uses[name].discard("strength")
    # What one of them has a use for need not suit the others; what suits none is an error.
    anyone = set().union(*uses.values())
    planned = {}
    for name in names:
        own = {n: value for n, value in shared.items() if n in uses[name] or n not in anyone}
        if inner == "same" and "fit" in uses[name]:
            own["fit"] = "support"
        planned[name] = configs.resolve({**given, "algorithm": {**own, "name": name}})
    return planned


def _section(given: Given, name: str) -> dict[str, Any]:
    section = given.get(name, {})
    if not isinstance(section, Mapping):
        raise InputError(f"{name} is {section!r}", allowed=f"a section [{name}]")
    return dict(section)


def describe_inner(config: RunConfig) -> str:
    """An inner loop in words."""
    given = config.algorithm
    text = f"{given.inner_steps} steps of {given.solver}"
    if given.inner_learning_rate is not None:
        text += f" ({given.inner_learning_rate:g})"
    text += f", {configs.describe_strength(config)}" if given.strength else ", no proximal term"
    return text + (", fits support and query" if given.fit == "all" else "")
