"""The study carried out: its parts measured one after the other, then written all at once."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import jax

from pullback.core.errors import InputError, check_seed, unknown_name
from pullback.runs import folder, plots
from pullback.study import drawing, memory, noise, tradeoff
from pullback.study.parts import Result, Tick

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RECORD = "study.json"


@dataclass(frozen=True)
class Part:
    """One part of the study.

    Args:
        summary: one line on what it shows.
        full: its settings.
        quick: settings that take a few seconds.
        measure: ``measure(settings, seed, tick) -> result``.
        draw: turns the result into a figure.
    """

    summary: str
    full: Any
    quick: Any
    measure: Callable[[Any, int, Tick], Result]
    draw: "Callable[[Result], Figure]"


PARTS = {
    "tradeoff": Part(
        "error of the meta-gradient against inner steps, CG steps and computation",
        tradeoff.FULL,
        tradeoff.QUICK,
        tradeoff.measure,
        drawing.tradeoff,
    ),
    "memory": Part(
        "memory of a meta-gradient against inner steps",
        memory.FULL,
        memory.QUICK,
        memory.measure,
        drawing.memory,
    ),
    "noise": Part(
        "what implicit gradients miss where a noisy solver has several optima to land in",
        noise.FULL,
        noise.QUICK,
        noise.measure,
        drawing.noise,
    ),
}
"""The parts by name; each writes a picture of that name."""


@runtime_checkable
class Observer(Protocol):
    """Whoever watches a study."""

    def counting(
        self, label: str, total: int, unit: str = ...
    ) -> contextlib.AbstractContextManager[Tick]:
        """Entered around each part; gives the function told the number of programs done."""
        ...


def study(
    out: Path | str,
    parts: Sequence[str] = (),
    *,
    seed: int = 0,
    quick: bool = False,
    observer: Observer,
) -> Result:
    """Measure the parts of the study, and write ``study.json`` and a picture of each.

    Args:
        out: a folder that does not exist yet, or is empty.
        parts: names in ``PARTS``; all if none are given.
        seed: of all that is random; the same seed gives the same numbers on the same machine.
        quick: sizes that take seconds.
        observer: shown what happens.

    Returns:
        The record, as written.

    Raises:
        InputError: for an unknown or repeated part, a bad seed, or a folder that is in the way.
        NumericalError: if a measurement is void.
        StorageError: if the disk refuses a write.
    """
    out, chosen = Path(out), list(parts or PARTS)
    check(out, chosen, seed)
    results = {}
    for name in chosen:
        part = PARTS[name]
        settings = part.quick if quick else part.full
        with observer.counting(f"study of {name}", settings.programs, "programs") as tick:
            tick(0)
            results[name] = part.measure(settings, seed, tick)
    record = folder.finite(
        {
            "seed": seed,
            "quick": quick,
            "parts": results,
            "device": jax.devices()[0].device_kind,
            "versions": folder.versions(),
        }
    )
    for name in chosen:
        plots.save(PARTS[name].draw(record["parts"][name]), out / f"{name}.png")
    folder.write_json(out / RECORD, record)
    return record


def check(out: Path, parts: Sequence[str], seed: int) -> None:
    """All that can be wrong with a study's arguments, before anything is computed.

    Raises:
        InputError: for an unknown or repeated part, a bad seed, or a folder that is in the way.
    """
    for name in parts:
        if name not in PARTS:
            raise unknown_name("part of the study", name, PARTS)
    if len(set(parts)) < len(parts):
        raise InputError(
            f"The parts are {', '.join(parts)}", allowed=f"each of {', '.join(PARTS)} once"
        )
    check_seed(seed)
    folder.check_free(out, remedy="Give another one with --out")
