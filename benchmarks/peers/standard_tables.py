"""The tables of the standard meta-step, and of what its matrix products alone take."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.peers import layout, rows, tables
from benchmarks.peers.problem import Problem, Setting
from benchmarks.peers.turns import Found, Table
from benchmarks.standard import Patterns, Point

MAML_STEPS = 5
LAST_LAYER = 0.02
"""Size of the last layer's weights, which start at zero and would leave most gradients zero."""


@dataclass
class Given:
    """What every part of a run is given.

    Args:
        arguments: of the command line.
        report: takes a line of progress.
        missing: why a package is not there, by its name.
        folder: for the files of this run.
    """

    arguments: Any
    report: Any
    missing: dict
    folder: Path

    def chosen(self, all_rows):
        """The rows that are wanted; the first always is."""
        only = self.arguments.only
        return [r for i, r in enumerate(all_rows) if i == 0 or not only or r.name in only]

    def table(self, some, path, settings, threads):
        arguments = self.arguments
        return Table(some, path, settings, threads, self.report, self.missing, arguments.longest)


def standard_problem():
    """Eight tasks of random patterns, and weights at random."""
    point = Point()
    first, second, third = jax.random.split(jax.random.key(0), 3)
    theta = layout.flat(point.model().init(first))
    shape = theta["linear/weight"].shape
    theta["linear/weight"] = np.asarray(LAST_LAYER * jax.random.normal(third, shape))
    tasks = jax.vmap(Patterns(point).sample)(jax.random.split(second, point.tasks))
    return Problem(theta, *(np.asarray(part) for part in (*tasks.support, *tasks.query)))


def imaml(given):
    """The standard meta-step of iMAML."""
    return _timed(given, "iMAML", rows.IMAML, Setting())


def maml(given):
    """The standard problem by MAML."""
    setting = Setting(algorithm="maml", inner_steps=MAML_STEPS)
    return _timed(given, "MAML", rows.MAML, setting)


def _timed(given, name, all_rows, setting):
    path = given.folder / "standard.npz"
    standard_problem().save(path)
    some = given.chosen(all_rows)
    settings = {row.name: setting.change(options=row.options) for row in some}
    texts, record = [], {}
    for threads in given.arguments.cores:
        given.report(f"{name} on {_cores(threads)}")
        table = given.table(some, path, settings, threads)
        found = table.measure(given.arguments.repeats, memory=threads == 1)
        record[threads] = [f.record() for f in found]
        steps = f"{setting.inner_steps} inner steps"
        if setting.algorithm == "imaml":
            steps += f", {setting.linear_steps} CG steps"
        head = f"### {name}, {steps}, {_cores(threads)}"
        texts.append(f"{head}\n\n{tables.timing(found)}\n\n{tables.against_peers(found)}")
    return "\n\n".join(texts), record


def _cores(threads):
    return "one core" if threads == 1 else f"{threads} cores"


CEILING = (
    rows.Row("gemm", "products alone", "gemm", spread=True),
    rows.Row("torch", "products alone, PyTorch", "torch_gemm"),
    next(row for row in rows.IMAML if row.name == "pullback"),
    rows.IMAML[0],
)


def ceiling(given):
    """The matrix products alone against the whole, timed in turns of their own."""
    path = given.folder / "standard.npz"
    standard_problem().save(path)
    settings = {row.name: Setting(options=row.options) for row in CEILING}
    texts, record = [], {}
    for threads in given.arguments.cores:
        table = Ceiling(
            CEILING, path, settings, threads, given.report, given.missing, given.arguments.longest
        )
        found = table.measure(given.arguments.repeats, compare=False, memory=False)
        record[threads] = [f.record() for f in found] + [table.details, table.parts]
        gemm, mkl, own, first = found
        head = f"### Matrix products alone, {_cores(threads)}"
        if gemm.error or own.error:
            text = f"Not measured: {tables.escape(gemm.error or own.error)}"
        else:
            text = tables.ceiling(gemm, mkl, own, first, table.details, table.parts)
            if threads == given.arguments.cores[0]:
                text += "\n\nThe products, each by itself:\n\n" + tables.products(table.details)
        texts.append(f"{head}\n\n{text}")
    return "\n\n".join(texts), record


class Ceiling(Table):
    """As a table; before the timing it asks for the products, and for pullback's profile."""

    details = parts = None

    def _prepare(self):
        def prepare(found: Found):
            row = found.row
            client = self.clients[row.name] = self._start(row)
            answer = client.prepare(self.problem, self.settings[row.name])
            found.prepared = answer["seconds"]
            if row.name == "gemm":
                self.details = client.ask("special")
            if row.name == "pullback" and self.threads == 1:
                self.parts = client.ask("special")["groups"]
            self.report(f"{row.label}: ready after {found.prepared:.1f} s")

        for found in self.found:
            self._try(found, prepare)
        return {}
