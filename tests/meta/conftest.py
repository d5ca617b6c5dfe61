import pytest
from scaling_helpers import QUICK, STARTED


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module", autouse=True)
def quick(programs):
    """Little compiling in the processes that tests start, each program only once."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setenv(name, value)
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(programs))
        patch.setenv("XLA_FLAGS", "")
        for name in ("SLURM_JOB_ID", "KUBERNETES_SERVICE_HOST", "OMPI_MCA_orte_hnp_uri"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(autouse=True)
def nothing_left_running():
    """After a test that failed halfway; a program's end is also that of its child."""
    yield
    while STARTED:
        with STARTED.pop() as process:
            process.kill()
