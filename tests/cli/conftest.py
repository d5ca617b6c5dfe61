import os
import shutil

import jax
import pytest
from cli_helpers import OMNIGLOT, SINUSOID, cli, write_omniglot
from jax.experimental.compilation_cache import compilation_cache


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


# Of the package, as the runs below are: one that was trained before these settings hold would
# differ in its last bits from those it is compared with.
@pytest.fixture(scope="package", autouse=True)
def quick(caches):
    """Little compiling, each program only once, and a cache of its own for decoded images."""
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(caches / "data"))
    # The program sets it before JAX starts, which must not outlive these tests.
    patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    settings = {
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(caches / "programs"),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    defaults = (False, None, 1.0, 0)
    for name, value in settings.items():
        jax.config.update(name, value)
        # For the processes that a test starts.
        patch.setenv(name.upper(), str(value))
    yield
    for name, value in zip(settings, defaults, strict=True):
        jax.config.update(name, value)
    # JAX opens its cache once, and would go on writing to it.
    compilation_cache.reset_cache()
    patch.undo()


@pytest.fixture(scope="package")
def omniglot(tmp_path_factory):
    folder = tmp_path_factory.mktemp("omniglot")
    return write_omniglot(folder, "background", ["Alpha", "Beta", "Gamma", "Delta"])


@pytest.fixture(scope="package")
def sinusoid_run(quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "sinusoid"
    cli("train", *SINUSOID, "--out", folder)
    return folder


@pytest.fixture(scope="package")
def omniglot_run(quick, tmp_path_factory, omniglot):
    folder = tmp_path_factory.mktemp("runs") / "omniglot"
    cli("train", *OMNIGLOT, "--data-dir", omniglot, "--out", folder)
    return folder


@pytest.fixture
def copied(tmp_path):
    """Copies a run, so that a test may spoil it."""
    return lambda run: shutil.copytree(run, tmp_path / "copy")
