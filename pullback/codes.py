"""Result codes: numbers inside ``jit``, sentences outside of it."""

OK = 0
NOT_FINITE = 1
NEGATIVE_CURVATURE = 2
NOT_SOLVED = 3

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
}


def message(code: int) -> str:
    """The sentence for a code: what happened and what to change."""
    return MESSAGES[int(code)]
