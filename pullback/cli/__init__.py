"""The command line. Nothing here imports JAX before a command runs: ``--help`` must be quick."""

from typing import Any


def main(argv: list[str] | None = None) -> None:
    """Run the command line.

    Args:
        argv: the arguments; those of the process if None.

    Raises:
        SystemExit: always; 0 when all went well, 2 for input that cannot be used, 1 for a
            computation or a disk that failed, 3 where another process of the same training was
            lost, 130 after Ctrl-C.
    """
    from pullback.cli.surroundings import end_at_once_when_interrupted

    # Before anything else is imported, which takes a part of a second.
    end_at_once_when_interrupted()
    from pullback.cli.program import run

    run(argv)


def __getattr__(name: str) -> Any:
    if name == "app":
        from pullback.cli.program import app

        return app
    raise AttributeError(f"module 'pullback.cli' has no attribute {name!r}")
