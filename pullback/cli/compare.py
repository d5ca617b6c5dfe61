"""``pullback compare``."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from pullback.cli import options as o
from pullback.cli.settings import with_comparison, with_settings


@with_settings(leave_out=["name"])
@with_comparison
def compare(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="TOML file of settings that all share, in sections as in a run's config.toml; "
            "a section compare may hold those of a comparison. Options given here go before it.",
            rich_help_panel="Comparison",
            show_default=False,
        ),
    ] = None,
    *,
    chosen: dict[str, Any],
    given: dict[str, dict[str, Any]],
    devices: o.Devices = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for all runs, the table and the plots. Given again with the same "
            "settings, what is finished there is used again.",
            rich_help_panel="Output",
            show_default="runs/compare-<dataset>-<time>",
        ),
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Train several algorithms on the same episodes, and set their scores in one table.

    For instance:  pullback compare --dataset sinusoid --steps 2000 --out runs/all
    """
    from pullback.cli import console
    from pullback.core.errors import InputError
    from pullback.meta import parallel
    from pullback.runs import compare as comparing
    from pullback.runs import config as configs
    from pullback.runs.describe import flagged_lines
    from pullback.runs.folder import Run, default_folder
    from pullback.runs.starting import with_inherited

    parallel.use_host_devices(devices)
    reporter = console.Reporter(quiet, json)
    stored = {} if config is None else dict(configs.read_toml(config))
    choice = configs.resolve_comparison(stored.pop("compare", {}), chosen)
    merged = with_inherited(configs.merge(stored, given))
    if choice.seconds_each is not None and "steps" in merged.get("training", {}):
        raise InputError("Both steps and seconds_each were given", allowed="one of them")
    planned = comparing.plan(choice.algorithms, choice.inner, merged)
    if out is None:
        out = default_folder("compare", next(iter(planned.values())).data.dataset)
    with console.interruptible(reporter) as should_stop:
        found = comparing.compare(
            planned,
            out,
            choice,
            seed=given.get("training", {}).get("seed", 0),
            observer=reporter,
            should_stop=should_stop,
            devices=devices,
        )
    if not found.finished:
        record = {"out": str(out), "finished": False}
        again = shlex.join(["--out", str(out)])
        reporter.result(record, f"Stopped. Give the same command with {again} to go on.")
        raise typer.Exit(130)
    rows = [comparing.cells(found.score, row) for row in found.rows]
    table = console.table([*comparing.COLUMNS[:2], *(f"{c}>" for c in comparing.COLUMNS[2:])], rows)
    task = f"{found.record['task']} on {found.record['dataset']}"
    shown = [f"Test {found.score.name} of {task}, {choice.tasks} tasks, 95 % interval:", table]
    if found.record["normalisation"]:
        shown.append(f"Normalisation {found.record['normalisation']}.")
    for name in planned:
        shown += [f"{name}: {line}" for line in flagged_lines(Run.open(out / name))]
    shown.append(f"Table, plot and runs are in {out}.")
    reporter.result(found.record | {"out": str(out), "finished": True}, *shown)
