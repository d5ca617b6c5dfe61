"""The comparison on classes of one's own runs, on a small table."""

import numpy as np
import pandas as pd
import pytest

from benchmarks import own_classes
from benchmarks.own_data import as_table

pytestmark = pytest.mark.usefixtures("tiny")


def drawn(name):
    """Groups that mostly say yes, or mostly no."""
    rng = np.random.default_rng(0)
    groups = np.repeat([f"g{i}" for i in range(30)], 8)
    own = np.repeat(rng.normal(size=30) * 2.5, 8)
    age = np.tile(np.arange(8.0), 30)
    y = (rng.uniform(size=240) < 1 / (1 + np.exp(-own))).astype(int)
    return pd.DataFrame({"age": age}), y, groups


@pytest.fixture(scope="module")
def results(tiny):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_classes, "read", drawn)
        return {name: own_classes.score("ohio", name, 0) for name in own_classes.METHODS}


def test_rows_of_a_new_group_help_all_but_the_pooled_one(results):
    losses = {
        method: {k: s["log_loss"] for k, s in result["scores"].items()}
        for method, result in results.items()
    }
    for method in ("GLMM", "boosting", "linear", "auto"):
        assert losses[method]["5"] < losses[method]["0"] - 0.05
        assert losses[method]["5"] < losses["pooled"]["5"] - 0.05


def test_the_linear_model_is_the_exact_one(results):
    for shots, exact in results["GLMM"]["scores"].items():
        assert results["linear"]["scores"][shots]["log_loss"] == pytest.approx(
            exact["log_loss"], abs=0.03
        )


def test_the_table_has_a_line_for_each_method(results):
    table = as_table(list(results.values()), own_classes.cell)
    for method, result in results.items():
        first = result["scores"]["0"]
        assert f"| ohio | {method} | {first['log_loss']:.3f} / " in table
    assert not own_classes.possible(own_classes.THREE, "GLMM")
