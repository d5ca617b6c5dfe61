"""``pullback train``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pullback.cli import options as o
from pullback.cli.settings import with_settings

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for the run, which must be new.",
        rich_help_panel="Output",
        show_default="runs/<dataset>-<algorithm>-<time>",
    ),
]
Recipe = Annotated[
    str | None,
    typer.Option(
        "--recipe",
        help="Settings that were found to work, by name (pullback info recipes). Those of --config "
        "and of the command line go before them.",
        rich_help_panel="Training",
        show_default=False,
    ),
]
Resume = Annotated[
    Path | None,
    typer.Option(
        "--resume",
        help="Go on with an interrupted run from its last checkpoint.",
        rich_help_panel="Training",
        show_default=False,
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        "--minutes",
        help="Instead of --steps: as many as fit into this time, measured by a warm-up.",
        rich_help_panel="Training",
        show_default=False,
    ),
]


@with_settings()
def train(
    config: o.Config = None,
    recipe: Recipe = None,
    resume: Resume = None,
    *,
    given: dict[str, dict[str, Any]],
    minutes: Minutes = None,
    devices: o.Devices = None,
    hosts: o.Hosts = False,
    coordinator: o.Coordinator = None,
    process_id: o.ProcessId = None,
    processes: o.Processes = None,
    patience: o.Patience = None,
    out: Out = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Meta-train an initialisation, and keep everything about it in one folder.

    For instance:  pullback train --dataset glyphs --ways 5 --shots 1 --out runs/first
    """
    from pullback.cli import distributed
    from pullback.meta import multihost, parallel
    from pullback.runs.opening import Asked, open_run

    place = multihost.find_place(hosts, coordinator, process_id, processes, patience)
    parallel.use_host_devices(devices)
    with distributed.training_together(place, devices, quiet, json) as reporter:
        asked = Asked(given, config, resume, out, minutes, devices, recipe)
        run, experiment = open_run(asked, reporter.say)
        distributed.tell(run=str(run.folder))
        code = _train(run, experiment, reporter, devices, resume=resume is not None)
    raise typer.Exit(code)


def _train(run: Any, experiment: Any, reporter: Any, devices: int | None, *, resume: bool) -> int:
    """Train an opened run, say what came out, and give the exit code."""
    from pullback.cli import console
    from pullback.meta import multihost
    from pullback.runs.describe import flagged, flagged_lines
    from pullback.runs.formatting import command, duration
    from pullback.runs.trainer import train_run

    steps, score = experiment.config.training.steps, experiment.score
    with (
        console.interruptible(reporter) as should_stop,
        reporter.training(score, steps) as watch,
    ):
        outcome = train_run(
            run,
            experiment,
            resume=resume,
            on_event=watch,
            should_stop=should_stop,
            devices=devices,
        )
    if not multihost.is_first():
        return 130 if outcome.stopped else 0
    done = int(outcome.state.step)
    best = run.best_validation(score)
    record = {
        "run": str(run.folder),
        "stage": "pretraining" if outcome.pretraining else "meta-training",
        "step": done,
        "steps": steps,
        "finished": not outcome.stopped,
        "seconds": outcome.seconds,
        "score": score.name,
        "best_validation": best,
        "flagged": flagged(run),
    }
    if outcome.stopped:
        go_on = command("train", "--resume", run.folder)
        of = f"{experiment.config.pretraining.pretrain} of the pretraining"
        text = f"Stopped at step {done} of {of if outcome.pretraining else steps}. "
        text += f"Go on with: {go_on}"
        reporter.result(record, text, *flagged_lines(run))
        return 130
    number = score.text(best.get("mean"), best.get("interval"))
    reporter.result(
        record,
        f"Done: {_stages(experiment.config)} in {duration(outcome.seconds)}. Best validation "
        f"{score.name} {number} at step {best.get('step')}.",
        *flagged_lines(run),
        f"Next: {command('evaluate', run.folder)}",
    )
    return 0


def _stages(config: Any) -> str:
    """What a run was made of, in words."""
    stages = [
        f"{config.pretraining.pretrain} steps of pretraining",
        f"{config.training.steps} meta-steps",
    ]
    wanted = (config.pretraining.pretrain, config.training.steps)
    return " and ".join(text for text, steps in zip(stages, wanted, strict=True) if steps)
