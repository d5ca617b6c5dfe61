"""A comparison carried out: each algorithm trained on the same episodes, and tested once."""

import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from pullback.core.errors import InputError, check_seed
from pullback.core.scores import Score
from pullback.meta import parallel
from pullback.registries import INNER_LOOPS
from pullback.runs import budget, build, checkpoint, folder, plots, trainer
from pullback.runs import config as configs
from pullback.runs.build import Experiment
from pullback.runs.compare.table import Row, make_row, markdown
from pullback.runs.config import CompareConfig, RunConfig
from pullback.runs.folder import Run
from pullback.runs.formatting import task_text
from pullback.runs.score import BASELINE, describe_normalisation, evaluate_run, with_episodes
from pullback.runs.starting import check_start
from pullback.tasks import TaskFamily

MARK = "comparison.json"


@runtime_checkable
class Observer(Protocol):
    """Whoever watches a comparison."""

    def training(
        self, score: Score, steps: int, label: str = ""
    ) -> contextlib.AbstractContextManager[trainer.OnEvent]:
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
class Comparison:
    """What a comparison found.

    Args:
        score: what was compared by.
        rows: the table.
        finished: whether all trainings came to their end.
        record: the same with all that belongs to it, as stored.
    """

    score: Score
    rows: tuple[Row, ...]
    finished: bool
    record: dict[str, Any]


def compare(
    planned: Mapping[str, RunConfig],
    out: Path | str,
    choice: CompareConfig,
    *,
    seed: int = 0,
    observer: Observer,
    should_stop: Callable[[], bool] = lambda: False,
    devices: int | None = None,
) -> Comparison:
    """Train each algorithm, test each once, and write the table and the plots.

    A run that stands in ``out`` already with the same configuration is used again, or gone on
    with if it was interrupted.

    Args:
        planned: from :func:`plan`.
        out: the folder of the comparison; each algorithm's run is a folder in it.
        choice: what was planned, and how it is tested.
        seed: of the test tasks.
        observer: shown what happens.
        should_stop: asked during training; True ends the comparison early.
        devices: the most devices to spread tasks over; all if None.

    Returns:
        The table.

    Raises:
        InputError: if ``out`` is in the way, or holds a run with other settings.
        NumericalError: if a training fails.
        StorageError: if the disk refuses a write.
    """
    check_seed(seed)
    out = Path(out)
    _check_folder(out)
    data = build.load_data(next(iter(planned.values())), observer.say)
    planned = {name: build.settle(config, data) for name, config in planned.items()}
    standing = {name: Run.open(out / name) for name in planned if (out / name).exists()}
    for name, run in standing.items():
        run.check_real()
        _check_same(name, run.config, planned[name], ignore_steps=choice.seconds_each is not None)
    split = next((run.split for run in standing.values()), None)
    # All are built, and so checked, before the first is trained.
    built: dict[str, Experiment] = {}
    for name, config in planned.items():
        run = standing.get(name)
        summary = run.summary if run else None
        built[name] = build.build(run.config if run else config, split, data, summary)
        if run is None:
            check_start(built[name])
        split = built[name].split
        parallel.check_devices(built[name].config.training.tasks_per_step, devices)
    folder.write_json(out / MARK, {"algorithms": list(planned), "inner": choice.inner})

    for name in planned:
        train = functools.partial(_train, observer=observer, should_stop=should_stop)
        run, stopped = train(
            out / name,
            standing.get(name),
            built,
            name,
            choice.seconds_each,
            others=tuple(standing.values()),
            devices=devices,
        )
        standing[name] = run
        if stopped:
            return Comparison(built[name].score, (), False, {})

    rows = []
    first = next(iter(planned))
    score = functools.partial(
        _score, tasks=choice.tasks, seed=seed, observer=observer, devices=devices
    )
    if choice.baseline:
        record = score(standing[first], built[first], baseline=True)
        rows.append(make_row(BASELINE, built[first].config, record, None))
    for name in planned:
        record = score(standing[name], built[name], baseline=False)
        rows.append(make_row(name, built[name].config, record, standing[name]))
    ordered = {name: standing[name] for name in planned}
    return _write(out, choice, tuple(rows), ordered, built, seed)


def _check_folder(out: Path) -> None:
    if folder.holds_something(out) and not (out / MARK).is_file():
        raise InputError(
            f"The folder {str(out)!r} is not empty, and holds no comparison",
            remedy="Give another one with --out",
        )
    folder.check_writable(out)


def _check_same(name: str, there: RunConfig, asked: RunConfig, *, ignore_steps: bool) -> None:
    ignored = {"training.steps"} if ignore_steps else set()
    if asked.training.strategy == "measure":
        # It was measured when the run began.
        ignored.add("training.strategy")
    for setting, before, after in configs.diff(there, asked):
        if setting not in ignored:
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
    *,
    others: Sequence[Run],
    observer: Observer,
    should_stop: Callable[[], bool],
    devices: int | None,
) -> tuple[Run, bool]:
    trained = run is not None and bool(checkpoint.steps(run.checkpoints))
    if run is None:
        built[name] = budget.prepare(
            built[name],
            seconds_each,
            with_overhead=False,
            devices=devices,
            say=lambda text: observer.say(f"{name}: {text}"),
        )
        run = Run.create(folder, built[name].config, built[name].split, built[name].summary)
    elif not run.begun:
        run = Run(folder, built[name].config, built[name].split, built[name].summary)
        run.write()
    steps = run.config.training.steps
    if trained and checkpoint.steps(run.checkpoints)[-1] == steps:
        observer.say(f"{name}: trained already.")
        return run, False
    _share_pretraining(run, built[name].config.pretraining.pretrain, others)
    with observer.training(built[name].score, steps, name) as on_event:
        outcome = trainer.train_run(
            run,
            built[name],
            resume=trained or bool(checkpoint.steps(run.pretraining().checkpoints)),
            on_event=on_event,
            should_stop=should_stop,
            devices=devices,
        )
    return run, outcome.stopped


def _share_pretraining(run: Run, steps: int | None, others: Sequence[Run]) -> None:
    """Start from the body that another run has pretrained: theirs would be the same."""
    stage = run.pretraining()
    if not steps or stage.folder.exists():
        return
    for other in others:
        source = other.pretraining()
        if steps in checkpoint.steps(source.checkpoints):
            with folder.storage(stage.folder, "the run can be begun anew"):
                part = stage.folder.with_name(f"{stage.folder.name}-copied")
                shutil.rmtree(part, ignore_errors=True)
                shutil.copytree(source.folder, part)
                part.rename(stage.folder)
            return


def _score(
    run: Run,
    built: Experiment,
    *,
    tasks: int,
    seed: int,
    baseline: bool,
    observer: Observer,
    devices: int | None,
) -> dict[str, Any]:
    label = BASELINE if baseline else f"{run.config.algorithm.name}: test tasks"
    with observer.counting(label, tasks) as on_block:
        return evaluate_run(
            run,
            tasks=tasks,
            seed=seed,
            baseline=baseline,
            built=built,
            on_block=on_block,
            devices=devices,
        ).record


def _write(
    out: Path,
    choice: CompareConfig,
    rows: tuple[Row, ...],
    trained: Mapping[str, Run],
    built: Mapping[str, Experiment],
    seed: int,
) -> Comparison:
    first = next(iter(built.values()))
    data = first.config.data
    what = task_text(data.ways, data.shots)
    record = {
        "dataset": data.dataset,
        "task": what,
        "inner": choice.inner,
        "inner_meaning": INNER_LOOPS[choice.inner],
        "score": first.score.name,
        "normalisation": describe_normalisation(first.config),
        "tasks": choice.tasks,
        "seed": seed,
        "rows": [dataclasses.asdict(row) for row in rows],
        "versions": folder.versions(),
    }
    folder.write_json(out / "table.json", record)
    folder.write_text(out / "table.md", markdown(first.score, record, rows))
    subtitle = f"{data.dataset}, {what}; {choice.inner} inner loops"
    plots.draw_comparison(trained, first.score, out / "compare.png", subtitle)
    if _is_curve(first):
        _draw_adaptation(out / "adaptation.png", trained, built, seed)
    return Comparison(first.score, rows, True, record)


def _is_curve(experiment: Experiment) -> bool:
    """Whether a task is a curve that can be drawn: one number as a function of one number."""
    summary = experiment.summary
    one_to_one = summary.inputs == (1,) and summary.outputs == 1 and not summary.score.percent
    return one_to_one and experiment.config.data.queries is not None


def _draw_adaptation(
    path: Path, trained: Mapping[str, Run], built: Mapping[str, Experiment], seed: int
) -> None:
    first = next(iter(built.values()))
    key = jax.random.key(seed)
    # The query points of a task lie on its curve, so many of them draw it.
    data = build.load_data(with_episodes(first.config, queries=400))
    assert isinstance(data, TaskFamily)
    task = data.part("test").sample(key)
    order = np.argsort(np.asarray(task.query[0])[:, 0])
    x, truth = np.asarray(task.query[0])[order], np.asarray(task.query[1])[order]
    fits = []
    for name, run in trained.items():
        each = built[name]
        state = build.restore(run, each, "best")
        phi, _ = jax.jit(each.algorithm.adapt)(state.theta, task.support, key)
        fits.append(plots.Fit(name, np.asarray(each.model.apply(phi, jnp.asarray(x)))[:, 0]))
    support = (np.asarray(task.support[0])[:, 0], np.asarray(task.support[1])[:, 0])
    plots.draw_adaptation(x[:, 0], truth[:, 0], support, fits, path)
