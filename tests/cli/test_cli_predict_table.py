"""``pullback predict``: known, unknown and adapted groups, and tables that do not fit the run."""

import csv
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from cli_helpers import cli
from table_helpers import FIT, growth, write

from pullback.runs.fitted import FittedRun

KNOWN = growth()
NEW = growth(children=14, seed=1).query("child >= '012'")


@pytest.fixture(scope="module")
def run(quick, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    path = write(KNOWN, root / "growth.csv")
    cli("fit", path, *FIT, "--no-score", "--out", root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def model(run):
    return FittedRun.open(run).model


def rows_of(done):
    return list(csv.DictReader(io.StringIO(done.stdout)))


def numbers(rows, name):
    return np.array([float(row[name]) for row in rows])


def test_known_groups_have_their_own_model_and_others_the_population_s(run, model, tmp_path):
    table = pd.concat([KNOWN[:4], NEW]).drop(columns="height")
    done = cli("predict", run, write(table, tmp_path / "new.csv"))
    rows = rows_of(done)
    assert list(rows[0]) == ["group", "prediction", "std", "lower", "upper", "known"]
    assert [row["group"] for row in rows] == table["child"].tolist()
    assert [row["known"] for row in rows] == ["yes"] * 4 + ["no"] * len(NEW)
    mean, deviation = model.predict(
        table[["age", "sex"]], groups=table["child"].to_numpy(), return_std=True
    )
    # To the bit: the numbers are written out as they are.
    np.testing.assert_array_equal(numbers(rows, "prediction"), mean)
    np.testing.assert_array_equal(numbers(rows, "std"), deviation)
    np.testing.assert_allclose(numbers(rows, "upper"), mean + 1.6448536 * deviation, rtol=1e-7)
    assert "2 of 3 groups are not known" in done.stderr


def test_without_a_column_of_groups_all_have_the_population_s_model(run, model, tmp_path):
    path = write(KNOWN[["sex", "age"]], tmp_path / "new.csv")
    done = cli("predict", run, path, "--coverage", "0.5", "--json")
    rows = done.json["predictions"]
    assert "group" not in rows[0]
    assert {row["known"] for row in rows} == {"no"}
    mean, deviation = model.predict(KNOWN[["age", "sex"]], return_std=True)
    np.testing.assert_array_equal([row["prediction"] for row in rows], mean)
    lower = [row["lower"] for row in rows]
    np.testing.assert_allclose(lower, mean - 0.67448975 * deviation, rtol=1e-7)


def test_new_groups_are_adapted_to_their_rows(run, model, tmp_path):
    first = NEW.groupby("child").head(3)
    ask = write(NEW.drop(columns="height"), tmp_path / "new.csv")
    known = write(first, tmp_path / "known.csv")
    rows = rows_of(cli("predict", run, ask, "--adapt", known))
    assert {row["known"] for row in rows} == {"adapted"}
    for child, own in NEW.groupby("child"):
        seen = own[:3]
        wanted = model.adapt(seen[["age", "sex"]], seen["height"]).predict(own[["age", "sex"]])
        found = [float(row["prediction"]) for row in rows if row["group"] == child]
        np.testing.assert_allclose(found, wanted)
    # Rows of no name are all of the one group that is asked for.
    one = NEW[NEW["child"] == "012"]
    nameless = write(one[:3].drop(columns="child"), tmp_path / "nameless.csv")
    for table in (one, one.drop(columns="child")):
        ask = write(table.drop(columns="height"), tmp_path / "one.csv")
        again = rows_of(cli("predict", run, ask, "--adapt", nameless))
        assert {row["known"] for row in again} == {"adapted"}
        np.testing.assert_allclose(
            numbers(again, "prediction"), numbers(rows[: len(one)], "prediction")
        )


def test_whose_rows_they_are_has_to_be_clear(run, tmp_path):
    named = write(NEW, tmp_path / "named.csv")
    nameless = write(NEW.drop(columns="child"), tmp_path / "nameless.csv")
    done = cli("predict", run, named, "--adapt", nameless, code=2)
    assert "has no column 'child', and the table to predict is of 2 groups" in done.stderr
    done = cli("predict", run, nameless, "--adapt", named, code=2)
    assert "has a column 'child', which the table to predict lacks" in done.stderr
    done = cli("predict", run, named, "--adapt", write(KNOWN, tmp_path / "old.csv"))
    assert "12 groups of the fit are adapted anew" in done.stderr
    assert "12 groups were adapted and have no row to predict" in done.stderr
    without = write(NEW.drop(columns="height"), tmp_path / "without.csv")
    done = cli("predict", run, named, "--adapt", without, code=2)
    assert "lacks the columns 'height' of the fit" in done.stderr


def test_columns_are_those_of_the_fit(run, tmp_path):
    done = cli("predict", run, write(NEW.drop(columns="sex"), tmp_path / "t.csv"), code=2)
    assert "lacks the columns 'sex' of the fit. Allowed: a table with age, sex" in done.stderr
    path = write(NEW.assign(note="x"), tmp_path / "t.csv")
    assert "without a use: height, note" in cli("predict", run, path).stderr
    done = cli("predict", run, write(NEW.assign(age="old"), tmp_path / "t.csv"), code=2)
    assert "The column 'age' holds texts, such as 'old'. Allowed: numbers, as in fit" in done.stderr
    # What was a category stays one, though all that is left of it reads as numbers.
    done = cli("predict", run, write(NEW.assign(sex=1), tmp_path / "t.csv"))
    assert "have a category that was not there in fit" in done.stderr


def test_a_row_that_misses_a_value_has_no_prediction_when_that_is_asked_for(run, tmp_path):
    table = NEW.astype({"age": object}).drop(columns="height")
    table.iloc[1, table.columns.get_loc("age")] = None
    path = write(table, tmp_path / "t.csv")
    assert "values are missing: 'age' 1" in cli("predict", run, path, code=2).stderr
    done = cli("predict", run, path, "--missing", "drop")
    assert "1 of 9 rows" in done.stderr
    rows = rows_of(done)
    assert len(rows) == len(table)
    assert rows[1]["prediction"] == rows[1]["known"] == ""
    assert float(rows[2]["prediction"])


def test_predictions_go_into_a_file_which_is_not_replaced_unasked(run, tmp_path):
    path, out = write(NEW, tmp_path / "t.csv"), tmp_path / "below/predicted.csv"
    done = cli("predict", run, path, "--out", out, "--json")
    assert done.json["rows"] == len(NEW)
    assert len(pd.read_csv(out)) == len(NEW)
    before = out.read_bytes()
    assert "is there already" in cli("predict", run, path, "--out", out, code=2).stderr
    assert out.read_bytes() == before
    shown = cli("predict", run, path, "--out", out, "--overwrite").stdout
    assert f"{len(NEW)} predictions are in" in shown


def test_what_cannot_be_meant_is_refused(run, tmp_path):
    path = write(NEW, tmp_path / "t.csv")
    assert "coverage=90" in cli("predict", run, path, "--coverage", "90", code=2).stderr
    assert "'skip'" in cli("predict", run, path, "--missing", "skip", code=2).stderr
    assert "--separator" in cli("predict", run, path, "--separator", ";", code=2).stderr


def edited(name, change):
    def edit(folder):
        path = folder / name
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))

    return edit


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "fit.json").unlink(), "fit.json is missing"),
        (lambda f: (f / "fit.json").write_text("{"), "fit.json' is broken"),
        (edited("fit.json", lambda r: r.pop("target")), "target is missing"),
        (edited("fit.json", lambda r: r.update(format=9)), "of format 9"),
        (edited("fit.json", lambda r: r.update(columns="x")), "columns is no list"),
        (edited("fit.json", lambda r: r["kinds"].pop()), "are not equally many"),
        (edited("fit.json", lambda r: r.update(columns=["a", "b"])), "are of two fits"),
        (lambda f: (f / "model.npz").unlink(), "model.npz' is missing"),
    ],
)
def test_a_damaged_run_is_refused(spoil, words, run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "copy")
    spoil(folder)
    done = cli("predict", folder, write(NEW, tmp_path / "t.csv"), code=2)
    assert words in done.stderr
