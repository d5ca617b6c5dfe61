"""``pullback train``."""

import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pullback.cli import options as o

Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for the run, which must be new.",
        rich_help_panel="Output",
        show_default="runs/<dataset>-<algorithm>-<time>",
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


def train(
    config: o.Config = None,
    resume: Resume = None,
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
    algorithm: o.Algorithm = None,
    strength: o.Strength = None,
    learn_strength: o.LearnStrength = None,
    strength_learning_rate: o.StrengthLearningRate = None,
    solver: o.Solver = None,
    inner_steps: o.InnerSteps = None,
    inner_learning_rate: o.InnerLearningRate = None,
    inner_momentum: o.InnerMomentum = None,
    linear_solver: o.LinearSolver = None,
    linear_steps: o.LinearSteps = None,
    linear_rtol: o.LinearRtol = None,
    damping: o.Damping = None,
    strength_margin: o.StrengthMargin = None,
    fit: o.Fit = None,
    steps: o.Steps = None,
    minutes: Minutes = None,
    tasks_per_step: o.TasksPerStep = None,
    learning_rate: o.LearningRate = None,
    clip_norm: o.ClipNorm = None,
    seed: o.Seed = None,
    validate_every: o.ValidateEvery = None,
    validation_tasks: o.ValidationTasks = None,
    on_bad_verdict: o.OnBadVerdict = None,
    strategy: o.Strategy = None,
    out: Out = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Meta-train an initialisation, and keep everything about it in one folder.

    For instance:  pullback train --dataset glyphs --ways 5 --shots 1 --out runs/first
    """
    given = o.given_settings(locals())
    from pullback import console, scaling

    scaling.use_host_devices()
    reporter = console.Reporter(quiet, json)
    if resume is not None:
        run, experiment = _reopen(resume, given, config, out, minutes)
    else:
        run, experiment = _begin(given, config, out, minutes, reporter)
    _run(run, experiment, reporter, resume=resume is not None)


def _begin(given: dict, config: Path | None, out: Path | None, minutes: float | None, reporter):
    from pullback import config as configs
    from pullback import experiment as experiments
    from pullback import sessions
    from pullback.errors import InputError
    from pullback.runs import Run, check_free

    stored = configs.read_toml(config) if config is not None else {}
    settings = configs.resolve(configs.merge(stored, given))
    if out is None:
        time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
        out = Path("runs") / f"{settings.data.dataset}-{settings.algorithm.name}-{time}"
    check_free(out)
    if minutes is not None:
        if "steps" in given.get("training", {}):
            raise InputError("Both --steps and --minutes were given", allowed="one of them")
        if not 0 < minutes < float("inf"):
            raise InputError(f"minutes is {minutes}", allowed="numbers above 0")
    built = experiments.build(settings)
    if minutes is not None:
        reporter.say("Measuring how long a meta-step takes here …")
        built = sessions.fill(built, 60 * minutes, with_overhead=True)
        reporter.say(f"{built.config.training.steps} meta-steps fit into {minutes:g} minutes.")
    return Run.create(out, built.config, built.split), built


def _reopen(folder: Path, given: dict, config: Path | None, out: Path | None, minutes):
    from pullback import config as configs
    from pullback import experiment as experiments
    from pullback.errors import InputError
    from pullback.runs import Run

    for flag, value in (("--out", out), ("--minutes", minutes)):
        if value is not None:
            raise InputError(
                f"{flag} was given with --resume", remedy="A resumed run keeps its folder and steps"
            )
    run = Run.open(folder)
    stored = configs.read_toml(config) if config is not None else {}
    layers = configs.merge(run.config.to_dict(), stored, given)
    changed = configs.diff(run.config, configs.resolve(layers))
    if changed:
        name, before, after = changed[0]
        why = " (the learning rate falls along a cosine over all steps)"
        raise InputError(
            f"{name} is {before!r} in the run, but {after!r} was asked for"
            + (why if name == "training.steps" else ""),
            remedy="Resume without it, or start a new run with --out",
        )
    return run, experiments.build(run.config, run.split)


def _run(run: Any, experiment: Any, reporter: Any, *, resume: bool) -> None:
    from pullback import console, wording
    from pullback.sessions import train_run

    steps, score = experiment.config.training.steps, experiment.score_name
    with (
        console.interruptible(reporter) as should_stop,
        reporter.training(score, steps) as watch,
    ):
        outcome = train_run(run, experiment, resume=resume, on_event=watch, should_stop=should_stop)
    done = int(outcome.state.step)
    best = run.best_validation(higher_is_better=experiment.higher_is_better)
    record = {
        "run": str(run.folder),
        "step": done,
        "steps": steps,
        "finished": not outcome.stopped,
        "seconds": outcome.seconds,
        "score": score,
        "best_validation": best,
    }
    if outcome.stopped:
        text = (
            f"Stopped at step {done} of {steps}. Go on with: pullback train --resume {run.folder}"
        )
        reporter.result(record, text)
        raise typer.Exit(130)
    number = wording.score_text(score, best.get("mean"), best.get("interval"))
    reporter.result(
        record,
        f"Done: {steps} meta-steps in {wording.duration(outcome.seconds)}. Best validation {score} "
        f"{number} at step {best.get('step')}.",
        f"Next: pullback evaluate {run.folder}",
    )
