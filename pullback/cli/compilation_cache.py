"""Compiled programs kept on disk, so that a second start need not compile.

Set through the environment, which JAX reads when it is imported: only a command that computes
pays for that, and processes it starts inherit the cache.
"""

import os
from pathlib import Path

MOST_BYTES = 512 * 2**20
"""The programs used least recently make room beyond this; one of the program takes 1 to 5 MB."""

LEAST_SECONDS = 0.2
"""What compiles faster than this is compiled again."""


def keep_programs() -> None:
    """Use JAX's own cache of programs, in the user's cache folder.

    What is set already holds: ``JAX_COMPILATION_CACHE_DIR`` for another folder,
    ``JAX_ENABLE_COMPILATION_CACHE=0`` for none. A folder that cannot be written is done without.
    """
    # Here, so that a library user does not import the command line's dependency for nothing.
    import platformdirs

    folder = Path(platformdirs.user_cache_dir("pullback")) / "programs"
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        if not _is_known():
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            return
        if not os.access(folder, os.W_OK | os.X_OK):
            return
    settings = {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_COMPILATION_CACHE_MAX_SIZE": MOST_BYTES,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": LEAST_SECONDS,
    }
    for name, value in settings.items():
        os.environ.setdefault(name, str(value))


def _is_known() -> bool:
    """Whether this process's user and group have names, which JAX asks of each file it keeps."""
    try:
        import grp
        import pwd
    except ImportError:  # No system of POSIX.
        return True
    try:
        return bool(pwd.getpwuid(os.geteuid()) and grp.getgrgid(os.getegid()))
    except KeyError:
        return False
