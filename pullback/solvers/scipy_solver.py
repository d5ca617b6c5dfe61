"""Any method of ``scipy.optimize.minimize`` as an inner solver."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
import scipy.optimize
from jaxtyping import PRNGKeyArray

from pullback.core.errors import InputError, unknown_name
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Solution
from pullback.solvers.host import HostObjective, solve_on_host

METHODS = (
    "Nelder-Mead",
    "Powell",
    "CG",
    "BFGS",
    "Newton-CG",
    "L-BFGS-B",
    "TNC",
    "COBYLA",
    "COBYQA",
    "SLSQP",
    "trust-constr",
    "trust-ncg",
    "trust-krylov",
)
"""Methods that need no dense Hessian."""

WITHOUT_GRADIENT = ("Nelder-Mead", "Powell", "COBYLA", "COBYQA")
WITH_PRODUCTS = ("Newton-CG", "trust-constr", "trust-ncg", "trust-krylov")


class Scipy(eqx.Module):
    """A method of ``scipy.optimize.minimize`` on the host, while all else stays compiled.

    SciPy works in double precision, the objective and its gradient in that of the parameters, as
    the result. In single precision a line search cannot tell apart objectives closer than about
    1e-7 of their size and ends early, well before SciPy's own tolerances. Where SciPy gives up,
    its last point is taken; the residual tells how good it is.

    Each request of SciPy costs a change of thread, so it pays where one gradient is expensive
    or the problem is hard, not for speed.

    Args:
        method: a method of ``scipy.optimize.minimize`` that needs no dense Hessian.
        options: SciPy's options of the method, for instance ``{"maxiter": 50}``.
        jac: whether the method is given gradients; without, SciPy takes finite differences.

    Raises:
        InputError: if there is no such method, or an option has no name.
    """

    differentiable: ClassVar[bool] = False
    method: str = eqx.field(static=True)
    options: tuple[tuple[str, Any], ...] = eqx.field(static=True)
    jac: bool = eqx.field(static=True)

    def __init__(
        self,
        method: str = "L-BFGS-B",
        options: Mapping[str, Any] = MappingProxyType({}),
        jac: bool = True,
    ):
        if method not in METHODS:
            raise unknown_name("SciPy method", str(method), METHODS)
        if not isinstance(options, Mapping):
            raise InputError(
                f"Scipy(options={options!r})", allowed="a dict, such as {'maxiter': 50}"
            )
        if not jac and method in WITH_PRODUCTS:
            raise InputError(
                f"Scipy({method!r}, jac=False)",
                allowed="jac=True, as the method works with gradients and Hessian products",
            )
        self.method, self.options, self.jac = method, tuple(options.items()), bool(jac)

    @classmethod
    def lbfgsb(cls, steps: int) -> "Scipy":
        """L-BFGS-B with at most ``steps`` iterations."""
        return cls(options={"maxiter": steps})

    @property
    def steps(self) -> int | None:
        """The option ``maxiter``: how many iterations SciPy may take, None for its own limit."""
        return dict(self.options).get("maxiter")

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""
        products = self.method in WITH_PRODUCTS
        gradients = self.jac and self.method not in WITHOUT_GRADIENT

        def minimise(
            objective: HostObjective, start: np.ndarray, key_data: np.ndarray
        ) -> np.ndarray:
            def value(point):
                return objective.value_and_gradient(point)[0]

            # trust-krylov multiplies memory that it has not filled, whose numbers may be any. What
            # SciPy returns is judged by its residual, not by NumPy's warnings on the way.
            with np.errstate(all="ignore"):
                answer = scipy.optimize.minimize(
                    objective.value_and_gradient if gradients else value,
                    start.astype(np.float64),
                    method=self.method,
                    jac=True if gradients else None,
                    hessp=objective.product if products else None,
                    options=dict(self.options),
                )
            return answer.x

        return solve_on_host(minimise, problem, theta, key, products=products)
