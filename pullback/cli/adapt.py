"""``pullback adapt``."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli import options as o


def adapt(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of a run, as train wrote it.", show_default=False),
    ] = None,
    *,
    support: Annotated[
        Path,
        typer.Option(
            "--support",
            help="Folder with one sub-folder of pictures per new class; of a run on feature "
            "vectors a .npz file of x and y.",
            rich_help_panel="Examples",
            show_default=False,
        ),
    ],
    query: Annotated[
        Path,
        typer.Option(
            "--query",
            help="Folder of pictures to classify; in sub-folders named as the classes, the "
            "accuracy is told too. Of vectors a .npz file of x, or of x and y.",
            rich_help_panel="Examples",
            show_default=False,
        ),
    ],
    pretrained: Annotated[
        str | None,
        typer.Option(
            "--pretrained",
            help="In place of a run: the name or the folder of a pretrained initialisation, for "
            "any number of classes.",
            rich_help_panel="Adaptation",
            show_default=False,
        ),
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint",
            help="best (by validation), last, or a step.",
            rich_help_panel="Adaptation",
        ),
    ] = "best",
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            help="For solvers that draw random numbers.",
            rich_help_panel="Adaptation",
        ),
    ] = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Adapt a run to your own pictures or vectors of new classes, and classify others.

    For instance:  pullback adapt runs/first --support my/known --query my/unknown
    """
    from pullback.cli import console
    from pullback.core.errors import InputError
    from pullback.meta import parallel
    from pullback.runs import formatting, predict
    from pullback.runs.pretrained import open_trained

    parallel.use_host_devices()
    reporter = console.Reporter(quiet, json)
    place = run or pretrained
    if place is None or (run and pretrained):
        given = "Both were" if place else "Neither was"
        raise InputError(
            f"{given} given, a run and --pretrained", allowed="the folder of a run, or --pretrained"
        )
    opened = open_trained(place)
    reporter.say("Reading the examples, adapting to them and classifying; compiling takes longest.")
    record = predict.adapt_to_examples(opened, support, query, which=checkpoint, seed=seed)
    if record["passed_over"]:
        reporter.warn(f"Passed over beside the class folders: {', '.join(record['passed_over'])}.")
    rows = [
        (row["file"], row["predicted"], formatting.percent(row["probability"]), row["label"] or "")
        for row in record["predictions"]
    ]
    headings = ("file", "predicted class", "probability>", "its class")
    if record["accuracy"] is None:
        headings, rows = headings[:3], [row[:3] for row in rows]
    shown = [console.table(headings, rows)]
    facts = f"Inner residual {formatting.number(record['inner_residual'], 2)}; normalisation "
    facts += f"{record['normalisation']}."
    if record["accuracy"] is not None:
        facts = f"Accuracy {formatting.percent(record['accuracy'])}. {facts}"
    reporter.result(record, *shown, facts)
