"""``pullback info``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from pullback import registries as r
from pullback.cli import options as o
from pullback.cli.fit import report_of
from pullback.core.errors import unknown_name
from pullback.core.registry import Registry

LISTS: dict[str, Any] = {
    "algorithms": r.ALGORITHMS,
    "datasets": r.DATASETS,
    "models": r.MODELS,
    "solvers": r.SOLVERS,
    "linear-solvers": r.LINEAR_SOLVERS,
    "activations": r.ACTIVATIONS,
    "rooms": r.ROOMS,
    "normalisations": r.NORMALISATIONS,
    "strategies": r.STRATEGIES,
    "splits": r.SPLITS,
    "recipes": (),
    "pretrained": (),
}
"""What can be listed; the last two are looked up when they are asked for."""

Subject = Annotated[
    str,
    typer.Argument(
        help="Folder of a run or of a fit, name of a pretrained initialisation, or what to list: "
        f"{', '.join(LISTS)}.",
        show_default=False,
    ),
]


def info(subject: Subject, quiet: o.Quiet = False, json: o.Json = False) -> None:
    """Show what a run is and how far it got, or list what there is to choose from.

    For instance:  pullback info runs/first   or   pullback info algorithms
    """
    from pullback.cli import console

    reporter = console.Reporter(quiet, json)
    if subject in LISTS and not Path(subject).exists():
        lines = _list(subject)
        reporter.result(
            {"list": subject, "names": lines}, console.table(("name", "what"), list(lines.items()))
        )
        return
    from pullback.runs.pretrained import names

    if not Path(subject).exists() and subject not in names():
        raise unknown_name("run, pretrained initialisation or list", subject, [*LISTS, *names()])
    _show_run(subject, reporter)


def _list(subject: str) -> dict[str, str]:
    """What there is to choose from, and what each is."""
    if subject == "recipes":
        from pullback.runs import recipes

        return {name: recipes.purpose(name) for name in recipes.names()}
    if subject == "pretrained":
        from pullback.runs import pretrained

        return {name: pretrained.about(name) for name in pretrained.names()}
    found = LISTS[subject]
    if isinstance(found, Registry):
        return {name: entry.summary for name, entry in found.items()}
    return dict(found)


def _show_run(place: str, reporter: Any) -> None:
    from pullback.runs import fitted

    if fitted.is_fitted(place):
        found = fitted.read_report(place)
        for text in found.report["warnings"]:
            reporter.warn(text)
        reporter.result(fitted.as_record(found), *report_of(found))
        return
    from pullback.runs import build
    from pullback.runs.describe import describe_run
    from pullback.runs.pretrained import Packed, open_trained

    run = open_trained(place)
    record = describe_run(run)
    shown = _tables(record, build.summary_of(run).score)
    if isinstance(run, Packed):
        record["card"] = dict(run.card)
        shown = [_card(run.card), *shown[1:]]
    reporter.result(record, *shown)


def _card(card: Mapping[str, Any]) -> Any:
    """What a packed initialisation is."""
    from pullback.cli.console import table
    from pullback.runs.formatting import duration

    rows = [("name", card["name"]), ("about", card.get("about") or "–")]
    rows += [("checkpoint", f"step {card['step']}"), ("checksum", card["checksum"])]
    if card.get("seconds") is not None:
        rows.append(("training time", duration(card["seconds"])))
    return table(("", ""), rows, "Pretrained initialisation")


def _tables(record: Mapping[str, Any], score: Any) -> list[Any]:
    """The lines and tables that show a run to a person."""
    from pullback.cli.console import table
    from pullback.runs.formatting import duration, evaluation_text, number

    rows = [("run", record["run"]), ("meta-steps", f"{record['step']} of {record['steps']}")]
    if "pretraining" in record:
        line = record["pretraining"]["last_validation"]
        text = f"{line.get('step', 0)} of {record['pretraining']['steps']} steps"
        if "mean" in line:
            text += f", validation {score.text(line['mean'], line.get('interval'))}"
        rows.append(("pretraining", text))
    rows.append(("training time", duration(record["seconds"])))
    if "classes" in record:
        sizes = ", ".join(f"{part} {count}" for part, count in record["classes"].items())
        rows.append(("classes", sizes))
    for name in ("best", "last"):
        line = record[f"{name}_validation"]
        if line:
            text = score.text(line.get("mean"), line.get("interval"))
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
        found = [(n, evaluation_text(score, stored)) for n, stored in record["evaluations"].items()]
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
