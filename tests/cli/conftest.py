import shutil
from contextlib import contextmanager

import pytest
from cli_helpers import OMNIGLOT, SINUSOID, cli, write_omniglot
from compiling import ENVIRONMENT, cheaply


@pytest.fixture(scope="session")
def caches(tmp_path_factory):
    return tmp_path_factory.mktemp("caches")


@contextmanager
def quickly(caches):
    """Little compiling, and a cache of its own for decoded images."""
    with pytest.MonkeyPatch.context() as patch, cheaply():
        patch.setenv("XDG_CACHE_HOME", str(caches / "data"))
        # The program adds to XLA_FLAGS before JAX starts, which must not outlive these tests.
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


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
