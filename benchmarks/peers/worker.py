"""One implementation in a process of its own, which does what it is told a line at a time.

    python -m benchmarks.peers.worker MODULE THREADS

Each line of standard input is a JSON object with an ``order``; each answer a JSON line, with
``error`` in it if something failed. Whatever libraries print goes to standard error.
"""

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from benchmarks import process
from benchmarks.peers.problem import Problem, Setting


class Worker:
    """The state between orders."""

    def __init__(self, module, threads):
        self.threads, self.allowed = threads, _allowed()
        if module.startswith("torch") or module in ("higher_maml", "learn2learn_maml"):
            import torch

            torch.set_num_threads(threads)
        self.module = importlib.import_module(f"benchmarks.peers.{module}")
        self.run = self.read = None

    def prepare(self, problem, setting):
        """Compile whatever there is to compile, and run twice."""
        began = time.perf_counter()
        self.run = self.read = None
        _pin(self.allowed)
        self.run, self.read = self.module.prepare(Problem.load(problem), Setting(**setting))
        self.run()
        first = time.perf_counter() - began
        # The last cores there are, since a system's own work prefers the first.
        _pin(self.allowed[-self.threads :])
        self.run()
        return {"seconds": first}

    def gradients(self, path):
        """Write the gradients of all tasks to a file."""
        np.savez(path, **self.read(self.run()))
        return {}

    def time(self):
        """One run: its wall time, and the time that all threads spent."""
        began, spent = time.perf_counter(), time.process_time()
        self.run()
        return {
            "seconds": time.perf_counter() - began,
            "processor": time.process_time() - spent,
        }

    def memory(self):
        """By how much one run raises this process's memory at its peak."""
        return {"bytes": process.peak(self.run)}

    def special(self, **given):
        """What only one module can do."""
        return self.module.special(self.run, **given)


def _allowed():
    """The cores that this process may use; none where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _pin(cores):
    """Hold every thread of this process to some cores; a no-op where the system has no way."""
    if cores:
        for thread in Path("/proc/self/task").iterdir():
            try:
                os.sched_setaffinity(int(thread.name), cores)
            except OSError:
                continue


def serve(module, threads):
    """Answer orders until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = None
    for line in sys.stdin:
        order = json.loads(line)
        name = order.pop("order")
        try:
            if worker is None:
                worker = Worker(module, threads)
            found = getattr(worker, name)(**order)
        except Exception as error:
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    serve(sys.argv[1], int(sys.argv[2]))
