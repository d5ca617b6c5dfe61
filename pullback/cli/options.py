"""The options that are no settings of a run and that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

_SCALE, _OUTPUT, _FILE = "Devices and hosts", "Output", "File"


def _option(flag: str, text: str, panel: str, default: str | None = None, **more: Any) -> Any:
    shown = {"show_default": default} if default else {"show_default": False}
    return typer.Option(flag, help=text, rich_help_panel=panel, **shown, **more)


Devices = Annotated[
    int | None,
    _option(
        "--devices",
        "Devices to share the tasks of a step, in each process; on a CPU they are made.",
        _SCALE,
        "as many as fit; on a CPU one for each core",
    ),
]
Hosts = Annotated[
    bool,
    _option(
        "--hosts",
        "Train together with the other processes of this SLURM, Kubernetes or MPI job.",
        _SCALE,
    ),
]
Coordinator = Annotated[
    str | None,
    _option(
        "--coordinator",
        "Without such a job: HOST:PORT of process 0, the same in every process.",
        _SCALE,
    ),
]
ProcessId = Annotated[
    int | None, _option("--process-id", "With it: the number of this process, from 0.", _SCALE)
]
Processes = Annotated[
    int | None, _option("--processes", "With it: how many processes there are.", _SCALE)
]
Patience = Annotated[
    int | None,
    _option("--patience", "Seconds to wait for the others at the start.", _SCALE, "120"),
]
Config = Annotated[
    Path | None,
    _option(
        "--config",
        "TOML file of settings, such as the config.toml of a run; options given here go before it.",
        "Training",
    ),
]
Quiet = Annotated[
    bool,
    _option("--quiet", "No progress and no warnings; only the result and errors.", _OUTPUT),
]
Json = Annotated[
    bool,
    _option("--json", "Print the result as one JSON document, and nothing else.", _OUTPUT),
]
Separator = Annotated[
    str | None,
    _option(
        "--separator",
        "What stands between the columns of a CSV file: one character, or tab.",
        _FILE,
        "a comma; for predict as in fit",
    ),
]
Decimal = Annotated[
    str | None,
    _option(
        "--decimal",
        "What stands before the decimals in it: a point or a comma.",
        _FILE,
        "a point; for predict as in fit",
    ),
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        help="Folder of a run, as train wrote it, or the name of a pretrained initialisation.",
        show_default=False,
    ),
]
DrawSeed = Annotated[
    int,
    typer.Option("--seed", help="The same seed draws the same tasks.", rich_help_panel="Tasks"),
]
