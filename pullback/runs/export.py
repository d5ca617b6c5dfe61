"""Fitted estimators and runs as programs that run without what trained them (docs/serving.md)."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pullback.core import results
from pullback.core.errors import InputError, check_counts, check_seed, span
from pullback.core.program import Input, Program, check_installed, check_platforms, pack
from pullback.core.results import Verdict
from pullback.models.objectives import CLASSIFICATION, REGRESSION
from pullback.runs import build
from pullback.runs.folder import Run, check_writable, write_with
from pullback.runs.predict import Adapter, adapter_of, read_examples
from pullback.runs.pretrained import Packed, open_trained, trained_theta
from pullback.tasks import TaskFamily
from pullback.tasks.datasets import DataSummary
from pullback.tasks.episodes import as_inputs

Say = Callable[[str], None]

CAN_BE = (
    "a fitted MetaRegressor, what its adapt returned, or the folder of a run of pullback fit by a "
    "method or of pullback train"
)


def export(
    what: Any,
    path: Path | str,
    *,
    adapt: Any = None,
    which: str | int = "best",
    ways: int | None = None,
    examples: int | None = None,
    seed: int = 0,
    platforms: Sequence[str] = ("cpu",),
    overwrite: bool = False,
    say: Say = warnings.warn,
) -> dict[str, Any]:
    """Write what adapts to new groups or tasks, or what has adapted, into one file for JAX alone.

    ``pullback.load_exported`` reads it with checks; docs/serving.md shows how it is run without
    this package.

    Args:
        what: a fitted :class:`pullback.sklearn.MetaRegressor`, what its ``adapt`` returned, the
            folder of a fitted table, or the folder of a run or the name of an initialisation.
        path: the file.
        adapt: what to adapt to first, so that the program only predicts: of an estimator the
            arguments ``(X, y, groups)`` of ``with_groups``, of a fitted table a file of rows, of a
            run a folder or a file as for ``pullback adapt --support``.
        which: the checkpoint of a run: ``"best"``, ``"last"`` or a step.
        ways: classes of a run's tasks; as trained if None.
        examples: the most support examples of a run's task; as trained if None.
        seed: for solvers that draw random numbers.
        platforms: what the program is for: ``"cpu"``, ``"cuda"``, ``"rocm"``, ``"tpu"``.
        overwrite: whether a file that is there is replaced.
        say: told in sentences what of the rows or pictures given was left out.

    Returns:
        What stands in the file's ``about.json``.

    Raises:
        InputError: for what cannot be exported, for a file that is there already, and where
            ``flatbuffers`` is not installed.
        NumericalError: if adaptation left the finite numbers.
        StorageError: if the disk refuses it.
    """
    path = Path(path)
    check_installed()
    check_platforms(platforms)
    check_seed(seed)
    if path.exists() and not (overwrite and path.is_file()):
        raise InputError(
            f"{str(path)!r} is there already", remedy="Give another file, or add --overwrite"
        )
    check_writable(path.parent, "Give another file")
    if isinstance(what, str | Path) and not (Path(what) / "fit.json").is_file():
        program = _of_run(open_trained(what), adapt, which, ways, examples, seed, say)
    else:
        if (which, ways, examples) != ("best", None, None):
            raise InputError(
                "A checkpoint, ways or examples were given, and there is no run of tasks to "
                "choose them of",
                allowed="the folder of a run of pullback train",
            )
        program = _of_rows(what, adapt, say)
    about, content = pack(program, platforms)
    write_with(path, lambda temporary: temporary.write_bytes(content))
    return about


def _of_rows(what: Any, adapt: Any, say: Say) -> Program:
    """The program of an estimator, or of a fitted table."""
    if isinstance(what, str | Path):
        return _of_table(Path(what), adapt, say)
    if not hasattr(what, "get_params"):
        raise InputError(f"A {type(what).__name__} cannot be exported", allowed=CAN_BE)
    from pullback.sklearn import AdaptedRegressor, program

    if isinstance(what, AdaptedRegressor):
        if adapt is not None:
            raise InputError("Of a model that has adapted already, adapt is to be left out")
        return program.adapted(what)
    return program.adapting(what) if adapt is None else program.adapted(what.with_groups(*adapt))


def _of_table(folder: Path, adapt: Path | str | None, say: Say) -> Program:
    from pullback.runs import fitted
    from pullback.runs.tables import read_table
    from pullback.sklearn import program

    settings = fitted.read_report(folder).settings
    if settings.curve is not None:
        raise InputError(
            f"{str(folder)!r} is the fit of a curve, which cannot be exported", allowed=CAN_BE
        )
    run = fitted.FittedRun.open(folder)
    if adapt is None:
        made = program.adapting(run.model)
    else:
        rows = read_table(adapt, settings.separator, settings.point)
        made = program.adapted(fitted.adapt(run, rows, say))
    return replace(made, about={"target": settings.target, **made.about})


def _of_run(
    run: Run,
    adapt: Path | str | None,
    which: str | int,
    ways: int | None,
    examples: int | None,
    seed: int,
    say: Say,
) -> Program:
    """The program of a run of tasks, or of one adapted to examples in files."""
    run.check_trained()
    if adapt is None:
        return _adapting(_tasks_of(run, which, ways, examples), seed)
    if (ways, examples) != (None, None):
        raise InputError(
            "Ways or examples were given, and pictures or vectors to adapt to, which say them",
            remedy="Leave one of them out",
        )
    given, summary = read_examples(run, adapt)
    if given.passed_over:
        files = ", ".join(map(str, given.passed_over))
        say(f"Passed over beside the class folders: {files}.")
    tasks = _tasks_of(run, which, len(given.classes), sum(map(len, given.examples)))
    phi, residual = tasks.adapter.adapt_to(given, summary, seed)
    about = {"classes": list(given.classes), "inner_residual": residual}
    query = {"query": tasks.asked(("queries",))}
    return Program(
        lambda x: (tasks.answers(phi, x),), query, tasks.outputs, tasks.about | about, x64=_x64()
    )


@dataclass(frozen=True)
class _Tasks:
    """The tasks that a run was trained for, as a program takes them.

    Args:
        adapter: what adapts to them.
        ways: how many classes there are; None for regression.
        examples: the most support examples.
        x: one example, as a program takes it.
        y: one target.
        what: the examples are.
        read: from examples as a program takes them to those that the model takes.
        about: what else is to be said of the run.
    """

    adapter: Adapter
    ways: int | None
    examples: int
    x: jax.ShapeDtypeStruct
    y: jax.ShapeDtypeStruct
    what: str
    read: Callable[[jax.Array], jax.Array]
    about: dict[str, Any]

    def asked(self, lengths: tuple[str, ...]) -> Input:
        return Input((*lengths, *self.x.shape), str(self.x.dtype), f"{self.what} to predict")

    def answers(self, phi: Any, query: jax.Array) -> jax.Array:
        """Probabilities of classes, or what is predicted."""
        # One by one, since a model may ask how many there are, which is open here.
        found = jax.vmap(lambda x: self.adapter.apply(phi, self.read(x[None]))[0])(query)
        return found if self.ways is None else jax.nn.softmax(found)

    @property
    def outputs(self) -> dict[str, str]:
        if self.ways is None:
            return {"prediction": "of each example to predict"}
        return {"probabilities": "of each class, for each example to predict"}


def _adapting(tasks: _Tasks, seed: int) -> Program:
    """The program that adapts to support examples of many tasks, and predicts others."""
    adapter, key = tasks.adapter, jax.random.key(seed)
    places = ("tasks", tasks.examples)
    span = None if tasks.ways is None else (0, tasks.ways - 1)
    what = "their targets" if tasks.ways is None else "their classes, from 0"
    inputs = {
        "x": Input((*places, *tasks.x.shape), str(tasks.x.dtype), f"{tasks.what} to adapt to"),
        "y": Input((*places, *tasks.y.shape), str(tasks.y.dtype), what, span),
        "weight": Input(places, _float(), "what each counts for; 0 for padding", (0, None)),
        "query": tasks.asked(("tasks", "queries")),
    }

    def one(x, y, weight, query):
        # Padding may hold anything, which times its weight of 0 might still be no number.
        x, y = (
            jnp.where(weight.reshape(-1, *[1] * (each.ndim - 1)) > 0, each, jnp.zeros_like(each))
            for each in (x, y)
        )
        phi, report = adapter.algorithm.adapt(adapter.theta, (tasks.read(x), y, weight), key)
        return tasks.answers(phi, query), report.inner_residual, report.code

    def function(*given):
        # As in training: on a CPU convolutions with weights of each task's own are slow side by
        # side.
        return jax.lax.platform_dependent(
            *given,
            cpu=lambda *every: jax.lax.map(lambda each: one(*each), every),
            default=jax.vmap(one),
        )

    outputs = tasks.outputs | {
        "residual": "of the inner problem, relative, of each task",
        "code": "what became of each task, a number of codes",
    }
    codes = {str(int(each)): results.message(each) for each in Verdict}
    return Program(function, inputs, outputs, tasks.about | {"codes": codes}, x64=_x64())


def _tasks_of(run: Run, which: str | int, ways: int | None, examples: int | None) -> _Tasks:
    """The tasks that a run was trained for.

    Raises:
        InputError: if there is no program for such, or they are not of so many classes.
    """
    built = build.reopen(run)
    data, summary = built.data, built.summary
    objective = data.objective if isinstance(data, TaskFamily) else CLASSIFICATION
    if objective not in (CLASSIFICATION, REGRESSION):
        raise InputError(
            f"The run {str(run.folder)!r} has an objective of its own",
            allowed="runs on classes, and regression by the mean squared error",
        )
    x, y = jax.ShapeDtypeStruct(summary.inputs, np.float32), jax.ShapeDtypeStruct((), np.int32)
    most, what, read = None, "examples", _reader(summary)
    if isinstance(data, TaskFamily):
        support = jax.eval_shape(data.train.sample, jax.random.key(0)).support
        x, y = (jax.ShapeDtypeStruct(each.shape[1:], each.dtype) for each in support)
        most = len(support[0])
    elif summary.images:
        x = jax.ShapeDtypeStruct(summary.inputs, np.uint8)
        drawn = run.config.data.image_size is None and summary.inputs[-1] == 1
        what = "pictures (255 is ink, 0 is paper)" if drawn else "pictures"
    if objective is REGRESSION:
        if ways is not None:
            raise InputError(
                f"{ways} ways were given, and the run {str(run.folder)!r} is no classification"
            )
        adapter = Adapter(
            built.model.apply, built.algorithm, *trained_theta(run, built, which)[::-1]
        )
    else:
        ways = _ways(run, summary, ways)
        adapter = adapter_of(run, ways, which)
    if examples is None:
        examples = most or (ways or 1) * (run.config.data.shots or 1)
    check_counts("export", examples=examples)
    config = run.config
    about = {
        "dataset": config.data.dataset,
        "model": config.model.model,
        "algorithm": config.algorithm.name,
        "step": adapter.step,
    }
    tasks = _Tasks(adapter, ways, examples, x, y, what, read, about)
    _check_alone(tasks)
    return tasks


def _ways(run: Run, summary: DataSummary, ways: int | None) -> int:
    trained, free = summary.outputs, isinstance(run, Packed)
    if ways is None:
        return trained
    check_counts("export", ways=ways)
    if ways < 2 or (ways > trained and not free):
        raise InputError(
            f"{ways} ways were given, and the run {str(run.folder)!r} tells {trained} apart",
            allowed="2 ways or more" if free else f"{span(2, trained)} ways",
        )
    return ways


def _reader(summary: DataSummary) -> Callable[[jax.Array], jax.Array]:
    """From examples as they are in files to those that a model takes."""
    scale = summary.standardisation
    if scale is None:
        return as_inputs if summary.images else lambda x: x
    mean, deviation = (
        np.reshape(np.asarray(each, np.float32), summary.inputs)
        for each in (scale.mean, scale.deviation)
    )
    return lambda x: (x - mean) / deviation


def _check_alone(tasks: _Tasks) -> None:
    """Whether a model's outputs for an example are the same whatever stands beside it.

    Raises:
        InputError: if they are not, as with normalisation by the batch.
    """
    adapter, key = tasks.adapter, jax.random.key(0)

    def adapted(x, y):
        return adapter.algorithm.adapt(adapter.theta, (tasks.read(x), y), key)[0]

    support = (
        jax.ShapeDtypeStruct((tasks.examples, *each.shape), each.dtype)
        for each in (tasks.x, tasks.y)
    )
    # Numbers of any size but zero, which a layer may start with.
    draw = np.random.default_rng(0)
    phi = jax.tree.map(
        lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), leaf.dtype),
        jax.eval_shape(adapted, *support),
    )
    x = jnp.asarray(draw.uniform(0, 255, (3, *tasks.x.shape)), tasks.x.dtype)
    together, alone = (np.asarray(adapter.apply(phi, tasks.read(x[:n]))[0]) for n in (3, 1))
    if not np.allclose(together, alone, rtol=1e-3, atol=1e-3 * np.abs(together).max()):
        raise InputError(
            "What the model gives for an example depends on those beside it in a batch, as with "
            "--normalisation batch",
            allowed="a model that takes each example by itself, as with --normalisation group",
        )


def _x64() -> bool:
    return bool(jax.config.values["jax_enable_x64"])


def _float() -> str:
    return "float64" if _x64() else "float32"
