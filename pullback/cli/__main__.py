"""``python -m pullback.cli``."""

from pullback.cli.app import main

main()
