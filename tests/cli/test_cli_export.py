"""``pullback export``: fitted tables as programs."""

import json

import numpy as np
import pytest
from cli_helpers import cli
from table_helpers import FIT, growth, write

import pullback as pb
from pullback.runs.fitted import FittedRun

KNOWN = growth()
NEW = growth(children=14, seed=1).query("child >= '012'")
COLUMNS = ["age", "sex"]


@pytest.fixture(scope="module")
def run(quick, tmp_path_factory):
    root = tmp_path_factory.mktemp("run")
    path = write(KNOWN, root / "growth.csv")
    cli("fit", path, *FIT, "--no-score", "--out", root / "run")
    return root / "run"


@pytest.fixture(scope="module")
def model(run):
    return FittedRun.open(run).model


def test_a_run_becomes_a_program_that_adapts(run, model, tmp_path):
    out = tmp_path / "below/growth.pullback"
    done = cli("export", run, out, "--json").json
    assert done["bytes"] == out.stat().st_size
    assert done["about"]["target"] == "height"
    program = pb.load_exported(out)
    assert json.loads(json.dumps(program.about)) == done["about"]
    own = NEW[NEW["child"] == "012"]
    query = program.rows(own)[None]
    found = program(x=query[:, :2], y=[own["height"][:2]], weight=[[1.0, 1]], query=query)
    wanted = model.adapt(own[:2][COLUMNS], own["height"][:2]).predict(own[COLUMNS])
    np.testing.assert_allclose(found["mean"][0], wanted, rtol=1e-10)


def test_groups_in_a_file_are_adapted_to_first(run, model, tmp_path):
    rows = write(NEW.assign(note="x"), tmp_path / "rows.csv")
    done = cli("export", run, tmp_path / "known", "--adapt", rows)
    assert "without a use: note" in done.stderr
    program = pb.load_exported(tmp_path / "known")
    assert program.about["groups"] == ["012", "013"]
    group = [program.about["groups"].index(child) for child in NEW["child"]]
    other = model.with_groups(NEW[COLUMNS], NEW["height"], NEW["child"].to_numpy())
    wanted = other.predict(NEW[COLUMNS], groups=NEW["child"].to_numpy())
    found = program(group=group, query=program.rows(NEW))["mean"]
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    # Rows that name no group are all of one.
    own = NEW[NEW["child"] == "013"].drop(columns="child")
    cli("export", run, tmp_path / "one", "--adapt", write(own, tmp_path / "own.csv"))
    program = pb.load_exported(tmp_path / "one")
    found = program(query=program.rows(own))["mean"]
    np.testing.assert_allclose(found, wanted[-len(own) :], rtol=1e-10)


def test_a_file_that_is_there_is_replaced_only_when_that_is_asked_for(run, tmp_path):
    out = tmp_path / "out"
    out.write_text("mine")
    assert "is there already" in cli("export", run, out, code=2).stderr
    assert out.read_text() == "mine"
    shown = cli("export", run, out, "--overwrite", "--platforms", "cpu,cuda").stdout
    assert "for cpu, cuda" in shown
    assert pb.load_exported(out).about["platforms"] == ["cpu", "cuda"]


def test_what_cannot_be_exported_is_refused(run, tmp_path):
    def refused(*argv):
        return cli("export", *argv, code=2).stderr

    out = tmp_path / "out"
    assert "'nowhere' cannot be exported" in refused("nowhere", out)
    assert "Unknown platform 'gpu'" in refused(run, out, "--platforms", "gpu")
    short = write(NEW.drop(columns="sex"), tmp_path / "short.csv")
    assert "lacks the columns 'sex' of the fit" in refused(run, out, "--adapt", short)
    without = write(NEW.drop(columns="height"), tmp_path / "without.csv")
    assert "lacks the columns 'height' of the fit" in refused(run, out, "--adapt", without)
    assert "does not exist" in refused(run, out, "--adapt", tmp_path / "nothing.csv")
    table = write(KNOWN, tmp_path / "growth.csv")
    curve = tmp_path / "line.py"
    curve.write_text("def line(row, a, b):\n    return a + b * row['age']\n")
    options = (*FIT[:4], "--no-score", "--curve", f"{curve}:line", "--columns", "age")
    cli("fit", table, *options, "--out", tmp_path / "curve")
    assert "is the fit of a curve, which cannot be exported" in refused(tmp_path / "curve", out)
    assert not out.exists()
