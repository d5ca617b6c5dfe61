"""``pullback fit``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pullback.cli import options as o

if TYPE_CHECKING:
    from pullback.runs.fitting import Fitted

_COLUMNS, _FIT, _OUTPUT = "Columns", "Fit", "Output"


def fit(
    table: Annotated[
        Path, typer.Argument(help="Rows in groups: CSV, or Parquet.", show_default=False)
    ],
    *,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="Column to predict: a number, or a class with --classify.",
            rich_help_panel=_COLUMNS,
            show_default=False,
        ),
    ],
    group: Annotated[
        str,
        typer.Option(
            "--group",
            help="Column that names the group of a row.",
            rich_help_panel=_COLUMNS,
            show_default=False,
        ),
    ],
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Columns to predict from, with commas between.",
            rich_help_panel=_COLUMNS,
            show_default="all others",
        ),
    ] = None,
    drop: Annotated[
        str | None,
        typer.Option(
            "--drop",
            help="In place of it: columns to leave out.",
            rich_help_panel=_COLUMNS,
            show_default=False,
        ),
    ] = None,
    categories: Annotated[
        str | None,
        typer.Option(
            "--categories",
            help="Columns of numbers that name categories.",
            rich_help_panel=_COLUMNS,
            show_default=False,
        ),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(
            "--order",
            help="Column by which the rows of a group are sorted, such as the time.",
            rich_help_panel=_COLUMNS,
            show_default="as in the file",
        ),
    ] = None,
    classify: Annotated[
        bool,
        typer.Option(
            "--classify",
            help="The target is a class, such as yes and no.",
            rich_help_panel=_FIT,
        ),
    ] = False,
    method: Annotated[
        str,
        typer.Option(
            "--method",
            help="linear (a mixed model), learned (features of the columns beside it), or auto "
            "(both, by how well each predicts groups that are held back).",
            rich_help_panel=_FIT,
        ),
    ] = "auto",
    curve: Annotated[
        str | None,
        typer.Option(
            "--curve",
            help="In place of a method: module:name or file.py:name, a function of a row and its "
            "parameters, or a CurveRegressor. It is run.",
            rich_help_panel=_FIT,
            show_default=False,
        ),
    ] = None,
    parameters: Annotated[
        str | None,
        typer.Option(
            "--parameters",
            help='Those of that function with their bounds: "ka>0,0<f<1".',
            rich_help_panel=_FIT,
            show_default="its arguments, unbounded",
        ),
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            "--missing",
            help="What becomes of rows that miss a value: error, or drop to leave them out.",
            rich_help_panel=_FIT,
        ),
    ] = "error",
    score: Annotated[
        bool,
        typer.Option(
            "--score/--no-score",
            help="Score the methods on groups that are held back, which takes most of the time.",
            rich_help_panel=_FIT,
        ),
    ] = True,
    seed: Annotated[
        int,
        typer.Option("--seed", help="The same seed gives the same fit.", rich_help_panel=_FIT),
    ] = 0,
    separator: o.Separator = None,
    decimal: o.Decimal = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Folder for the run; new or empty.",
            rich_help_panel=_OUTPUT,
            show_default="runs/fit-<table>-<time>",
        ),
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Fit a table of rows that come in groups, and say how well new groups are predicted.

    For instance:  pullback fit growth.csv --target height --group child
    """
    from pullback.cli import console
    from pullback.core.errors import InputError
    from pullback.runs.curves import find_curve
    from pullback.runs.fitted import as_record, save
    from pullback.runs.fitting import CURVE, Settings, choose, fit_table
    from pullback.runs.folder import check_free, default_folder
    from pullback.runs.tables import names_in, read_table

    reporter = console.Reporter(quiet, json)
    if parameters is not None and curve is None:
        raise InputError("--parameters was given without --curve")
    settings = Settings(
        target=target,
        group=group,
        classify=classify,
        method=method if curve is None else CURVE,
        curve=curve,
        order=order,
        missing=missing,
        separator="," if separator is None else separator,
        point="." if decimal is None else decimal,
        seed=seed,
    )
    out = default_folder("fit", table.stem) if out is None else out
    check_free(out, "Give another one with --out")
    read = read_table(table, settings.separator, settings.point)
    settings = choose(read, settings, names_in(columns, "--columns"), names_in(drop, "--drop"))
    own = None
    if curve is not None:
        own = find_curve(curve, [each.strip() for each in (parameters or "").split(",") if each])
    with reporter.counting("Fitting", None, "fits") as done:
        fitted = fit_table(
            read,
            settings,
            curve=own,
            categories=names_in(categories, "--categories"),
            score=score,
            progress=done,
        )
    files = save(fitted, out)
    for text in fitted.report["warnings"]:
        reporter.warn(text)
    where = f"The run is {out}: {', '.join(files)}."
    record = as_record(fitted) | {"out": str(out), "files": files}
    reporter.result(record, *report_of(fitted), where)


def report_of(fitted: "Fitted") -> list[Any]:
    """The report on the screen."""
    from pullback.cli.console import table
    from pullback.runs.fitted import facts, score_rows, scores_heading

    shown: list[Any] = [*facts(fitted), scores_heading(fitted)]
    if fitted.report["held_back"]:
        headings, rows = score_rows(fitted)
        shown.append(table([f"{h}>" if "k =" in h else h for h in headings], rows))
    return [*shown, fitted.report["summary"]]
