"""Scores of a trained run on classes it never saw, by the split that is stored in it."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pullback.core import results
from pullback.core.errors import InputError, check_seed, unknown_name
from pullback.core.results import Verdict
from pullback.meta.evaluation import Evaluation
from pullback.registries import NORMALISATIONS
from pullback.runs import build
from pullback.runs.build import Experiment
from pullback.runs.config import SETTINGS, RunConfig
from pullback.runs.fields import read, whole
from pullback.runs.folder import Run, check_writable
from pullback.runs.pretrained import Packed, find_step, trained_theta, with_ways
from pullback.runs.starting import classes_of, start
from pullback.tasks import ClassSet, TaskDistribution

PARTS = ("test", "validation", "train", "unseen")
BASELINE = "without meta-learning"


@dataclass(frozen=True)
class RunEvaluation:
    """The result of an evaluation of a run.

    Args:
        record: what is stored as JSON.
        evaluation: the scores task by task.
    """

    record: dict[str, Any]
    evaluation: Evaluation


def evaluate_run(
    run: Run,
    *,
    part: str = "test",
    tasks: int = 600,
    which: str = "best",
    seed: int = 0,
    data_dir: str | None = None,
    ways: int | None = None,
    shots: int | None = None,
    queries: int | None = None,
    allow_training_classes: bool = False,
    allow_changed_data: bool = False,
    baseline: bool = False,
    built: Experiment | None = None,
    on_block: Callable[[int], None] | None = None,
    devices: int | None = None,
    say: Callable[[str], None] | None = None,
) -> RunEvaluation:
    """Evaluate a checkpoint of a run, with the inner problem and solver it was trained with.

    Args:
        run: the run, or a packed initialisation.
        part: ``"test"``, ``"validation"``, ``"train"`` or ``"unseen"``.
        tasks: number of tasks.
        which: ``"best"`` (by validation), ``"last"`` or a step.
        seed: the same seed gives the same tasks.
        data_dir: read the images from here in place of the run's own folder.
        ways: classes of a task; the run's own if None. Others need a packed initialisation.
        shots: support examples per class; the run's own if None.
        queries: query examples per class; the run's own if None.
        allow_training_classes: let ``part`` be ``"train"``.
        allow_changed_data: take other examples than the run's own under the names of its classes.
        baseline: score the initialisation before meta-training in place of a checkpoint: that of
            the pretraining, if there was one.
        built: the run's experiment, if it is built already.
        on_block: called with the number of tasks done, and with 0 before the first.
        devices: the most devices to use; all if None.
        say: told what is passed over in the data, and what has changed since the run began.

    Returns:
        The scores; their record is stored in the run, though not beside a packed initialisation.

    Raises:
        InputError: for parts, checkpoints or data that do not exist or fit, or are not the run's.
        StorageError: if the disk refuses the result.
    """
    run.check_trained()
    packed = isinstance(run, Packed)
    if not packed:
        check_writable(run.folder, remedy="Look at its permissions, or copy the run elsewhere")
    check_part(run, part, allow_training_classes)
    read(whole(2), "tasks", tasks)
    check_seed(seed)
    # Whatever can be wrong without the data is found before they are loaded.
    if baseline:
        check_baseline(run)
    elif packed:
        find_step(run, which)
    config = with_ways(run, run.config, ways)
    config = with_episodes(config, shots=shots, queries=queries, data_dir=data_dir)
    if built is None or config != run.config or allow_changed_data:
        summary = build.summary_of(run).with_ways(config.data.ways)
        if allow_changed_data:
            summary = dataclasses.replace(summary, digests=None)
        data = build.load_data(config, say)
        if say is not None and part != "unseen":
            build.say_changes(summary, data, say)
        built = build.assemble(config, summary, run.split, data)
    source = evaluation_tasks(run, built, part, data_dir=data_dir)
    classes = evaluation_classes(run, built, part, data_dir=data_dir)
    digest = None if classes is None else classes.digest()
    if baseline:
        which, step, theta = "start", 0, start(run, built).fresh_state().theta
    else:
        step, theta = trained_theta(run, built, which)
    if on_block is not None:
        on_block(0)
    scores = built.evaluate(
        theta, source, count=tasks, seed=seed, on_block=on_block, devices=devices
    )
    record = describe(built, scores) | {"part": part, "checkpoint": which, "step": step}
    record |= {"seed": seed, "data_dir": data_dir, "data": digest, "records": scores.records()}
    if not packed:
        run.store_evaluation(_name(record), record)
    return RunEvaluation(record, scores)


def _name(record: Mapping[str, Any]) -> str:
    """All that decides an evaluation's numbers, so that no other one takes its place."""
    name = "{part}-{checkpoint}-{seed}-step{step}-{tasks}tasks".format(**record)
    written = {"shots": "{}shot", "queries": "{}query", "data": "{}"}
    known = [text.format(record[n]) for n, text in written.items() if record[n] is not None]
    return "-".join([name, *known])


def describe(built: Experiment, scores: Evaluation) -> dict[str, Any]:
    """What an evaluation found, in numbers and in the words that belong with them."""
    data = built.config.data
    flagged = {
        results.message(code): int(np.sum(scores.codes == code))
        for code in np.unique(scores.codes).tolist()
        if code != Verdict.OK
    }
    return {
        "score": built.score.name,
        **build.summarise(scores),
        "tasks": len(scores.scores),
        "ways": data.ways,
        "shots": data.shots,
        "queries": data.queries,
        "normalisation": describe_normalisation(built.config),
        "flagged": flagged,
    }


def describe_normalisation(config: RunConfig) -> str | None:
    """The normalisation, and whether query examples see each other through it."""
    name = config.model.normalisation
    if name is None:
        return None
    transductive = "transductive" in NORMALISATIONS[name]
    return f"{name}: {'transductive' if transductive else 'inductive'}"


def check_baseline(run: Run) -> None:
    """Whether the initialisation before meta-training is known.

    Raises:
        InputError: of a packed one.
    """
    if isinstance(run, Packed):
        raise InputError(
            "What a packed initialisation was before its meta-training is not packed",
            remedy="Leave --baseline out",
        )


def check_part(run: Run, part: str, allow_training_classes: bool) -> None:
    """Whether a run may be evaluated on a part of its split.

    Args:
        run: the run.
        part: ``"test"``, ``"validation"``, ``"train"`` or ``"unseen"``.
        allow_training_classes: let it be ``"train"``.

    Raises:
        InputError: for an unknown part, or training classes without permission.
    """
    if part not in PARTS:
        raise unknown_name("part of a split", part, PARTS)
    if run.split is None:
        if part != "test":
            raise InputError(
                f"The part {part!r} was asked for, but the data set "
                f"{run.config.data.dataset!r} has no classes to split",
                allowed="test, whose tasks are drawn anew",
            )
        return
    if part == "train" and not allow_training_classes:
        raise InputError(
            "The run was trained on the classes of its train part, and a score on them says "
            "nothing about new ones",
            remedy="Take test, validation or unseen, or give --allow-training-classes",
        )


def evaluation_tasks(
    run: Run, built: Experiment, part: str, *, data_dir: str | None = None
) -> TaskDistribution:
    """The tasks of an evaluation: from the classes of the run's own split, and no others.

    Args:
        run: the run.
        built: made from it; its images are those of ``data_dir``.
        part: ``"test"``, ``"validation"``, ``"train"``, or ``"unseen"``: all classes found that
            the run neither trained nor validated on.
        data_dir: where the images were read from, for messages.

    Returns:
        Where the tasks come from.

    Raises:
        InputError: if classes are missing from the data, or there are too few.
    """
    classes = evaluation_classes(run, built, part, data_dir=data_dir)
    if classes is None:
        return built.tasks("test")
    prepared = built.summary.prepared(classes)
    return build.episodes_of(prepared, built.config, called=f"the {part} classes")


def evaluation_classes(
    run: Run, built: Experiment, part: str, *, data_dir: str | None = None
) -> ClassSet | None:
    """The classes that :func:`evaluation_tasks` draws from; None where there are none.

    Raises:
        InputError: if classes are missing from the data.
    """
    if run.split is None or not isinstance(built.data, ClassSet):
        return None
    if part == "unseen":
        wanted = _unseen(run, built.data)
        if not wanted:
            where = f" in {data_dir!r}" if data_dir else ""
            raise InputError(
                f"The run trained or validated on every class{where}",
                remedy="Give another copy of the data by --data-dir",
            )
    else:
        wanted = run.split.classes(part)
    return built.data.select(wanted)


def _unseen(run: Run, data: ClassSet) -> tuple[str, ...]:
    """The classes that nothing which went into a run was trained or validated on.

    Raises:
        InputError: if one was, under another name.
    """
    names: set[str] = set()
    digests: dict[str, str] = {}
    for each in run.lineage():
        digests |= {digest: name for name, digest in classes_of(each, "train", "validation")}
        if each.split is not None and each.config.data.dataset == run.config.data.dataset:
            names |= {*each.split.train, *each.split.validation}
    wanted = tuple(name for name in data.classes if name not in names)
    same = [(n, digests[data.digests[n]]) for n in wanted if data.digests[n] in digests]
    if same:
        raise InputError(
            f"{len(same)} classes have the very examples of classes that the run trained or "
            f"validated on: {same[0][0]!r} those of {same[0][1]!r}",
            remedy="Leave them out of the data",
        )
    return wanted


def with_episodes(
    config: RunConfig,
    *,
    shots: int | None = None,
    queries: int | None = None,
    data_dir: str | None = None,
) -> RunConfig:
    """The same configuration with other numbers of examples per task, or another folder of them.

    Raises:
        InputError: if the data set has no such setting.
    """
    given = {"shots": shots, "queries": queries, "data_dir": data_dir}
    changes = {name: value for name, value in given.items() if value is not None}
    for name, value in changes.items():
        if getattr(config.data, name) is None:
            owner = f"the data set {config.data.dataset!r}"
            raise InputError(
                f"{name} is {value!r}, but {owner} has no such setting",
                remedy=f"Leave {name} out",
            )
        read(SETTINGS["data"][name].kind, name, value)
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **changes))
