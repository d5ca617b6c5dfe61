"""Cheaper compilation, for tests whose problems are so small that compiling takes all the time.

A session compiles thousands of programs, most of which run once. Tests of speed, of memory and of
what a user's programs round to keep JAX's own settings.
"""

import os
import tempfile
from collections.abc import Callable
from contextlib import contextmanager

import jax
import pytest
from jax._src import compiler

OPTIONS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
"""No MLIR pipeline for every fusion: the LLVM code is written directly. No parts of a program that
are compiled side by side: the other core has tests of its own."""

ENVIRONMENT = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": " ".join(f"--{name}={str(value).lower()}" for name, value in OPTIONS.items()),
}
"""The settings of ``cheaply`` for a process that a test starts."""


@contextmanager
def cheaply():
    """Programs compiled here take about a third of the time to compile, and run slower."""
    usual = compiler.get_compile_options

    def options(*args, env_options_overrides=None, **kwargs):
        given = OPTIONS | (env_options_overrides or {})
        return usual(*args, env_options_overrides=given, **kwargs)

    before = jax.config.values["jax_disable_most_optimizations"]
    with pytest.MonkeyPatch.context() as patch:
        # XLA reads XLA_FLAGS once per process, and JAX has no setting for one of XLA's options.
        patch.setattr(compiler, "get_compile_options", options)
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", before)


def keep_programs() -> Callable[[], None]:
    """Keep every compiled program of this process, and of those it starts, in a new folder.

    Released programs are then read and not compiled again. The folder is of one process, since
    JAX does not write its files in one step.

    Returns:
        What removes the folder.
    """
    folder = tempfile.TemporaryDirectory(prefix="pullback-programs-")
    settings = {
        "jax_compilation_cache_dir": folder.name,
        "jax_compilation_cache_max_size": -1,
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)
    return folder.cleanup
