"""What a task is, and what a source of tasks is."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
from jaxtyping import PRNGKeyArray, PyTree


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
