"""Grouped rows: a linear mixed model over a fixed or learned basis, in closed form."""

from pullback.grouped.mixed import Adapted, Basis, Mixed, Rows, evidence, fit, posterior

__all__ = ["Adapted", "Basis", "Mixed", "Rows", "evidence", "fit", "posterior"]
