"""The tables of docs/own-data.md and docs/curves.md, from the results in results/own/.

    python -m benchmarks.own_data --json results/own/regression.json
    python -m benchmarks.own_classes --json results/own/classes.json
    python -m benchmarks.own_coverage --json results/own/coverage.json
    python -m benchmarks.own_report

The first three compute, for hours in all. The first two go on from what their files hold: to
measure a method anew, delete its lines. The last writes the tables between the marks
``<!-- begin NAME -->`` and ``<!-- end NAME -->`` of the documents.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import own_classes, own_coverage, own_data
from benchmarks.own_coverage import ALLOWED
from pullback.grouped.held_back import SHOTS
from pullback.runs.folder import write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "own"

SHOWN = (0, 2, 5)
"""Numbers of rows seen that the documents show."""

Results = list[dict[str, Any]]


class Means:
    """Scores as means over seeds.

    Args:
        results: of tables, methods and seeds.
        tables: that there may be, in the order in which they are shown.
        methods: likewise.
    """

    def __init__(self, results: Results, tables: Iterable[str], methods: Iterable[str]):
        self.results = results
        self.tables = [t for t in tables if any(r["table"] == t for r in results)]
        self.methods = [m for m in methods if any(r["method"] == m for r in results)]

    def scores(self, table: str, method: str, k: int) -> dict[str, float] | None:
        """Those of one method after k rows, None where there are none."""
        found = [
            r["scores"][str(k)]
            for r in self.results
            if (r["table"], r["method"]) == (table, method) and str(k) in r["scores"]
        ]
        return {n: float(np.mean([s[n] for s in found])) for n in found[0]} if found else None

    def of(self, method: str, k: int) -> dict[str, dict[str, float]]:
        """Those of one method after k rows, by table."""
        found = {table: self.scores(table, method, k) for table in self.tables}
        return {table: scores for table, scores in found.items() if scores is not None}

    def seconds(self, method: str) -> float:
        """Of CPU for a fit, the mean over tables and seeds."""
        return float(np.mean([r["cpu"] for r in self.results if r["method"] == method]))


def by_table(
    means: Means, k: int, cell: Callable[[Callable[[str], float]], str], best: str
) -> list[str]:
    """A line for each method and a column for each table, its best to three digits in bold.

    Args:
        means: of the results.
        k: rows seen.
        cell: writes the scores, given each by its name.
        best: the score of which the least is best.

    Returns:
        Markdown.
    """
    found = {method: means.of(method, k) for method in means.methods}
    tables = [t for t in means.tables if any(t in scores for scores in found.values())]
    least = {t: min(scores[t][best] for scores in found.values() if t in scores) for t in tables}
    lines = [f"| k = {k} | " + " | ".join(tables) + " |", "| --- " * (len(tables) + 1) + "|"]
    for method, scores in found.items():
        if not scores:
            continue
        cells = []
        for table in tables:
            if table not in scores:
                cells.append("–")
                continue
            text = cell(scores[table].__getitem__)
            first = f"{scores[table][best]:.3f}" == f"{least[table]:.3f}"
            cells.append(f"**{text}**" if first else text)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def overall(means: Means, beside: str = "auto") -> list[str]:
    """What a method has over all tables, beside one of them.

    Args:
        means: of the results.
        beside: the method that it is compared with.

    Returns:
        Markdown, without methods that are not those of all tables.
    """
    heads = [
        *(f"error, k = {k}" for k in SHOWN),
        *(f"width, k = {k}" for k in SHOWN),
        *(f"NLL, k = {k}" for k in SHOWN),
        "coverage",
        "outside 85 to 95",
        "s of CPU",
    ]
    lines = ["| method | " + " | ".join(heads) + " |", "| --- " * (len(heads) + 1) + "|"]
    for method in means.methods:
        pairs = {}
        for k in SHOWN:
            own, other = means.of(method, k), means.of(beside, k)
            if own.keys() != other.keys():
                break
            pairs[k] = [(own[table], other[table]) for table in own]
        if len(pairs) < len(SHOWN):
            continue
        cells = [
            f"{np.exp(np.mean([np.log(a[name] / b[name]) for a, b in pairs[k]])):.2f}"
            for name in ("error", "width")
            for k in SHOWN
        ]
        cells += [f"{np.median([a['nll'] - b['nll'] for a, b in pairs[k]]):+.2f}" for k in SHOWN]
        shares = [s["coverage"] for k in SHOTS for s in means.of(method, k).values()]
        outside = sum(not ALLOWED[0] <= share <= ALLOWED[1] for share in shares)
        cells += [
            f"{100 * min(shares):.0f} to {100 * max(shares):.0f}",
            f"{outside} of {len(shares)}",
            f"{means.seconds(method):.1f}",
        ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def beaten(means: Means, ours: str = "auto", margin: float = 0.02) -> list[str]:
    """Where a method that is not of this library has the lower error, by more than a margin.

    Args:
        means: of the results.
        ours: the method of this library.
        margin: of what the other's error is below ours, as a share of ours.

    Returns:
        Markdown.
    """
    lines = [f"| table | k | {ours} | below it |", "| --- | --- | --- | --- |"]
    others = [m for m in means.methods if m not in ("linear", "auto", "curve")]
    for table in means.tables:
        for k in SHOWN:
            mine = means.scores(table, ours, k)
            if mine is None:
                continue
            below = {}
            for method in others:
                scores = means.scores(table, method, k)
                if scores and scores["error"] < (1 - margin) * mine["error"]:
                    below[method] = scores["error"]
            if below:
                named = ", ".join(
                    f"{m} {below[m]:.3f}" for m in sorted(below, key=below.__getitem__)
                )
                lines.append(f"| {table} | {k} | {mine['error']:.3f} | {named} |")
    return [*lines, ""]


def regression(results: Results) -> str:
    """Errors and coverages by table, and what else is measured over all of them."""
    means = Means(results, own_data.TABLES, own_data.METHODS)
    lines = [line for k in SHOWN for line in by_table(means, k, own_data.cell, "error")]
    return "\n".join([*lines, *overall(means)])


def below(results: Results) -> str:
    """Where another method has the lower error."""
    return "\n".join(beaten(Means(results, own_data.TABLES, own_data.METHODS)))


def curves(results: Results) -> str:
    """The curves beside the general method."""
    own = [r for r in results if r["table"] in own_data.CURVES and r["method"] in ("curve", "auto")]
    own.sort(key=lambda r: (list(own_data.CURVES).index(r["table"]), r["method"] != "curve"))
    return own_data.as_table(own) + "\n"


def classes(results: Results) -> str:
    """Log loss, accuracy and calibration by table."""
    means = Means(results, own_classes.TABLES, own_classes.METHODS)
    return "\n".join(
        line for k in SHOWN for line in by_table(means, k, own_classes.cell, "log_loss")
    )


def coverage(records: Results) -> str:
    """Coverages that ask for a reason."""
    return own_coverage.as_table(records) + "\n"


BLOCKS: dict[str, dict[str, tuple[Callable[[Results], str], str]]] = {
    "own-data.md": {
        "regression": (regression, "regression.json"),
        "below": (below, "regression.json"),
        "coverage": (coverage, "coverage.json"),
        "classes": (classes, "classes.json"),
    },
    "curves.md": {"curves": (curves, "regression.json")},
}
"""Of each document its blocks, and what writes them from which results."""


def written(document: str, text: str, results: Path = RESULTS) -> str:
    """A document with its tables as the results have them.

    Args:
        document: its name.
        text: of it.
        results: the folder of results.

    Returns:
        The text.
    """
    for name, (write, file) in BLOCKS[document].items():
        marks = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        table = write(own_data.known(results / file)).rstrip("\n")
        pattern = re.escape(marks[0]) + ".*?" + re.escape(marks[1])
        text, count = re.subn(
            pattern, lambda _, m=marks, t=table: f"{m[0]}\n{t}\n\n{m[1]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(f"{document} has {count} blocks of the name {name!r}")
    return text


def main() -> None:
    """Write the tables."""
    for document in BLOCKS:
        path = ROOT / "docs" / document
        write_text(path, written(document, path.read_text()))


if __name__ == "__main__":
    main()
