"""The tables of one's own data are those of the results that are kept."""

import numpy as np
import pytest

from benchmarks import own_data, own_report
from pullback.grouped.held_back import SHOTS


def result(method, seed, table="Milk", **scores):
    named = {"coverage": 0.9, "width": 1.0, "nll": 0.5, "error": 1.0, **scores}
    found = {str(k): named for k in SHOTS}
    return {"table": table, "method": method, "seed": seed, "cpu": 0.5 + seed, "scores": found}


@pytest.fixture
def results():
    return [
        *(result("auto", seed, error=0.5 + 0.1 * seed) for seed in (0, 1)),
        *(result("pooled", seed, error=1.1, nll=0.75, width=2.0) for seed in (0, 1)),
        *(result("boosting", seed, error=0.4, coverage=0.81) for seed in (0, 1)),
        result("curve", 0, table="Theoph"),
        result("auto", 0, table="Theoph"),
    ]


def test_scores_are_means_over_seeds_and_the_least_error_is_bold(results):
    lines = own_report.regression(results).splitlines()
    # Theoph has no curve of its own but for one method, and Milk has none.
    assert "| k = 0 | Theoph | Milk |" in lines
    assert "| auto | **1.000 / 90** | 0.550 / 90 |" in lines
    assert "| boosting | – | **0.400 / 81** |" in lines
    assert "| curve | **1.000 / 90** | – |" in lines


def test_over_all_tables_a_method_stands_beside_ours(results):
    milk = [r for r in results if r["table"] == "Milk"]
    lines = own_report.regression(milk).splitlines()
    ratios, differences = " | ".join(6 * ["2.00"]), " | ".join(3 * ["+0.25"])
    assert f"| pooled | {ratios} | {differences} | 90 to 90 | 0 of 5 | 1.0 |" in lines
    # boosting is on one of two tables alone.
    assert not any(line.startswith("| boosting | 0.7") for line in own_report.regression(results))


def test_where_another_method_is_better_is_said(results):
    lines = own_report.below(results).splitlines()
    assert lines[2:] == [f"| Milk | {k} | 0.550 | boosting 0.400 |" for k in own_report.SHOWN]


def test_what_the_document_says_of_the_results_holds():
    results = own_data.known(own_report.RESULTS / "regression.json")
    means = own_report.Means(results, own_data.TABLES, own_data.METHODS)
    outside = 0
    for k in SHOTS:
        linear, mixed, quadratic, auto = (
            means.of(name, k) for name in ("linear", "MixedLM", "MixedLM, quadratic", "auto")
        )
        for table, scores in auto.items():
            assert abs(linear[table]["error"] - mixed[table]["error"]) < 0.01
            better = min(mixed[table]["error"], quadratic[table]["error"])
            assert scores["error"] < better + 0.013
            outside += not 0.85 <= scores["coverage"] <= 0.95
        # But for Theoph none has errors that are lower by more than 1 %.
        for method in set(means.methods) - {"curve"}:
            ratios = [
                np.log(scores["error"] / auto[table]["error"])
                for table, scores in means.of(method, k).items()
                if table != "Theoph"
            ]
            assert np.mean(ratios) > -0.01
    assert outside == 7


@pytest.mark.parametrize("document", own_report.BLOCKS)
def test_the_documents_have_the_tables_of_the_results(document):
    text = (own_report.ROOT / "docs" / document).read_text()
    assert own_report.written(document, text) == text


def test_a_document_without_a_block_is_refused():
    with pytest.raises(ValueError, match="0 blocks of the name 'curves'"):
        own_report.written("curves.md", "nothing")
