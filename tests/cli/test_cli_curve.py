"""``pullback fit --curve`` and ``predict``: the user's own curve from a file."""

import json

import numpy as np
import pandas as pd
import pytest
from cli_helpers import cli

CURVE = """
import jax.numpy as jnp
from pullback.sklearn import CurveRegressor

three = 3

def left(row, full, rate):
    return full * jnp.exp(-rate * row["day"])

model = CurveRegressor(left, ["full>0", "rate>0"])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A curve in a file, and batteries that run down, as it says."""
    root = tmp_path_factory.mktemp("curve")
    (root / "battery.py").write_text(CURVE)
    (root / "broken.py").write_text("1 / 0")
    rng = np.random.default_rng(0)
    battery, day = np.repeat(np.arange(8), 6), np.tile(np.arange(6.0), 8)
    full, rate = np.exp([np.log(5), np.log(0.3)] + 0.2 * rng.normal(size=(8, 2)))[battery].T
    charge = full * np.exp(-rate * day) + 0.05 * rng.normal(size=48)
    table = pd.DataFrame({"battery": battery, "day": day, "charge": charge.round(3)})
    table.to_csv(root / "t.csv", index=False)
    return root


def fit(folder, *more, code=0):
    asked = ("fit", folder / "t.csv", "--target", "charge", "--group", "battery")
    return cli(*asked, *more, code=code)


def test_a_curve_is_fitted_scored_saved_and_predicted_from(folder, quick):
    run = folder / "run"
    done = fit(folder, "--curve", f"{folder / 'battery.py'}:model", "--out", run)
    assert "Nonlinear mixed model" in done.stdout
    scores = json.loads((run / "report.json").read_text())["held_back"]
    assert list(scores) == ["pooled", "linear", "curve"]
    assert scores["curve"]["2"]["error"] < scores["linear"]["2"]["error"] / 2
    assert (run / "groups.png").is_file()
    ask = ("predict", run, folder / "t.csv", "--adapt", folder / "t.csv")
    refused = cli(*ask, code=2)
    assert f"--curve {folder / 'battery.py'}:model" in refused.stderr
    found = cli(*ask, "--curve", f"{folder / 'battery.py'}:left", "--json").json["predictions"]
    assert {row["known"] for row in found} == {"adapted"}
    charge = pd.read_csv(folder / "t.csv")["charge"]
    assert np.abs(charge - [row["prediction"] for row in found]).mean() < 0.1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--curve", "battery"], "module:name or file.py:name"),
        (["--curve", "{}/none.py:left"], "There is no file"),
        (["--curve", "{}/broken.py:left"], "ZeroDivisionError"),
        (["--curve", "no_such_module:left"], "No module named"),
        (["--curve", "{}/battery.py:lefd"], "left"),
        (["--curve", "{}/battery.py:three"], "an object of type int"),
        (["--curve", "{}/battery.py:model", "--parameters", "full>0"], "--parameters was given"),
        (["--parameters", "full>0"], "without --curve"),
        (["--curve", "{}/battery.py:left", "--parameters", "full>0"], "would be given"),
        (["--curve", "{}/battery.py:left", "--classify"], "--classify and --curve"),
    ],
)
def test_what_is_no_curve_is_refused_before_any_fit(folder, options, words):
    out = folder / "refused"
    done = fit(folder, *(each.format(folder) for each in options), "--out", out, code=2)
    assert words in done.stderr
    assert not out.exists()
