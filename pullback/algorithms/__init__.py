"""Meta-learning algorithms, a file each."""

from pullback.algorithms.adapted import Adapted, OfAdapted
from pullback.algorithms.adaptive_strength import AdaptiveStrength
from pullback.algorithms.base import Info, MetaAlgorithm, Report
from pullback.algorithms.fomaml import fomaml
from pullback.algorithms.imaml import imaml
from pullback.algorithms.learned import Learned, describe_strength, learned_imaml
from pullback.algorithms.maml import maml
from pullback.algorithms.reptile import reptile
from pullback.algorithms.supervised import supervised
from pullback.registries import ALGORITHMS

__all__ = [
    "ALGORITHMS",
    "Adapted",
    "AdaptiveStrength",
    "Info",
    "Learned",
    "MetaAlgorithm",
    "OfAdapted",
    "Report",
    "describe_strength",
    "fomaml",
    "imaml",
    "learned_imaml",
    "maml",
    "reptile",
    "supervised",
]
