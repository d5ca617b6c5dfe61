"""Registries: what can be asked for by name, imported when it is first used.

An entry is a name, a line for a newcomer and the place of the code, so that help texts and lists
need not import what they speak of. An installed package adds entries of its own by entry points,
and ``package.module:attribute`` stands for what no registry knows.
"""

import dataclasses
import functools
import importlib
import importlib.metadata
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pullback.core.errors import InputError, unknown_name

_TARGET = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True)
class Entry:
    """A line of a registry.

    Args:
        name: as given on the command line.
        summary: one line for a newcomer.
        target: ``"module:attribute"``, imported by :meth:`load`.
        defaults: settings of a run whose default is another one with this entry, by name.
    """

    name: str
    summary: str
    target: str
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def attribute(self) -> str:
        """The name in its module of the target, or of the class that the target belongs to."""
        return self.target.partition(":")[2].partition(".")[0]

    def load(self) -> Any:
        """What the entry stands for.

        Raises:
            InputError: if the module or the attribute does not exist.
        """
        return self._import(self.target.partition(":")[2])

    def load_attribute(self) -> Any:
        """The function or the class of the name :attr:`attribute`."""
        return self._import(self.attribute)

    def _import(self, path: str) -> Any:
        module = self.target.partition(":")[0]
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as error:
            # One that the module itself misses is an error of its own.
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise InputError(
                f"{self.name!r} is at {self.target!r}, but there is no module {error.name!r}",
                remedy="Install it, or start the program in the folder that holds it",
            ) from None
        for step in path.split("."):
            if not hasattr(found, step):
                raise InputError(
                    f"{self.name!r} is at {self.target!r}, but {found!r} has no {step}"
                )
            found = getattr(found, step)
        return found

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """The parameters of the target, by name."""
        return _parameters(self.load())

    def takes(self, name: str) -> bool:
        """Whether the target has a parameter of that name."""
        return name in self.parameters()

    def make(self, *arguments: Any, **options: Any) -> Any:
        """Call the target with the arguments, and with those of the options that it takes."""
        known = self.parameters()
        taken = {name: value for name, value in options.items() if name in known}
        return self.load()(*arguments, **taken)


@dataclass(frozen=True)
class AlgorithmEntry(Entry):
    """A line of the registry of algorithms.

    Args:
        learned: the target of the same algorithm with a learned Λ, which takes ``form`` too; empty
            if there is none.
    """

    learned: str = ""

    @property
    def proximal(self) -> bool:
        """Whether the algorithm cannot do without a proximal term."""
        return self.takes("strength") and (
            self.parameters()["strength"].default is inspect.Parameter.empty
        )

    @property
    def implicit(self) -> bool:
        """Whether the algorithm solves a linear system."""
        return self.takes("linear_solver")

    def with_learned_strength(self) -> "AlgorithmEntry":
        """The same algorithm with a learned Λ."""
        return dataclasses.replace(self, target=self.learned, learned="")


@functools.cache
def _parameters(target: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(target).parameters


Line = TypeVar("Line", bound=Entry)


class Registry(Mapping[str, Line]):
    """Entries by name: those of this package, then those of installed ones.

    Args:
        kind: what an entry is, for messages: ``"algorithm"``.
        group: the entry-point group by which other packages add to it.
        entries: those of this package, at least one; the others are of the same type.
    """

    def __init__(self, kind: str, group: str, *entries: Line):
        self.kind, self.group = kind, group
        self._make = type(entries[0])
        self._own = {entry.name: entry for entry in entries}

    def __getitem__(self, name: str) -> Line:
        return self._own[name] if name in self._own else self._installed()[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._own
        yield from (name for name in self._installed() if name not in self._own)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def find(self, name: str) -> Line:
        """The entry of a name, or one for ``package.module:attribute``.

        Raises:
            InputError: for an unknown name, with the nearest one.
        """
        if not isinstance(name, str):
            raise InputError(f"The {self.kind} is {name!r}", allowed=", ".join(self))
        if name in self:
            return self[name]
        if _TARGET.fullmatch(name):
            return self._make(name, f"{self.kind} of your own", name)
        raise unknown_name(self.kind, name, self, also="package.module:attribute")

    def _installed(self) -> dict[str, Line]:
        return {
            point.name: self._make(point.name, _origin(point), point.value)
            for point in _entry_points(self.group)
        }


@functools.cache
def _entry_points(group: str) -> importlib.metadata.EntryPoints:
    # Reads the metadata of every installed package, which takes milliseconds.
    return importlib.metadata.entry_points(group=group)


def _origin(point: importlib.metadata.EntryPoint) -> str:
    return f"from the package {point.dist.name}" if point.dist else "from an installed package"
