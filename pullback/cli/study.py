"""``pullback study``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pullback.cli import options as o

_PANEL = "Study"


def study(
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for study.json and the plots; new or empty.",
            rich_help_panel="Output",
            show_default="runs/study-<time>",
        ),
    ] = None,
    parts: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            help="tradeoff, memory or noise; may be given several times.",
            rich_help_panel=_PANEL,
            show_default="all",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option("--seed", help="Seed of tasks and noise.", rich_help_panel=_PANEL),
    ] = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="Smaller sizes, in a few seconds; the plots are coarse.",
            rich_help_panel=_PANEL,
        ),
    ] = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Measure the theory: accuracy and memory of meta-gradients, and what noisy solvers change.

    For instance:  pullback study --out runs/study   or   pullback study --part noise --quick
    """
    from pullback import study as studying
    from pullback.cli import console
    from pullback.runs.folder import default_folder

    reporter = console.Reporter(quiet, json)
    if out is None:
        out = default_folder("study")
    record = studying.study(out, parts or (), seed=seed, quick=quick, observer=reporter)
    shown: list[Any] = [
        console.table(("", "", "value>"), studying.rows(name, result), studying.PARTS[name].summary)
        for name, result in record["parts"].items()
    ]
    plots = ", ".join(f"{name}.png" for name in record["parts"])
    shown.append(f"{studying.RECORD}, {plots} are in {out}.")
    reporter.result(record | {"out": str(out)}, *shown)
