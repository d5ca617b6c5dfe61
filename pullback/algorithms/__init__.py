"""Meta-learning algorithms, a file each, and the registry of their names."""

from collections.abc import Callable
from dataclasses import dataclass

from pullback.algorithms.adaptive_strength import Raise
from pullback.algorithms.base import Info, MetaAlgorithm, Report
from pullback.algorithms.fomaml import fomaml
from pullback.algorithms.imaml import imaml
from pullback.algorithms.learned import FORMS, Learned, describe_strength, learned_imaml
from pullback.algorithms.maml import maml
from pullback.algorithms.reptile import reptile


@dataclass(frozen=True)
class Algorithm:
    """A registry line.

    Args:
        name: as given on the command line.
        summary: one line for a newcomer.
        make: ``make(loss, solver=..., **options) -> MetaAlgorithm``.
        proximal: whether a proximal strength is required.
        implicit: whether a linear solver is taken.
        learned: the same with a learned Λ, ``learned(loss, form=..., **options)``; None if there
            is none.
    """

    name: str
    summary: str
    make: Callable[..., MetaAlgorithm]
    proximal: bool = False
    implicit: bool = False
    learned: Callable[..., MetaAlgorithm] | None = None


ALGORITHMS: dict[str, Algorithm] = {
    line.name: line
    for line in (
        Algorithm(
            "imaml",
            "implicit gradient of a converged proximal problem (Rajeswaran et al. 2019)",
            imaml,
            proximal=True,
            implicit=True,
            learned=learned_imaml,
        ),
        Algorithm("maml", "differentiates through the inner steps (Finn et al. 2017)", maml),
        Algorithm("fomaml", "MAML without its second-order term (Finn et al. 2017)", fomaml),
        Algorithm("reptile", "moves θ toward each task's φ (Nichol et al. 2018)", reptile),
    )
}


__all__ = [
    "ALGORITHMS",
    "FORMS",
    "Algorithm",
    "Info",
    "Learned",
    "MetaAlgorithm",
    "Raise",
    "Report",
    "describe_strength",
    "fomaml",
    "imaml",
    "learned_imaml",
    "maml",
    "reptile",
]
