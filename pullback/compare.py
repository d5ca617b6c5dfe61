"""Several algorithms on the same episodes: trained, tested once, and set in one table."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pullback import (
    algorithms,
    checkpoint,
    experiment,
    plots,
    registry,
    runs,
    scoring,
    sessions,
    wording,
)
from pullback import config as configs
from pullback.config import Given, RunConfig
from pullback.errors import InputError, unknown_name
from pullback.experiment import Experiment
from pullback.runs import Run
from pullback.tasks import Sinusoid, find_dataset

INNER = {
    "customary": "each with the inner loop it is known for",
    "same": "all with the same proximal problem and the same solver",
}
"""What inner loops to compare with."""

SAME_SOLVER, SAME_STEPS = "nesterov", 16
COLUMNS = (
    "algorithm",
    "inner loop",
    "test score",
    "meta-steps",
    "training",
    "ms/meta-step",
    "inner residual",
)
MARK = "comparison.json"


class Observer(Protocol):
    """Whoever watches a comparison."""

    def training(
        self, score: str, steps: int, label: str = ""
    ) -> contextlib.AbstractContextManager[sessions.OnEvent]:
        """Entered around each training; gives the function that takes its events."""
        ...

    def counting(
        self, label: str, total: int
    ) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        """Entered around each evaluation; gives the function told the number of tasks done."""
        ...

    def say(self, text: str) -> None:
        """A remark on the way."""
        ...


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        algorithm: its name.
        inner: its inner loop in words.
        mean: test score.
        interval: half the width of its 95 % interval.
        steps: meta-steps.
        seconds: seconds of training, without compilation and validations.
        step_milliseconds: of one meta-step.
        inner_residual: mean over the test tasks.
        best_step: the step of the checkpoint tested.
    """

    algorithm: str
    inner: str
    mean: float | None
    interval: float | None
    steps: int
    seconds: float
    step_milliseconds: float | None
    inner_residual: float | None
    best_step: int


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        score: ``"accuracy"`` or ``"mean squared error"``.
        rows: the table.
        finished: whether all trainings came to their end.
        record: the same with all that belongs to it, as stored.
    """

    score: str
    rows: tuple[Row, ...]
    finished: bool
    record: dict[str, Any]


def plan(names: Sequence[str], inner: str, given: Given) -> dict[str, RunConfig]:
    """The configuration of each algorithm of a comparison.

    Args:
        names: of algorithms.
        inner: ``"customary"`` or ``"same"``.
        given: settings that all share. ``strength``, ``solver`` and ``inner_steps`` are those of
            all algorithms for ``"same"``; for ``"customary"`` ``strength`` is iMAML's.

    Returns:
        Configurations by name of the algorithm.

    Raises:
        InputError: for unknown names, or settings that do not fit.
    """
    if inner not in INNER:
        raise unknown_name("kind of inner loop", inner, INNER)
    if not names or len(set(names)) < len(names):
        raise InputError(
            f"The algorithms are {', '.join(names) or 'none'}",
            allowed=f"each of {', '.join(algorithms.ALGORITHMS)} at most once",
        )
    shared = dict(given.get("algorithm", {}))
    if inner == "customary":
        fixed = [name for name in ("solver", "inner_steps") if name in shared]
        if fixed:
            raise InputError(
                f"{fixed[0]} was given, but with the customary inner loops each algorithm has "
                "its own",
                remedy="Leave it out, or compare with --inner same",
            )
    planned = {}
    for name in names:
        line = registry.find("algorithm", algorithms.ALGORITHMS, name)
        own = dict(shared)
        if inner == "same":
            dataset = given.get("data", {}).get("dataset", "glyphs")
            find_dataset(dataset)
            proximal = configs.defaults(dataset, "imaml", None)["strength"]
            own = {"strength": proximal, "solver": SAME_SOLVER, "inner_steps": SAME_STEPS} | own
            own |= {"fit": "support"} if name == "reptile" else {}
        elif not line.proximal:
            own.pop("strength", None)
        else:
            own.pop("inner_learning_rate", None)
        layer = {**given, "algorithm": {**own, "name": name}}
        planned[name] = configs.resolve(layer)
    return planned


def compare(
    planned: Mapping[str, RunConfig],
    out: Path | str,
    *,
    inner: str,
    tasks: int = 600,
    seed: int = 0,
    baseline: bool = True,
    seconds_each: float | None = None,
    observer: Observer,
    should_stop: Callable[[], bool] = lambda: False,
) -> Comparison:
    """Train each algorithm, test each once, and write the table and the plots.

    A run that stands in ``out`` already with the same configuration is used again, or gone on
    with if it was interrupted.

    Args:
        planned: from :func:`plan`.
        out: the folder of the comparison; each algorithm's run is a folder in it.
        inner: as given to :func:`plan`.
        tasks: test tasks.
        seed: of the test tasks.
        baseline: also test the untrained initialisation.
        seconds_each: train each for about this long in place of the configured steps.
        observer: shown what happens.
        should_stop: asked during training; True ends the comparison early.

    Returns:
        The table.

    Raises:
        InputError: if ``out`` is in the way, or holds a run with other settings.
        NumericalError: if a training fails.
        StorageError: if the disk refuses a write.
    """
    out = Path(out)
    _check_folder(out)
    if tasks < 2:
        raise InputError(f"tasks is {tasks}", allowed="whole numbers from 2")
    images = experiment.load_images(next(iter(planned.values())))
    standing = {name: Run.open(out / name) for name in planned if (out / name).exists()}
    for name, run in standing.items():
        _check_same(name, run.config, planned[name], ignore_steps=seconds_each is not None)
    split = next((run.split for run in standing.values()), None)
    # All are built, and so checked, before the first is trained.
    built: dict[str, Experiment] = {}
    for name, config in planned.items():
        run = standing.get(name)
        built[name] = experiment.build(run.config if run else config, split, images)
        split = built[name].split
    runs.write_json(out / MARK, {"algorithms": list(planned), "inner": inner})

    for name in planned:
        run, stopped = _train(
            out / name, standing.get(name), built, name, seconds_each, observer, should_stop
        )
        standing[name] = run
        if stopped:
            return Comparison(built[name].score_name, (), False, {})

    rows = []
    first = next(iter(planned))
    if baseline:
        record = _score(standing[first], built[first], tasks, seed, True, observer)
        rows.append(_row(scoring.BASELINE, built[first].config, record, None))
    for name in planned:
        record = _score(standing[name], built[name], tasks, seed, False, observer)
        rows.append(_row(name, built[name].config, record, standing[name]))
    ordered = {name: standing[name] for name in planned}
    return _write(out, inner, tuple(rows), ordered, built, tasks, seed)


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"{str(out)!r} is a file", remedy="Give another folder with --out")
    if out.is_dir() and any(out.iterdir()) and not (out / MARK).is_file():
        raise InputError(
            f"The folder {str(out)!r} is not empty, and holds no comparison",
            remedy="Give another one with --out",
        )


def _check_same(name: str, there: RunConfig, asked: RunConfig, *, ignore_steps: bool) -> None:
    for setting, before, after in configs.diff(there, asked):
        if not (ignore_steps and setting == "training.steps"):
            raise InputError(
                f"The run of {name} that stands there has {setting} = {before!r}, but {after!r} "
                "was asked for",
                remedy="Give another folder with --out",
            )


def _train(
    folder: Path,
    run: Run | None,
    built: dict[str, Experiment],
    name: str,
    seconds_each: float | None,
    observer: Observer,
    should_stop: Callable[[], bool],
) -> tuple[Run, bool]:
    resume = run is not None and bool(checkpoint.steps(run.checkpoints))
    if run is None:
        if seconds_each is not None:
            observer.say(f"{name}: measuring how long a meta-step takes here …")
            built[name] = sessions.fill(built[name], seconds_each, with_overhead=False)
        run = Run.create(folder, built[name].config, built[name].split)
    steps = run.config.training.steps
    if resume and checkpoint.steps(run.checkpoints)[-1] == steps:
        observer.say(f"{name}: trained already.")
        return run, False
    with observer.training(built[name].score_name, steps, name) as on_event:
        outcome = sessions.train_run(
            run, built[name], resume=resume, on_event=on_event, should_stop=should_stop
        )
    return run, outcome.stopped


def _score(
    run: Run, built: Experiment, tasks: int, seed: int, baseline: bool, observer: Observer
) -> dict[str, Any]:
    label = scoring.BASELINE if baseline else f"{run.config.algorithm.name}: test tasks"
    with observer.counting(label, tasks) as on_block:
        return scoring.evaluate_run(
            run, tasks=tasks, seed=seed, baseline=baseline, built=built, on_block=on_block
        ).record


def _row(name: str, config: RunConfig, record: Mapping[str, Any], run: Run | None) -> Row:
    lines = run.metrics("step") if run else []
    # The first line of each session is mostly compilation.
    steady = [line for line in lines if not line["compiling"]]
    count = sum(line["count"] for line in steady)
    seconds = sum(line["block_seconds"] for line in steady)
    return Row(
        name,
        describe_inner(config),
        record.get("mean"),
        record.get("interval"),
        config.training.steps if run else 0,
        seconds,
        1000 * seconds / count if count else None,
        record.get("inner_residual"),
        record["step"],
    )


def describe_inner(config: RunConfig) -> str:
    """An inner loop in words."""
    given = config.algorithm
    text = f"{given.inner_steps} steps of {given.solver}"
    if given.inner_learning_rate is not None:
        text += f" ({given.inner_learning_rate:g})"
    text += f", λ = {given.strength:g}" if given.strength else ", no proximal term"
    return text + (", fits support and query" if given.fit == "all" else "")


def _write(
    out: Path,
    inner: str,
    rows: tuple[Row, ...],
    trained: Mapping[str, Run],
    built: Mapping[str, Experiment],
    tasks: int,
    seed: int,
) -> Comparison:
    first = next(iter(built.values()))
    data = first.config.data
    what = f"{data.ways}-way {data.shots}-shot" if data.ways else f"{data.shots} points"
    record = {
        "dataset": data.dataset,
        "task": what,
        "inner": inner,
        "inner_meaning": INNER[inner],
        "score": first.score_name,
        "normalisation": scoring.describe_normalisation(first.config),
        "tasks": tasks,
        "seed": seed,
        "rows": [dataclasses.asdict(row) for row in rows],
        "versions": runs.versions(),
    }
    runs.write_json(out / "table.json", record)
    runs.write_text(out / "table.md", _markdown(record, rows))
    subtitle = f"{data.dataset}, {what}; {inner} inner loop"
    plots.draw_comparison(trained, first.score_name, out / "compare.png", subtitle)
    if isinstance(first.tasks("test"), Sinusoid):
        _draw_adaptation(out / "adaptation.png", trained, built, seed)
    return Comparison(first.score_name, rows, True, record)


def cells(score: str, row: Row) -> tuple[str, ...]:
    """A row of the table as text, in the order of :data:`COLUMNS`."""
    return (
        row.algorithm,
        row.inner,
        wording.score_text(score, row.mean, row.interval),
        str(row.steps),
        wording.duration(row.seconds) if row.steps else "–",
        wording.number(row.step_milliseconds),
        wording.number(row.inner_residual, 2),
    )


def _markdown(record: Mapping[str, Any], rows: Sequence[Row]) -> str:
    lines = [
        f"{record['task']} on {record['dataset']}, {INNER[record['inner']]}; test "
        f"{record['score']} over {record['tasks']} tasks with its 95 % interval",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    lines += ["| " + " | ".join(cells(record["score"], row)) + " |" for row in rows]
    if record["normalisation"]:
        lines += ["", f"Normalisation {record['normalisation']}."]
    return "\n".join(lines) + "\n"


def _draw_adaptation(
    path: Path, trained: Mapping[str, Run], built: Mapping[str, Experiment], seed: int
) -> None:
    first = next(iter(built.values()))
    key = jax.random.key(seed)
    # The query points of a task lie on its curve, so many of them draw it.
    task = Sinusoid(first.config.data.shots, 400).sample(key)
    order = np.argsort(np.asarray(task.query[0])[:, 0])
    x, truth = np.asarray(task.query[0])[order], np.asarray(task.query[1])[order]
    fits = []
    for name, run in trained.items():
        each = built[name]
        state = checkpoint.restore(
            run.checkpoints, each.fresh_state(), "best", higher_is_better=each.higher_is_better
        )
        phi, _ = jax.jit(each.algorithm.adapt)(state.theta, task.support, key)
        fits.append(plots.Fit(name, np.asarray(each.model.apply(phi, jnp.asarray(x)))[:, 0]))
    support = (np.asarray(task.support[0])[:, 0], np.asarray(task.support[1])[:, 0])
    plots.draw_adaptation(x[:, 0], truth[:, 0], support, fits, path)
