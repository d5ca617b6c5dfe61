"""Training a run: in one sitting or several, watched, validated, saved and drawn."""

import dataclasses
import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from pullback import checkpoint, codes, evaluation, plots, training, trees
from pullback.errors import NumericalError
from pullback.experiment import (
    TRAIN,
    VALIDATE,
    WARM_UP,
    Experiment,
    assemble,
    evaluate_theta,
    summarise,
)
from pullback.runs import Run
from pullback.training import Block, TrainState

LINES = 1000
"""About how many lines of step metrics a run has at most."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, for whoever watches.

    Args:
        kind: ``"start"``, ``"step"``, ``"validating"``, ``"validation"`` or ``"warning"``.
        data: what is known about it, as in the run's metrics.
    """

    kind: str
    data: dict[str, Any]


OnEvent = Callable[[Event], None]


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Args:
        state: the last state.
        stopped: whether it was asked to end early.
        seconds: seconds of training in all sessions, without validations.
    """

    state: TrainState
    stopped: bool
    seconds: float


def train_run(
    run: Run,
    experiment: Experiment,
    *,
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Train a run to its last step, with validations, checkpoints and a plot.

    Args:
        run: the folder to write to.
        experiment: built from the run's own configuration and split.
        resume: go on from the last checkpoint.
        on_event: told whatever happens.
        should_stop: asked after each block of steps; True saves a checkpoint and ends early.

    Returns:
        How it ended.

    Raises:
        InputError: if there is no whole checkpoint to resume from.
        NumericalError: when the loss or the gradient is not finite; the last good state is saved.
        StorageError: if the disk refuses a write.
    """
    session = _Session(run, experiment, on_event, should_stop)
    return session.resume() if resume else session.begin()


class _Session:
    """One sitting of a training: what must be remembered between blocks."""

    def __init__(self, run: Run, experiment: Experiment, on_event: OnEvent, should_stop):
        self.run, self.experiment = run, experiment
        self.on_event, self.should_stop = on_event, should_stop
        self.settings = experiment.config.training
        self.key = jax.random.key(self.settings.seed)
        self.validation_tasks = experiment.tasks("validation")
        self.interval = max(1, self.settings.steps // LINES)
        self.seconds, self.compilation = 0.0, 0.0
        self.blocks, self.compiling = [], True
        self.seen: dict[int, int] = {}
        self.lowest = float("inf")
        self.last: TrainState | None = None

    def begin(self) -> Outcome:
        state = self.experiment.fresh_state()
        self.tell("start", step=0, steps=self.settings.steps)
        self.validate(state)
        return self.go_on(state)

    def resume(self) -> Outcome:
        if not checkpoint.steps(self.run.checkpoints) and not self.run.metrics():
            # Interrupted before anything was saved: nothing is lost by a fresh start.
            return self.begin()
        state = checkpoint.restore(self.run.checkpoints, self.experiment.fresh_state())
        step = int(state.step)
        self.run.rewind(step)
        lines = self.run.metrics("step")
        if lines:
            self.seconds, self.compilation = lines[-1]["seconds"], lines[-1]["compilation"]
        self.tell("start", step=step, steps=self.settings.steps)
        if not any(line["step"] == step for line in self.run.metrics("validation")) and (
            self.is_due(step)
        ):
            self.validate(state)
        return self.go_on(state)

    def go_on(self, state: TrainState) -> Outcome:
        self.last = state
        stopped = self.should_stop()
        if int(state.step) < self.settings.steps and not stopped:
            try:
                result = training.train(
                    self.experiment.algorithm,
                    self.experiment.params,
                    self.experiment.tasks("train"),
                    steps=self.settings.steps,
                    key=jax.random.fold_in(self.key, TRAIN),
                    tasks_per_step=self.settings.tasks_per_step,
                    optimizer=self.experiment.optimizer,
                    state=state,
                    on_block=self.on_block,
                    block_ends=self.settings.validate_every,
                    on_bad_verdict=self.settings.on_bad_verdict,
                    strategy=self.settings.strategy,
                )
            except NumericalError as error:
                raise self.failed(error) from error
            state, stopped = result.state, result.stopped
        self.draw()
        return Outcome(state, stopped and int(state.step) < self.settings.steps, self.seconds)

    def on_block(self, state: TrainState, block: Block) -> bool:
        self.last = state
        step = int(state.step)
        self.seconds += block.seconds
        if self.compiling:
            self.compilation += block.seconds
        self.blocks.append(block)
        for code, count in block.codes.items():
            self.seen[code] = self.seen.get(code, 0) + count
        self.lowest = min(self.lowest, float(np.min(block.metrics["smallest_curvature"])))
        due, stop = self.is_due(step), self.should_stop()
        # The first block is mostly compilation, so it has a line of its own.
        if due or stop or self.compiling or sum(map(len, self.blocks)) >= self.interval:
            self.write_steps(step)
        if due:
            self.validate(state)
            stop = self.should_stop()
        elif stop:
            self.report_flags(step)
            self.save(state)
        return stop

    def is_due(self, step: int) -> bool:
        return step % self.settings.validate_every == 0 or step == self.settings.steps

    def write_steps(self, step: int) -> None:
        names = self.blocks[0].metrics
        columns = {n: np.concatenate([b.metrics[n] for b in self.blocks]) for n in names}
        seconds = sum(block.seconds for block in self.blocks)
        count = len(columns["loss"])
        pace = seconds / count
        shared = {
            "compilation": self.compilation,
            "compiling": self.compiling,
            "tasks_per_second": self.settings.tasks_per_step / pace,
        }

        def line(first: int, last: int) -> dict[str, Any]:
            part = {n: column[first:last] for n, column in columns.items()}
            timed = {
                "seconds": self.seconds - pace * (count - last),
                "block_seconds": pace * (last - first),
            }
            named = {"kind": "step", "step": step - count + last, "count": last - first}
            return named | _means(part) | timed | shared

        starts = range(0, count, self.interval)
        self.run.append(*(line(i, min(i + self.interval, count)) for i in starts))
        self.blocks, self.compiling = [], False
        self.tell("step", **line(0, count), steps=self.settings.steps)

    def validate(self, state: TrainState) -> None:
        step = int(state.step)
        began = time.perf_counter()
        count = self.settings.validation_tasks

        def on_block(done: int) -> None:
            self.tell("validating", step=step, done=done, count=count)

        scores = evaluation.evaluate(
            self.experiment.algorithm,
            state.theta,
            self.validation_tasks,
            metric=self.experiment.metric,
            key=jax.random.fold_in(self.key, VALIDATE),
            count=count,
            on_block=on_block,
            strategy=self.settings.strategy,
        )
        record = {
            "kind": "validation",
            "step": step,
            **summarise(scores),
            "seconds": self.seconds,
            "compilation": self.compilation,
            "validation_seconds": time.perf_counter() - began,
        }
        self.report_flags(step)
        if scores.failed:
            text = f"{scores.failed} validation tasks: {codes.message(codes.NOT_FINITE)}"
            self.tell("warning", step=step, code=codes.NOT_FINITE, message=text)
        self.save(state, record["mean"])
        self.run.append(record)
        self.tell("validation", **record, steps=self.settings.steps)

    def report_flags(self, step: int) -> None:
        """One line for each kind of flag since the last time."""
        total = sum(self.seen.values())
        flagged = {code: n for code, n in self.seen.items() if code != codes.OK}
        if flagged:
            counts = {str(code): n for code, n in flagged.items()}
            self.run.append({"kind": "flags", "step": step, "tasks": total, "codes": counts})
        for code, count in flagged.items():
            sentence = codes.message(code, self.lowest)
            text = f"{count} of the last {total} training tasks: {sentence}"
            self.tell("warning", step=step, code=code, count=count, message=text)
        self.seen, self.lowest = {}, float("inf")

    def save(self, state: TrainState, score: float | None = None) -> int:
        return checkpoint.save(
            self.run.checkpoints,
            state,
            seed=self.settings.seed,
            score=score,
            higher_is_better=self.experiment.higher_is_better,
        )

    def failed(self, error: NumericalError) -> NumericalError:
        assert self.last is not None
        step = self.save(self.last)
        if self.blocks:
            self.write_steps(step)
        self.run.append({"kind": "failed", "step": step + 1, "message": str(error)})
        return NumericalError(
            f"{error} The last good checkpoint, of step {step}, is kept in "
            f"{str(self.run.checkpoints)!r}. Start a new run with a smaller learning_rate or a "
            "larger strength: this one would fail again."
        )

    def draw(self) -> None:

        plots.draw_run(self.run, self.experiment.score_name)

    def tell(self, event: str, **data: Any) -> None:
        self.on_event(Event(event, data))


def _means(columns: dict[str, np.ndarray]) -> dict[str, float | int]:
    """One number for some steps: the mean, but the extreme of curvatures and the sum of flags."""
    means = {name: float(np.mean(column)) for name, column in columns.items()}
    errors = ("inner_error", "linear_error")
    return means | {
        **{name: float(trees.mean_of_known(columns[name])) for name in errors},
        "smallest_curvature": float(np.min(columns["smallest_curvature"])),
        "largest_curvature": float(np.max(columns["largest_curvature"])),
        "flagged": int(np.sum(columns["flagged"])),
    }


def measure_pace(experiment: Experiment, warm_up: float = 3.0) -> tuple[float, float]:
    """How long a meta-step takes here, by a short warm-up that is thrown away.

    Args:
        experiment: what to measure.
        warm_up: about how many seconds of meta-steps to measure.

    Returns:
        Seconds of a meta-step, and of its compilation.
    """
    settings = experiment.config.training
    blocks: list[Block] = []

    def on_block(state: TrainState, block: Block) -> bool:
        blocks.append(block)
        return sum(b.seconds for b in blocks[1:]) > warm_up

    training.train(
        experiment.algorithm,
        experiment.params,
        experiment.tasks("train"),
        steps=1_000_000,
        key=jax.random.fold_in(jax.random.key(settings.seed), WARM_UP),
        tasks_per_step=settings.tasks_per_step,
        optimizer=experiment.optimizer,
        on_block=on_block,
        strategy=settings.strategy,
    )
    steady = blocks[1:]
    pace = sum(b.seconds for b in steady) / sum(map(len, steady))
    return pace, blocks[0].seconds


def measure_validation(experiment: Experiment) -> float:
    """How many seconds a validation takes here, compilation left out."""
    settings = experiment.config.training
    validate = functools.partial(
        evaluate_theta,
        experiment,
        experiment.fresh_state().theta,
        experiment.tasks("validation"),
        count=settings.validation_tasks,
        seed=settings.seed,
    )
    validate()
    began = time.perf_counter()
    validate()
    return time.perf_counter() - began


def fill(experiment: Experiment, seconds: float, *, with_overhead: bool) -> Experiment:
    """The same experiment with as many meta-steps as fill a time, by its measured pace.

    Args:
        experiment: any number of steps.
        seconds: the time to fill.
        with_overhead: whether compilation and validations count.

    Returns:
        The experiment with its number of steps set, and its learning rate falling over them.
    """
    pace, compilation = measure_pace(experiment, min(3.0, 0.1 * seconds))
    if with_overhead:
        validation = measure_validation(experiment)
        seconds -= compilation + 2 * validation
        pace += validation / experiment.config.training.validate_every
    steps = max(1, round(seconds / pace))
    settings = dataclasses.replace(experiment.config.training, steps=steps)
    config = dataclasses.replace(experiment.config, training=settings)
    return assemble(config, experiment.split, experiment.images)
