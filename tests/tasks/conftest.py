import pytest


@pytest.fixture(scope="module", autouse=True)
def quick(tiny):
    """All of these programs are small."""
