"""``pullback export``: fitted tables and runs as programs."""

import dataclasses
import importlib
import json
import shutil

import jax
import numpy as np
import pytest
from alone import blocks, run_alone
from cli_helpers import cli, drawing
from table_helpers import FIT, growth, write

import pullback as pb
from pullback.models.objectives import REGRESSION
from pullback.runs import build
from pullback.runs.fitted import FittedRun
from pullback.runs.folder import Run
from pullback.runs.predict import Adapter, adapter_of
from pullback.runs.pretrained import trained_theta
from pullback.tasks import read_image
from pullback.tasks.episodes import as_inputs

of_runs = importlib.import_module("pullback.runs.export")

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
    assert "A row is age, sex (f is 0, m is 1)." in shown
    assert pb.load_exported(out).about["platforms"] == ["cpu", "cuda"]


def test_what_cannot_be_exported_is_refused(run, tmp_path):
    def refused(*argv):
        return cli("export", *argv, code=2).stderr

    out = tmp_path / "out"
    assert "Unknown run or pretrained initialisation 'nowhere'" in refused("nowhere", out)
    assert "no run of tasks" in refused(run, out, "--ways", "3")
    assert "seed is -1" in refused(run, out, "--seed", "-1")
    assert "Unknown platform 'gpu'" in refused(run, out, "--platforms", "gpu")
    short = write(NEW.drop(columns="sex"), tmp_path / "short.csv")
    assert "lacks the columns 'sex' of the fit" in refused(run, out, "--adapt", short)
    without = write(NEW.drop(columns="height"), tmp_path / "without.csv")
    assert "lacks the columns 'height' of the fit" in refused(run, out, "--adapt", without)
    assert "does not exist" in refused(run, out, "--adapt", tmp_path / "nothing.csv")
    settings = json.loads((run / "fit.json").read_text()) | {"curve": "own.py:line"}
    curve = shutil.copytree(run, tmp_path / "curve")
    (curve / "fit.json").write_text(json.dumps(settings))
    assert "is the fit of a curve, which cannot be exported" in refused(curve, out)
    assert not out.exists()


def wanted(adapter, key, x, y, query):
    """What the library predicts of one task."""
    phi, report = jax.jit(adapter.algorithm.adapt)(adapter.theta, (x, y), key)
    return adapter.apply(phi, query), report


def test_a_run_on_classes_becomes_a_program_that_adapts(omniglot_run, tmp_path):
    out = tmp_path / "drawings.pullback"
    done = cli("export", omniglot_run, out, "--examples", "5", "--json").json
    shapes = {each["name"]: each["shape"] for each in done["about"]["inputs"]}
    assert shapes == {
        "x": ["tasks", 5, 28, 28, 1],
        "y": ["tasks", 5],
        "weight": ["tasks", 5],
        "query": ["tasks", "queries", 28, 28, 1],
    }
    rng = np.random.default_rng(0)
    x, query = (rng.integers(0, 256, (2, n, 28, 28, 1)).astype(np.uint8) for n in (5, 4))
    y = np.array([[0, 1, 2, 2, 0]] * 2, np.int32)
    weight = np.array([[1, 1, 1, 1, 1], [1, 0, 1, 1, 0]], np.float32)
    np.savez(tmp_path / "tasks.npz", x=x, y=y, weight=weight, query=query)
    found = run_alone(blocks("docs/serving.md")[2], tmp_path, "probabilities", "residual", "code")
    adapter = adapter_of(Run.open(omniglot_run), 3)
    for task in range(2):
        there = weight[task] > 0
        pictures = as_inputs(x[task][there]), y[task][there]
        logits, report = wanted(adapter, jax.random.key(0), *pictures, as_inputs(query[task]))
        close = {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(found["probabilities"][task], jax.nn.softmax(logits), **close)
        np.testing.assert_allclose(found["residual"][task], report.inner_residual, rtol=1e-4)
        assert found["code"][task] == report.code
    program = pb.load_exported(out)
    with pytest.raises(pb.InputError, match=r"y has numbers from 1 to 3. Allowed: from 0 to 2"):
        program(x=x, y=y + 1, weight=weight, query=query)
    with pytest.raises(pb.InputError, match=r"x is of type float64. Allowed: uint8"):
        program(x=x / 255, y=y, weight=weight, query=query)
    with pytest.raises(pb.InputError, match="takes no tables"):
        program.rows({})


def test_a_run_of_regression_becomes_a_program_that_adapts(sinusoid_run, tmp_path):
    out = tmp_path / "out"
    assert "prediction" in cli("export", sinusoid_run, out).stdout
    program = pb.load_exported(out)
    rng = np.random.default_rng(0)
    x, y, query = (rng.normal(size=(3, n, 1)).astype(np.float32) for n in (5, 5, 7))
    weight = np.ones((3, 5))
    weight[1, 3:], x[1, 3:], y[1, 3:] = 0, np.nan, np.inf
    weight[2] = 0
    found = program(x=x, y=y, weight=weight, query=query)
    run = Run.open(sinusoid_run)
    built = build.reopen(run)
    _, theta = trained_theta(run, built)
    adapter = Adapter(built.model.apply, built.algorithm, theta, 0)
    for task, seen in enumerate((5, 3)):
        given = x[task, :seen], y[task, :seen], query[task]
        outputs, _ = wanted(adapter, jax.random.key(0), *given)
        np.testing.assert_allclose(found["prediction"][task], outputs, rtol=1e-5, atol=1e-6)
    # A task of which nothing is known stays at the initialisation.
    still = built.model.apply(theta, query[2])
    np.testing.assert_allclose(found["prediction"][2], still, rtol=1e-5, atol=1e-6)
    x[0, 0] = np.nan
    assert program(x=x, y=y, weight=weight, query=query)["code"].tolist() == [1, 0, 0]
    assert "NaN or infinite" in program.about["codes"]["1"]


def strokes(root, names):
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number in range(1 + place):
            drawing(rng, np.array([1, 7 * place])).save(root / name / f"{number}.png")
    return root


def test_a_run_that_has_adapted_to_pictures_predicts_others(omniglot_run, tmp_path):
    support = strokes(tmp_path / "support", ["left", "right"])
    (support / "notes.txt").write_text("beside the classes")
    out = tmp_path / "out"
    done = cli("export", omniglot_run, out, "--adapt", support)
    assert "Passed over beside the class folders" in done.stderr
    program = pb.load_exported(out)
    assert program.about["classes"] == ["left", "right"]
    asked = support / "right"
    rows = cli("adapt", omniglot_run, "--support", support, "--query", asked, "--json").json
    query = np.stack([read_image(each) for each in sorted(asked.iterdir())])[..., None]
    found = program(query=query)["probabilities"]
    probabilities = [list(row["probabilities"].values()) for row in rows["predictions"]]
    np.testing.assert_allclose(found, probabilities, rtol=1e-5, atol=1e-6)


def test_a_packed_initialisation_has_any_number_of_ways(omniglot_run, tmp_path):
    pb.pack(Run.open(omniglot_run), tmp_path / "packed")
    about = pb.export(tmp_path / "packed", tmp_path / "out", ways=5)
    shapes = {each["name"]: each["shape"] for each in about["inputs"] + about["outputs"]}
    assert shapes["x"] == ["tasks", 5, 28, 28, 1]
    assert shapes["probabilities"] == ["tasks", "queries", 5]


def test_what_a_run_cannot_do_is_refused(omniglot_run, sinusoid_run, tmp_path):
    def refused(*argv):
        return cli("export", *argv, code=2).stderr

    out, support = tmp_path / "out", strokes(tmp_path / "support", "abcd")
    assert "tells 3 apart. Allowed: 2 to 3 ways" in refused(omniglot_run, out, "--ways", "4")
    assert "export(ways=0)" in refused(omniglot_run, out, "--ways", "0")
    assert "export(examples=0)" in refused(omniglot_run, out, "--examples", "0")
    assert "no checkpoint '99'" in refused(omniglot_run, out, "--checkpoint", "99")
    assert "is no classification" in refused(sinusoid_run, out, "--ways", "3")
    assert "has no pictures to adapt to" in refused(sinusoid_run, out, "--adapt", support)
    assert "holds 4 classes, but" in refused(omniglot_run, out, "--adapt", support)
    both = ("--adapt", support, "--examples", "3")
    assert "which say them" in refused(omniglot_run, out, *both)
    assert not out.exists()


def test_a_loss_of_ones_own_is_refused(sinusoid_run, monkeypatch):
    built = build.reopen(Run.open(sinusoid_run))
    objective = dataclasses.replace(REGRESSION, loss=lambda apply: lambda params, batch: 0.0)
    data = dataclasses.replace(built.data, objective=objective)
    monkeypatch.setattr(build, "reopen", lambda run: dataclasses.replace(built, data=data))
    with pytest.raises(pb.InputError, match="has an objective of its own"):
        of_runs._tasks_of(Run.open(sinusoid_run), "best", None, None)


def test_a_model_that_looks_at_the_batch_is_refused(sinusoid_run):
    tasks = of_runs._tasks_of(Run.open(sinusoid_run), "best", None, None)
    apply = tasks.adapter.apply

    def centred(params, x):
        return apply(params, x - x.mean(0))

    other = dataclasses.replace(tasks, adapter=dataclasses.replace(tasks.adapter, apply=centred))
    with pytest.raises(pb.InputError, match="depends on those beside it in a batch"):
        of_runs._check_alone(other)
