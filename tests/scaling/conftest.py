import pytest
from scaling_helpers import QUICK, STARTED


@pytest.fixture(scope="package", autouse=True)
def quick(tmp_path_factory):
    """Little compiling in the processes that tests start, each program only once."""
    patch = pytest.MonkeyPatch()
    for name, value in QUICK.items():
        patch.setenv(name, value)
    patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("programs")))
    patch.setenv("XLA_FLAGS", "")
    for name in ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST", "OMPI_MCA_orte_hnp_uri"):
        patch.delenv(name, raising=False)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def nothing_left_running():
    """After a test that failed halfway; a program's end is also that of its child."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()
