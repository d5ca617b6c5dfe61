"""The meta-training loop: tasks in, a meta-gradient averaged over them, an Optax step."""

import contextlib
import dataclasses
import functools
import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PRNGKeyArray, PyTree

from pullback.algorithms import Learned
from pullback.algorithms.base import MetaAlgorithm, Theta, check_algorithm
from pullback.core import display, results, trees
from pullback.core.checks import check_key, check_like, check_type
from pullback.core.errors import (
    InputError,
    NumericalError,
    check_counts,
    check_number,
    check_positive,
    unknown_name,
)
from pullback.core.results import Verdict
from pullback.meta import autotune, multihost, parallel
from pullback.registries import POLICIES
from pullback.tasks.base import TaskDistribution, check_tasks

BLOCK = 256
"""The most meta-steps in one dispatch."""

HYPER_LEARNING_RATE = 1e-2
"""Of log Λ and log η: over a thousand meta-steps they can change by a factor of e⁵."""


class TrainState(eqx.Module):
    """All that the next meta-step needs.

    Args:
        step: meta-steps done.
        theta: what is meta-learned.
        optimizer_state: the outer optimiser's state.
    """

    step: Int[Array, ""]
    theta: Theta
    optimizer_state: PyTree[Any]


@dataclass(frozen=True, repr=False)
class Block:
    """Some meta-steps that ran in one dispatch; each array has one entry a step.

    Args:
        first: number of the first of these steps, from 1.
        seconds: wall time of the block, compilation included in the first.
        metrics: by name: ``loss`` (query loss, mean over tasks), ``inner_residual`` and
            ``linear_residual`` (means), ``linear_steps`` (mean), ``smallest_curvature`` and
            ``largest_curvature`` (extremes over tasks), ``inner_error`` and ``linear_error``
            (the estimated relative errors of the tasks' meta-gradients, means over the tasks that
            have them, infinite without any), ``strength_factor`` (mean), ``gradient_norm``, and
            ``flagged`` (tasks with a code other than OK).
        codes: how many tasks of these steps ended with each code.
    """

    first: int
    seconds: float
    metrics: dict[str, np.ndarray]
    codes: dict[int, int]

    def __len__(self) -> int:
        return len(self.metrics["loss"])

    def __repr__(self) -> str:
        steps = f"steps {self.first} to {self.first + len(self) - 1}"
        return _summary(f"Block: {steps}, {self.seconds:.3g} s", self.metrics, self.codes)


@dataclass(repr=False)
class TrainResult:
    """What :func:`pullback.meta.train` returns.

    Args:
        state: the state after the last step; ``state.theta`` is the meta-learned initialisation.
        history: every step's metrics, as in :class:`Block`.
        stopped: whether a callback ended the run early.
        codes: how many tasks of all steps ended with each code, as in :class:`Block`.
    """

    state: TrainState
    history: dict[str, np.ndarray] = field(default_factory=dict)
    stopped: bool = False
    codes: dict[int, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        steps = f"{int(self.state.step)} meta-steps"
        if not self.history:
            return f"TrainResult: {steps}, none of them new"
        early = ", stopped early" if self.stopped else ""
        return _summary(f"TrainResult: {steps}{early}", self.history, self.codes)

    @property
    def theta(self) -> Theta:
        """What was meta-learned."""
        return self.state.theta


def _summary(title: str, metrics: dict[str, np.ndarray], codes: dict[int, int]) -> str:
    loss = metrics["loss"]
    last = loss[-max(1, len(loss) // 10) :]
    fields = {
        "loss": f"{loss[0]:.4g} at first, {last.mean():.4g} over the last {len(last)} steps",
        "inner_residual": display.range_text(metrics["inner_residual"]),
        "gradient_norm": display.range_text(metrics["gradient_norm"]),
        "verdicts": display.verdicts_text(codes),
    }
    lowest = float(np.fmin.reduce(metrics["smallest_curvature"]))
    messages = display.advice(codes, lambda verdict: results.message(verdict, lowest))
    return display.summary(title, fields, messages=messages)


def default_optimizer(
    steps: int,
    learning_rate: float = 2e-3,
    clip_norm: float = 3.0,
    hyper_learning_rate: float | None = None,
) -> optax.GradientTransformation:
    """Adam with a cosine decay to zero over ``steps`` meta-steps, its gradients clipped.

    One task whose H + Λ is nearly singular has a meta-gradient hundreds of times the usual norm;
    unclipped, a single one of them ends a run.

    Args:
        steps: meta-steps of the whole run.
        learning_rate: of the parameters, at the start.
        clip_norm: the norm to which a larger gradient is scaled down.
        hyper_learning_rate: of log Λ and log η where θ is a ``Learned``. They then have an Adam,
            a decay and a clipping of their own: their gradients are of another size.

    Returns:
        The optimiser.

    Raises:
        InputError: for numbers that are not positive.
    """
    check_counts("default_optimizer", steps=steps)
    check_positive("default_optimizer", learning_rate=learning_rate, clip_norm=clip_norm)
    if hyper_learning_rate is not None:
        check_positive("default_optimizer", hyper_learning_rate=hyper_learning_rate)

    def adam(rate: float) -> optax.GradientTransformation:
        schedule = optax.cosine_decay_schedule(rate, steps)
        return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(schedule))

    if hyper_learning_rate is None:
        return adam(learning_rate)
    groups: dict[Hashable, optax.GradientTransformation] = {
        "params": adam(learning_rate),
        "hyper": adam(hyper_learning_rate),
    }
    return optax.partition(groups, _groups_of)


def _groups_of(theta: Theta) -> Theta:
    """The optimiser of each leaf of a ``Learned``, by name."""
    if not isinstance(theta, Learned):
        raise InputError(
            f"hyper_learning_rate was given, but θ is a {type(theta).__name__}",
            allowed="a Learned, as learned_imaml trains it",
        )
    labels = jax.tree.map(lambda _: "hyper", theta)
    return dataclasses.replace(labels, params=jax.tree.map(lambda _: "params", theta.params))


def start(
    algorithm: MetaAlgorithm, params: trees.Params, optimizer: optax.GradientTransformation
) -> TrainState:
    """The state before the first meta-step."""
    theta = algorithm.init(params)
    return TrainState(jnp.zeros((), jnp.int32), theta, optimizer.init(theta))


def train(
    algorithm: MetaAlgorithm,
    params: trees.Params,
    tasks: TaskDistribution,
    *,
    steps: int,
    key: PRNGKeyArray,
    tasks_per_step: int = 8,
    optimizer: optax.GradientTransformation | None = None,
    state: TrainState | None = None,
    on_block: Callable[[TrainState, Block], bool | None] | None = None,
    block_ends: int = 100,
    block_seconds: float = 1.0,
    on_bad_verdict: str = "warn",
    strategy: str = "auto",
    devices: int | None = None,
    on_choice: Callable[[autotune.Choice], None] | None = None,
    progress: bool = False,
) -> TrainResult:
    """Meta-train: average the meta-gradient over tasks, take an optimiser step, repeat.

    Step ``i`` draws its tasks with ``fold_in(key, i)``, so a resumed run sees the same episodes
    as an uninterrupted one, and two algorithms with the same key see the same as each other.

    Args:
        algorithm: from ``pb.imaml(...)`` and its kin.
        params: the model's parameters; ignored if ``state`` is given.
        tasks: where tasks come from; its arrays stay on the devices.
        steps: meta-steps in all, those of ``state`` included.
        key: for episodes and solvers.
        tasks_per_step: tasks that one meta-gradient averages.
        optimizer: an Optax optimiser; :func:`default_optimizer` if None, with 1e-2 for what a
            ``Learned`` holds beside the parameters.
        state: where to go on from.
        on_block: called with the state and the metrics after each block of steps, on the host;
            training ends early if it returns True.
        block_ends: a block always ends where the step is a multiple of this.
        block_seconds: about how long a block takes, in seconds.
        on_bad_verdict: a name in :data:`pullback.registries.POLICIES`.
        strategy: a name in :data:`pullback.registries.STRATEGIES`.
        devices: the most devices of each process to spread tasks over; all if None.
        on_choice: told what was chosen where ``strategy`` is ``"measure"``.
        progress: show a bar with the loss, the inner residual and the time left on stderr; where
            that is no terminal, a line at the end and every ten seconds.

    Returns:
        The final state and the metrics of every step.

    Raises:
        InputError: for numbers that are not positive, an unknown policy or strategy, more
            processes than can share the tasks evenly, or an algorithm, tasks, key, optimiser,
            state or parameters that are none, or do not go together.
        NumericalError: when a task's loss or gradient is NaN or infinite, or its verdict is bad
            and the policy is ``"raise"``; names the step and the task, and leaves the state
            passed to the last ``on_block`` as the last good one.
    """
    check_algorithm(algorithm)
    check_key("train", key)
    check_tasks(tasks)
    check_counts("train", steps=steps, tasks_per_step=tasks_per_step, block_ends=block_ends)
    check_number("train", "numbers from 0", lambda x: x >= 0, block_seconds=block_seconds)
    if on_bad_verdict not in POLICIES:
        raise unknown_name("policy", on_bad_verdict, POLICIES)
    if optimizer is not None:
        check_type(
            "train(optimizer=...)",
            optimizer,
            optax.GradientTransformation,
            "an optax.GradientTransformation, such as optax.adam(1e-3)",
        )
    if state is not None:
        check_type("train(state=...)", state, TrainState, "a TrainState, such as result.state")
    if optimizer is None:
        theta = algorithm.init(params) if state is None else state.theta
        rate = HYPER_LEARNING_RATE if isinstance(theta, Learned) else None
        optimizer = default_optimizer(steps, hyper_learning_rate=rate)
    if state is not None:
        wanted = jax.eval_shape(optimizer.init, state.theta)
        check_like("the optimiser's state", state.optimizer_state, wanted, "this optimiser's and θ")
    mesh = parallel.task_mesh(tasks_per_step, devices)
    begin: TrainState = start(algorithm, params, optimizer) if state is None else state
    tasks, now, key = parallel.replicate((tasks, begin, key), mesh)
    run_block = functools.partial(
        _run_block,
        algorithm=algorithm,
        optimizer=optimizer,
        tasks_per_step=tasks_per_step,
        policy=on_bad_verdict,
        mesh=mesh,
    )
    sizes = _BlockSizes(steps, block_ends, block_seconds)
    blocks: list[Block] = []
    done, stop = int(now.step), False
    with _progress_bar(done, steps, progress) as show:
        if strategy == "measure":
            rivals = parallel.rivals(tasks_per_step // mesh.size)
            measure = functools.partial(_time_strategy, run_block, (now, tasks, key))
            choice = autotune.choose(rivals, measure, steps - done)
            strategy = choice.strategy
            if on_choice is not None:
                on_choice(choice)
        run_block = functools.partial(run_block, strategy=parallel.find_strategy(strategy))
        while done < steps:
            # Time passes differently in every process, but all must run the same blocks.
            stop, size = multihost.agree(stop, sizes.next(done))
            if stop:
                break
            began = time.perf_counter()
            now, record, finished = run_block(now, tasks, key, jnp.asarray(size))
            finished = int(finished)
            seconds = time.perf_counter() - began
            sizes.took(size, seconds)
            _check_verdicts(record, done, finished, on_bad_verdict)
            block = _block_of(record, done, finished, seconds)
            blocks.append(block)
            done += finished
            show(done, block.metrics)
            stop = on_block is not None and bool(on_block(now, block))
    return _result_of(now, blocks, stop)


def _progress_bar(done: int, steps: int, wanted: bool):
    if wanted and multihost.is_first():
        # Imported here so that only those who want a bar wait for rich.
        from pullback.meta.progress import progress_bar

        return progress_bar(done, steps)
    return contextlib.nullcontext(lambda done, metrics: None)


class _BlockSizes:
    """How many meta-steps the next dispatch takes, from how long the last one took."""

    def __init__(self, steps: int, block_ends: int, block_seconds: float):
        self._steps, self._block_ends, self._block_seconds = steps, block_ends, block_seconds
        self._blocks = 0
        self._step_seconds = float("inf")

    def next(self, done: int) -> int:
        until_end = self._block_ends - done % self._block_ends
        wanted = max(1, int(self._block_seconds / self._step_seconds))
        return min(wanted, until_end, self._steps - done, BLOCK)

    def took(self, size: int, seconds: float) -> None:
        self._blocks += 1
        # The first block is one step long and compiles; how fast steps are the second one tells.
        if self._blocks > 1:
            self._step_seconds = seconds / size


def _time_strategy(run_block, start, strategy: str) -> autotune.Timing:
    def seconds(size: int) -> float:
        began = time.perf_counter()
        jax.block_until_ready(run_block(*start, jnp.asarray(size), strategy=strategy))
        return time.perf_counter() - began

    compilation, one = seconds(1), seconds(1)
    # Long enough for the clock; all processes must run as many.
    size = multihost.agree(False, min(BLOCK, int(0.3 / one) + 1))[1]
    return autotune.Timing(compilation, seconds(size) / size)


@functools.partial(
    jax.jit,
    static_argnames=("algorithm", "optimizer", "tasks_per_step", "policy", "strategy", "mesh"),
)
def _run_block(
    state, tasks, key, size, *, algorithm, optimizer, tasks_per_step, policy, strategy, mesh
):
    """Up to ``size`` meta-steps; stops before the update where the policy says so."""
    one_task = _task_gradient(algorithm, policy)

    def one_step(state):
        step_key = jax.random.fold_in(key, state.step)
        task_keys = jax.vmap(lambda i: jax.random.fold_in(step_key, i))(jnp.arange(tasks_per_step))
        (total, counts), (values, infos) = parallel.over_tasks(
            one_task, (state.theta, tasks), task_keys, strategy, mesh
        )
        used, stopping = counts
        share = 1.0 / jnp.maximum(used, 1.0) if policy == "skip" else 1.0 / tasks_per_step
        gradient = trees.scale(share, total)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.theta)
        theta = optax.apply_updates(state.theta, updates)
        # Without a single task left there is no step, not even one of the optimiser's momentum.
        if policy == "skip":
            theta, optimizer_state = trees.where(
                used > 0, (theta, optimizer_state), (state.theta, state.optimizer_state)
            )
        new = TrainState(state.step + 1, theta, optimizer_state)
        return new, (values, infos, trees.norm(gradient)), stopping == 0

    shapes = jax.eval_shape(one_step, state)[1]
    record = jax.tree.map(lambda x: jnp.zeros((BLOCK, *x.shape), x.dtype), shapes)

    def unfinished(carry):
        _, _, i, going = carry
        return (i < size) & going

    def advance(carry):
        state, record, i, _ = carry
        new, row, going = one_step(state)
        record = jax.tree.map(lambda r, x: r.at[i].set(x), record, row)
        return trees.where(going, new, state), record, i + 1, going

    state, record, i, _ = jax.lax.while_loop(
        unfinished, advance, (state, record, jnp.asarray(0), jnp.asarray(True))
    )
    return parallel.gathered((state, record, i), mesh)


def _task_gradient(algorithm: MetaAlgorithm, policy: str) -> Callable[..., Any]:
    """One task's part of a meta-step, to be summed over tasks, and what is recorded of it."""

    # Tracing takes most of the time of a start. Inside another jit this one changes nothing but
    # that the function is traced once, and not again for every loop around it.
    @jax.jit
    def one_task(shared, task_key):
        theta, tasks = shared
        episode_key, solver_key = jax.random.split(task_key)
        task = tasks.sample(episode_key)
        value, gradient, info = algorithm.meta_gradient(theta, task, solver_key)
        finite = jnp.isfinite(value) & trees.all_finite(gradient)
        code = jnp.where(finite, info.code, Verdict.NOT_FINITE)
        info = eqx.tree_at(lambda i: i.code, info, code)
        used = code == Verdict.OK if policy == "skip" else jnp.asarray(True)
        if policy == "skip":
            gradient = trees.where(used, gradient, trees.zeros_like(gradient))
        # What decides whether to go on travels with the gradient: one message, not two.
        counts = jnp.stack([used, _stops(code, policy)]).astype(jnp.float32)
        return (gradient, counts), (value, info)

    return one_task


def _stops(code, policy: str):
    return code != Verdict.OK if policy == "raise" else code == Verdict.NOT_FINITE


def _check_verdicts(record, done: int, finished: int, policy: str) -> None:
    values, info = jax.tree.map(lambda x: np.asarray(x)[finished - 1], record[:2])
    stopped = np.flatnonzero(_stops(info.code, policy))
    if not stopped.size:
        return
    task = stopped[0]
    code = int(info.code[task])
    found = f"the loss is {values[task]}"
    if code != Verdict.NOT_FINITE:
        found = (
            f"the verdict is {results.label(code)} "
            f"(inner residual {info.inner_residual[task]:.2g}, "
            f"estimated errors {info.inner_error[task]:.2g} and {info.linear_error[task]:.2g}, "
            f"smallest curvature {info.smallest_curvature[task]:.3g})"
        )
    raise NumericalError(
        f"Meta-step {done + finished}, task {task} of {len(info.code)}: {found}, and "
        f"{results.message(code, float(info.smallest_curvature[task]))}. θ is as it was before "
        "this step."
    )


def _block_of(record, done: int, finished: int, seconds: float) -> Block:
    values, info, norms = jax.tree.map(lambda x: np.asarray(x)[:finished], record)
    metrics = {
        "loss": values.mean(1),
        "inner_residual": info.inner_residual.mean(1),
        "linear_residual": info.linear_residual.mean(1),
        "linear_steps": info.linear_steps.mean(1),
        "inner_error": trees.mean_of_known(info.inner_error, 1),
        "linear_error": trees.mean_of_known(info.linear_error, 1),
        "smallest_curvature": info.smallest_curvature.min(1),
        "largest_curvature": info.largest_curvature.max(1),
        "strength_factor": info.strength_factor.mean(1),
        "gradient_norm": norms,
        "flagged": (info.code != Verdict.OK).sum(1),
    }
    return Block(done + 1, seconds, metrics, display.count_codes(info.code))


def _result_of(state: TrainState, blocks: list[Block], stopped: bool) -> TrainResult:
    names = blocks[0].metrics if blocks else {}
    history = {name: np.concatenate([b.metrics[name] for b in blocks]) for name in names}
    codes = sum((Counter(block.codes) for block in blocks), Counter())
    return TrainResult(state, history, stopped, dict(sorted(codes.items())))
