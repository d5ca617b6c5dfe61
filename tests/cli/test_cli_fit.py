"""``pullback fit``: what it reports, saves and says of odd tables."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_helpers import cli
from PIL import Image
from table_helpers import FIT, growth, write

from pullback.runs import fitting
from pullback.runs.fitted import FittedRun
from pullback.runs.fitting import Settings, prepare
from pullback.runs.tables import MISSING, interpret, read_table


@pytest.fixture(scope="module")
def run(quick, tmp_path_factory):
    """A scored fit, and what it printed."""
    root = tmp_path_factory.mktemp("fit")
    table = write(growth(), root / "growth.csv")
    return cli("fit", table, *FIT, "--out", root / "run"), root / "run"


def prepared(path, **settings):
    """What a fit makes of a file before it computes anything."""
    table = read_table(path)
    asked = fitting.choose(table, Settings("height", "child", **settings), (), ())
    return prepare(table, asked)


def test_the_report_is_of_held_back_groups_and_stands_in_the_run(run):
    done, folder = run
    record = json.loads((folder / "report.json").read_text())
    assert list(record["held_back"]) == ["pooled", "linear"]
    linear, pooled = record["held_back"]["linear"], record["held_back"]["pooled"]
    assert list(linear) == list(pooled) == ["0", "1", "2", "3", "5"]
    # 66 rows in 12 groups, each of which keeps k of them to itself.
    assert [scores["rows"] for scores in linear.values()] == [66, 54, 42, 30, 9]
    assert linear["3"]["error"] < pooled["3"]["error"] / 2
    assert 0.7 < linear["2"]["coverage"] <= 1
    text = (folder / "report.md").read_text()
    for part in ("66 rows in 12 groups (child)", "age (number), sex (category)", "k = 5"):
        assert part in done.stdout
        assert part in text
    assert "Linear mixed model by REML" in done.stdout
    shown = f"{linear['3']['error'] / record['deviation']:.3f}"
    assert shown in done.stdout
    assert shown in text


def test_info_shows_the_report_again(run):
    done, folder = run
    shown = cli("info", folder)
    assert shown.stdout == done.stdout[: done.stdout.index("The run is")]
    record = json.loads((folder / "report.json").read_text())
    assert cli("info", folder, "--json").json == record


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda report: report.pop("held_back"), "held_back is missing"),
        (lambda report: report.update(held_back=3), "held_back is 3"),
        (lambda report: report["held_back"].update(linear={"k": {}}), "held_back is {"),
        (lambda report: report["held_back"]["linear"]["1"].pop("error"), "error is missing"),
        (lambda report: report["held_back"]["linear"]["1"].update(width="wide"), "width is 'wide'"),
        (lambda report: report.update(warnings=[3]), "warnings is [3]"),
        (lambda report: report.update(missing={"age": "x"}), "missing is {"),
        (lambda report: report.update(deviation=None), "deviation is None"),
        (lambda report: report.update(scored={"rows": 3}), "groups is missing"),
        (lambda report: report.update(rows=-1), "rows is -1"),
    ],
)
def test_info_refuses_a_broken_report(spoil, words, run, tmp_path):
    (tmp_path / "fit.json").write_bytes((run[1] / "fit.json").read_bytes())
    report = json.loads((run[1] / "report.json").read_text())
    spoil(report)
    (tmp_path / "report.json").write_text(json.dumps(report))
    refused = cli("info", tmp_path, code=2)
    assert f"report.json' is broken: {words}" in refused.stderr.replace("\n", " ")


@pytest.mark.parametrize("name", ["fit.json", "report.json"])
def test_info_names_a_file_that_is_cut_short_once(name, run, tmp_path):
    for each in ("fit.json", "report.json"):
        (tmp_path / each).write_bytes((run[1] / each).read_bytes())
    (tmp_path / name).write_text("{")
    refused = cli("info", tmp_path, code=2)
    assert f"{name}' is broken" in refused.stderr
    assert refused.stderr.count("is broken") == 1


def test_the_run_holds_a_model_versions_and_a_picture_and_no_code(run):
    _, folder = run
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *("model.json", "model.npz", "fit.json", "report.json", "report.md", "versions.json"),
        "groups.png",
    }
    versions = json.loads((folder / "versions.json").read_text())
    assert versions["pandas"] == pd.__version__
    picture = np.asarray(Image.open(folder / "groups.png").convert("RGB"))
    assert (picture == [0, 114, 178]).all(-1).sum() > 100
    opened = FittedRun.open(folder)
    assert opened.settings.columns == ("age", "sex")
    assert opened.model.groups_ == [f"{i:03d}" for i in range(12)]


def test_the_same_seed_gives_the_same_fit_and_json_says_what_is_shown(run, tmp_path):
    _, folder = run
    table = write(growth(), tmp_path / "growth.csv")
    done = cli("fit", table, *FIT, "--out", tmp_path / "again", "--json", "--quiet")
    assert done.stderr == ""
    stored = json.loads((folder / "report.json").read_text())
    assert {name: done.json[name] for name in stored} == stored
    assert (folder / "model.npz").read_bytes() == (tmp_path / "again/model.npz").read_bytes()


def test_the_table_of_the_document_is_what_its_commands_print(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs/tables.md").read_text()
    example, _ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "docs/tables.md", "exec"), {})
    # The learned features of auto would take most of the time of this file.
    cli("fit", "growth.csv", *FIT, "--order", "age", "--out", "runs/growth")
    written = (tmp_path / "runs/growth/report.md").read_text()
    table = [line for line in text.splitlines() if re.match(r"\| .* \|( [\d.]+( %)? \|){5}$", line)]
    assert len(table) == 12
    assert all(line in written for line in table[:8])
    assert "6 groups, evenly spaced by their number of rows" in written


def test_missing_values_are_left_out_when_that_is_asked_for(tmp_path):
    table = growth().astype({"height": object, "sex": object})
    table.loc[3, "height"] = table.loc[7, "sex"] = table.loc[8, "sex"] = None
    path = write(table, tmp_path / "t.csv")
    done = cli("fit", path, *FIT, "--missing", "drop", "--no-score", "--out", tmp_path / "run")
    assert "Left out: 3 rows that miss a value (height 1, sex 2)." in done.stdout
    assert "63 rows in 12 groups" in done.stdout
    record = json.loads((tmp_path / "run/report.json").read_text())
    assert record["left_out"] == 3
    assert record["missing"] == {"height": 1, "sex": 2}


def test_one_group_and_few_groups_are_not_held_back(tmp_path):
    path = write(growth(children=1), tmp_path / "one.csv")
    done = cli("fit", path, *FIT, "--drop", "sex", "--out", tmp_path / "one")
    assert "No groups were held back: there are 1 groups" in done.stdout
    assert "There is one group" in done.stderr
    assert "There is one group" in (tmp_path / "one/report.md").read_text()


def test_a_group_column_that_is_a_row_number_is_said(tmp_path):
    table = growth()
    table["child"] = np.arange(len(table))
    path = write(table, tmp_path / "t.csv")
    done = cli("fit", path, *FIT, "--out", tmp_path / "run", "--json")
    assert "Is groups the number of a row?" in done.stderr
    assert list(done.json["held_back"]["linear"]) == ["0"]
    assert "groups.png" not in done.json["files"]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        (lambda child: f"child {child}", "'leak' names the group"),
        (lambda child: int(child) + 1000, "'leak' is a whole number that is the same within"),
    ],
)
def test_a_column_that_identifies_the_group_is_said(column, words, tmp_path):
    table = growth()
    table["leak"] = table["child"].map(column)
    path = write(table, tmp_path / "t.csv")
    done = cli("fit", path, *FIT, "--no-score", "--out", tmp_path / "run")
    assert words in done.stderr


def test_columns_are_what_all_of_their_values_say(tmp_path):
    table = growth(children=4)
    table["when"] = pd.date_range("2031-01-01", periods=len(table), freq="D").astype(str)
    table["grade"] = np.resize(["1", "2", "3A"], len(table))
    table["level"] = 5
    table.insert(0, "", range(len(table)))
    path = write(table, tmp_path / "t.csv")
    rows, settings, found = prepared(path)
    assert dict(zip(settings.columns, settings.kinds, strict=True)) == {
        "age": "number",
        "sex": "category",
        "when": "time",
        "grade": "category",
        "level": "number",
    }
    assert found["unnamed_columns"] == 1
    assert found["constant_columns"] == ["level"]
    # A name is a text: 001 and 1 are two groups.
    assert rows.names[0] == "000"
    table = read_table(path)
    chosen = fitting.choose(table, Settings("height", "child"), ("age",), ())
    _, settings, found = prepare(table, chosen, ["age"])
    assert settings.kinds == ("category",)
    assert found["unused_columns"] == ["sex", "when", "grade", "level"]


def test_rows_are_sorted_by_a_column_within_their_groups(tmp_path):
    table = growth(children=4)
    path = write(table.sample(frac=1, random_state=0), tmp_path / "t.csv")
    rows, _, _ = prepared(path, order="age")
    wanted = pd.concat([table[table["child"] == name] for name in dict.fromkeys(rows.names)])
    assert rows.y.tolist() == wanted["height"].tolist()
    ages = rows.frame["age"].to_numpy()
    assert rows.along.tolist() == ages.tolist()


def test_a_table_that_is_written_in_another_way_is_the_same_one(tmp_path):
    table = growth(children=4)
    rows, _, _ = prepared(write(table, tmp_path / "t.csv"))
    table.to_csv(tmp_path / "german.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    german = read_table(tmp_path / "german.csv", ";", ",")
    chosen = fitting.choose(german, Settings("height", "child"), (), ())
    pd.testing.assert_frame_equal(prepare(german, chosen)[0].frame, rows.frame)
    assert prepare(german, chosen)[0].y.tolist() == rows.y.tolist()
    table.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    assert read_table(tmp_path / "t.tsv", "tab").rows == len(table)
    table.to_parquet(tmp_path / "t.parquet")
    parquet, _, _ = prepared(tmp_path / "t.parquet")
    pd.testing.assert_frame_equal(parquet.frame, rows.frame)
    assert parquet.names.tolist() == rows.names.tolist()


def test_every_way_to_write_a_missing_value_is_one(tmp_path):
    lines = [f"a,{i},{i}" for i in range(len(MISSING))]
    lines += [f"a,{text} ,1" for text in MISSING]
    # Empty lines and spaces around a cell do not count; None is a name as any other.
    (tmp_path / "t.csv").write_text("child, age ,height\n\n" + "\n".join(lines) + "\n\n")
    table = read_table(tmp_path / "t.csv")
    assert table.rows == 2 * len(MISSING)
    assert {name: int(mask.sum()) for name, mask in table.missing(table.columns).items()} == {
        "age": len(MISSING)
    }


def test_times_of_a_zone_are_those_of_greenwich(tmp_path):
    lines = ["a,2031-12-24 18:30,1", "a,2031-12-24T18:30:00+01:00,2"]
    (tmp_path / "t.csv").write_text("\n".join(["child,age,height", *lines]))
    column = interpret(read_table(tmp_path / "t.csv"), "age")
    assert column.tolist() == [pd.Timestamp(f"2031-12-24 {h}:30") for h in (18, 17)]


def test_parquet_keeps_its_types(tmp_path):
    table = growth(children=4).assign(child=lambda t: t["child"].astype(int))
    table["tall"] = table["height"] > 95
    table["when"] = pd.date_range("2031-01-01", periods=len(table), freq="h", tz="Europe/Berlin")
    table["day"] = table["when"].dt.date
    table["dose"] = pd.array([1, 2] * (len(table) // 2), dtype="Int64")
    table.set_index("age").reset_index().to_parquet(tmp_path / "t.parquet")
    rows, settings, _ = prepared(tmp_path / "t.parquet")
    kinds = dict(zip(settings.columns, settings.kinds, strict=True))
    assert kinds == {
        "age": "number",
        "sex": "category",
        "tall": "number",
        "when": "time",
        "day": "time",
        "dose": "number",
    }
    assert rows.names[0] == "0"
    # One o'clock in Berlin's winter is midnight.
    assert rows.frame["when"].iloc[1] == pd.Timestamp("2031-01-01 00:00")


def test_large_tables_are_scored_on_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "MOST_ROWS", 40)
    path = write(growth(), tmp_path / "t.csv")
    done = cli("fit", path, *FIT, "--out", tmp_path / "run", "--json")
    assert done.json["scored"] == {"rows": 40, "groups": 12}
    assert done.json["rows"] == 66
    assert "a sample of 40 rows in 12 groups" in (tmp_path / "run/report.md").read_text()


def test_what_is_not_installed_is_named(tmp_path, monkeypatch):
    path = write(growth(), tmp_path / "t.csv")
    monkeypatch.setitem(sys.modules, "pandas", None)
    for name in ("fitting", "fitted"):
        monkeypatch.delitem(sys.modules, f"pullback.runs.{name}")
    done = cli("fit", path, *FIT, code=2)
    assert "Tables need the package 'pandas'" in done.stderr
    assert "pip install 'pullback[tables]'" in done.stderr
