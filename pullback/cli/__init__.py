"""The command line. Nothing here imports JAX before a command runs: ``--help`` must be quick."""

from pullback.cli.app import app, main

__all__ = ["app", "main"]
