"""``pullback predict``."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli import options as o

_PREDICTION, _OUTPUT = "Prediction", "Output"


def predict(
    run: Annotated[
        Path, typer.Argument(help="Folder of a run, as fit wrote it.", show_default=False)
    ],
    table: Annotated[
        Path,
        typer.Argument(
            help="Rows to predict, with the columns of the fit: CSV, or Parquet.",
            show_default=False,
        ),
    ],
    adapt: Annotated[
        Path | None,
        typer.Option(
            "--adapt",
            help="Rows with targets, to adapt new groups to; without a column of groups they are "
            "all of one, whose rows are then predicted.",
            rich_help_panel=_PREDICTION,
            show_default=False,
        ),
    ] = None,
    curve: Annotated[
        str | None,
        typer.Option(
            "--curve",
            help="That of the fit, where it has one; it is run.",
            rich_help_panel=_PREDICTION,
            show_default=False,
        ),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option(
            "--coverage",
            help="How often an interval holds the target.",
            rich_help_panel=_PREDICTION,
            show_default="0.9",
        ),
    ] = None,
    missing: Annotated[
        str,
        typer.Option(
            "--missing",
            help="What becomes of rows that miss a value: error, or drop for no prediction.",
            rich_help_panel=_PREDICTION,
        ),
    ] = "error",
    separator: o.Separator = None,
    decimal: o.Decimal = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="CSV file for the predictions.",
            rich_help_panel=_OUTPUT,
            show_default="they are printed",
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace that file if it is there.", rich_help_panel=_OUTPUT
        ),
    ] = False,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Predict rows by a fitted table, each with an interval; new groups can be adapted to first.

    For instance:  pullback predict runs/growth new.csv --adapt known.csv --out predicted.csv
    """
    import sys

    from pullback.cli import console
    from pullback.core.errors import InputError
    from pullback.runs import fitted
    from pullback.runs.folder import check_writable, write_text
    from pullback.runs.tables import read_table

    reporter = console.Reporter(quiet, json)
    if out is not None:
        if out.exists() and not (overwrite and out.is_file()):
            raise InputError(
                f"{str(out)!r} is there already", remedy="Give another --out, or add --overwrite"
            )
        check_writable(out.parent, "Give another file with --out")
    function = None
    if curve is not None:
        from pullback.runs.curves import find_curve

        function = find_curve(curve).curve
    opened = fitted.FittedRun.open(run, function)
    settings = opened.settings
    marks = (separator or settings.separator, decimal or settings.point)
    found = fitted.predict(
        opened,
        read_table(table, *marks),
        None if adapt is None else read_table(adapt, *marks),
        coverage=coverage,
        missing=missing,
    )
    for text in found.said:
        reporter.warn(text)
    record = {"run": str(run), "table": str(table), "coverage": found.coverage, "said": found.said}
    if out is not None:
        write_text(out, found.as_csv())
        record |= {"out": str(out), "rows": len(found.known)}
        reporter.result(record, f"{len(found.known)} predictions are in {out}.")
    elif json:
        reporter.result(record | {"predictions": found.rows()})
    else:
        sys.stdout.write(console.printable(found.as_csv()))
