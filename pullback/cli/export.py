"""``pullback export``."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli import options as o

_PROGRAM, _OUTPUT = "Program", "Output"


def export(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, as fit wrote it.", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="File for the program.", show_default=False)],
    adapt: Annotated[
        Path | None,
        typer.Option(
            "--adapt",
            help="Rows with targets: the program then predicts rows of their groups, and does not "
            "adapt.",
            rich_help_panel=_PROGRAM,
            show_default=False,
        ),
    ] = None,
    platforms: Annotated[
        str,
        typer.Option(
            "--platforms",
            help="What it is to run on, with commas between: cpu, cuda, rocm, tpu.",
            rich_help_panel=_PROGRAM,
        ),
    ] = "cpu",
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace that file if it is there.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Write a run into one file that adapts and predicts by JAX alone, without this program.

    For instance:  pullback export runs/growth growth.pullback
    """
    from pullback.cli import console
    from pullback.runs.export import export as write

    reporter = console.Reporter(quiet, json)
    about = write(
        run,
        out,
        adapt=adapt,
        platforms=[each.strip() for each in platforms.split(",") if each.strip()],
        overwrite=overwrite,
        say=reporter.warn,
    )
    size = out.stat().st_size
    rows = [
        (way, each["name"], f"{each['dtype']} [{', '.join(map(str, each['shape']))}]", each["what"])
        for way, arrays in (("takes", about["inputs"]), ("gives", about["outputs"]))
        for each in arrays
    ]
    shown = console.table(("", "array", "type and shape", "what it is"), rows)
    reporter.result(
        {"run": str(run), "out": str(out), "bytes": size, "about": about},
        shown,
        f"The program is in {out}: {size:,} bytes, for {', '.join(about['platforms'])}.",
    )
