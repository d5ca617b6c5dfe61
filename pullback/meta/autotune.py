"""How long things take here: which strategy is the fastest, timed once where that is cheap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pullback.meta import multihost

SHARE = 0.1
"""Timing another strategy may take this share of a run's own time, as far as that is known."""

GAIN = 1.2
"""How many times as fast another strategy must be; below that, noise would choose."""


@dataclass(frozen=True)
class Timing:
    """How long a strategy takes.

    Args:
        compilation: seconds of the first step.
        step: seconds of each later one.
    """

    compilation: float
    step: float


@dataclass(frozen=True)
class Choice:
    """The strategy chosen, and why.

    Args:
        strategy: its name.
        timings: of each that was tried.
        untried: those that were not worth trying.
    """

    strategy: str
    timings: dict[str, Timing]
    untried: tuple[str, ...]

    def words(self) -> str:
        """The choice in a sentence."""
        tried = ", ".join(f"{n} {1e3 * t.step:.3g} ms" for n, t in self.timings.items())
        text = f"Strategy {self.strategy}; a meta-step by {tried}."
        if self.untried:
            text += f" Trying {', '.join(self.untried)} would cost more than it can gain."
        return text


def choose(rivals: Sequence[str], measure: Callable[[str], Timing], steps: int) -> Choice:
    """Time strategies one after the other, while that is cheap beside the run, and take the best.

    All processes time the same ones, and take what process 0 found.

    Args:
        rivals: their names, the one to keep in doubt first.
        measure: times one of them.
        steps: meta-steps of the run.

    Returns:
        The choice.
    """
    timings = {rivals[0]: measure(rivals[0])}
    for name in rivals[1:]:
        known = timings[rivals[0]]
        best = min(timing.step for timing in timings.values())
        costly = known.compilation > SHARE * steps * best
        if multihost.agree(False, int(costly))[1]:
            break
        timings[name] = measure(name)
    fastest = min(timings, key=lambda name: timings[name].step)
    if timings[fastest].step * GAIN > timings[rivals[0]].step:
        fastest = rivals[0]
    number = multihost.agree(False, rivals.index(fastest))[1]
    untried = tuple(name for name in rivals if name not in timings)
    return Choice(rivals[number], timings, untried)
