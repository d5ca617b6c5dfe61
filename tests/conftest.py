import jax
import numpy as np
import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """The tests of a file share a process, and all that open the lab's page share another.

    Two browsers at once, each with a lab of its own, would wait for each other.
    """
    for item in items:
        opens = {"lab", "browser"} & set(getattr(item, "fixturenames", ()))
        if opens:
            item.add_marker(pytest.mark.browser)
        group = "browser" if opens else str(item.path.relative_to(item.config.rootpath))
        item.add_marker(pytest.mark.xdist_group(group))


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
