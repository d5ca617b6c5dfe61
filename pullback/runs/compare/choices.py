"""What a comparison compares: the algorithms, their inner loops, and what they share."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pullback import algorithms
from pullback.core import registry
from pullback.core.errors import InputError, unknown_name
from pullback.runs import config as configs
from pullback.runs.config import Given, RunConfig
from pullback.runs.fields import FLAG, POSITIVE, Kind, one_of, read, setting, whole

INNER = {
    "customary": "each with the inner loop it is known for",
    "same": "all with the same proximal problem and the same solver",
}
"""What inner loops to compare with."""

EVERY = tuple(algorithms.ALGORITHMS)
SAME_SOLVER, SAME_STEPS = "nesterov", 16


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(n, str) for n in value):
        raise ValueError
    return tuple(name.strip() for name in value if name.strip())


@dataclass(frozen=True)
class Choice:
    """What is compared, and how long.

    Args:
        algorithms: names.
        inner: a name in :data:`INNER`.
        tasks: test tasks.
        seconds_each: train each for about this long in place of the configured steps.
        baseline: also test the untrained initialisation.
    """

    algorithms: tuple[str, ...] = setting(Kind("a list of names", _names), EVERY)
    inner: str = setting(one_of("kind of inner loop", INNER), "customary")
    tasks: int = setting(whole(2), 600)
    seconds_each: float | None = setting(POSITIVE, None)
    baseline: bool = setting(FLAG, True)


def choose(*layers: Mapping[str, Any]) -> Choice:
    """A choice from several sources, the later ones over the earlier.

    Args:
        layers: values by name; one that is None counts as left out.

    Returns:
        The choice.

    Raises:
        InputError: for an unknown name, or a value that is not allowed.
    """
    known = {field.name: field.metadata["kind"] for field in dataclasses.fields(Choice)}
    chosen = {}
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise InputError(f"compare is {layer!r}", allowed="a section [compare]")
        for name, value in layer.items():
            if name not in known:
                raise unknown_name("setting in [compare]", name, known)
            if value is not None:
                chosen[name] = read(known[name], f"{name} in [compare]", value)
    return Choice(**chosen)


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
    if inner not in INNER:
        raise unknown_name("kind of inner loop", inner, INNER)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"The algorithms are {', '.join(names) or 'none'}",
            allowed=f"each of {', '.join(algorithms.ALGORITHMS)} at most once",
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
    dataset = _section(given, "data").get("dataset", "glyphs")
    configs.resolve({"data": {"dataset": dataset}})
    if inner == "same":
        strength = configs.defaults(dataset, "imaml", None)["strength"]
        shared = {"strength": strength, "solver": SAME_SOLVER, "inner_steps": SAME_STEPS} | shared
    uses = {}
    for name in names:
        line = registry.find("algorithm", algorithms.ALGORITHMS, name)
        choices = (shared.get("solver"), shared.get("learn_strength"))
        uses[name] = set(configs.defaults(dataset, name, *choices))
        if inner == "customary" and not line.proximal:
            uses[name].discard("strength")
    # What one of them has a use for need not suit the others; what suits none is an error.
    known = set().union(*uses.values())
    planned = {}
    for name in names:
        own = {n: value for n, value in shared.items() if n in uses[name] or n not in known}
        if inner == "same" and name == "reptile":
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
