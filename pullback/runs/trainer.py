"""A run trained: watched, validated, saved, drawn, and taken up again where it was stopped."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pullback.core import results, trees
from pullback.core.errors import NumericalError
from pullback.core.results import Verdict
from pullback.meta import multihost
from pullback.meta.training import Block, TrainState
from pullback.runs import build, checkpoint, plots
from pullback.runs.build import TRAIN, VALIDATE, Experiment, summarise
from pullback.runs.folder import Run
from pullback.runs.starting import start

LINES = 1000
"""About how many lines of step metrics a run has at most."""


@dataclass(frozen=True)
class Event:
    """Something that happened in a run, for whoever watches.

    Args:
        kind: ``"start"``, ``"step"``, ``"validating"``, ``"validation"`` or ``"warning"``.
        data: what is known about it, as in the run's metrics; of a warning also what it is
            ``about``, which is the same for all of its kind.
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
        pretraining: whether it ended before its first meta-step, in the pretraining.
    """

    state: TrainState
    stopped: bool
    seconds: float
    pretraining: bool = False


def train_run(
    run: Run,
    experiment: Experiment,
    *,
    resume: bool = False,
    on_event: OnEvent = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
    devices: int | None = None,
) -> Outcome:
    """Train a run to its last step, with validations, checkpoints and a plot.

    A run with a pretraining begins with it, in a folder of its own below the run's.

    Where several processes train together, each calls this with the same experiment; process 0
    alone reads and writes the run's folder, and any of them can ask for the end.

    Args:
        run: the folder to write to.
        experiment: built from the run's own configuration and split.
        resume: go on from the last checkpoint.
        on_event: told whatever happens.
        should_stop: asked after each block of steps; True saves a checkpoint and ends early.
        devices: the most devices of each process to spread tasks over; all if None.

    Returns:
        How it ended.

    Raises:
        InputError: if there is no whole checkpoint to resume from.
        NumericalError: when the loss or the gradient is not finite; the last good state is saved.
        StorageError: if the disk refuses a write.
    """
    stage, spent = experiment.pretraining(), (0.0, 0.0)
    begun = resume and multihost.from_first(lambda: bool(checkpoint.steps(run.checkpoints)))
    if stage is not None and not begun:

        def pass_on(event: Event) -> None:
            on_event(Event(event.kind, event.data | {"pretraining": True}))

        before = _Trainer(run.pretraining(), stage, pass_on, should_stop, devices)
        outcome = before.resume() if resume else before.begin()
        if outcome.stopped:
            return dataclasses.replace(outcome, pretraining=True)
        experiment = dataclasses.replace(experiment, params=outcome.state.theta.params)
        spent = before.seconds, before.compilation
    elif not begun:
        experiment = start(run, experiment)
    trainer = _Trainer(run, experiment, on_event, should_stop, devices)
    trainer.seconds, trainer.compilation = spent
    return trainer.resume() if resume else trainer.begin()


class _Trainer:
    """What must be remembered between the blocks of a training."""

    def __init__(self, run: Run, experiment: Experiment, on_event: OnEvent, should_stop, devices):
        self.run, self.experiment, self.devices = run, experiment, devices
        self.on_event, self.wants_to_stop = on_event, should_stop
        self.settings = experiment.config.training
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
        found: dict[str, Any] | None = multihost.from_first(self.find)
        if found is None:
            # Interrupted before anything was saved: nothing is lost by a fresh start.
            return self.begin()
        state = multihost.share(self.last, self.experiment.fresh_state())
        self.seconds, self.compilation = found["seconds"], found["compilation"]
        self.tell("start", step=found["step"], steps=self.settings.steps)
        if not found["validated"] and self.is_due(found["step"]):
            self.validate(state)
        return self.go_on(state)

    def find(self) -> dict[str, Any] | None:
        """What the folder knows of the training so far; the state is kept in ``last``."""
        if not checkpoint.steps(self.run.checkpoints) and not self.run.metrics():
            return None
        self.last = build.restore(self.run, self.experiment)
        step = int(self.last.step)
        self.run.rewind(step)
        lines = [*self.run.metrics("validation"), *self.run.metrics("step")]
        spent = max(lines, key=lambda line: line["seconds"]) if lines else self.spent()
        validated = any(line["step"] == step for line in self.run.metrics("validation"))
        return {name: spent[name] for name in ("seconds", "compilation")} | {
            "step": step,
            "validated": validated,
        }

    def spent(self) -> dict[str, float]:
        """The seconds so far, those of a pretraining among them."""
        return {"seconds": self.seconds, "compilation": self.compilation}

    def should_stop(self) -> bool:
        """Whether any process was asked to end early; all must ask together."""
        return multihost.agree(self.wants_to_stop())[0]

    def go_on(self, state: TrainState) -> Outcome:
        self.last = state
        stopped = self.should_stop()
        if int(state.step) < self.settings.steps and not stopped:
            try:
                result = self.experiment.train(
                    TRAIN,
                    state=state,
                    on_block=self.on_block,
                    block_ends=self.settings.validate_every,
                    devices=self.devices,
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
        self.write(*(line(i, min(i + self.interval, count)) for i in starts))
        self.blocks, self.compiling = [], False
        self.tell("step", **line(0, count), steps=self.settings.steps)

    def validate(self, state: TrainState) -> None:
        step = int(state.step)
        began = time.perf_counter()
        count = self.settings.validation_tasks

        def on_block(done: int) -> None:
            self.tell("validating", step=step, done=done, count=count)

        scores = self.experiment.evaluate(
            state.theta,
            self.validation_tasks,
            count=count,
            seed=self.settings.seed,
            stream=VALIDATE,
            on_block=on_block,
            devices=self.devices,
        )
        record = {
            "kind": "validation",
            "step": step,
            **summarise(scores),
            **self.spent(),
            "validation_seconds": time.perf_counter() - began,
        }
        self.report_flags(step)
        if scores.failed:
            text = f"{scores.failed} validation tasks: {results.message(Verdict.NOT_FINITE)}"
            self.tell("warning", step=step, about="validation", message=text)
        self.save(state, record["mean"])
        self.write(record)
        self.tell("validation", **record, steps=self.settings.steps)

    def report_flags(self, step: int) -> None:
        """One line for each kind of flag since the last time."""
        total = sum(self.seen.values())
        flagged = {code: n for code, n in self.seen.items() if code != Verdict.OK}
        if flagged:
            counts = {str(code): n for code, n in flagged.items()}
            self.write({"kind": "flags", "step": step, "tasks": total, "codes": counts})
        for code, count in flagged.items():
            sentence = results.message(code, self.lowest)
            text = f"{count} of the last {total} training tasks: {sentence}"
            self.tell("warning", step=step, about=code, count=count, message=text)
        self.seen, self.lowest = {}, float("inf")

    def write(self, *records: dict[str, Any]) -> None:
        if multihost.is_first():
            self.run.append(*records)

    def save(self, state: TrainState, value: float | None = None) -> int:
        if not multihost.is_first():
            return int(state.step)
        return checkpoint.save(
            self.run.checkpoints,
            state,
            seed=self.settings.seed,
            value=value,
            score=self.experiment.score,
            origin=self.run.origin(),
        )

    def failed(self, error: NumericalError) -> NumericalError:
        assert self.last is not None
        step = self.save(self.last)
        if self.blocks:
            self.write_steps(step)
        self.write({"kind": "failed", "step": step + 1, "message": str(error)})
        return NumericalError(
            f"{error} The last good checkpoint, of step {step}, is kept in "
            f"{str(self.run.checkpoints)!r}. Start a new run with a smaller learning_rate or a "
            "larger strength: this one would fail again."
        )

    def draw(self) -> None:
        if not multihost.is_first():
            return
        plots.draw_run(self.run, self.experiment.score)

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
