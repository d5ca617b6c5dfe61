"""What the benchmarks of a run's inner problems start from."""

import shutil

import jax
import numpy as np
import pytest
from cli_helpers import OMNIGLOT, cli

from benchmarks import hessians, results
from pullback.core.scores import ACCURACY
from pullback.runs.folder import Run


@pytest.fixture(scope="module")
def proximal_run(omniglot, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "proximal"
    cli("train", *OMNIGLOT, "--strength", "2", "--data-dir", omniglot, "--out", folder)
    return folder


@pytest.mark.parametrize("queries", [None, 3])
def test_a_benchmark_reads_a_run_whose_data_have_moved(proximal_run, omniglot, queries):
    options = ["--tasks", "2", "--data-dir", str(omniglot), "--step", "best"]
    arguments = hessians.parser("Nothing.").parse_args([str(proximal_run), *options])
    theta, tasks, loss, proximal, about = hessians.inner_problems(arguments, queries)
    assert len(tasks) == 2
    assert len({len(labels) for labels in (tasks[0].query[1], tasks[1].query[1])}) == 1
    if queries is not None:
        ways = len(np.unique(tasks[0].support[1]))
        assert len(tasks[0].query[1]) == queries * ways
    assert np.isfinite(loss(theta, tasks[0].support))
    assert proximal.strength == 2
    assert f"{sum(leaf.size for leaf in jax.tree.leaves(theta)):,} parameters" in about


def test_the_report_has_the_numbers_of_the_runs_it_is_made_of(
    omniglot_run, omniglot, tmp_path, monkeypatch
):
    run = Run.open(shutil.copytree(omniglot_run, tmp_path / "run"))
    scored = cli(
        "evaluate", run.folder, "--tasks", 6, "--ways", 3, "--data-dir", omniglot, "--json"
    ).json
    monkeypatch.setattr("sys.argv", ["results", "add", str(run.folder), "tiny", *_in(tmp_path)])
    results.main()
    arguments = ["report", *_in(tmp_path), "--document", str(tmp_path / "results.md")]
    monkeypatch.setattr("sys.argv", ["results", *arguments])
    results.main()
    text = (tmp_path / "results.md").read_text()
    number = ACCURACY.text(scored["mean"], scored["interval"])
    assert f"| 3-way 1-shot | tiny | alphabet | test classes | {number}, inductive | 6 |" in text
    assert (tmp_path / "results.png").stat().st_size > 1000


def _in(folder):
    return ["--results", str(folder / "results")]
