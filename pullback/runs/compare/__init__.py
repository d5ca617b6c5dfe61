"""Several algorithms on the same episodes: chosen, trained, tested once, and set in one table."""

from pullback.runs.compare.choices import describe_inner, plan
from pullback.runs.compare.running import Comparison, Observer, compare
from pullback.runs.compare.table import COLUMNS, Row, cells

__all__ = [
    "COLUMNS",
    "Comparison",
    "Observer",
    "Row",
    "cells",
    "compare",
    "describe_inner",
    "plan",
]
