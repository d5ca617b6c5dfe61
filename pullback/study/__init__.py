"""The theory measured: accuracy, computation and memory of meta-gradients, and noisy solvers."""

from pullback.study.running import PARTS, RECORD, Observer, Part, study
from pullback.study.table import rows

__all__ = ["PARTS", "RECORD", "Observer", "Part", "rows", "study"]
