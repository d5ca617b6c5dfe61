"""``pullback lab``."""

from pathlib import Path
from typing import Annotated

import typer

from pullback.cli import options as o

_PANEL = "Server"


def lab(
    port: Annotated[
        int, typer.Option("--port", help="Where to listen; 0 for any.", rich_help_panel=_PANEL)
    ] = 5010,
    host: Annotated[
        str,
        typer.Option(
            "--host",
            help="The address to bind to. Anything but loopback lets others in, unasked.",
            rich_help_panel=_PANEL,
        ),
    ] = "127.0.0.1",
    allow_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            help="A name by which visitors may call this machine, beside localhost and --host; may "
            "be given several times.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            "--run", help="Folder of a run or of several, to look at.", show_default=False
        ),
    ] = None,
    browser: Annotated[
        bool,
        typer.Option("--browser/--no-browser", help="Open the page.", rich_help_panel=_PANEL),
    ] = True,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export",
            help="Write a page that needs no server into this folder, and end.",
            show_default=False,
        ),
    ] = None,
    quiet: o.Quiet = False,
    json: o.Json = False,
) -> None:
    """Open a page of figures that the library computes while you look.

    For instance:  pullback lab   or   pullback lab --run runs --no-browser
    """
    from pullback.cli.console import Reporter
    from pullback.core.errors import InputError

    reporter = Reporter(quiet, json)
    if run is not None and not run.is_dir():
        raise InputError(f"--run {run} is no folder", allowed="a folder of a run or of several")
    try:
        import latex2mathml  # noqa: F401
        import panel  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"The lab needs the package {error.name!r}, which is not installed",
            remedy="pip install 'pullback[lab]'",
        ) from None
    if export is not None:
        from pullback.lab.export import export_page

        page = export_page(export, run=run)
        reporter.result({"page": str(page)}, f"The page is {page}.")
        return
    from pullback.lab import server

    def announce(url: str) -> None:
        reporter.result({"url": url}, f"The lab is at {url}  (Ctrl-C ends it)")

    started = server.start(port=port, host=host, allow_hosts=allow_hosts or (), run=run)
    server.serve(started, browser=browser, announce=announce)
