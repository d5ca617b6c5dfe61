"""A fitted table as a folder, and predictions from it."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

from pullback.core.errors import InputError, unknown_name
from pullback.grouped.held_back import COVERAGE
from pullback.runs.fields import Kind, read, text
from pullback.runs.fitting import (
    CURVE,
    POLICIES,
    Fitted,
    Settings,
    answers,
    class_in_picture,
    collected,
    frame_of,
    targets,
    without_missing,
)
from pullback.runs.folder import VERSIONS, read_record, storage, versions, write_json, write_text
from pullback.runs.formatting import number, percent
from pullback.runs.plots import draw_groups
from pullback.runs.records import COUNT, FINITE, NAME, TEXT, need
from pullback.runs.tables import Table, as_names
from pullback.sklearn import saving
from pullback.sklearn.inputs import interval

SETTINGS, REPORT, REPORT_TEXT, PICTURE = "fit.json", "report.json", "report.md", "groups.png"
"""The files of a run, beside those of the model and the versions."""

FORMAT = 1
LABELS = {
    "pooled": "pooled regression",
    "linear": "linear mixed model",
    "learned": "learned features",
    "auto": "auto",
    CURVE: "the curve",
}
CLASS_LABELS = LABELS | {
    "pooled": "pooled logistic regression",
    "linear": "logistic mixed model",
}


@dataclass(frozen=True)
class FittedRun:
    """A run, opened.

    Args:
        folder: where it is.
        model: the estimator.
        settings: of the fit.
    """

    folder: Path
    model: Any
    settings: Settings

    @classmethod
    def open(cls, folder: Path | str, curve: Callable[..., Any] | None = None) -> "FittedRun":
        """Open the folder that :func:`save` wrote.

        Args:
            folder: the folder.
            curve: that of a fit with one, which no file holds.

        Raises:
            InputError: if it is none, or a file of it is broken.
        """
        folder = Path(folder)
        path = folder / SETTINGS
        if not path.is_file():
            what = f"{SETTINGS} is missing" if folder.is_dir() else "there is no such folder"
            raise InputError(
                f"{str(folder)!r} is no fitted table: {what}",
                remedy="Give the folder that pullback fit wrote with --out",
            )
        settings = read_record(path, _settings)
        if settings.curve is not None and curve is None:
            raise InputError(
                f"{str(folder)!r} is the fit of a curve, which is code and in no file of it",
                remedy=f"Give it again: --curve {settings.curve}",
            )
        model = saving.load(folder, curve)
        names = getattr(model, "feature_names_in_", ())
        if list(names) != list(settings.columns):
            raise InputError(
                f"The files {str(path)!r} and {str(folder / saving.MODEL)!r} are of two fits"
            )
        return cls(folder, model, settings)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise ValueError
    return [text(each) for each in value]


def _counts(value: Any) -> dict[str, int]:
    if not isinstance(value, dict):
        raise ValueError
    return {name: COUNT.read(count) for name, count in value.items()}


def _scores(value: Any) -> dict[str, dict[str, Any]]:
    """Of each method, those at each number of rows that are seen."""
    if not isinstance(value, dict) or not value.keys() <= LABELS.keys():
        raise ValueError
    for scores in value.values():
        if not isinstance(scores, dict) or not all(map(str.isdecimal, scores)):
            raise ValueError
        if not all(isinstance(each, dict) for each in scores.values()):
            raise ValueError
    return value


_TEXTS = Kind("a list of texts", _texts)
_COUNTS = Kind("whole numbers by name", _counts)
_REPORT = {
    **dict.fromkeys(("rows", "groups", "left_out", "unnamed_columns"), COUNT),
    **dict.fromkeys(("unused_columns", "constant_columns", "warnings"), _TEXTS),
    "missing": _COUNTS,
    "summary": TEXT,
    "not_held_back": NAME,
    "held_back": Kind("scores of the methods", _scores),
}
"""What is read of every report."""


def _settings(stored: Mapping[str, Any]) -> Settings:
    # Fits before there were classes and curves do not say that they have none.
    stored = {"classify": False, "curve": None, **stored}
    need(stored, ("format", *asdict(Settings("", ""))))
    if stored["format"] != FORMAT:
        raise InputError(f"it is of format {stored['format']!r}", allowed=f"format {FORMAT}")
    for name in ("target", "group", "method", "separator", "point"):
        read(TEXT, name, stored[name])
    for name in ("order", "curve"):
        read(NAME, name, stored[name])
    if not isinstance(stored["classify"], bool):
        raise InputError("classify is no truth value")
    for name in ("columns", "kinds"):
        if not isinstance(stored[name], list):
            raise InputError(f"{name} is no list")
        for each in stored[name]:
            read(TEXT, name, each)
    if len(stored["columns"]) != len(stored["kinds"]):
        raise InputError("columns and kinds are not equally many")
    kept: dict[str, Any] = {name: stored[name] for name in asdict(Settings("", ""))}
    kept["columns"], kept["kinds"] = tuple(kept["columns"]), tuple(kept["kinds"])
    return Settings(**kept)


def is_fitted(folder: Path | str) -> bool:
    """Whether there is what :func:`save` wrote."""
    return (Path(folder) / SETTINGS).is_file()


def read_report(folder: Path | str) -> Fitted:
    """What is known of a fit without its model, which is not opened.

    Args:
        folder: that :func:`save` wrote.

    Returns:
        The fit, of which ``model`` is None and ``curves`` are none.

    Raises:
        InputError: if a file of it is broken.
    """
    folder = Path(folder)
    settings = read_record(folder / SETTINGS, _settings)
    report = read_record(folder / REPORT, lambda stored: _report(stored, settings.classify))
    return Fitted(None, settings, report, [])


def _report(stored: Mapping[str, Any], classify: bool) -> dict[str, Any]:
    kinds = _REPORT | ({"classes": _TEXTS} if classify else {"deviation": FINITE})
    need(stored, tuple(kinds))
    report = {name: value for name, value in stored.items() if name != "settings"}
    report |= {name: read(kind, name, stored[name]) for name, kind in kinds.items()}
    measures = ("log_loss", "accuracy", "calibration_error")
    measures = measures if classify else ("error", "coverage", "width")
    for scores in report["held_back"].values():
        for each in scores.values():
            need(each, measures)
            for name in measures:
                read(FINITE, name, each[name])
    if not report["not_held_back"]:
        need(report, ("scored",))
        need(read(_COUNTS, "scored", report["scored"]), ("rows", "groups"))
    return report


def save(fitted: Fitted, folder: Path | str) -> list[str]:
    """Write a fit into a folder.

    Args:
        fitted: the fit.
        folder: is made if it does not exist.

    Returns:
        The names of the files.

    Raises:
        StorageError: if the disk refuses it.
    """
    folder = Path(folder)
    settings, report = fitted.settings, fitted.report
    with storage(folder, "there is no whole run in it"):
        folder.mkdir(parents=True, exist_ok=True)
        saving.save(fitted.model, folder)
    files = [saving.MODEL, saving.ARRAYS, SETTINGS, REPORT, REPORT_TEXT, VERSIONS]
    if fitted.curves:
        vertical = settings.target
        if settings.classify:
            vertical = f"probability of {class_in_picture(report['classes'])}"
        draw_groups(fitted.curves, folder / PICTURE, _title(fitted), (report["axis"], vertical))
        files.append(PICTURE)
    write_json(folder / VERSIONS, versions("scikit-learn", "pandas", "pyarrow"))
    write_json(folder / REPORT, as_record(fitted))
    write_text(folder / REPORT_TEXT, as_markdown(fitted))
    # Last: a folder with this file is a whole run.
    write_json(folder / SETTINGS, {"format": FORMAT, **asdict(settings)})
    return files


def _title(fitted: Fitted) -> str:
    seen = fitted.curves[0].seen
    kind = "held back from the fit" if fitted.report["held_back"] else "that were fitted to"
    intervals = "" if fitted.settings.classify else ", intervals of 90 %"
    return f"Groups {kind}: before and after their first {seen} rows are seen{intervals}"


def as_record(fitted: Fitted) -> dict[str, Any]:
    """The report as JSON has it."""
    return {"settings": asdict(fitted.settings), **fitted.report}


def facts(fitted: Fitted) -> list[str]:
    """What was read, what was left out, and what looks odd, a sentence each."""
    report, settings = fitted.report, fitted.settings
    columns = ", ".join(
        f"{name} ({kind})" for name, kind in zip(settings.columns, settings.kinds, strict=True)
    )
    lines = [
        f"{report['rows']} rows in {report['groups']} groups ({settings.group}); "
        f"{settings.target} is predicted from {columns}."
    ]
    if settings.classify:
        lines.append(f"{settings.target} is one of {', '.join(report['classes'])}.")
    if report["left_out"]:
        counts = ", ".join(f"{name} {count}" for name, count in report["missing"].items())
        lines.append(f"Left out: {report['left_out']} rows that miss a value ({counts}).")
    if report["unnamed_columns"]:
        lines.append(f"Left out: {report['unnamed_columns']} columns without a name.")
    if report["unused_columns"]:
        lines.append(f"Not used: {', '.join(report['unused_columns'])}.")
    if report["constant_columns"]:
        names = ", ".join(report["constant_columns"])
        lines.append(f"The same in every row, which says nothing: {names}.")
    if fitted.settings.order:
        lines.append(f"The rows of a group are in the order of {fitted.settings.order}.")
    else:
        lines.append("The rows of a group are in the order of the file.")
    return lines


def scores_heading(fitted: Fitted) -> str:
    """What the table of scores is of, or why there is none."""
    report = fitted.report
    if report["not_held_back"]:
        return f"No groups were held back: {report['not_held_back']}."
    scored = report["scored"]
    of = f"{scored['rows']} rows in {scored['groups']} groups"
    if scored["rows"] < report["rows"]:
        of = f"a sample of {of}"
    return (
        f"Groups held back in five folds of {of}, scored on their other rows after their first k "
        "are seen:"
    )


def score_rows(fitted: Fitted) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The scores of held-back groups as the headings and the rows of a table."""
    found = fitted.report["held_back"]
    shots = sorted({k for scores in found.values() for k in scores}, key=int)
    classify = fitted.settings.classify
    labels = CLASS_LABELS if classify else LABELS
    measures: dict[str, Callable[[Any], str]] = {
        "log loss": lambda s: f"{s['log_loss']:.3f}",
        "accuracy": lambda s: percent(s["accuracy"]),
        "calibration error": lambda s: percent(s["calibration_error"]),
    }
    if not classify:
        deviation = fitted.report["deviation"]
        measures = {
            f"error, in {fitted.settings.target}": lambda s: number(s["error"]),
            "error, in its std. dev.": lambda s: f"{s['error'] / deviation:.3f}",
            "coverage of 90 %": lambda s: percent(s["coverage"]),
            "width of the interval": lambda s: number(s["width"]),
        }
    rows = [
        (labels[method] if not i else "", name, *(show(scores[k]) for k in shots))
        for method, scores in found.items()
        for i, (name, show) in enumerate(measures.items())
    ]
    return ("method", "", *(f"k = {k}" for k in shots)), rows


def as_markdown(fitted: Fitted) -> str:
    """The whole report."""
    report, settings = fitted.report, fitted.settings
    said = [*facts(fitted), *(f"Warning: {text}" for text in report["warnings"])]
    lines = [f"# {settings.target} by {settings.group}", "", *(f"- {each}" for each in said), ""]
    lines += [scores_heading(fitted), ""]
    if report["held_back"]:
        headings, rows = score_rows(fitted)
        lines += [_line(headings), _line(["---"] * len(headings)), *map(_line, rows), ""]
    lines += ["```", report["summary"], "```"]
    if fitted.curves:
        drawn = f"{len(fitted.curves)} groups, evenly spaced by their number of rows."
        lines += ["", drawn, "", f"![{_title(fitted)}]({PICTURE})"]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


class Predictions(NamedTuple):
    """Predictions, one for each row of a table.

    Args:
        groups: their names; None where the table has none.
        columns: by name the prediction, its standard deviation and the bounds of its interval, or
            the class and each class's probability; None for a row that misses a value.
        coverage: how often the intervals hold the target; None for classes.
        known: ``"yes"`` for groups of the fit, ``"adapted"``, or ``"no"``; empty without a
            prediction.
        said: what was left out or looks odd, a sentence each.
    """

    groups: list[str | None] | None
    columns: dict[str, list[Any]]
    coverage: float | None
    known: np.ndarray
    said: list[str]

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each."""
        columns = {} if self.groups is None else {"group": self.groups}
        columns |= self.columns | {"known": self.known.tolist()}
        return [
            dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)
        ]

    def as_csv(self) -> str:
        """CSV with a line of names; an empty cell where there is no prediction."""
        out = StringIO()
        rows = self.rows()
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return out.getvalue()


def predict(
    run: FittedRun,
    table: Table,
    adapt: Table | None = None,
    *,
    coverage: float | None = None,
    missing: str = "error",
) -> Predictions:
    """Predict the rows of a table.

    A group of the fit has its own model, and so has one with rows to adapt to; any other has the
    population's. Rows to adapt to that name no group are all of one, that of all rows of the table.

    Args:
        run: the fit.
        table: with the columns of the fit; that of groups need not be there.
        adapt: rows with targets, to adapt groups to.
        coverage: how often the intervals hold the target, 0.9 if not given; classes have none.
        missing: ``"drop"`` for no prediction where values are missing, in place of an error.

    Returns:
        A prediction for each row.

    Raises:
        InputError: for tables that do not fit the run.
    """
    if missing not in POLICIES:
        raise unknown_name("policy of missing values", missing, POLICIES)
    settings, model = run.settings, run.model
    if settings.classify and coverage is not None:
        raise InputError(
            f"--coverage was given, and {settings.target!r} is a class, which has no interval"
        )
    if coverage is None and not settings.classify:
        coverage = COVERAGE
    if coverage is not None:
        interval(coverage, np.zeros(1), np.ones(1))
    said = _check_columns(table, settings, settings.columns)
    table, whole = _usable(table, settings, missing, said)
    names = _names(table, settings)
    known = np.full(len(whole), "", object)
    found = np.full((len(whole), len(model.classes_) if settings.classify else 2), np.nan)
    with collected() as warned:
        frame = frame_of(table, settings.columns, settings.kinds)
        found[whole] = answers(model, frame, names)
        of = np.full(table.rows, "", object) if names is None else names
        marks = np.full(table.rows, "no", object)
        marks[np.isin(of, model.groups_) & (names is not None)] = "yes"
        if adapt is not None:
            other = _adapted(run, adapt, names, missing, said)
            own = np.isin(of, other.groups_)
            if own.any():
                found[np.flatnonzero(whole)[own]] = answers(other, frame[own], of[own])
            marks[own] = "adapted"
            _say_of_groups(model, other, of, said)
    known[whole] = marks
    said += warned
    if names is not None and (strangers := len(set(names[marks == "no"]))):
        said.append(
            f"{strangers} of {len(set(names))} groups are not known, and have the population's "
            "model."
        )
    groups = None
    if names is not None:
        groups = np.full(len(whole), None, object)
        groups[whole] = names
        groups = groups.tolist()
    if coverage is None:
        columns = {"prediction": model.classes_[found.argmax(1)]}
        columns |= {f"p({one})": found[:, c] for c, one in enumerate(model.classes_)}
    else:
        mean, deviation = found.T
        lower, upper = interval(coverage, mean, deviation)
        columns = {"prediction": mean, "std": deviation, "lower": lower, "upper": upper}
    shown = {
        name: [value if there else None for value, there in zip(each.tolist(), whole, strict=True)]
        for name, each in columns.items()
    }
    return Predictions(groups, shown, coverage, known, said)


def adapt(run: FittedRun, rows: Table, say: Callable[[str], None]) -> Any:
    """The model of the groups that rows are of, adapted to them.

    Args:
        run: the fit.
        rows: with targets; all are of one group where they name none.
        say: told what was left out, a sentence each.

    Returns:
        The estimator of those groups, or the model of the one.

    Raises:
        InputError: for a table that does not fit the run.
    """
    said: list[str] = []
    rows = _rows_to_adapt_to(run, rows, "error", said)
    frame, y = frame_of(rows, run.settings.columns, run.settings.kinds), targets(rows, run.settings)
    names = _names(rows, run.settings)
    with collected() as warned:
        if names is None:
            model = run.model.adapt(frame, y)
        else:
            model = run.model.with_groups(frame, y, names)
    for sentence in said + warned:
        say(sentence)
    return model


def _rows_to_adapt_to(run: FittedRun, rows: Table, missing: str, said: list[str]) -> Table:
    settings = run.settings
    said += _check_columns(rows, settings, (*settings.columns, settings.target))
    return _usable(rows, settings, missing, said, settings.target)[0]


def _check_columns(table: Table, settings: Settings, needed: Sequence[str]) -> list[str]:
    """What is said of columns that have no use.

    Raises:
        InputError: naming columns that are missing.
    """
    absent = [name for name in needed if name not in table.columns]
    if absent:
        raise InputError(
            f"{str(table.path)!r} lacks the columns {', '.join(map(repr, absent))} of the fit",
            allowed=f"a table with {', '.join(settings.columns)}",
        )
    extra = [name for name in table.columns if name not in {*needed, settings.group}]
    lines = []
    if extra:
        lines.append(f"Columns of {str(table.path)!r} without a use: {', '.join(extra)}.")
    if table.unnamed:
        lines.append(f"{str(table.path)!r} has {table.unnamed} columns without a name.")
    return lines


def _usable(
    table: Table, settings: Settings, missing: str, said: list[str], *more: str
) -> tuple[Table, Bool[np.ndarray, " rows"]]:
    """The rows without missing values, and which those are."""
    needed = [*settings.columns, *more]
    needed += [settings.group] if settings.group in table.columns else []
    kept, counts = without_missing(table, needed, missing)
    whole = np.ones(table.rows, bool)
    for mask in table.missing(counts).values():
        whole &= ~mask
    if kept.rows < table.rows:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        said.append(
            f"{table.rows - kept.rows} of {table.rows} rows of {str(table.path)!r} miss a value "
            f"({listed}), and are left out."
        )
    return kept, whole


def _names(table: Table, settings: Settings) -> np.ndarray | None:
    if settings.group not in table.columns:
        return None
    return as_names(table.columns[settings.group])


def _adapted(
    run: FittedRun, rows: Table, names: np.ndarray | None, missing: str, said: list[str]
) -> Any:
    """The model of the groups that have rows to adapt to."""
    settings = run.settings
    rows = _rows_to_adapt_to(run, rows, missing, said)
    of = _names(rows, settings)
    if of is None:
        asked = set() if names is None else set(names)
        if len(asked) > 1:
            raise InputError(
                f"{str(rows.path)!r} has no column {settings.group!r}, and the table to predict "
                f"is of {len(asked)} groups",
                remedy="Say in that column of both whose rows they are",
            )
        of = np.full(rows.rows, asked.pop() if asked else "", object)
    elif names is None:
        raise InputError(
            f"{str(rows.path)!r} has a column {settings.group!r}, which the table to predict lacks",
            remedy="Say in that column of both whose rows they are, or in neither",
        )
    frame = frame_of(rows, settings.columns, settings.kinds)
    return run.model.with_groups(frame, targets(rows, settings), of)


def _say_of_groups(model: Any, other: Any, of: np.ndarray, said: list[str]) -> None:
    again = len(set(model.groups_) & set(other.groups_))
    if again:
        said.append(
            f"{again} groups of the fit are adapted anew: they forget their rows in it, and have "
            "those given now alone."
        )
    idle = len(set(other.groups_) - set(of))
    if idle:
        said.append(f"{idle} groups were adapted and have no row to predict.")
