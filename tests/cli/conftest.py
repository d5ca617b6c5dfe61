import os
import shutil
from contextlib import contextmanager

import jax
import pytest
from cli_helpers import OMNIGLOT, SINUSOID, cli, write_omniglot
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@contextmanager
def quickly(caches):
    """Little compiling, each program only once, and a cache of its own for decoded images."""
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(caches / "programs"),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in settings}
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(caches / "data"))
            # The program sets it before JAX starts, which must not outlive these tests.
            patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
            for name, value in settings.items():
                jax.config.update(name, value)
                # For the processes that a test starts.
                patch.setenv(name.upper(), str(value))
            yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        # JAX opens its cache once, and would go on writing to it.
        compilation_cache.reset_cache()


@pytest.fixture(scope="module", autouse=True)
def quick(caches):
    with quickly(caches):
        yield


@pytest.fixture(scope="session")
def omniglot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("omniglot")
    return write_omniglot(folder, "background", ["Alpha", "Beta", "Gamma", "Delta"])


@pytest.fixture(scope="session")
def sinusoid_run(caches, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "sinusoid"
    # As the runs that it is compared with: other settings would change its last bits.
    with quickly(caches):
        cli("train", *SINUSOID, "--out", folder)
    return folder


@pytest.fixture(scope="session")
def omniglot_run(caches, tmp_path_factory, omniglot):
    folder = tmp_path_factory.mktemp("runs") / "omniglot"
    with quickly(caches):
        cli("train", *OMNIGLOT, "--data-dir", omniglot, "--out", folder)
    return folder


@pytest.fixture
def copied(tmp_path):
    """Copies a run, so that a test may spoil it."""
    return lambda run: shutil.copytree(run, tmp_path / "copy")
