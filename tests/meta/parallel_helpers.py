"""The program in processes of its own, alone or several together."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from pullback.runs.folder import Run

STEPS = 200
TINY = (
    *("--dataset", "sinusoid", "--algorithm", "fomaml", "--hidden", "8", "--shots", "5"),
    *("--inner-steps", "1", "--inner-learning-rate", "0.001", "--tasks-per-step", "4"),
    *("--steps", STEPS, "--validate-every", "50", "--validation-tasks", "6"),
)
ROOT = Path(__file__).parents[2]
LIMIT = 180
"""Seconds after which a process hangs: compiling takes long where others compute too."""


STARTED = []


def start(*argv, **environment):
    """The program, running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pullback.cli", *map(str, argv)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    return process


def end(process, code=0):
    """What it wrote, once it has ended as it should."""
    stdout, stderr = process.communicate(timeout=LIMIT)
    assert process.returncode == code, f"{process.returncode}: {stdout} {stderr}"
    assert "Traceback" not in stderr
    assert "Check failure" not in stderr
    return stdout, " ".join(stderr.split())


def pair(*argv, each=((), ())):
    """Two processes that train together, running."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ("--coordinator", f"127.0.0.1:{port}", "--processes", 2, "--devices", 1)
    return [start(*argv, *place, "--process-id", i, *each[i]) for i in (0, 1)]


def wait_for(path, *processes):
    deadline = time.monotonic() + LIMIT
    while not path.exists():
        assert all(process.poll() is None for process in processes), "ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.02)


def assert_same_metrics(one, other, rtol=1e-3):
    """Every step's loss and every validation, each there once."""
    one, other = Run.open(one), Run.open(other)
    for kind, name in (("step", "loss"), ("step", "gradient_norm"), ("validation", "mean")):
        lines = [[(line["step"], line[name]) for line in run.metrics(kind)] for run in (one, other)]
        first, second = (np.asarray(each) for each in lines)
        np.testing.assert_array_equal(first[:, 0], second[:, 0])
        np.testing.assert_allclose(first[:, 1], second[:, 1], rtol=rtol)
    assert [line["step"] for line in one.metrics("step")] == list(range(1, STEPS + 1))
