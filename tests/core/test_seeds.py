"""Seeds: of 32 bits, so that none is taken for another one, wherever one is given."""

import jax
import numpy as np
import pytest

from pullback.core.errors import InputError, check_seed, shorten, span
from pullback.linear import Nystrom
from pullback.runs import config as configs
from pullback.runs.compare import compare
from pullback.runs.predict import adapt_to_examples
from pullback.runs.score import evaluate_run
from pullback.study import study
from pullback.tasks import ClassSet, draw_split, load_glyphs

CLASSES = ClassSet.of("toy", list(np.zeros((4, 2, 3), np.float32)), list("abcd"))
DOORS = {
    "check": check_seed,
    "setting": lambda seed: configs.resolve({"training": {"seed": seed}}),
    "split setting": lambda seed: configs.resolve({"data": {"split_seed": seed}}),
    "glyphs": lambda seed: load_glyphs(seed),
    "split": lambda seed: draw_split(CLASSES, "character", seed, 1, 1),
    "Nystrom": lambda seed: Nystrom(seed=seed),
    "study": lambda seed: study("x", seed=seed, observer=None),  # type: ignore[arg-type]
    "compare": lambda seed: compare({}, "x", None, seed=seed, observer=None),  # type: ignore[arg-type]
}
BAD = [2**32, 10**20, 10**5000, -1, True, 1.0, "1", None]


@pytest.mark.wrong_types
@pytest.mark.parametrize("seed", BAD, ids=lambda seed: shorten(seed, 20))
@pytest.mark.parametrize("door", DOORS)
def test_no_seed_beyond_32_bits_comes_in(door, seed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"whole numbers from 0 to 4294967295") as caught:
        DOORS[door](seed)
    assert len(str(caught.value)) < 300
    assert not list(tmp_path.iterdir())


def test_the_largest_seed_is_one_of_its_own():
    for seed in (0, 2**32 - 1):
        check_seed(seed)
        assert configs.resolve({"training": {"seed": seed}}).training.seed == seed
    keys = {tuple(jax.random.key_data(jax.random.key(s)).tolist()) for s in (0, 1, 2**32 - 1)}
    assert len(keys) == 3


def test_runs_are_not_scored_by_another_seed(tmp_path):
    class Run:
        folder = tmp_path
        split = None

        def check_trained(self):
            """There is nothing to check."""

    for score in (
        lambda seed: evaluate_run(Run(), seed=seed),
        lambda seed: adapt_to_examples(Run(), "x", "y", seed=seed),
    ):
        with pytest.raises(InputError, match="seed is 4294967296"):
            score(2**32)


def test_bounds_that_are_one_number_are_said_as_one():
    assert (span(2, 2), span(2, 5)) == ("2", "2 to 5")
