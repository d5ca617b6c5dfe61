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
    given = o.given_settings(locals())
    from pullback.cli import launch, worker
    from pullback.core.errors import InputError, NumericalError
    from pullback.meta import multihost as peers
    from pullback.meta import parallel

    place = peers.find_place(hosts, coordinator, process_id, processes, patience)
    parallel.use_host_devices(devices)
    with worker.awaiting_the_worst(peers.HEARTBEAT):
        reporter = launch.meet(place, devices, quiet, json)
        try:
            aims = peers.together(lambda: None if resume is None else str(resume))
            launch.check_aims(aims)
            if resume is not None:
                run, experiment = _reopen(resume, given, config, out, minutes, devices)
            else:
                run, experiment = _begin(given, config, out, minutes, devices, reporter)
            worker.tell(run=str(run.folder))
            code = _run(run, experiment, reporter, devices, resume=resume is not None)
        except (InputError, NumericalError):
            # Every process raises these, and none may end before the others have heard of it.
            peers.leave()
            raise
        peers.leave()
    raise typer.Exit(code)


def _begin(
    given: dict,
    config: Path | None,
    out: Path | None,
    minutes: float | None,
    devices: int | None,
    reporter: Any,
):
    from pullback.core.errors import InputError
    from pullback.meta import multihost
    from pullback.runs import budget
    from pullback.runs import config as configs
    from pullback.runs.folder import Run, check_free

    stored, settings = {}, None

    def read() -> str:
        nonlocal stored, settings, out
        stored = configs.read_toml(config) if config is not None else {}
        settings = configs.resolve(configs.merge(stored, given))
        if minutes is not None:
            if "steps" in given.get("training", {}):
                raise InputError("Both --steps and --minutes were given", allowed="one of them")
            if not 0 < minutes < float("inf"):
                raise InputError(f"minutes is {minutes}", allowed="numbers above 0")
        if out is None:
            time = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
            out = Path("runs") / f"{settings.data.dataset}-{settings.algorithm.name}-{time}"
        if multihost.is_first():
            check_free(out)
        return str(out)

    folder = Path(multihost.together(read)[0])
    built = _build_alike(settings, None, devices, minutes)
    built = budget.prepare(
        built,
        None if minutes is None else 60 * minutes,
        devices=devices,
        say=lambda text: reporter.say(text[0].upper() + text[1:]),
    )
    multihost.from_first(lambda: str(Run.create(folder, built.config, built.split).folder))
    return Run(folder, built.config, built.split), built


def _reopen(folder: Path, given: dict, config: Path | None, out: Path | None, minutes, devices):
    from pullback.core.errors import InputError
    from pullback.meta import multihost
    from pullback.runs import config as configs
    from pullback.runs.folder import Run
    from pullback.tasks import ClassSplit

    def check_flags() -> None:
        for flag, value in (("--out", out), ("--minutes", minutes)):
            if value is not None:
                raise InputError(
                    f"{flag} was given with --resume",
                    remedy="A resumed run keeps its folder and steps",
                )

    def open_run() -> dict[str, Any]:
        run = Run.open(folder)
        split = None if run.split is None else run.split.to_dict()
        return {"folder": str(folder), "settings": run.config.to_dict(), "split": split}

    def check_settings() -> None:
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

    multihost.together(check_flags)
    # The other processes need not see the folder.
    found = multihost.from_first(open_run)
    split = None if found["split"] is None else ClassSplit.from_dict(found["split"])
    run = Run(Path(found["folder"]), configs.resolve(found["settings"]), split)
    multihost.together(check_settings)
    return run, _build_alike(run.config, split, devices)


def _build_alike(settings: Any, split: Any, devices: int | None, minutes: float | None = None):
    """The experiment, once it is known that every process builds the same."""
    from pullback.cli import launch
    from pullback.meta import multihost, parallel
    from pullback.runs import build as experiments

    built: Any = None

    def build() -> dict[str, Any]:
        nonlocal built
        parallel.check_devices(settings.training.tasks_per_step, devices)
        parallel.task_mesh(settings.training.tasks_per_step, devices)
        built = experiments.build(settings, split)
        if multihost.count() == 1:
            return {}
        return launch.card(built, devices, minutes)

    cards = multihost.together(build)
    if len(cards) > 1:
        launch.check_cards(cards)
    return built


def _run(run: Any, experiment: Any, reporter: Any, devices: int | None, *, resume: bool) -> int:
    from pullback.cli import console
    from pullback.meta import multihost
    from pullback.runs import formatting
    from pullback.runs.trainer import train_run

    steps, score = experiment.config.training.steps, experiment.score_name
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
        return 130
    number = formatting.score_text(score, best.get("mean"), best.get("interval"))
    reporter.result(
        record,
        f"Done: {steps} meta-steps in {formatting.duration(outcome.seconds)}. Best validation "
        f"{score} {number} at step {best.get('step')}.",
        f"Next: pullback evaluate {run.folder}",
    )
    return 0
