"""The report of what was reached, from the records of the runs that reached it.

    python -m benchmarks.results add RUN NAME     # results/NAME.json from a run's own folder,
                          # with --evaluation FILE for what `pullback evaluate --json` said of the
                          # run packed, for instance with other ways
    python -m benchmarks.results compared OUT     # results/compared/ from benchmarks.methods
    python -m benchmarks.results report           # docs/results.md and its plots from results/

A record holds the run's settings, its validation curve, its evaluations task by task left out, what
its certificates said, its seconds and versions. The report has no number that is in no record.
"""

import argparse
import json
from pathlib import Path

from pullback.core.scores import ACCURACY
from pullback.runs import describe, plots
from pullback.runs.folder import START, Run, read_json, write_json, write_text
from pullback.runs.formatting import duration, task_text
from pullback.runs.pretrained import CARD, portable

ROOT = Path(__file__).parents[1]
RESULTS, REPORT, PLOT = ROOT / "results", ROOT / "docs" / "results.md", "results.png"
COMPARED, CURVES = "compared", "methods.png"

PUBLISHED = {
    "MAML (Finn et al. 2017)": (98.7, 99.9, 95.8, 98.9),
    "first-order MAML (Finn et al. 2017)": (98.3, 99.2, 89.4, 97.9),
    "Reptile (Nichol et al. 2018)": (97.68, 99.48, 89.43, 97.12),
    "iMAML, gradient descent (Rajeswaran et al. 2019)": (99.16, 99.67, 94.46, 98.69),
    "iMAML, Hessian-free (Rajeswaran et al. 2019)": (99.50, 99.74, 96.18, 99.14),
}
"""In percent: 5-way 1-shot, 5-way 5-shot, 20-way 1-shot, 20-way 5-shot."""


def record_of(run, note=None, evaluations=()):
    """What the report needs of a run: from its folder, and evaluations of it elsewhere."""
    stage, steps = run.pretraining(), run.metrics("step")
    card = run.folder / START / CARD
    tasks = sum(line["count"] for line in steps) * run.config.training.tasks_per_step
    last = steps[-max(1, len(steps) // 10) :]
    return {
        "note": note,
        "config": portable(run.config).to_dict(),
        "classes": {p: len(run.split.classes(p)) for p in ("train", "validation", "test")},
        "start": read_json(card) if card.is_file() else None,
        "validation": curve(run),
        "pretraining": curve(stage),
        "evaluations": {
            name: {k: v for k, v in found.items() if k not in ("records", "data_dir")}
            for name, found in (*run.evaluations().items(), *evaluations)
        },
        "certificate": {
            "tasks": tasks,
            "flagged": describe.flagged(run),
            "errors in the last tenth": {
                name: sum(line[name] for line in last if name in line) / max(1, len(last))
                for name in ("inner_error", "linear_error")
            },
        },
        "versions": run.versions(),
    }


def curve(run):
    names = ("step", "seconds", "compilation", "mean", "interval")
    return [{n: line[n] for n in names if n in line} for line in run.metrics("validation")]


def seconds(record):
    """Seconds of training, those of the pretraining and of what it started from among them."""
    lines = record["validation"] or record["pretraining"]
    return seconds_before(record) + (lines[-1]["seconds"] if lines else 0.0)


def seconds_before(record):
    """Seconds that what the run started from had taken."""
    return (record.get("start") or {}).get("seconds", 0.0)


def report(records, compared=None):
    """The document, in Markdown; with the comparison of methods if there is one."""
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks.results report` from the records in `results/`; but for "
        "those that were published no number below is from anywhere else.",
        "",
        "## Omniglot",
        "",
        "Trained on Omniglot's background half alone. Each row is one run; intervals are 95 % over "
        "test tasks. Inductive: each query example is normalised by itself. Transductive: together "
        "with the others. Hours are those of training on two cores, validations left out.",
        "",
        "| task | run | classes split by | score on | accuracy | tasks | pretraining | meta-step "
        "chosen | hours | flagged |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, record in records.items():
        lines += rows(name, record)
    lines += [
        "",
        "What was published, on other splits, most of it transductive, in percent:",
        "",
        "| method | 5-way 1-shot | 5-way 5-shot | 20-way 1-shot | 20-way 5-shot |",
        "| --- | --- | --- | --- | --- |",
    ]
    for method, scores in PUBLISHED.items():
        lines.append(f"| {method} | {' | '.join(f'{score:g}' for score in scores)} |")
    lines += ["", f"![Validation of each run against hours]({PLOT})", ""]
    for name, record in records.items():
        if record["note"]:
            lines += [f"**{name}**: {record['note']}", ""]
    if compared is not None:
        lines += comparison(compared)
    return "\n".join(lines)


def comparison(compared):
    """The section of the methods side by side."""
    data, seeds = compared["config"]["data"], compared["seeds"]
    task = task_text(data["ways"], data["shots"])
    lines = [
        "## Methods side by side",
        "",
        f"{task} on {data['dataset']}, classes split by {data['split_by']}: the same model, "
        f"episodes and {compared['minutes']:g} minutes for each training, compilation and "
        f"validations left out; {seeds} seeds. Tuned is each method's inner step size or λ, on "
        "validation classes. From the body: of the same supervised pretraining, whose time is not "
        "in the minutes. Mean of the seeds on test classes, and their range.",
        "",
        "| method | from | tuned | test accuracy, % | range | meta-steps |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in compared["methods"]:
        tests = [100 * run["test"]["mean"] for run in row["runs"]]
        steps = [run["curve"][-1]["step"] for run in row["runs"]]
        lines.append(
            f"| {row['method']} | {row['from']} | {row['tuned']} {row['best']:g} | "
            f"{sum(tests) / len(tests):.2f} | {min(tests):.2f} to {max(tests):.2f} | "
            f"{sum(steps) / len(steps):,.0f} |"
        )
    for name, found in compared["without meta-training"].items():
        number = f"{100 * found['mean']:.2f}"
        lines.append(f"| {name} | – | – | {number} | ± {100 * found['interval']:.2f} | 0 |")
    return [*lines, "", f"![Validation of each method]({CURVES})", ""]


def draw_comparison(compared, path):
    """Validation against seconds and against meta-steps, the mean of the seeds."""
    figure = plots.new_figure(9.0, 6.4)
    starts = sorted({row["from"] for row in compared["methods"]})
    panels = figure.subplots(len(starts), 2, squeeze=False, sharey="row")
    for row in compared["methods"]:
        curves = [run["curve"] for run in row["runs"]]
        shortest = min(map(len, curves))
        for column, name in enumerate(("seconds", "step")):
            at, height = (
                [sum(curve[i][key] for curve in curves) / len(curves) for i in range(shortest)]
                for key in (name, "mean")
            )
            panel = panels[starts.index(row["from"])][column]
            panel.plot(at, [100 * mean for mean in height], linewidth=1.4, label=row["method"])
    for start, line in zip(starts, panels, strict=True):
        for panel, name in zip(line, ("seconds", "meta-steps"), strict=True):
            plots.style(panel, f"from {start}: validation, %")
            panel.set_xlabel(name)
    plots.save(figure, path)


def rows(name, record):
    """A line of the table for each evaluation of a run."""
    config = record["config"]
    data, training = config["data"], config["training"]
    pretrained = f"{config.get('pretraining', {}).get('pretrain', 0):,}"
    if record.get("start"):
        pretrained = f"from {record['start']['name']}"
    certificate = record["certificate"]
    flagged = sum(certificate["flagged"].values()) / max(1, certificate["tasks"])
    kind = "transductive" if config["model"].get("normalisation") == "batch" else "inductive"
    tail = f"{seconds(record) / 3600:.2f} | {flagged:.1%}"
    found = []
    for score in record["evaluations"].values():
        what = f"{score['part']} classes"
        if score.get("checkpoint") == "start":
            what += ", before meta-training"
        task = task_text(score.get("ways"), score.get("shots"))
        number = ACCURACY.text(score["mean"], score["interval"])
        found.append(
            f"| {task} | {name} | {data['split_by']} | {what} | {number}, {kind} | "
            f"{score['tasks']:,} | {pretrained} | {score['step']:,} of {training['steps']:,} | "
            f"{tail} |"
        )
    return found


def draw(records, path):
    """Validation against hours."""
    figure = plots.new_figure(8.0, 4.4)
    panel = figure.subplots()
    for name, record in records.items():
        lines = [line for line in (*record["pretraining"], *record["validation"]) if "mean" in line]
        hours = [(seconds_before(record) + line["seconds"]) / 3600 for line in lines]
        panel.plot(hours, [100 * line["mean"] for line in lines], linewidth=1.4, label=name)
    plots.style(panel, "validation accuracy, %")
    panel.set_xlabel("hours of training on two cores")
    panel.set_ylim(bottom=90)
    plots.save(figure, path)


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make the record of a run")
    add.add_argument("run", type=Path)
    add.add_argument("name")
    add.add_argument("--note", help="what limits it, what did not work")
    add.add_argument("--evaluation", type=Path, action="append", default=[], metavar="FILE")
    make = commands.add_parser("report", help="write the document")
    take = commands.add_parser("compared", help="take what benchmarks.methods wrote")
    take.add_argument("out", type=Path)
    for command in (add, take, make):
        command.add_argument("--results", type=Path, default=RESULTS)
    make.add_argument("--document", type=Path, default=REPORT)
    arguments = parser.parse_args()
    if arguments.command == "add":
        arguments.results.mkdir(exist_ok=True)
        elsewhere = [(path.stem, read_json(path)) for path in arguments.evaluation]
        record = record_of(Run.open(arguments.run), arguments.note, elsewhere)
        write_json(arguments.results / f"{arguments.name}.json", record)
        print(json.dumps({"seconds": duration(seconds(record))}))
        return
    kept = arguments.results / COMPARED / "methods.json"
    if arguments.command == "compared":
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, read_json(arguments.out / kept.name))
        return
    records = {path.stem: read_json(path) for path in sorted(arguments.results.glob("*.json"))}
    compared = read_json(kept) if kept.exists() else None
    write_text(arguments.document, report(records, compared))
    draw(records, arguments.document.with_name(PLOT))
    if compared is not None:
        draw_comparison(compared, arguments.document.with_name(CURVES))


if __name__ == "__main__":
    main()
