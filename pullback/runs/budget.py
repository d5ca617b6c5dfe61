"""What is measured before a run begins: its pace, and the fastest strategy."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

from pullback.core.errors import InputError
from pullback.meta import autotune, multihost
from pullback.meta.training import Block, TrainState
from pullback.runs.build import WARM_UP, Experiment, assemble
from pullback.runs.config import RunConfig
from pullback.runs.formatting import duration


def prepare(
    experiment: Experiment,
    seconds: float | None = None,
    *,
    with_overhead: bool = True,
    devices: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Experiment:
    """Measure what a run's configuration leaves open: its steps in a given time, its strategy.

    Args:
        experiment: built from the configuration.
        seconds: the time to fill with meta-steps; None where their number is given.
        with_overhead: whether compilation and validations count.
        devices: the most devices of each process to use; all if None.
        say: told what was found, in sentences.

    Returns:
        The experiment with nothing left open.
    """

    def filled(experiment: Experiment) -> Experiment:
        if seconds is None:
            return experiment
        return fill(experiment, seconds, with_overhead=with_overhead, devices=devices)

    if seconds is not None:
        say("measuring how long a meta-step takes here …")
    # How many steps there are also says which strategies are worth timing.
    experiment = filled(experiment)
    if experiment.config.training.strategy == "measure":
        experiment, chosen = with_strategy(experiment, devices)
        say(chosen)
        experiment = filled(experiment)
    if seconds is not None:
        say(f"{experiment.config.training.steps} meta-steps fit into {duration(seconds)}.")
    return experiment


def measure_pace(
    experiment: Experiment, warm_up: float = 3.0, devices: int | None = None
) -> tuple[float, float]:
    """How long a meta-step takes here, by a short warm-up that is thrown away.

    Args:
        experiment: what to measure.
        warm_up: about how many seconds of meta-steps to measure.
        devices: the most devices of each process to use; all if None.

    Returns:
        Seconds of a meta-step, and of its compilation.
    """
    blocks: list[Block] = []

    def on_block(state: TrainState, block: Block) -> bool:
        blocks.append(block)
        return sum(b.seconds for b in blocks[1:]) > warm_up

    # Verdicts are of no interest here, and "raise" would end the measurement.
    experiment.train(
        WARM_UP, steps=1_000_000, on_block=on_block, on_bad_verdict="warn", devices=devices
    )
    steady = blocks[1:]
    pace = sum(b.seconds for b in steady) / sum(map(len, steady))
    return pace, blocks[0].seconds


def measure_validation(experiment: Experiment, devices: int | None = None) -> float:
    """How many seconds a validation takes here, compilation left out."""
    settings = experiment.config.training
    validate = functools.partial(
        experiment.evaluate,
        experiment.fresh_state().theta,
        experiment.tasks("validation"),
        count=settings.validation_tasks,
        seed=settings.seed,
        devices=devices,
    )
    validate()
    began = time.perf_counter()
    validate()
    return time.perf_counter() - began


def fill(
    experiment: Experiment, seconds: float, *, with_overhead: bool, devices: int | None = None
) -> Experiment:
    """The same experiment with as many meta-steps as fill a time, by its measured pace.

    Args:
        experiment: any number of steps.
        seconds: the time to fill.
        with_overhead: whether compilation and validations count.
        devices: the most devices of each process to use; all if None.

    Returns:
        The experiment with its number of steps set, and its learning rate falling over them.
    """
    pace, compilation = measure_pace(experiment, min(3.0, 0.1 * seconds), devices)
    if with_overhead:
        validation = measure_validation(experiment, devices)
        seconds -= compilation + 2 * validation
        stage = experiment.pretraining()
        if stage is not None:
            settings, each = stage.config.training, measure_pace(stage, devices=devices)
            before = each[1] + settings.steps * (each[0] + validation / settings.validate_every)
            if before > seconds:
                raise InputError(
                    f"The pretraining alone takes about {duration(before)} here",
                    remedy="Give more --minutes, or fewer steps of --pretrain",
                )
            seconds -= before
        pace += validation / experiment.config.training.validate_every
    # The pace differs between processes; the first one's counts.
    _, steps = multihost.agree(False, max(1, round(seconds / pace)))
    config = with_training(experiment, steps=steps)
    return assemble(config, experiment.summary, experiment.split, experiment.data)


def with_strategy(experiment: Experiment, devices: int | None = None) -> tuple[Experiment, str]:
    """The same experiment with the fastest strategy, by timing.

    Args:
        experiment: any strategy.
        devices: the most devices of each process to use; all if None.

    Returns:
        The experiment, and the choice in words.
    """
    choices: list[autotune.Choice] = []
    experiment.train(
        WARM_UP,
        on_block=lambda state, block: True,
        on_choice=choices.append,
        strategy="measure",
        devices=devices,
    )
    config = with_training(experiment, strategy=choices[0].strategy)
    # The algorithm and the optimiser stay the same objects, so that nothing is compiled again.
    return dataclasses.replace(experiment, config=config), choices[0].words()


def with_training(experiment: Experiment, **changes: Any) -> RunConfig:
    """An experiment's configuration with other settings of its training."""
    settings = dataclasses.replace(experiment.config.training, **changes)
    return dataclasses.replace(experiment.config, training=settings)
