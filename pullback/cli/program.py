"""The program ``pullback``: its commands, and what becomes of an error."""

import errno
import os
import sys
import traceback
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from pullback.cli.adapt import adapt
from pullback.cli.compare import compare
from pullback.cli.compilation_cache import keep_programs
from pullback.cli.distributed import begin, end, is_wanted, is_worker, supervise
from pullback.cli.evaluate import evaluate
from pullback.cli.export import export
from pullback.cli.fit import fit
from pullback.cli.info import info
from pullback.cli.lab import lab
from pullback.cli.predict import predict
from pullback.cli.study import study
from pullback.cli.surroundings import (
    at_home,
    find_modules_here,
    keep_logs_away,
    print_anywhere,
)
from pullback.cli.train import train


class _Group(TyperGroup):
    """Commands whose errors become one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error of this package ends it without a traceback."""
        from pullback.core.errors import InputError, PullbackError, shorten

        try:
            return super().invoke(ctx)
        except PullbackError as error:
            _refuse(str(error), 2 if isinstance(error, InputError) else 1)
        except OSError as error:
            # A reader that has seen enough, as head has, is no failure: Click ends quietly.
            if error.errno == errno.EPIPE:
                raise
            why = os.strerror(error.errno) if error.errno else str(error)
            what = "" if error.filename is None else f"{shorten(str(error.filename), 200)}: "
            _refuse(f"{what}{why}.", 2 if what else 1)
        except Exception as error:
            if not _is_out_of_memory(error):
                raise
            why = " ".join(str(error).split())[:200]
            _refuse(
                f"There is too little memory ({why}). Take a narrower model (--width, --hidden), "
                "fewer ways, shots or queries, fewer --tasks-per-step or fewer --devices.",
                1,
            )


def _refuse(text: str, code: int) -> NoReturn:
    from pullback.cli.console import Reporter

    Reporter().error(text)
    raise typer.Exit(code) from None


def _is_out_of_memory(error: Exception) -> bool:
    # XLA has one exception for everything, whose text begins with a code.
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)[:200]


app = typer.Typer(
    cls=_Group,
    name="pullback",
    help="Few-shot learning by implicit gradients: meta-train one initialisation, adapt it to "
    "new classes from a few examples, and know how far to trust each meta-gradient.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(evaluate)
app.command()(adapt)
app.command()(compare)
app.command()(fit)
app.command()(predict)
app.command()(export)
app.command()(study)
app.command()(lab)
app.command()(info)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"pullback {version('pullback')}")
        except PackageNotFoundError:
            typer.echo("pullback, not installed as a package")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None: ...


def run(argv: list[str] | None = None) -> None:
    """Run the command line, as :func:`pullback.cli.main` does."""
    argv = sys.argv[1:] if argv is None else argv
    print_anywhere()
    find_modules_here()
    with at_home():
        keep_programs()
        if is_wanted(argv):
            raise SystemExit(supervise(argv))
        if not is_worker():
            keep_logs_away()
            app(args=argv, prog_name="pullback")
        begin()
        try:
            app(args=argv, prog_name="pullback")
        except SystemExit as done:
            end(done.code if isinstance(done.code, int) else int(done.code is not None))
        except BaseException:
            traceback.print_exc()
            end(1)
