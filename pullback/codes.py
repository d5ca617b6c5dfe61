"""Result codes: numbers inside ``jit``, sentences outside of it."""

OK = 0
NOT_FINITE = 1
NEGATIVE_CURVATURE = 2
NOT_SOLVED = 3
INNER_NOT_CONVERGED = 4
SOLVE_NOT_CONVERGED = 5

NAMES = {
    OK: "ok",
    NOT_FINITE: "not_finite",
    NEGATIVE_CURVATURE: "negative_curvature",
    NOT_SOLVED: "solve_failed",
    INNER_NOT_CONVERGED: "inner_not_converged",
    SOLVE_NOT_CONVERGED: "solve_not_converged",
}
"""The verdict that each code stands for."""

POLICIES = {
    "warn": "count it, and use its meta-gradient all the same",
    "skip": "leave the task out of the step's average",
    "raise": "stop before the step",
}
"""What training does about a task with a bad verdict. What is not finite stops it always."""

MESSAGES = {
    OK: "nothing to report",
    NOT_FINITE: (
        "a loss, a gradient or an adapted parameter is NaN or infinite: lower the outer step, "
        "or look for logarithms and divisions in the loss that can leave their domain"
    ),
    NEGATIVE_CURVATURE: (
        "H + Λ is not positive definite at the adapted parameters, so they are no minimum of the "
        "inner problem: use a larger strength, a smooth activation, or more inner steps"
    ),
    NOT_SOLVED: (
        "the linear solver gave up, and what it returned is not an implicit gradient: use a "
        "larger strength, more steps of the linear solver, or an explicit damping"
    ),
    INNER_NOT_CONVERGED: (
        "the inner solver stopped far from a stationary point, which makes the meta-gradient "
        "wrong: use more inner steps, a larger strength, or a smooth activation"
    ),
    SOLVE_NOT_CONVERGED: (
        "the linear solve stopped early, which makes the meta-gradient wrong: use more steps of "
        "the linear solver, or a smaller tolerance of it"
    ),
}


def message(code: int, smallest_curvature: float | None = None) -> str:
    """The sentence for a code: what happened and what to change.

    Args:
        code: one of this module's.
        smallest_curvature: the smallest curvature of H + Λ seen. Where it is negative, Λ must
            grow by more than its size, which the sentence then says.

    Returns:
        The sentence, without a full stop.
    """
    text = MESSAGES[int(code)]
    if code == NEGATIVE_CURVATURE and smallest_curvature is not None and smallest_curvature <= 0:
        # A Ritz value is an upper bound of the smallest eigenvalue, so its size is a lower bound.
        text += (
            f"; the smallest curvature seen is {smallest_curvature:.3g}, so raise Λ by at least "
            f"{-smallest_curvature:.2g}"
        )
    return text
