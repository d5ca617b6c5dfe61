"""Any Python function on NumPy arrays as an inner solver."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray

from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem
from pullback.core.trees import Params
from pullback.solvers.base import Solution, check_solver
from pullback.solvers.host import Partner, talk

Objective = Callable[[Any], tuple[float, np.ndarray]]
"""``value_and_gradient(vector) -> (value, gradient)``, in double precision."""

HostSolver = Callable[[Objective, np.ndarray, np.ndarray], Any]
"""``function(value_and_gradient, theta, key_data) -> phi`` on flat NumPy vectors."""


class Callback(eqx.Module):
    """A Python function that minimises on the host, while all else stays compiled.

    The function may do what Python can: call other libraries, other processes, other languages.
    It must not use JAX, whose threads may all be waiting for it. It runs in a thread of its own,
    once a task, and what it raises ends the program with its message.

    Args:
        function: ``function(value_and_gradient, theta, key_data) -> phi``. ``theta`` is the flat
            vector of all parameters, ``key_data`` the numbers of the task's random key, and
            ``value_and_gradient(vector)`` returns the proximal objective and its gradient, in
            double precision though computed in that of the parameters.

    Raises:
        InputError: if ``function`` cannot be called; inside a solve, if it returns anything but
            a finite floating-point vector of θ's length.
    """

    differentiable: ClassVar[bool] = False
    function: HostSolver = eqx.field(static=True)

    def __init__(self, function: HostSolver):
        check_solver(function)
        self.function = function

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from ``theta``."""

        def minimise(partner: Partner, start: np.ndarray, key_data: np.ndarray) -> np.ndarray:
            phi = self.function(partner.value_and_gradient, start, key_data)
            return _check_vector(phi, start)

        return talk(minimise, problem, theta, key)


def _check_vector(phi: Any, theta: np.ndarray) -> np.ndarray:
    wanted = f"a NumPy vector of {theta.size} finite floating-point numbers, as in θ"
    if not isinstance(phi, np.ndarray):
        raise InputError(
            f"The inner solver's function returned {type(phi).__name__}", allowed=wanted
        )
    if phi.shape != theta.shape or not np.issubdtype(phi.dtype, np.floating):
        raise InputError(
            f"The inner solver's function returned {phi.dtype}{list(phi.shape)}", allowed=wanted
        )
    bad = np.flatnonzero(~np.isfinite(phi))
    if bad.size:
        raise InputError(
            f"The inner solver's function returned {phi[bad[0]]} at index {bad[0]}, "
            f"{bad.size} of {phi.size} numbers that are not finite",
            allowed=wanted,
        )
    return phi
