"""A run described: what it is, how far it got and what came out."""

from typing import Any

from pullback.algorithms import describe_strength
from pullback.core import results
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.runs import build, checkpoint
from pullback.runs.folder import Run
from pullback.runs.records import check_evaluation


def describe_run(run: Run) -> dict[str, Any]:
    """What is known about a run, from its files alone.

    Args:
        run: the run.

    Returns:
        Its progress, scores, verdicts, settings and evaluations, as JSON has them.

    Raises:
        InputError: if a file of it is broken.
    """
    steps, validations = run.metrics("step"), run.metrics("validation")
    score = build.summary_of(run).score
    last = validations[-1] if validations else {}
    record: dict[str, Any] = {
        "run": str(run.folder),
        "score": score.name,
        "step": max((line["step"] for line in (*steps, *validations)), default=0),
        "steps": run.config.training.steps,
        "seconds": steps[-1]["seconds"] if steps else 0.0,
        "best_validation": run.best_validation(score),
        "last_validation": last,
        "checkpoints": checkpoint.steps(run.checkpoints),
        "flagged": flagged(run),
        "failed": [line["message"] for line in run.metrics("failed")],
        "config": run.config.to_dict(),
        "versions": run.versions(),
    }
    if steps:
        names = ("inner_residual", "linear_residual", "smallest_curvature", "tasks_per_second")
        names += ("inner_error", "linear_error")
        record["last_steps"] = {n: steps[-1][n] for n in names if n in steps[-1]}
    wanted = run.config.pretraining.pretrain
    if wanted:
        lines = run.pretraining().metrics("validation")
        found = lines[-1] if lines else {}
        record["pretraining"] = {"steps": wanted, "last_validation": found}
    if run.split is not None:
        record["classes"] = {part: len(run.split.classes(part)) for part in build.PARTS}
    form = run.config.algorithm.learn_strength
    if form not in (None, "none") and record["checkpoints"]:
        record["learned_strength"] = _learned_strength(run, form)
    record["evaluations"] = {}
    for name, stored in run.evaluations().items():
        try:
            check_evaluation(stored)
        except InputError as error:
            raise InputError(
                f"The evaluation {name!r} of {str(run.folder)!r} is broken: {error}",
                remedy="Remove its file, and evaluate again",
            ) from None
        record["evaluations"][name] = {n: x for n, x in stored.items() if n != "records"}
    return record


def flagged(run: Run) -> dict[str, int]:
    """How many training tasks had each verdict but ok, by its name and its sentence."""
    counts: dict[str, int] = {}
    for line in run.metrics("flags"):
        for code, count in line["codes"].items():
            text = f"verdict {code}, which this version does not know"
            if int(code) in list(Verdict):
                text = f"{results.label(int(code))}: {results.message(int(code))}"
            counts[text] = counts.get(text, 0) + count
    return counts


def flagged_lines(run: Run) -> list[str]:
    """The same in sentences; none where every meta-gradient is to be trusted."""
    steps = sum(line["count"] for line in run.metrics("step"))
    tasks = steps * run.config.training.tasks_per_step
    return [
        f"Doubtful: {count} of {tasks} training tasks: {text}."
        for text, count in flagged(run).items()
    ]


def _learned_strength(run: Run, form: str) -> dict[str, Any]:
    """The learned Λ of the checkpoint that is evaluated by default."""

    built = build.reopen(run)
    try:
        found = build.restore(run, built, "best")
    # A run with a broken checkpoint is still worth looking at.
    except InputError as error:
        return {"form": form, "problem": str(error)}
    numbers = describe_strength(found.theta, form)
    return {"form": form, "step": int(found.step), **numbers}
