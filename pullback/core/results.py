"""Results of computations inside ``jit``: a number there, a name and a sentence on the host."""

import enum
import math

UNKNOWN = math.inf
"""An error, a residual or a least curvature that was not computed, in a record. It is the upper
bound that says nothing. A greatest curvature, of which a lower bound is known, is then
``-UNKNOWN``. Not NaN, which would stop every program under ``JAX_DEBUG_NANS``."""


class Verdict(enum.IntEnum):
    """What a solve, a meta-gradient or an adaptation came to.

    Inside ``jit`` it is its number, as in ``info.code``; on the host :func:`label` gives its
    name, and :func:`message` says what happened and what to change.
    """

    OK = 0
    NOT_FINITE = 1
    NEGATIVE_CURVATURE = 2
    SOLVE_FAILED = 3
    INNER_NOT_CONVERGED = 4
    SOLVE_NOT_CONVERGED = 5
    INNER_DIVERGED = 6


_MESSAGES = {
    Verdict.OK: "nothing to report",
    Verdict.NOT_FINITE: (
        "a loss, a gradient or an adapted parameter is NaN or infinite: lower the outer step, "
        "or look for logarithms and divisions in the loss that can leave their domain, and for "
        "labels outside 0..classes-1"
    ),
    Verdict.NEGATIVE_CURVATURE: (
        "H + Λ is not positive definite at the adapted parameters, so they are no minimum of the "
        "inner problem: use a larger strength (above 0 for a leaf that the support set does not "
        "determine), a smooth activation, or more inner steps"
    ),
    Verdict.SOLVE_FAILED: (
        "the linear solver gave up, and what it returned is not an implicit gradient: use a "
        "larger strength, more steps of the linear solver, or an explicit damping"
    ),
    Verdict.INNER_NOT_CONVERGED: (
        "the inner solver stopped far from a stationary point, which makes the meta-gradient "
        "wrong: use more inner steps, a larger strength, or a smooth activation"
    ),
    Verdict.SOLVE_NOT_CONVERGED: (
        "the linear solve stopped early, which makes the meta-gradient wrong: use more steps of "
        "the linear solver, or a smaller tolerance of it"
    ),
    Verdict.INNER_DIVERGED: (
        "the inner steps made the support loss larger than it was at θ: use a smaller inner "
        "learning rate, or a solver that chooses its steps itself, such as L-BFGS"
    ),
}


def label(code: int) -> str:
    """The name of a code, as in ``"negative_curvature"``; ``"unknown"`` for no known one."""
    try:
        return Verdict(int(code)).name.lower()
    except ValueError:
        return "unknown"


def message(code: int, smallest_curvature: float | None = None) -> str:
    """The sentence for a code: what happened and what to change.

    Args:
        code: a :class:`Verdict` or its number.
        smallest_curvature: the smallest curvature of H + Λ seen. Where it is negative, Λ must
            grow by more than its size, which the sentence then says.

    Returns:
        The sentence, without a full stop.
    """
    verdict = Verdict(int(code))
    text = _MESSAGES[verdict]
    if (
        verdict is Verdict.NEGATIVE_CURVATURE
        and smallest_curvature is not None
        and smallest_curvature <= 0
    ):
        # A Ritz value is an upper bound of the smallest eigenvalue, so its size is a lower bound.
        text += (
            f"; the smallest curvature seen is {smallest_curvature:.3g}, so raise Λ by at least "
            f"{-smallest_curvature:.2g}"
        )
    return text
