import pytest
from compiling import ENVIRONMENT
from parallel_helpers import STARTED


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Little compiling in the processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_PLATFORMS", "cpu")
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
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
