"""``pullback export``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pullback.cli import options as o

_PROGRAM, _OUTPUT = "Program", "Output"


def export(
    run: Annotated[
        str,
        typer.Argument(
            help="Folder of a run, as fit or train wrote it, or the name of a pretrained "
            "initialisation.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Argument(help="File for the program.", show_default=False)],
    adapt: Annotated[
        Path | None,
        typer.Option(
            "--adapt",
            help="Adapt to this first, so that the program only predicts: rows with targets; of a "
            "run of train a folder of pictures or a .npz file, as adapt takes it for --support.",
            rich_help_panel=_PROGRAM,
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint",
            help="Of a run of train: best (by validation), last, or a step.",
            rich_help_panel=_PROGRAM,
        ),
    ] = "best",
    ways: Annotated[
        int | None,
        typer.Option(
            "--ways",
            help="Classes of its tasks.",
            rich_help_panel=_PROGRAM,
            show_default="as trained",
        ),
    ] = None,
    examples: Annotated[
        int | None,
        typer.Option(
            "--examples",
            help="The most support examples of a task.",
            rich_help_panel=_PROGRAM,
            show_default="as trained",
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", help="For solvers that draw random numbers.", rich_help_panel=_PROGRAM
        ),
    ] = 0,
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
        which=checkpoint,
        ways=ways,
        examples=examples,
        seed=seed,
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
    shown: list[Any] = [console.table(("", "array", "type and shape", "what it is"), rows)]
    if "columns" in about:
        shown.append(f"A row is {', '.join(map(_column, about['columns']))}.")
    reporter.result(
        {"run": run, "out": str(out), "bytes": size, "about": about},
        *shown,
        f"The program is in {out}: {size:,} bytes, for {', '.join(about['platforms'])}.",
    )


def _column(column: Mapping[str, Any]) -> str:
    name, kind, values = column["name"], column["kind"], column["values"]
    if kind == "category":
        return f"{name} ({', '.join(f'{value} is {place}' for place, value in enumerate(values))})"
    return f"{name} (days since {values[0]})" if kind == "time" else name
