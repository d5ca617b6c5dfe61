"""What the benchmarks of a run's inner problems start from."""

import jax
import numpy as np
import pytest
from cli_helpers import OMNIGLOT, cli

from benchmarks import hessians


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
