"""How the processes of one training make sure that they mean the same."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from pullback.core.errors import InputError
from pullback.meta import multihost
from pullback.runs import config as configs
from pullback.runs.build import Experiment
from pullback.runs.folder import versions
from pullback.tasks import ClassSet

SAME_VERSIONS = ("pullback", "jax", "jaxlib")

Made = TypeVar("Made")


def everywhere(make: Callable[[], Made], describe: Callable[[Made], Any]) -> tuple[Made, list[Any]]:
    """Make something in every process, and know how the others' is described.

    Args:
        make: makes it.
        describe: says of it, as JSON has it, what the other processes must know.

    Returns:
        What was made in this process, and the descriptions of all in their order.

    Raises:
        InputError: in every process, if the function raised one in any; likewise StorageError.
    """
    made: list[Made] = []

    def make_and_describe() -> Any:
        made.append(make())
        return describe(made[0])

    described = multihost.together(make_and_describe)
    return made[0], described


def summarise(built: Experiment, devices: int | None, minutes: float | None) -> dict[str, Any]:
    """What must be the same in every process, or their numbers would not fit together."""
    known = versions()
    return {
        "settings": built.config.to_dict(),
        "devices": devices,
        "minutes": minutes,
        "split": None if built.split is None else built.split.digest(),
        "examples": built.data.digest() if isinstance(built.data, ClassSet) else None,
        "versions": {name: known[name] for name in SAME_VERSIONS},
    }


def check_same(summaries: Sequence[dict[str, Any]]) -> None:
    """Whether all processes mean the same.

    Args:
        summaries: from :func:`summarise`, of each process.

    Raises:
        InputError: naming the first difference, with both values.
    """
    first = configs.resolve(summaries[0]["settings"])
    for number, other in enumerate(summaries):
        for name, one, two in configs.diff(first, configs.resolve(other["settings"])):
            if name not in configs.MAY_DIFFER:
                raise _different(name, one, two, number)
        for name, what in (
            ("devices", "--devices"),
            ("minutes", "--minutes"),
            ("versions", "the versions of the programs"),
            ("split", "the digest of the class split"),
            ("examples", "the digest of the examples"),
        ):
            if other[name] != summaries[0][name]:
                raise _different(what, summaries[0][name], other[name], number)


def check_resume(folders: Sequence[str | None]) -> None:
    """Whether all processes begin a new run, or all go on with one.

    Args:
        folders: the folder to resume of each process, or None.

    Raises:
        InputError: if some do one and some the other.
    """
    for number, folder in enumerate(folders):
        if (folder is None) != (folders[0] is None):
            raise _different("--resume", folders[0], folder, number)


def _different(name: str, one: Any, two: Any, number: int) -> InputError:
    return InputError(
        f"{name} is {one!r} in process 0, but {two!r} in process {number}",
        remedy="Give the same command, settings, data and versions to every process",
    )
