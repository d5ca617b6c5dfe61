"""Time to a meta-gradient within a tolerance of the exact one, at a trained θ."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import numpy as np

from benchmarks.peers import client, rows, search, tables, trained
from benchmarks.peers.problem import Problem, Setting, relative_error
from benchmarks.peers.turns import Table

STEPS, QUICK_STEPS = 2000, 60


@dataclasses.dataclass(frozen=True)
class Choice:
    """An implementation, and the kind of settings that it takes.

    Args:
        row: the implementation.
        kind: of :data:`benchmarks.peers.search.KINDS`, or ``"lbfgs"``, or ``"projected"``.
    """

    row: rows.Row
    kind: str


def choices():
    """The rows of this table; the first has the paper's own solvers."""
    kinds = {
        rows.AUTHORS: "plain",
        "kept": "momentum",
        "torch.func": "momentum",
        "torchopt": "momentum",
        "jaxopt": "momentum",
        "jaxopt, products": "momentum",
        "optimistix": "steady",
        "optimistix, products": "steady",
        "pullback": "lbfgs",
    }
    found = [Choice(row, kinds[row.name]) for row in rows.IMAML if row.name in kinds]
    own = next(choice.row for choice in found if choice.row.name == "pullback")
    steady = dataclasses.replace(
        own, name="steady", label="pullback, gradient descent and plain CG"
    )
    eliminated = dataclasses.replace(own, name="eliminated", label="pullback, the head eliminated")
    return [*found, Choice(steady, "momentum"), Choice(eliminated, "projected")]


def run(given):
    """Train, search, verify, time."""
    arguments, quick = given.arguments, given.arguments.quick
    steps = QUICK_STEPS if quick else STEPS
    name = _digest([steps, str(arguments.data_dir), trained.STRENGTH])
    path = client.cache() / f"trained-{name}.json"
    grid = [search.RATES, search.MOMENTA, search.LOOKS, search.BUDGETS, search.PAIRS, search.LINEAR]
    grid.append(search.ELIMINATED)
    found = path.with_suffix(f".{_digest(grid)}.json")
    where = ["--data-dir", str(arguments.data_dir)] if arguments.data_dir else []
    if not path.is_file():
        _tool(given, "trained", str(path), "--steps", str(steps), *where)
    if not found.is_file():
        _tool(given, "search", str(path), str(found))
    about, settings = json.loads(path.read_text()), json.loads(found.read_text())
    timing = path.with_suffix(".timing.npz")
    with np.load(path.with_suffix(".timing-exact.npz")) as file:
        exact = {name: file[name] for name in file}
    texts, record = [introduction(about, Problem.load(timing).tasks)], {"about": about}
    for tolerance in search.TOLERANCES[:1] if quick else search.TOLERANCES:
        text, record[str(tolerance)] = one(
            given, timing, exact, settings[str(tolerance)], about["strength"], tolerance
        )
        texts.append(text)
    return "\n\n".join(texts), record


def _digest(recipe):
    """A short name for whatever a file was made from."""
    return hashlib.sha256(json.dumps(recipe).encode()).hexdigest()[:12]


def introduction(about, tasks):
    return (
        f"### Time to a meta-gradient at a trained θ, one core\n\n"
        f"{about['dataset']}, {about['steps']} meta-steps, λ = {about['strength']:g}; {tasks} "
        f"tasks of unseen classes ({about['left out']} drawn beside them have no exact gradient "
        f"and are left out). Exact: residuals at most {about['inner residual']:.0e} and "
        f"{about['linear residual']:.0e}."
    )


def one(given, timing, exact, settings, strength, tolerance):
    """The table of one tolerance."""
    wanted = {row.name for row in given.chosen([c.row for c in choices()])}
    some = [c for c in choices() if c.row.name in wanted]
    chosen = {c.row.name: first(settings[c.kind], c, strength) for c in some}
    ready = [c.row for c in some if chosen[c.row.name] is not None]
    table = Reached(ready, timing, chosen, 1, given.report, given.missing, given.arguments.longest)
    table.exact, table.tolerance = exact, tolerance
    table.next = {c.row.name: [make(s, c, strength) for s in settings[c.kind][1:]] for c in some}
    found = table.measure(given.arguments.repeats, memory=False)
    text = tables.accuracy(found, table.errors, table.settings, tolerance)
    missing = [c.row.label for c in some if chosen[c.row.name] is None]
    if missing:
        text += f"\n\nNo setting of the grid reached it: {', '.join(missing)}."
    text += "\n\n" + tables.against_peers(found)
    used = {name: dataclasses.asdict(s) for name, s in table.settings.items() if s}
    return text, {"rows": [f.record() for f in found], "errors": table.errors, "settings": used}


def first(found, choice, strength):
    return make(found[0], choice, strength) if found else None


def make(found, choice, strength):
    """A setting from what the search wrote."""
    options = dict(choice.row.options)
    if choice.kind == "projected":
        options |= {"solver": "projected"}
        return Setting(
            "imaml", found["inner_steps"], found["linear_steps"], strength, 1.0, 0.0, options
        )
    if choice.kind == "lbfgs":
        options |= {"solver": "lbfgs", "history": found["history"], "preconditioned": True}
        return Setting(
            "imaml", found["inner_steps"], found["linear_steps"], strength, 1.0, 0.0, options
        )
    return Setting(
        "imaml",
        found["inner_steps"],
        found["linear_steps"],
        strength,
        found["learning_rate"],
        found["momentum"],
        options,
    )


class Reached(Table):
    """As a table, but each gradient is compared with the exact one."""

    def measure(self, *given, **named):
        self.errors = {}
        return super().measure(*given, **named)

    def _compare(self, gradients):
        for found in self.found:
            if found.error is None:
                self._try(found, lambda f: self._verify(f, gradients[f.row.name]))

    def _verify(self, found, gradient):
        """If other tasks' settings do not do on these, the next cheapest."""
        name = found.row.name
        waiting = list(self.next[name])
        while True:
            self.errors[name] = float(np.median(relative_error(gradient, self.exact)))
            if self.errors[name] <= self.tolerance:
                return
            if not waiting:
                raise client.Failed(
                    f"median error {self.errors[name]:.1%} with all settings that were chosen"
                )
            self.settings[name] = waiting.pop(0)
            worker = self.clients[name]
            worker.prepare(self.problem, self.settings[name])
            gradient = worker.gradients()


def _tool(given, name, *arguments):
    """Run one of this package's commands, its progress shown."""
    given.report(f"{name} …")
    command = [sys.executable, "-m", f"benchmarks.peers.{name}", *arguments]
    environment = client.environment(os.cpu_count() or 1, 1)
    if subprocess.run(command, env=environment, stdout=sys.stderr).returncode:
        raise SystemExit(f"{' '.join(command)} failed; its own words are above")
