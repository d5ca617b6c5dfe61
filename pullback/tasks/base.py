"""What a task is, what a source of tasks is, and what a data set gives."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from pullback.core import trees
from pullback.core.checks import place
from pullback.core.errors import InputError
from pullback.models.objectives import CLASSIFICATION, REGRESSION, Objective


class Task(eqx.Module):
    """One few-shot task: a few examples to adapt on, others to judge the result by.

    Args:
        support: batch the inner problem is solved on; any pytree of arrays.
        query: batch the outer loss is measured on; any pytree of arrays.
    """

    support: PyTree[Any]
    query: PyTree[Any]


@runtime_checkable
class TaskDistribution(Protocol):
    """A source of tasks. Pure: the same key gives the same task, inside ``jit`` or not."""

    def sample(self, key: PRNGKeyArray) -> Task:
        """One task drawn with ``key``."""
        ...


class WithKeys(eqx.Module):
    """Tasks whose examples each come with a random key, as dropout needs: ``((x, keys), y)``.

    The keys are a part of the batch, so that a task's inner problem does not change while it is
    solved.

    Args:
        tasks: a source of tasks whose batches are pairs ``(x, y)``.
    """

    tasks: TaskDistribution

    def __check_init__(self):
        check_tasks(self.tasks)

    def sample(self, key: PRNGKeyArray) -> Task:
        """One task drawn with ``key``, and one more key for each of its examples."""
        task_key, support_key, query_key = jax.random.split(key, 3)
        task = self.tasks.sample(task_key)

        def with_keys(batch, key):
            x, y = batch
            return (x, jax.random.split(key, len(x))), y

        return Task(with_keys(task.support, support_key), with_keys(task.query, query_key))


def check_tasks(tasks: Any) -> None:
    """What stands for a source of tasks must have a ``sample``.

    Raises:
        InputError: if it has none, for instance a list of tasks.
    """
    remedy = "Write a module whose sample(key) picks one of them: docs/tasks.md"
    if isinstance(tasks, TaskFamily):
        remedy = "Give one of its parts, as family.train"
    elif hasattr(tasks, "select"):
        remedy = "Draw episodes from its classes: pullback.tasks.episodes(class_set, ways=5, ...)"
    if isinstance(tasks, type) or not callable(getattr(tasks, "sample", None)):
        given = tasks.__name__ if isinstance(tasks, type) else type(tasks).__name__
        raise InputError(
            f"The source of tasks is {'the class' if isinstance(tasks, type) else 'a'} {given}",
            allowed="an object with sample(key) -> Task, such as pullback.tasks.Sinusoid()",
            remedy=f"Write {given}(...)" if isinstance(tasks, type) else remedy,
        )
    for path, leaf in trees.leaf_paths(tasks):
        if not eqx.is_array_like(leaf):
            raise InputError(
                f"The source of tasks is a {type(tasks).__name__}, which holds a "
                f"{type(leaf).__name__}{place(path)}"
                if leaf is not tasks
                else f"The source of tasks is a {type(tasks).__name__}, which is no pytree",
                allowed="a pytree of arrays",
                remedy="Derive the class from equinox.Module, with eqx.field(static=True) for "
                "what is no array: docs/tasks.md",
            )


@dataclass(frozen=True)
class TaskFamily:
    """Tasks for meta-training, validation and test, and what a model must know of them.

    Args:
        train: tasks to meta-train on.
        validation: tasks to choose by; those of ``train`` if None, drawn with other keys.
        test: tasks to report numbers on; those of ``train`` if None, drawn with other keys.
        objective: the loss and the score. If None, batches are pairs ``(x, y)``: floating-point
            ``y`` stands for regression, whole numbers for classification.
        inputs: the shape of one example; that of ``x`` without its first axis if None.
        outputs: how many numbers the model gives for an example; that of ``y`` without its first
            axis if None, which classification must not leave open.
    """

    train: TaskDistribution
    validation: TaskDistribution | None = None
    test: TaskDistribution | None = None
    objective: Objective | None = None
    inputs: tuple[int, ...] | None = None
    outputs: int | None = None

    def part(self, part: str) -> TaskDistribution:
        """The tasks of ``"train"``, ``"validation"`` or ``"test"``."""
        return getattr(self, part) or self.train

    def completed(self, name: str, ways: int | None = None) -> "TaskFamily":
        """The same with nothing left open, read off the shapes of a task.

        Args:
            name: the data set's, for messages.
            ways: number of classes, if that is known.

        Returns:
            The family, with its objective, inputs and outputs.

        Raises:
            InputError: if they cannot be read off.
        """
        if None not in (self.objective, self.inputs, self.outputs):
            return self
        task = jax.eval_shape(self.train.sample, jax.random.key(0))
        if not isinstance(task, Task):
            raise InputError(
                f"A sample of the data set {name!r} is a {type(task).__name__}",
                allowed="a pullback.Task",
            )
        remedy = "Give pullback.tasks.TaskFamily(train, objective=..., inputs=..., outputs=...)"
        pair = jax.tree.leaves(task.support)
        if not isinstance(task.support, tuple | list) or len(pair) != 2 or pair[0].ndim < 2:
            raise InputError(
                f"A support set of the data set {name!r} is "
                f"{jax.tree.map(lambda leaf: f'{leaf.dtype}{list(leaf.shape)}', task.support)}",
                allowed="a pair (x, y) with x of shape [examples, ...]",
                remedy=remedy,
            )
        x, y = pair
        inputs = x.shape[1:] if self.inputs is None else self.inputs
        if jnp.issubdtype(y.dtype, jnp.integer):
            outputs = ways if self.outputs is None else self.outputs
            if outputs is None:
                raise InputError(
                    f"The labels of the data set {name!r} do not tell how many classes there are",
                    allowed="a parameter ways of the data set, or outputs",
                    remedy=remedy,
                )
            return dataclasses.replace(
                self,
                objective=self.objective or CLASSIFICATION,
                inputs=inputs,
                outputs=outputs,
            )
        if self.outputs is None and y.ndim != 2:
            raise InputError(
                f"The targets of the data set {name!r} have shape {list(y.shape)}",
                allowed="[examples, outputs]",
                remedy=remedy,
            )
        outputs = y.shape[-1] if self.outputs is None else self.outputs
        return dataclasses.replace(
            self, objective=self.objective or REGRESSION, inputs=inputs, outputs=outputs
        )
