"""Which classes are for meta-training, for validation and for test.

A split is drawn once and stored with the run that used it: whatever is measured later must
be measured on the classes that the stored split names, never on a split drawn anew.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pullback.core.errors import InputError, check_seed, unknown_name
from pullback.registries import SPLITS
from pullback.tasks.class_set import ClassSet

_PARTS = ("train", "validation", "test")


@dataclass(frozen=True)
class ClassSplit:
    """The classes for meta-training, validation and test, no class in two of them.

    Drawn once by ``draw_split`` and stored with the run, so that a model is never tested on
    a class it was trained on, even if data or code change later.

    Args:
        dataset: name of the data set the classes are from.
        by: how the split was drawn: ``"alphabet"``, ``"character"`` or ``"official"``.
        seed: the seed it was drawn with.
        train: classes to meta-train on.
        validation: classes to choose settings by.
        test: classes to report numbers on.

    Raises:
        InputError: if a class occurs twice or ``by`` is unknown.
    """

    dataset: str
    by: str
    seed: int
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    def __post_init__(self):
        if self.by not in SPLITS:
            raise unknown_name("way to split", self.by, SPLITS)
        home: dict[str, str] = {}
        for part in _PARTS:
            for name in self.classes(part):
                if name in home:
                    where = f"in {home[name]} and in {part}" if home[name] != part else f"in {part}"
                    raise InputError(
                        f"Class {name!r} occurs twice in the split of {self.dataset!r}: {where}",
                        allowed="each class at most once in train, validation and test together",
                    )
                home[name] = part

    def classes(self, part: str) -> tuple[str, ...]:
        """The classes of one part.

        Args:
            part: ``"train"``, ``"validation"`` or ``"test"``.

        Returns:
            Class names, in the order of the data set.

        Raises:
            InputError: if there is no such part.
        """
        if part not in _PARTS:
            raise unknown_name("part of a split", part, _PARTS)
        return getattr(self, part)

    def to_dict(self) -> dict[str, Any]:
        """The split as plain strings, numbers and lists, ready for JSON or TOML."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def digest(self) -> str:
        """16 hexadecimal digits that change with the part of any class."""
        written = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(written.encode()).hexdigest()[:16]

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ClassSplit":
        """The split that ``to_dict`` wrote.

        Args:
            stored: exactly the keys that ``to_dict`` writes.

        Returns:
            The split.

        Raises:
            InputError: if a key is missing, unknown or holds a value of the wrong type.
        """
        keys = ("dataset", "by", "seed", *_PARTS)
        if not isinstance(stored, Mapping):
            raise InputError(f"A stored split is a {type(stored).__name__}", allowed="a mapping")
        unknown = [key for key in stored if key not in keys]
        missing = [key for key in keys if key not in stored]
        if unknown or missing:
            problems = [f"unknown keys: {', '.join(map(repr, unknown))}"] if unknown else []
            problems += [f"missing keys: {', '.join(missing)}"] if missing else []
            raise InputError(
                f"The stored split has {' and '.join(problems)}", allowed=", ".join(keys)
            )
        for key in ("dataset", "by"):
            if not isinstance(stored[key], str):
                raise InputError(f"{key} of a stored split is {stored[key]!r}", allowed="a string")
        _whole("seed", stored["seed"], least=None)
        for part in _PARTS:
            names = stored[part]
            if not isinstance(names, list | tuple) or not all(isinstance(n, str) for n in names):
                raise InputError(
                    f"{part} of a stored split is a {type(names).__name__}",
                    allowed="a list of class names",
                )
        return cls(
            dataset=stored["dataset"],
            by=stored["by"],
            seed=stored["seed"],
            **{part: tuple(stored[part]) for part in _PARTS},
        )


def draw_split(
    class_set: ClassSet,
    by: str = "alphabet",
    seed: int = 0,
    validation: int = 100,
    test: int = 100,
) -> ClassSplit:
    """Deal the classes of a data set to meta-training, validation and test.

    Draw once, store the result with the run and use the stored split from then on. The draw
    depends on the seed and the names alone, not on any random generator's version or state.

    ``by="alphabet"`` deals whole alphabets, so no alphabet is in two parts and the number of
    classes comes only near the number asked for. ``by="character"`` deals single classes and
    meets the numbers exactly. ``by="official"`` takes the official evaluation part for test,
    all of it, and whole alphabets of the background part for validation.

    Args:
        class_set: the classes to deal.
        by: ``"alphabet"``, ``"character"`` or ``"official"``.
        seed: another seed, another split; from 0 below 2³².
        validation: number of classes for validation; 0 for none.
        test: number of classes for test; 0 for none; not used by ``"official"``.

    Returns:
        The split; the classes of each part are in the order of the data set.

    Raises:
        InputError: if ``by`` is unknown, there are too few classes or alphabets, or the data
            set lacks the official parts that ``"official"`` needs.
    """
    if by not in SPLITS:
        raise unknown_name("way to split", by, SPLITS)
    check_seed(seed)
    _whole("validation", validation, least=0)
    _whole("test", test, least=0)

    pool = list(zip(class_set.classes, class_set.groups, strict=True))
    if by == "official":
        _check_official(class_set)
        official_test = {
            name
            for name, part in zip(class_set.classes, class_set.parts, strict=True)
            if part == "evaluation"
        }
        pool = [(name, group) for name, group in pool if name not in official_test]
        wanted = {"validation": validation}
    else:
        official_test = set()
        wanted = {"test": test, "validation": validation}

    if sum(wanted.values()) >= len(pool):
        asked = " and ".join(f"{count} for {part}" for part, count in wanted.items())
        raise InputError(
            f"{asked} were asked for, but {class_set.name!r} has {len(pool)} classes to deal",
            allowed=f"at most {max(len(pool) - 1, 0)} together, so that some are left to train on",
            remedy="Ask for fewer validation and test classes",
        )
    if by == "character":
        dealt = _deal_classes([name for name, _ in pool], wanted, seed)
    else:
        dealt = _deal_groups(class_set.name, pool, wanted, seed)
    dealt.setdefault("test", official_test)

    taken = dealt["test"] | dealt["validation"]
    chosen = {"train": set(class_set.classes) - taken, **dealt}
    return ClassSplit(
        dataset=class_set.name,
        by=by,
        seed=seed,
        **{part: tuple(c for c in class_set.classes if c in chosen[part]) for part in _PARTS},
    )


def _deal_classes(names: list[str], wanted: dict[str, int], seed: int) -> dict[str, set[str]]:
    order = _shuffled(names, seed)
    dealt, start = {}, 0
    for part, count in wanted.items():
        dealt[part] = set(order[start : start + count])
        start += count
    return dealt


def _deal_groups(
    dataset: str, pool: list[tuple[str, str]], wanted: dict[str, int], seed: int
) -> dict[str, set[str]]:
    members: dict[str, set[str]] = {}
    for name, group in pool:
        members.setdefault(group, set()).add(name)
    needed = 1 + sum(count > 0 for count in wanted.values())
    order = _shuffled(members, seed)
    groups_in_all = len(order)
    dealt: dict[str, set[str]] = {}
    for part, target in wanted.items():
        taken: list[str] = []
        count = 0
        for group in order:
            size = len(members[group])
            if abs(count + size - target) < abs(count - target):
                taken.append(group)
                count += size
        if target > 0 and not taken and order:
            # Every alphabet overshoots by more than the whole target; an empty part would be
            # worse than a large one.
            taken = [min(order, key=lambda group: len(members[group]))]
        order = [group for group in order if group not in taken]
        dealt[part] = {name for group in taken for name in members[group]}
    if groups_in_all < needed or not order:
        asked = " and ".join(f"{count} classes for {part}" for part, count in wanted.items())
        raise InputError(
            f"The {groups_in_all} alphabets of {dataset!r} cannot be dealt as whole alphabets "
            f"with {asked}: none would be left to train on",
            allowed=f"at least {needed} alphabets, and numbers that leave one for each part",
            remedy="Ask for fewer classes, or split by character",
        )
    return dealt


def _check_official(class_set: ClassSet) -> None:
    for part in ("background", "evaluation"):
        if part not in class_set.parts:
            official = any(class_set.parts)
            raise InputError(
                f"{class_set.name!r} as loaded has no official {part} part"
                if official
                else f"The data set {class_set.name!r} has no official parts",
                allowed="a split by alphabet or by character with this data",
                remedy=f"Put images_{part}.zip into the data folder too" if official else None,
            )


def _shuffled(names: Iterable[str], seed: int) -> list[str]:
    # Sorting by a digest gives the same order on every platform and for every version of
    # every library, and the order of two names does not depend on which others there are.
    def digest(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{name}".encode()).digest()

    return sorted(names, key=digest)


def _whole(name: str, value: object, least: int | None) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int)
        or (least is not None and value < least)
    ):
        allowed = "a whole number" + ("" if least is None else f", {least} or more")
        raise InputError(f"{name} is {value!r}", allowed=allowed)
