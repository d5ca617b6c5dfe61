"""The examples run as they stand, and what they print is what they promise."""

import os
import re
import subprocess
import sys
from pathlib import Path

from compiling import ENVIRONMENT

ROOT = Path(__file__).parents[1]


def lines_of(example: str) -> dict[str, tuple[float, ...]]:
    """What an example prints: the numbers of each line, by the words before them."""
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / example],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    line = re.compile(r"(.+): ([\d.]+)%?(?: ± ([\d.]+))?")
    lines = map(line.fullmatch, done.stdout.splitlines())
    return {line[1]: tuple(float(n) for n in line.groups()[1:] if n) for line in lines if line}


def test_a_loss_and_a_model_of_ones_own_are_meta_learned_and_certified():
    found = lines_of("own_loss_and_model.py")
    before, _ = found["query loss before meta-training"]
    after, interval = found["query loss after meta-training"]
    assert after + 2 * interval < before / 2
    of_solver, *_ = found["median estimated error from the inner solver"]
    of_solve, *_ = found["median estimated error from the linear solve"]
    # The verdict is bad from 50 % on; the solves are set to a residual of 10 % and less.
    assert 0 < of_solver < 20
    assert 0 < of_solve < 20
    assert found["tasks with the verdict ok"][0] > 80


def test_data_of_ones_own_are_meta_learned_from():
    found = lines_of("own_data.py")
    before, _ = found["mean squared error on new stations before meta-training"]
    after, interval = found["mean squared error on new stations after meta-training"]
    assert after + 2 * interval < before / 2
    before, _ = found["accuracy on new classes before meta-training"]
    after, interval = found["accuracy on new classes after meta-training"]
    assert after - 2 * interval > before + 0.05


def test_pictures_of_ones_own_are_meta_learned_from():
    found = lines_of("own_pictures.py")
    assert found["channels of the pictures"] == (1,)
    before, _ = found["accuracy before meta-training"]
    after, interval = found["accuracy after meta-training"]
    assert after - interval > before
    # By chance it would be a third.
    assert found["new pictures classified rightly"][0] > 40


def test_an_algorithm_of_ones_own_stands_beside_imaml():
    found = lines_of("own_algorithm.py")
    # Predicting zero costs 4.4 on average over the sinusoid's tasks.
    for name in ("halfway", "imaml"):
        error, interval = found[f"mean squared error of {name}"]
        assert 0 < error + interval < 4.4
    assert found["mean squared error of imaml"][0] < found["mean squared error of halfway"][0]
