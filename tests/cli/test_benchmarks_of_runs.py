"""What the benchmarks of a run's inner problems start from."""

import json
import shutil

import jax
import numpy as np
import pytest
from cli_helpers import OMNIGLOT, cli

from benchmarks import hessians, methods, results
from pullback.core.scores import ACCURACY
from pullback.runs import build, pretrained
from pullback.runs.folder import Run


@pytest.fixture(scope="module")
def proximal_run(omniglot, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "proximal"
    cli("train", *OMNIGLOT, "--strength", "2", "--data-dir", omniglot, "--out", folder)
    return folder


@pytest.mark.parametrize("queries", [None, 3])
def test_a_benchmark_reads_a_run_whose_data_have_moved(proximal_run, omniglot, queries):
    options = ["--data-dir", str(omniglot), "--step", "best"]
    options += [] if queries is None else ["--queries", str(queries)]
    theta, tasks, loss, proximal, about = inner_problems(proximal_run, *options)
    assert len({len(labels) for labels in (tasks[0].query[1], tasks[1].query[1])}) == 1
    if queries is not None:
        ways = len(np.unique(tasks[0].support[1]))
        assert len(tasks[0].query[1]) == queries * ways
    assert np.isfinite(loss(theta, tasks[0].support))
    assert proximal.strength == 2
    assert f"{sum(leaf.size for leaf in jax.tree.leaves(theta)):,} parameters" in about


def test_a_benchmark_reads_a_packed_run_at_other_ways_and_shots(proximal_run, omniglot, tmp_path):
    pretrained.pack(Run.open(proximal_run), tmp_path / "packed")
    options = ["--ways", "3", "--shots", "2", "--queries", "1", "--data-dir", str(omniglot)]
    theta, tasks, loss, _, about = inner_problems(tmp_path / "packed", *options)
    assert np.bincount(tasks[0].support[1]).tolist() == [2, 2, 2]
    assert np.bincount(tasks[0].query[1]).tolist() == [1, 1, 1]
    assert loss(theta, tasks[0].support) == pytest.approx(np.log(3))  # a head of zeros
    assert "3-way 2-shot" in about


def inner_problems(run, *options):
    arguments = hessians.parser("Nothing.").parse_args([str(run), "--tasks", "2", *options])
    return hessians.inner_problems(arguments)


def test_the_report_has_the_numbers_of_the_runs_it_is_made_of(
    omniglot_run, omniglot, tmp_path, monkeypatch
):
    run = Run.open(shutil.copytree(omniglot_run, tmp_path / "run"))
    scored = cli(
        "evaluate", run.folder, "--tasks", 6, "--ways", 3, "--data-dir", omniglot, "--json"
    ).json
    elsewhere = tmp_path / "two-ways.json"
    elsewhere.write_text(json.dumps(scored | {"ways": 2}))
    given = ["add", str(run.folder), "tiny", "--evaluation", str(elsewhere), *_in(tmp_path)]
    monkeypatch.setattr("sys.argv", ["results", *given])
    results.main()
    arguments = ["report", *_in(tmp_path), "--document", str(tmp_path / "results.md")]
    monkeypatch.setattr("sys.argv", ["results", *arguments])
    results.main()
    text = (tmp_path / "results.md").read_text()
    number = ACCURACY.text(scored["mean"], scored["interval"])
    assert f"| 3-way 1-shot | tiny | alphabet | test classes | {number}, inductive | 6 |" in text
    assert "| 2-way 1-shot | tiny |" in text
    assert (tmp_path / "results.png").stat().st_size > 1000


def _in(folder):
    return ["--results", str(folder / "results")]


FEW = """
[data]
ways = 3
queries = 3
reflections = false
rotations = false
distortion = 0.0
split_by = "alphabet"
validation_classes = 3
test_classes = 3
[model]
model = "mlp"
hidden = [8]
[training]
tasks_per_step = 2
"""


def test_methods_are_set_side_by_side_from_scratch_and_from_a_body(
    omniglot_run, omniglot, tmp_path, monkeypatch
):
    monkeypatch.setattr(methods, "METHODS", {"FOMAML": methods.METHODS["FOMAML"]})
    monkeypatch.setattr(methods, "SCRATCH_STEPS", 2)
    # The fixtures' model in place of Conv4, whose setting it has no use for.
    monkeypatch.setattr(methods, "FRESH_MODEL", {})
    (tmp_path / "few.toml").write_text(FEW)
    out = str(tmp_path / "out")
    given = ["methods", out, "--data-dir", str(omniglot), "--start", str(omniglot_run)]
    given += ["--config", str(tmp_path / "few.toml")]
    given += ["--minutes", "0.002", "--seeds", "1", "--tasks", "4"]
    monkeypatch.setattr("sys.argv", given)
    methods.main()
    found = json.loads((tmp_path / "out" / "methods.json").read_text())
    assert [row["from"] for row in found["methods"]] == ["scratch", "body"]
    for row in found["methods"]:
        assert row["best"] in methods.RATES
        assert f"{row['best']:g}" == max(row["tuning"], key=row["tuning"].get)
        assert 0 <= row["runs"][0]["test"]["mean"] <= 1
        run = Run.open(tmp_path / "out" / row["from"] / "FOMAML-seed0")
        assert run.config.algorithm.inner_learning_rate == row["best"]
    assert len(found["without meta-training"]) == 2
    for argv in (["compared", out], ["report", "--document", str(tmp_path / "results.md")]):
        monkeypatch.setattr("sys.argv", ["results", *argv, *_in(tmp_path)])
        results.main()
    text = (tmp_path / "results.md").read_text()
    mean = 100 * found["methods"][1]["runs"][0]["test"]["mean"]
    assert f"| FOMAML | body | inner_learning_rate {row['best']:g} | {mean:.2f} |" in text
    assert (tmp_path / "methods.png").stat().st_size > 1000


def test_the_nearest_mean_is_that_of_the_features(omniglot_run):
    run = Run.open(omniglot_run)
    built = build.build(run.config, run.split, summary=run.summary)
    params, hits = methods.nearest_mean(built, built.params)
    task = built.tasks("test").sample(jax.random.key(0))
    body, _ = built.model.apply.split(params)
    (x, y), (queries, labels) = task.support, task.query
    features = np.asarray(built.model.apply.features(body, x))
    means = np.stack([features[np.asarray(y) == c].mean(0) for c in range(3)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    nearest = (np.asarray(built.model.apply.features(body, queries)) @ means.T).argmax(1)
    expected = np.mean(nearest == np.asarray(labels))
    assert float(hits(params, task, None)) == pytest.approx(expected)
