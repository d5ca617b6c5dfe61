"""Folders that a program may be handed, and what its message must say.

A row has a function that writes into an empty folder, a command line in which ``{}`` stands for
that folder, and words of the message.
"""


def write_nothing(folder):
    """The folder stays empty."""


FOLDERS = {
    "empty folder as a run": (write_nothing, ["info", "{}"], ["config.toml"]),
}
