"""Runs opened for training: a new one begun, or an interrupted one taken up again.

Several processes may train together. Then each of them calls :func:`open_run`, and all agree on
what they are about to do, or raise the same error, before anything is computed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pullback.core.errors import InputError
from pullback.meta import multihost, parallel
from pullback.runs import agreement, budget
from pullback.runs import config as configs
from pullback.runs.build import Experiment, build
from pullback.runs.config import Given, RunConfig
from pullback.runs.folder import (
    CONFIG,
    Run,
    check_free,
    check_writable,
    default_folder,
    write_text,
)
from pullback.runs.recipes import read_recipe
from pullback.runs.starting import check_start, with_inherited
from pullback.tasks import ClassSplit
from pullback.tasks.datasets import DataSummary


@dataclass(frozen=True)
class Asked:
    """What a training is asked to be.

    Args:
        settings: those given, by section and name; they go before those of ``config``.
        config: a TOML file of settings, or None; they go before those of ``recipe``.
        resume: the folder of a run to go on with; None for a new run.
        out: the folder of a new run; named by what it trains and the time if None.
        minutes: as many meta-steps as fit into this time; None for the number in the settings.
        devices: the most devices of each process to use; all if None.
        recipe: the name of a recipe, or None.
    """

    settings: Given
    config: Path | None = None
    resume: Path | None = None
    out: Path | None = None
    minutes: float | None = None
    devices: int | None = None
    recipe: str | None = None

    def merged(self, *before: Given) -> dict[str, dict[str, Any]]:
        """The settings given, over those of the file, over the recipe's, over others."""
        stored = {} if self.config is None else configs.read_toml(self.config)
        recipe: Given = {}
        if self.recipe is not None:
            over = configs.merge(stored, self.settings)
            recipe = configs.of_use(read_recipe(self.recipe), over)
        return configs.merge(*before, recipe, stored, self.settings)


def open_run(asked: Asked, say: Callable[[str], None]) -> tuple[Run, Experiment]:
    """Begin or take up a run.

    Args:
        asked: what was asked for.
        say: told in sentences what is measured before a run begins.

    Returns:
        The run, and the experiment built from it.

    Raises:
        InputError: if what was asked for cannot be done, or not alike in every process.
        DataError: if the data are missing or damaged.
        StorageError: if the folder cannot be written.
    """
    folder = None if asked.resume is None else str(asked.resume)
    agreement.check_resume(multihost.together(lambda: folder))
    return _begin(asked, say) if asked.resume is None else _resume(asked, asked.resume, say)


def _begin(asked: Asked, say: Callable[[str], None]) -> tuple[Run, Experiment]:
    (settings, _), folders = agreement.everywhere(
        lambda: _check_new(asked), lambda checked: str(checked[1])
    )
    folder = Path(folders[0])
    built = _build_everywhere(settings, None, asked, say=say)
    agreement.everywhere(lambda: check_start(built), lambda _: None)
    built = budget.prepare(
        built,
        None if asked.minutes is None else 60 * asked.minutes,
        devices=asked.devices,
        say=lambda text: say(text[0].upper() + text[1:]),
    )
    parts = (built.config, built.split, built.summary)
    multihost.from_first(lambda: str(Run.create(folder, *parts).folder))
    return Run(folder, *parts), built


def _check_new(asked: Asked) -> tuple[RunConfig, Path]:
    """The settings and the folder of a new run."""
    settings = configs.resolve(with_inherited(asked.merged()))
    if asked.minutes is not None:
        if "steps" in asked.settings.get("training", {}):
            raise InputError("Both --steps and --minutes were given", allowed="one of them")
        if not 0 < asked.minutes < float("inf"):
            raise InputError(f"minutes is {asked.minutes}", allowed="numbers above 0")
    out = asked.out
    if out is None:
        out = default_folder(settings.data.dataset, settings.algorithm.name)
    if multihost.is_first():
        check_free(out)
    return settings, out


def _resume(asked: Asked, folder: Path, say: Callable[[str], None]) -> tuple[Run, Experiment]:
    def check_flags() -> None:
        flags = {"--out": asked.out, "--minutes": asked.minutes, "--recipe": asked.recipe}
        for flag, value in flags.items():
            if value is not None:
                raise InputError(
                    f"{flag} was given with --resume",
                    remedy="A resumed run keeps its folder, its steps and its settings",
                )

    def read() -> dict[str, Any]:
        run = Run.open(folder)
        run.check_real()
        check_writable(folder, remedy="Look at its permissions, or copy the run elsewhere")
        return {
            "folder": str(folder),
            "begun": run.begun,
            "settings": run.config.to_dict(),
            "split": None if run.split is None else run.split.to_dict(),
            "data": None if run.summary is None else run.summary.to_dict(),
        }

    multihost.together(check_flags)
    # The other processes need not see the folder.
    found = multihost.from_first(read)
    stored = configs.resolve(found["settings"])
    settings, _ = agreement.everywhere(
        lambda: _check_unchanged(stored, configs.resolve(asked.merged(stored.to_dict()))),
        lambda _: None,
    )
    split = None if found["split"] is None else ClassSplit.from_dict(found["split"])
    summary = None if found["data"] is None else DataSummary.from_dict(found["data"])
    built = _build_everywhere(settings, split, asked, summary, say=say)
    run = Run(Path(found["folder"]), settings, split, summary)
    if not found["begun"]:
        run = Run(run.folder, built.config, built.split, built.summary)
        multihost.from_first(run.write)
    elif settings != stored:
        multihost.from_first(lambda: write_text(run.folder / CONFIG, settings.to_toml()))
    return run, built


def _check_unchanged(stored: RunConfig, asked: RunConfig) -> RunConfig:
    """The settings asked for, if a run that goes on may have them."""
    for name, before, after in configs.diff(stored, asked):
        if name not in configs.MAY_DIFFER:
            falls = " (the learning rate falls along a cosine over all steps)"
            raise InputError(
                f"{name} is {before!r} in the run, but {after!r} was asked for"
                + (falls if name == "training.steps" else ""),
                remedy="Resume without it, or start a new run with --out",
            )
    return asked


def _build_everywhere(
    settings: RunConfig,
    split: ClassSplit | None,
    asked: Asked,
    summary: DataSummary | None = None,
    *,
    say: Callable[[str], None],
) -> Experiment:
    """The experiment, once it is known that every process builds the same."""

    def make() -> Experiment:
        parallel.check_devices(settings.training.tasks_per_step, asked.devices)
        parallel.task_mesh(settings.training.tasks_per_step, asked.devices)
        return build(settings, split, summary=summary, say=say)

    def describe(built: Experiment) -> dict[str, Any]:
        if multihost.count() == 1:
            return {}
        return agreement.summarise(built, asked.devices, asked.minutes)

    built, summaries = agreement.everywhere(make, describe)
    if len(summaries) > 1:
        agreement.check_same(summaries)
    return built
