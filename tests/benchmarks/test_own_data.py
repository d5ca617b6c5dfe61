"""The comparison on tables of one's own runs, on a small one."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import own_data

pytestmark = pytest.mark.usefixtures("tiny")


def drawn(name):
    rng = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(12)], 6)
    own = np.repeat(rng.normal(size=(12, 2)), 6, axis=0)
    days = np.tile(np.arange(6.0), 12)
    y = own[:, 0] + (1 + own[:, 1]) * days + 0.1 * rng.normal(size=72)
    return pd.DataFrame({"Days": days}), y, groups


def test_rows_of_a_new_group_help_the_mixed_model_and_not_the_pooled_one(monkeypatch):
    monkeypatch.setattr(own_data, "read", drawn)
    pooled, linear = (own_data.score("sleepstudy", name, 0) for name in ("pooled", "linear"))
    errors = {k: s["error"] for k, s in linear["scores"].items()}
    assert errors["5"] < errors["2"] < errors["0"] / 3
    assert pooled["scores"]["5"]["error"] > 5 * errors["5"]
    assert 0.7 < linear["scores"]["3"]["coverage"] <= 1
    table = own_data.as_table([pooled, linear])
    assert f"| sleepstudy | linear | {errors['0']:.3f} / " in table


def test_a_large_table_is_reported():
    report = own_data.large(30)
    assert report.startswith("300 rows in 30 groups")
    assert "a new group of five rows" in report


def test_a_comparison_goes_on_from_its_file_and_names_what_is_not_installed(
    monkeypatch, tmp_path, capsys
):
    asked = []

    def score(name, method, seed):
        asked.append((name, method, seed))
        scores = {"0": {"error": 1 / 3, "coverage": 0.9}}
        return {"table": name, "method": method, "seed": seed, "cpu": 0.1, "scores": scores}

    monkeypatch.setattr(own_data.baselines, "PACKAGES", {"MixedLM": "no_such_package"})
    kept = tmp_path / "kept.json"
    parser = own_data.options("", own_data.TABLES, own_data.METHODS)
    one = ["--sets", "Milk", "--methods", "pooled", "MixedLM", "--json", str(kept)]
    own_data.compare(parser.parse_args([*one, "--seeds", "1"]), score, own_data.cell)
    assert "MixedLM is left out: pip install no_such_package" in capsys.readouterr().out
    own_data.compare(parser.parse_args([*one, "--seeds", "2"]), score, own_data.cell)
    assert asked == [("Milk", "pooled", 0), ("Milk", "pooled", 1)]
    assert [r["seed"] for r in own_data.known(kept)] == [0, 1]
    assert own_data.known(kept)[0]["scores"]["0"]["error"] == 0.333333
    assert "| Milk | pooled | 0.333 / 90 |" in capsys.readouterr().out
