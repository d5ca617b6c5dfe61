"""``pullback evaluate``."""

from typing import Annotated

import typer

from pullback.cli import options as o


def evaluate(
    run: o.RunFolder,
    split: Annotated[
        str,
        typer.Option(
            "--split",
            help="Classes to evaluate on, by the split stored in the run: test, validation, "
            "train, or unseen (all in --data-dir that the run neither trained nor validated on).",
            rich_help_panel="Tasks",
        ),
    ] = "test",
    tasks: Annotated[
        int, typer.Option("--tasks", help="Number of tasks.", rich_help_panel="Tasks")
    ] = 600,
    checkpoint: Annotated[
        str,
        typer.Option(
            "--checkpoint",
            help="best (by validation), last, or a step.",
            rich_help_panel="Tasks",
        ),
    ] = "best",
    data_dir: Annotated[
        str | None,
        typer.Option(
            "--data-dir",
            help="Read the examples from this folder, or this file, in place of the run's own.",
            rich_help_panel="Tasks",
            show_default=False,
        ),
    ] = None,
    ways: Annotated[
        int | None,
        typer.Option(
            "--ways",
            help="Classes in a task; others than those trained with need a pretrained "
            "initialisation, whose head starts at zero.",
            rich_help_panel="Tasks",
            show_default="as trained",
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            "--shots",
            help="Support examples per class.",
            rich_help_panel="Tasks",
            show_default="as trained",
        ),
    ] = None,
    queries: Annotated[
        int | None,
        typer.Option(
            "--queries",
            help="Query examples per class.",
            rich_help_panel="Tasks",
            show_default="as trained",
        ),
    ] = None,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline/--no-baseline",
            help="Also adapt the initialisation as it was before any meta-learning.",
            rich_help_panel="Tasks",
        ),
    ] = False,
    allow_training_classes: Annotated[
        bool,
        typer.Option(
            "--allow-training-classes",
            help="Let --split be train, whose score says nothing about new classes.",
            rich_help_panel="Tasks",
        ),
    ] = False,
    allow_changed_data: Annotated[
        bool,
        typer.Option(
            "--allow-changed-data",
            help="Take examples that are not those the run was trained with, though their classes "
            "are named alike.",
            rich_help_panel="Tasks",
        ),
    ] = False,
    seed: o.DrawSeed = 0,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Score a run on new tasks, on classes it was not trained on.

    For instance:  pullback evaluate runs/first --tasks 600
    or, of a packed one:  pullback evaluate FOLDER --data-dir DIR --split unseen
    """
    from pullback.cli import console
    from pullback.meta import parallel
    from pullback.runs import build, formatting
    from pullback.runs.pretrained import open_trained
    from pullback.runs.score import BASELINE, check_baseline, evaluate_run

    parallel.use_host_devices()
    reporter = console.Reporter(quiet, json)
    opened = open_trained(run)
    measured = build.summary_of(opened).score
    if baseline:
        check_baseline(opened)

    def score(baseline: bool):
        label = BASELINE if baseline else f"{split} tasks"
        say = (lambda text: None) if baseline else reporter.say
        with reporter.counting(label, tasks) as on_block:
            return evaluate_run(
                opened,
                part=split,
                tasks=tasks,
                which=checkpoint,
                seed=seed,
                data_dir=data_dir,
                ways=ways,
                shots=shots,
                queries=queries,
                allow_training_classes=allow_training_classes,
                allow_changed_data=allow_changed_data,
                baseline=baseline,
                on_block=on_block,
                say=say,
            ).record

    record = score(False)
    shown = [formatting.evaluation_text(measured, record)]
    printed = {name: value for name, value in record.items() if name != "records"}
    if baseline:
        record = score(True)
        shown.append(formatting.evaluation_text(measured, record, BASELINE))
        printed["baseline"] = {n: value for n, value in record.items() if n != "records"}
    for message, count in printed["flagged"].items():
        shown.append(f"Doubtful: {count} of {tasks} tasks: {message}.")
    reporter.result(printed, *shown)
