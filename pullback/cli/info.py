"""``pullback info``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pullback.cli import options as o

Subject = Annotated[
    str,
    typer.Argument(
        help="Folder of a run, or what to list: algorithms, datasets, solvers, linear-solvers, "
        "normalisations, activations, strategies or splits.",
        show_default=False,
    ),
]


def info(subject: Subject, quiet: o.Quiet = False, json: o.Json = False) -> None:
    """Show what a run is and how far it got, or list what there is to choose from.

    For instance:  pullback info runs/first   or   pullback info algorithms
    """
    from pullback.cli import console

    reporter = console.Reporter(quiet, json)
    lists = _lists()
    if subject in lists and not Path(subject).exists():
        lines = lists[subject]
        rows = [(name, text) for name, text in lines.items()]
        reporter.result({"list": subject, "names": lines}, console.table(("name", "what"), rows))
        return
    if not Path(subject).exists():
        from pullback.core.errors import InputError

        raise InputError(
            f"{subject!r} is neither a folder nor a list",
            allowed=f"the folder of a run, or {', '.join(lists)}",
        )
    _show_run(Path(subject), reporter)


def _lists() -> dict[str, dict[str, str]]:
    from pullback import algorithms, linear, models, solvers, tasks
    from pullback.meta import parallel

    return {
        "algorithms": {n: line.summary for n, line in algorithms.ALGORITHMS.items()},
        "datasets": {n: line.summary for n, line in tasks.DATASETS.items()},
        "solvers": {n: line.summary for n, line in solvers.SOLVERS.items()},
        "linear-solvers": {n: line.summary for n, line in linear.LINEAR_SOLVERS.items()},
        "normalisations": dict(models.NORMALISATIONS),
        "activations": {
            n: "not smooth: no inner optimum to converge to" if n == "relu" else "smooth"
            for n in models.ACTIVATIONS
        },
        "strategies": dict(parallel.STRATEGIES),
        "splits": {
            "alphabet": "whole alphabets: no alphabet is in two parts",
            "character": "single classes, in exact numbers",
            "official": "the data set's own evaluation part for test",
        },
    }


def _show_run(folder: Path, reporter: Any) -> None:
    from pullback.runs.folder import Run

    run = Run.open(folder)
    record = describe_run(run)
    reporter.result(record, *run_tables(record))


def describe_run(run: Any) -> dict[str, Any]:
    """What is known about a run, from its files alone."""
    from pullback import tasks
    from pullback.core import results
    from pullback.runs import checkpoint

    steps, validations = run.metrics("step"), run.metrics("validation")
    accuracy = tasks.DATASETS[run.config.data.dataset].kind == "classification"
    flags: dict[str, int] = {}
    for line in run.metrics("flags"):
        for code, count in line["codes"].items():
            text = f"{results.label(int(code))}: {results.message(int(code))}"
            flags[text] = flags.get(text, 0) + count
    last = validations[-1] if validations else {}
    record: dict[str, Any] = {
        "run": str(run.folder),
        "score": "accuracy" if accuracy else "mean squared error",
        "step": max((line["step"] for line in (*steps, *validations)), default=0),
        "steps": run.config.training.steps,
        "seconds": steps[-1]["seconds"] if steps else 0.0,
        "best_validation": run.best_validation(higher_is_better=accuracy),
        "last_validation": last,
        "checkpoints": checkpoint.steps(run.checkpoints),
        "flagged": flags,
        "failed": [line["message"] for line in run.metrics("failed")],
        "config": run.config.to_dict(),
        "versions": run.versions(),
    }
    if steps:
        names = ("inner_residual", "linear_residual", "smallest_curvature", "tasks_per_second")
        names += ("inner_error", "linear_error")
        record["last_steps"] = {n: steps[-1][n] for n in names if n in steps[-1]}
    if run.split is not None:
        parts = ("train", "validation", "test")
        record["classes"] = {part: len(run.split.classes(part)) for part in parts}
    if run.config.algorithm.learn_strength not in (None, "none") and record["checkpoints"]:
        record["learned_strength"] = _learned_strength(run, accuracy)
    record["evaluations"] = {
        name: {n: x for n, x in stored.items() if n != "records"}
        for name, stored in run.evaluations().items()
    }
    return record


def _learned_strength(run: Any, higher_is_better: bool) -> dict[str, Any]:
    """The learned Λ of the checkpoint that is evaluated by default."""
    from pullback import algorithms
    from pullback.core.errors import InputError
    from pullback.runs import build, checkpoint

    form = run.config.algorithm.learn_strength
    fresh = build.assemble(run.config, run.split, None).fresh_state()
    try:
        found = checkpoint.restore(
            run.checkpoints, fresh, "best", higher_is_better=higher_is_better
        )
    # A run with a broken checkpoint is still worth looking at.
    except InputError as error:
        return {"form": form, "problem": str(error)}
    numbers = algorithms.describe_strength(found.theta, form)
    return {"form": form, "step": int(found.step), **numbers}


def run_tables(record: Mapping[str, Any]) -> list[Any]:
    """The lines and tables that show a run to a person."""
    from pullback.cli.console import table
    from pullback.runs.formatting import duration, evaluation_text, number, score_text

    score = record["score"]
    rows = [("run", record["run"]), ("meta-steps", f"{record['step']} of {record['steps']}")]
    rows.append(("training time", duration(record["seconds"])))
    if "classes" in record:
        sizes = ", ".join(f"{part} {count}" for part, count in record["classes"].items())
        rows.append(("classes", sizes))
    for name in ("best", "last"):
        line = record[f"{name}_validation"]
        if line:
            text = score_text(score, line.get("mean"), line.get("interval"))
            residual = number(line.get("inner_residual"), 2)
            text += f" at step {line['step']} (inner residual {residual})"
            rows.append((f"{name} validation", text))
    labels = {
        "inner_residual": "inner residual in training",
        "linear_residual": "linear residual in training",
        "inner_error": "meta-gradient's error by the inner solution",
        "linear_error": "meta-gradient's error by the linear solve",
        "smallest_curvature": "smallest curvature",
        "tasks_per_second": "tasks per second",
    }
    last = record.get("last_steps", {})
    rows += [(label, number(last[name])) for name, label in labels.items() if name in last]
    learned = record.get("learned_strength", {})
    if learned:
        rows.append(("learned λ", _strength_row(learned)))
    rows.append(("checkpoints", ", ".join(map(str, record["checkpoints"])) or "none"))
    rows += [("flagged tasks", f"{n}: {message}") for message, n in record["flagged"].items()]
    rows += [("failed", message) for message in record["failed"]]
    shown: list[Any] = [table(("", ""), rows, "Run")]
    if "leaves" in learned:
        shown.append(_strength_table(learned))
    if record["evaluations"]:
        found = [(n, evaluation_text(stored)) for n, stored in record["evaluations"].items()]
        shown.append(table(("evaluation", "result"), found, "Evaluations"))
    settings = [
        (section, name, str(value))
        for section, values in record["config"].items()
        for name, value in values.items()
    ]
    shown.append(table(("section", "setting", "value"), settings, "Configuration"))
    shown.append(table(("package", "version"), list(record["versions"].items()), "Versions"))
    return shown


_EACH = {"leaf": "one for each array", "diagonal": "one for each parameter"}


def _strength_row(learned: Mapping[str, Any]) -> str:
    from pullback.runs.formatting import number

    if "problem" in learned:
        return learned["problem"]
    found = number(learned["value"]) if "value" in learned else _EACH[learned["form"]]
    return f"{found}, at step {learned['step']}"


def _strength_table(learned: Mapping[str, Any]) -> Any:
    from pullback.cli.console import table
    from pullback.runs.formatting import number

    names = ("min", "median", "max") if learned["form"] == "diagonal" else ("λ",)
    rows = [
        (leaf, *(number(found[n] if isinstance(found, Mapping) else found) for n in names))
        for leaf, found in learned["leaves"].items()
    ]
    return table(("parameters", *(f"{name}>" for name in names)), rows, "Learned λ")
