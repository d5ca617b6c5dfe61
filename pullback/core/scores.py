"""Scores: what a task is judged by, which way is better, and how the number is written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Score:
    """A score of an adapted model on a query set.

    Args:
        name: what it is called, as in ``"accuracy"``.
        higher_is_better: whether a higher one is better.
        percent: whether it is a share, which is written in percent.
    """

    name: str
    higher_is_better: bool
    percent: bool = False

    @property
    def scale(self) -> float:
        """The factor between the number and what is written."""
        return 100.0 if self.percent else 1.0

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.name}, %" if self.percent else self.name

    def better(self, value: float) -> float:
        """The value with a sign that makes more of it better."""
        return value if self.higher_is_better else -value

    def text(self, mean: float | None, interval: float | None = None) -> str:
        """A mean with its interval, in the unit it is read in.

        Args:
            mean: over tasks; None if it was not finite.
            interval: half the width of its 95 % confidence interval; None to leave it out.

        Returns:
            For instance ``"93.4 % ± 0.5"``.
        """
        if mean is None or mean != mean:
            return "not finite"
        digits, unit = (1, " %") if self.percent else (3, "")
        written = f"{self.scale * mean:.{digits}f}{unit}"
        if interval is None or interval != interval:
            return written
        return f"{written} ± {self.scale * interval:.{digits}f}"


ACCURACY = Score("accuracy", higher_is_better=True, percent=True)
MEAN_SQUARED_ERROR = Score("mean squared error", higher_is_better=False)
