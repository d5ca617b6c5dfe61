"""Folders of runs for tests, written by the library's own functions but trained by nobody."""

from pathlib import Path

from pullback.runs.config import resolve
from pullback.runs.folder import Run


def step_line(step: int, **values) -> dict:
    return {
        "kind": "step",
        "step": step,
        "count": 1,
        "loss": 3.0 / step,
        "inner_residual": 0.1,
        "linear_residual": 0.05,
        "flagged": 2,
        "seconds": 5.0 + 0.5 * step,
        "compilation": 5.0,
        "compiling": step == 1,
        "tasks_per_second": 100.0,
    } | values


def make_run(folder: Path, name: str = "imaml", *, steps: int = 40, written: int = 40) -> Run:
    config = resolve(
        {
            "data": {"dataset": "sinusoid"},
            "algorithm": {"name": name},
            "training": {"steps": steps},
        }
    )
    run = Run.create(folder, config, None)
    run.append(*(step_line(step) for step in range(1, written + 1)))
    validation = {"kind": "validation", "seconds": 5.0, "compilation": 5.0, "interval": 0.1}
    run.append(validation | {"step": written, "mean": 1.5})
    run.append({"kind": "flags", "step": written, "tasks": 320, "codes": {"0": 240, "2": 80}})
    return run
