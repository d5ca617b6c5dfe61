import gc
from pathlib import Path

import jax
import numpy as np
import pytest
from compiling import cheaply, keep_programs
from xdist.scheduler import LoadFileScheduling


def pytest_configure(config):
    config.add_cleanup(keep_programs())


def pytest_collection_finish():
    """What the imports made stays to the end; collecting garbage need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module", autouse=True)
def programs_released():
    """Thousands of compiled programs in one process exhaust its memory mappings."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def tiny():
    """For modules whose problems are tiny: nearly all of their time goes into compiling."""
    with cheaply():
        yield


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


DEAREST = (
    "lab",
    "meta/test_parallel_processes",
    "algorithms/test_grid",
    "implicit/test_certificate",
    "implicit/test_root_values",
    "cli/test_cli_train",
    "cli/test_cli_compare",
    "test_annotations",
    "cli/test_cli_learned",
    "cli/test_cli_resume",
    "solvers/test_black_boxes",
    "test_documents",
    "algorithms/test_protocol",
)
"""Files that take longest. They come first, lest one be alone at the end beside an idle process."""


def _turn(item):
    name = item.path.relative_to(Path(__file__).parent).as_posix()
    found = (turn for turn, dear in enumerate(DEAREST) if name.startswith(dear))
    return next(found, len(DEAREST))


def pytest_collection_modifyitems(items):
    items.sort(key=_turn)
    for item in items:
        if {"lab", "browser"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.browser)


class _ByFile(LoadFileScheduling):
    """A file's tests in one process, as with ``--dist loadfile``, and all those of the lab in one.

    They share one lab and one browser; two of each would train the same models at once.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "lab" if nodeid.startswith("tests/lab/") else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.getvalue("dist") != "loadfile":
        return None
    # Otherwise xdist begins with the files of most tests.
    config.option.loadscopereorder = False
    return _ByFile(config, log)
