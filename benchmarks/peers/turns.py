"""One table: all implementations prepared, their gradients compared, then timed in turns."""

import statistics
from dataclasses import dataclass, field

from benchmarks.peers.client import Client, Failed
from benchmarks.peers.problem import relative_error

TOLERANCE = 1e-3
MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(128 * 1024)}
"""Every large block is given back when it is freed (:mod:`benchmarks.process`)."""


@dataclass
class Found:
    """What one implementation did.

    Args:
        row: which it is.
        error: in one line, why there is nothing more; None where all went well.
        seconds: wall time of each repeat.
        processor: the time of all its threads in each repeat.
        off: the largest relative difference of a task's gradient from the first row's.
        bytes: memory at the peak beyond what the process holds anyway.
        prepared: seconds to import, compile and run once.
    """

    row: object
    error: str | None = None
    seconds: list = field(default_factory=list)
    processor: list = field(default_factory=list)
    off: float | None = None
    bytes: int | None = None
    prepared: float | None = None

    @property
    def median(self):
        return statistics.median(self.seconds) if self.seconds else None

    def record(self):
        return {"name": self.row.name, "label": self.row.label} | {
            key: value for key, value in vars(self).items() if key != "row"
        }


class Table:
    """Implementations on one problem.

    Args:
        rows: of :mod:`benchmarks.peers.rows`; the first is what the others are compared with.
        problem: file of the problem.
        settings: each row's setting, by name.
        threads: cores and threads.
        report: takes a line of progress.
        missing: why a package is not there, by its name.
        longest: seconds to wait for any answer.
    """

    def __init__(self, rows, problem, settings, threads, report, missing, longest):
        self.problem, self.settings, self.threads = problem, settings, threads
        self.report, self.longest = report, longest
        self.found = [Found(row, missing.get(row.package)) for row in rows]
        self.clients = {}

    def _start(self, row, extra=None):
        devices = self.threads if row.spread else 1
        return Client(row.module, self.threads, devices, self.longest, extra)

    def _try(self, found, action):
        """An action on one implementation, which must not end the others'."""
        if found.error is None:
            try:
                action(found)
            except Failed as failure:
                found.error = str(failure)
                self.report(f"{found.row.label}: {failure}")
                self._close(found)

    def _close(self, found):
        client = self.clients.pop(found.row.name, None)
        if client is not None:
            client.close()

    def measure(self, repeats, compare=True, memory=True):
        """Prepare, compare, time in turns, and measure memory."""
        try:
            gradients = self._prepare()
            if compare:
                self._compare(gradients)
            for turn in range(repeats):
                for found in self.found:
                    self._try(found, self._time)
                self.report(f"turn {turn + 1} of {repeats}")
        finally:
            for found in self.found:
                self._close(found)
        if memory:
            for found in self.found:
                self._try(found, self._memory)
        return self.found

    def _prepare(self):
        gradients = {}

        def prepare(found):
            row = found.row
            client = self.clients[row.name] = self._start(row)
            answer = client.prepare(self.problem, self.settings[row.name])
            found.prepared = answer["seconds"]
            gradients[row.name] = client.gradients()
            self.report(f"{row.label}: ready after {found.prepared:.1f} s")

        for found in self.found:
            self._try(found, prepare)
        return gradients

    def _compare(self, gradients):
        first = gradients.get(self.found[0].row.name)
        for found in self.found:
            if found.error is None and first is not None and found.row.checked:
                found.off = float(relative_error(gradients[found.row.name], first).max())
                if not found.off <= TOLERANCE:
                    found.error = f"its gradient is {found.off:.2g} off, allowed is {TOLERANCE:g}"
                    self._close(found)

    def _time(self, found):
        answer = self.clients[found.row.name].ask("time")
        found.seconds.append(answer["seconds"])
        found.processor.append(answer["processor"])

    def _memory(self, found):
        client = self.clients[found.row.name] = self._start(found.row, MEMORY)
        client.prepare(self.problem, self.settings[found.row.name])
        found.bytes = client.ask("memory")["bytes"]
        self._close(found)


def ratios(first, other):
    """How many times as long as the other one the first took, turn by turn: quartiles."""
    each = sorted(a / b for a, b in zip(first.seconds, other.seconds, strict=False))
    if len(each) < 2:
        return (each[0],) * 3 if each else None
    low, middle, high = statistics.quantiles(each, n=4, method="inclusive")
    return low, middle, high


def best_peer(table):
    """The fastest of the other libraries, each with the network its users would write."""
    timed = [f for f in table if f.row.peer and f.error is None and f.seconds]
    others = [f for f in timed if f.row.name != table[0].row.name]
    return min(others or timed, key=lambda f: f.median, default=None)
