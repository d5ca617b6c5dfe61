"""The examples run as they stand, and what they print is what they promise."""

import os
import re
import subprocess
import sys
from math import nan
from pathlib import Path

import numpy as np
import pytest
from compiling import ENVIRONMENT
from PIL import Image

ROOT = Path(__file__).parents[1]


def lines_of(example: str, *options: str | Path) -> dict[str, tuple[float, ...]]:
    """What an example prints: the numbers of each line, by the words before them."""
    done = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples" / example, *options],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    line = re.compile(r"(.+): ([\d.]+)%?(?: ± ([\d.]+))?")
    lines = map(line.fullmatch, done.stdout.splitlines())
    return {line[1]: tuple(float(n) for n in line.groups()[1:] if n) for line in lines if line}


def documented(section: str) -> list[list[float]]:
    """The numbers of the rows of a section's table in docs/examples.md; nan for a dash."""
    text = (ROOT / "docs/examples.md").read_text()
    (part,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    return [[nan if c == "–" else float(c.removesuffix(" %")) for c in row] for row in rows[2:]]


@pytest.fixture
def plot(tmp_path):
    """The options by which an example draws into a file, which has to be a picture in the end."""
    path = tmp_path / "plot.png"
    yield "--plot", path
    with Image.open(path) as picture:
        assert picture.size > (500, 300)
        # A blank one would have a single grey.
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


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


def test_new_machines_are_predicted_from_a_few_of_their_rows(plot):
    found = lines_of("machines.py", *plot)
    errors = {k: found[f"rows seen {k}, error in µm"][0] for k in (0, 1, 3, 5)}
    assert errors[0] == pytest.approx(found["pooled, error in µm"][0], rel=0.05)
    assert errors[1] < 0.8 * errors[0]
    assert errors[0] - errors[3] > 0.9 * (errors[0] - errors[5])
    # The noise of a measurement is 1.5.
    assert 1.4 < errors[5] < 1.8
    for k in (1, 3, 5):
        alone, *_ = found[f"rows seen {k}, error in µm of a machine alone"]
        assert errors[k] < alone
    # Two parameters of five rows.
    assert alone == pytest.approx(errors[5], rel=0.05)
    widths = [found[f"rows seen {k}, width of the interval of 90 % in µm"][0] for k in errors]
    assert widths == sorted(widths, reverse=True)
    assert all(85 <= found[f"rows seen {k}, targets within it"][0] <= 95 for k in errors)
    for k, *numbers in documented("Machines"):
        names = ("error in µm", "error in µm of a machine alone")
        names += ("width of the interval of 90 % in µm", "targets within it")
        printed = [found.get(f"rows seen {k:.0f}, {name}", (nan,))[0] for name in names]
        np.testing.assert_allclose(numbers, printed, rtol=0.02)
