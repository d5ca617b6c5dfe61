"""How the processes of one training make sure that they mean the same."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import Any

import jax

from pullback.cli import worker
from pullback.cli.console import Reporter, Silent
from pullback.core.errors import InputError
from pullback.meta import multihost, parallel
from pullback.meta.multihost import Place
from pullback.runs import config as configs
from pullback.runs import folder
from pullback.runs.build import Experiment

SAME_VERSIONS = ("pullback", "jax", "jaxlib")
HOST_ONLY = ("data.data_dir",)
"""Settings that may differ between hosts."""


def meet(place: Place | None, devices: int | None, quiet: bool, as_json: bool) -> Reporter:
    """Join the other processes, if there are any.

    Args:
        place: from :func:`pullback.meta.multihost.find_place`.
        devices: as given to the command.
        quiet: as given to the command.
        as_json: as given to the command.

    Returns:
        Who speaks to the person: process 0 as ever, the others in warnings and errors only.

    Raises:
        InputError: if they cannot be joined.
    """
    if place is not None:
        worker.tell(place=dataclasses.asdict(place))
        multihost.join(place)
        known = {"process": multihost.index(), "processes": multihost.count()}
        worker.tell(place=dataclasses.asdict(place) | known)
    if not multihost.is_first():
        return Silent()
    reporter = Reporter(quiet, as_json)
    if place is not None:
        reporter.say(f"All {multihost.count()} processes are here.")
    if devices is not None and jax.default_backend() == "cpu" and devices > parallel.cores():
        reporter.say(f"{devices} devices on {parallel.cores()} cores: right, but no faster.")
    return reporter


def card(built: Experiment, devices: int | None, minutes: float | None) -> dict[str, Any]:
    """What must be the same in every process, or their numbers would not fit together."""
    split = None if built.split is None else json.dumps(built.split.to_dict(), sort_keys=True)
    images = None if built.images is None else built.images.images.tobytes()
    return {
        "settings": built.config.to_dict(),
        "devices": devices,
        "minutes": minutes,
        "split": None if split is None else _digest(split.encode()),
        "images": None if images is None else _digest(images),
        "versions": {name: folder.versions()[name] for name in SAME_VERSIONS},
    }


def check_cards(cards: Sequence[dict[str, Any]]) -> None:
    """Whether all processes mean the same.

    Args:
        cards: from :func:`card`, of each process.

    Raises:
        InputError: naming the first difference, with both values.
    """
    first = configs.resolve(cards[0]["settings"])
    for number, other in enumerate(cards):
        for name, one, two in configs.diff(first, configs.resolve(other["settings"])):
            if name not in HOST_ONLY:
                raise _different(name, one, two, number)
        for name, what in (
            ("devices", "--devices"),
            ("minutes", "--minutes"),
            ("versions", "the versions of the programs"),
            ("split", "the digest of the class split"),
            ("images", "the digest of the images"),
        ):
            if other[name] != cards[0][name]:
                raise _different(what, cards[0][name], other[name], number)


def check_aims(aims: Sequence[str | None]) -> None:
    """Whether all processes begin a new run, or all go on with one.

    Args:
        aims: the folder to resume of each process, or None.

    Raises:
        InputError: if some do one and some the other.
    """
    for number, aim in enumerate(aims):
        if (aim is None) != (aims[0] is None):
            raise _different("--resume", aims[0], aim, number)


def _different(name: str, one: Any, two: Any, number: int) -> InputError:
    return InputError(
        f"{name} is {one!r} in process 0, but {two!r} in process {number}",
        remedy="Give the same command, settings, data and versions to every process",
    )


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]
