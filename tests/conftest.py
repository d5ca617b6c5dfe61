import jax
import numpy as np
import pytest


@pytest.fixture(scope="module", autouse=True)
def programs_released():
    """Thousands of compiled programs in one process exhaust its memory mappings."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def tiny():
    """For modules whose problems are tiny: nearly all of their time goes into compiling."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def x64(tiny):
    """64-bit numbers for one module; others keep JAX's default, as a user has it."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def strict_promotion():
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """One process for each file, and one for all that opens a browser."""
    for item in items:
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(item.location[0]))
