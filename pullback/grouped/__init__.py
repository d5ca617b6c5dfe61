"""Grouped rows: a linear mixed model over a fixed or learned basis, in closed form.

The nonlinear one, over a curve of the user's own, is :mod:`pullback.grouped.curves`.
"""

from pullback.grouped.basis import Basis, Rows
from pullback.grouped.mixed import Adapted, Mixed, evidence, fit, posterior

__all__ = ["Adapted", "Basis", "Mixed", "Rows", "evidence", "fit", "posterior"]
