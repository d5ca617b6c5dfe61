"""The program ``pullback``: its commands, and what becomes of an error."""

import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pullback.cli.adapt import adapt
from pullback.cli.compare import compare
from pullback.cli.compilation_cache import keep_programs
from pullback.cli.distributed import begin, end, is_wanted, is_worker, supervise
from pullback.cli.evaluate import evaluate
from pullback.cli.info import info
from pullback.cli.lab import lab
from pullback.cli.study import study
from pullback.cli.train import train


class _Group(TyperGroup):
    """Commands whose errors become one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; an error of this package ends it without a traceback."""
        from pullback.core.errors import InputError, PullbackError

        try:
            return super().invoke(ctx)
        except PullbackError as error:
            from pullback.cli.console import Reporter

            Reporter().error(str(error))
            raise typer.Exit(2 if isinstance(error, InputError) else 1) from None


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


def main(argv: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        argv: the arguments; those of the process if None.

    Raises:
        SystemExit: always; 0 when all went well, 2 for input that cannot be used, 1 for a
            computation or a disk that failed, 3 where another process of the same training was
            lost, 130 after Ctrl-C.
    """
    argv = sys.argv[1:] if argv is None else argv
    # For package.module:attribute in the folder that the program was started in.
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    keep_programs()
    if is_wanted(argv):
        raise SystemExit(supervise(argv))
    if not is_worker():
        app(args=argv, prog_name="pullback")
    begin()
    try:
        app(args=argv, prog_name="pullback")
    except SystemExit as done:
        end(done.code if isinstance(done.code, int) else int(done.code is not None))
    except BaseException:
        traceback.print_exc()
        end(1)
