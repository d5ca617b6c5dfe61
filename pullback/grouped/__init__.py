"""Grouped rows: a linear mixed model over a fixed or learned basis, in closed form."""

from pullback.grouped.basis import Basis, Rows
from pullback.grouped.mixed import Adapted, Mixed, evidence, fit, posterior

__all__ = ["Adapted", "Basis", "Mixed", "Rows", "evidence", "fit", "posterior"]
