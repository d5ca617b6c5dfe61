"""The study's numbers that a person reads first, as rows of a table."""

from collections.abc import Iterator

from pullback.runs.formatting import number
from pullback.study.parts import Result

Row = tuple[str, str, str]


def rows(name: str, result: Result) -> list[Row]:
    """What one part found, in a few rows.

    Args:
        name: of the part.
        result: what it measured.

    Returns:
        Rows of what, where, and the value.
    """
    return list({"tradeoff": _tradeoff, "memory": _memory, "noise": _noise}[name](result))


def _tradeoff(result: Result) -> Iterator[Row]:
    for curve in result["curves"]:
        who = curve["algorithm"]
        if who == "imaml":
            who += f", {curve['linear_steps']} CG steps"
        middle = len(curve["inner_steps"]) // 2
        for i in (middle, -1):
            where = f"{curve['inner_steps'][i]} inner steps, {curve['cost'][i]} gradients"
            yield f"relative error of {who}", where, number(curve["error"]["median"][i], 2)
    for line in result["solve"]:
        where = f"{line['linear_steps'][-1]} CG steps, inner problem {line['at']}"
        true, estimate = (number(line[n]["median"][-1], 2) for n in ("error", "estimate"))
        yield "true error / the certificate's estimate", where, f"{true} / {estimate}"


def _memory(result: Result) -> Iterator[Row]:
    for curve in result["curves"]:
        first, last = curve["bytes"][0], curve["bytes"][-1]
        steps = f"{curve['inner_steps'][0]} → {curve['inner_steps'][-1]} inner steps"
        text = "not known"
        if first is not None and last is not None:
            text = f"{first / 1024:.1f} → {last / 1024:.1f} KiB"
        yield f"memory of {curve['algorithm']}", steps, text


def _noise(result: Result) -> Iterator[Row]:
    main = result["main"]
    for line in main["optima"]:
        where = f"outer loss {number(line['outer_loss'])}, gradient {number(line['implicit'])}"
        yield f"runs that end at φ = {line['phi']:.3f}", where, _mean(line["share"])
    labels = {
        "implicit": ("implicit gradient", "averaged over runs"),
        "unrolled": ("unrolled gradient", "averaged over runs"),
        "difference_raw": ("finite differences", "of the expectation, unpolished"),
        "difference": ("finite differences", "of the expectation, at the optima"),
        "gap": ("finite differences − implicit", "at the optima"),
        "odds": ("Σ dpₖ/dθ · Lₖ", "the odds of landing alone"),
    }
    for name, (what, where) in labels.items():
        yield what, where, _mean(main[name])


def _mean(value: Result) -> str:
    return f"{value['mean']:.3f} ± {value['interval']:.3f}"
