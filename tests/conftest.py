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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """For xdist: the tests of a file in one process, and all that look at the lab in one."""
    for item in items:
        looks = {"lab", "browser"} & set(getattr(item, "fixturenames", ()))
        if looks:
            item.add_marker(pytest.mark.browser)
        item.add_marker(pytest.mark.xdist_group("browser" if looks else item.location[0]))
