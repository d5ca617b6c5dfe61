"""Few-shot learning by implicit gradients, on JAX.

Names are imported when first used, so that ``import pullback`` and ``pullback --help`` are quick.
"""

from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pullback import implicit as implicit
    from pullback import linear as linear
    from pullback import models as models
    from pullback import solvers as solvers
    from pullback import tasks as tasks
    from pullback.algorithms import MetaAlgorithm as MetaAlgorithm
    from pullback.algorithms import fomaml as fomaml
    from pullback.algorithms import imaml as imaml
    from pullback.algorithms import learned_imaml as learned_imaml
    from pullback.algorithms import maml as maml
    from pullback.algorithms import reptile as reptile
    from pullback.core.problem import InnerProblem as InnerProblem
    from pullback.core.problem import Proximal as Proximal
    from pullback.meta.evaluation import evaluate as evaluate
    from pullback.meta.training import train as train
    from pullback.solvers import solve as solve
    from pullback.tasks import Task as Task

_HOMES = {
    "InnerProblem": "pullback.core.problem",
    "MetaAlgorithm": "pullback.algorithms",
    "Proximal": "pullback.core.problem",
    "Task": "pullback.tasks",
    "evaluate": "pullback.meta.evaluation",
    "fomaml": "pullback.algorithms",
    "imaml": "pullback.algorithms",
    "learned_imaml": "pullback.algorithms",
    "maml": "pullback.algorithms",
    "reptile": "pullback.algorithms",
    "solve": "pullback.solvers",
    "train": "pullback.meta.training",
}
_ROOMS = ("implicit", "linear", "models", "solvers", "tasks")

__all__ = [
    "InnerProblem",
    "MetaAlgorithm",
    "Proximal",
    "Task",
    "__version__",
    "evaluate",
    "fomaml",
    "imaml",
    "implicit",
    "learned_imaml",
    "linear",
    "maml",
    "models",
    "reptile",
    "solve",
    "solvers",
    "tasks",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f"pullback.{name}")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "__version__":
        return metadata.version("pullback")
    raise AttributeError(f"module 'pullback' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
