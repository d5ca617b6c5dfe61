"""``pullback compare``."""

import datetime
from pathlib import Path
from typing import Annotated

import typer

from pullback.cli import options as o

_PANEL = "Comparison"


def compare(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="TOML file of settings that all share, in sections as in a run's config.toml; "
            "a section compare may hold algorithms, inner, tasks, seconds_each and baseline. "
            "Options given here go before it.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None,
    algorithms: Annotated[
        str | None,
        typer.Option(
            "--algorithms",
            help="Names with commas between them.",
            rich_help_panel=_PANEL,
            show_default="imaml,maml,fomaml,reptile",
        ),
    ] = None,
    inner: Annotated[
        str | None,
        typer.Option(
            "--inner",
            help="customary: each with the inner loop it is known for (iMAML a proximal problem "
            "solved by L-BFGS, the others 5 or 10 plain gradient steps). same: all with the same "
            "proximal problem and the same solver.",
            rich_help_panel=_PANEL,
            show_default="customary",
        ),
    ] = None,
    seconds_each: Annotated[
        float | None,
        typer.Option(
            "--seconds-each",
            help="Instead of --steps: train each for about this long, by its pace in a warm-up.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None,
    tasks: Annotated[
        int | None,
        typer.Option(
            "--tasks", help="Test tasks for each.", rich_help_panel=_PANEL, show_default="600"
        ),
    ] = None,
    baseline: Annotated[
        bool | None,
        typer.Option(
            "--baseline/--no-baseline",
            help="Also test the first one's initialisation as it was before meta-learning.",
            rich_help_panel=_PANEL,
            show_default="baseline",
        ),
    ] = None,
    dataset: o.Dataset = None,
    data_dir: o.DataDir = None,
    ways: o.Ways = None,
    shots: o.Shots = None,
    queries: o.Queries = None,
    rotations: o.Rotations = None,
    mirrors: o.Mirrors = None,
    distortion: o.Distortion = None,
    kindred: o.Kindred = None,
    split_by: o.SplitBy = None,
    split_seed: o.SplitSeed = None,
    validation_classes: o.ValidationClasses = None,
    test_classes: o.TestClasses = None,
    width: o.Width = None,
    normalisation: o.Normalisation = None,
    groups: o.Groups = None,
    activation: o.Activation = None,
    logit_scale: o.LogitScale = None,
    hidden: o.Hidden = None,
    strength: o.Strength = None,
    solver: o.Solver = None,
    inner_steps: o.InnerSteps = None,
    inner_learning_rate: o.InnerLearningRate = None,
    steps: o.Steps = None,
    tasks_per_step: o.TasksPerStep = None,
    learning_rate: o.LearningRate = None,
    clip_norm: o.ClipNorm = None,
    seed: o.Seed = None,
    validate_every: o.ValidateEvery = None,
    validation_tasks: o.ValidationTasks = None,
    on_bad_verdict: o.OnBadVerdict = None,
    strategy: o.Strategy = None,
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
    given = o.given_settings(locals())
    from pullback.cli import console
    from pullback.core.errors import InputError
    from pullback.meta import parallel
    from pullback.runs import compare as comparing
    from pullback.runs import config as configs

    parallel.use_host_devices(devices)
    reporter = console.Reporter(quiet, json)
    stored = {} if config is None else dict(configs.read_toml(config))
    chosen = {
        "algorithms": None if algorithms is None else algorithms.split(","),
        "inner": inner,
        "tasks": tasks,
        "seconds_each": seconds_each,
        "baseline": baseline,
    }
    chosen = comparing.choose(stored.pop("compare", {}), chosen)
    merged = configs.merge(stored, given)
    if chosen.seconds_each is not None and "steps" in merged.get("training", {}):
        raise InputError("Both steps and seconds_each were given", allowed="one of them")
    planned = comparing.plan(chosen.algorithms, chosen.inner, merged)
    if out is None:
        time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        out = Path("runs") / f"compare-{next(iter(planned.values())).data.dataset}-{time}"
    with console.interruptible(reporter) as should_stop:
        found = comparing.compare(
            planned,
            out,
            chosen,
            seed=seed or 0,
            observer=reporter,
            should_stop=should_stop,
            devices=devices,
        )
    if not found.finished:
        record = {"out": str(out), "finished": False}
        reporter.result(record, f"Stopped. Give the same command with --out {out} to go on.")
        raise typer.Exit(130)
    rows = [comparing.cells(found.score, row) for row in found.rows]
    table = console.table([*comparing.COLUMNS[:2], *(f"{c}>" for c in comparing.COLUMNS[2:])], rows)
    task = f"{found.record['task']} on {found.record['dataset']}"
    shown = [f"Test {found.score} of {task}, {chosen.tasks} tasks, 95 % interval:", table]
    if found.record["normalisation"]:
        shown.append(f"Normalisation {found.record['normalisation']}.")
    shown.append(f"Table, plot and runs are in {out}.")
    reporter.result(found.record | {"out": str(out), "finished": True}, *shown)
