"""Several algorithms on the same episodes: chosen, trained, tested once, and set in one table."""

from pullback.runs.compare.choices import INNER, Choice, choose, describe_inner, plan
from pullback.runs.compare.running import Comparison, Observer, compare
from pullback.runs.compare.table import COLUMNS, Row, cells

__all__ = [
    "COLUMNS",
    "INNER",
    "Choice",
    "Comparison",
    "Observer",
    "Row",
    "cells",
    "choose",
    "compare",
    "describe_inner",
    "plan",
]
