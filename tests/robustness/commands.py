"""Command lines that cannot be meant, and what their message must say."""

COMMANDS = {
    "unknown algorithm": (
        ["train", "--algorithm", "imalm"],
        ["'imalm'", "Did you mean 'imaml'?"],
    ),
}
