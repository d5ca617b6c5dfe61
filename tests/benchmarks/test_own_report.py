"""The tables of one's own data are those of the results that are kept."""

import numpy as np
import pytest

from benchmarks import own_classes, own_data, own_report
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


@pytest.fixture
def kept():
    """What was measured, and what the document says of it."""
    results = own_data.known(own_report.RESULTS / "regression.json")
    text = (own_report.ROOT / "docs" / "own-data.md").read_text()
    return own_report.Means(results, own_data.TABLES, own_data.METHODS), text


def errors(means, method, table):
    """Of a method on a table, by the number of rows seen."""
    found = {k: means.scores(table, method, k) for k in SHOTS}
    return {k: scores["error"] for k, scores in found.items() if scores}


def test_what_the_document_says_of_mixed_models_holds(kept):
    means, text = kept
    most = 0
    for k in SHOTS:
        linear, mixed, quadratic, auto = (
            means.of(name, k) for name in ("linear", "MixedLM", "MixedLM, quadratic", "auto")
        )
        for table, scores in auto.items():
            assert abs(linear[table]["error"] - mixed[table]["error"]) < 0.01
            better = min(mixed[table]["error"], quadratic[table]["error"])
            most = max(most, scores["error"] - better)
    assert f"never more than {most:.3f} above the better of the two mixed models" in text


def test_what_the_document_says_of_theoph_milk_and_the_others_holds(kept):
    means, text = kept
    auto, process, boosting, curve = (
        errors(means, method, "Theoph")
        for method in ("auto", "Gaussian process", "boosting", "curve")
    )
    assert all(max(process[k], boosting[k]) < auto[k] for k in SHOTS)
    assert f"level with the curve ({process[0]:.3f} and {curve[0]:.3f})" in text
    assert f"far ahead of both ({curve[5]:.3f}, {process[5]:.3f} and {boosting[5]:.3f})" in text
    milk = (errors(means, method, "Milk") for method in ("Gaussian process", "auto"))
    assert all(a < b for a, b in zip(*(m.values() for m in milk), strict=True))
    for k in SHOTS:
        ours = means.of("auto", k)
        for method in set(means.methods) - {"curve"}:
            ratios = [
                np.log(scores["error"] / ours[table]["error"])
                for table, scores in means.of(method, k).items()
                if table != "Theoph"
            ]
            assert np.exp(np.mean(ratios)) > 0.99


def test_what_the_document_says_of_intervals_and_seconds_holds(kept):
    means, text = kept
    below, above = {}, {}
    for method in means.methods:
        shares = np.array([s["coverage"] for k in SHOTS for s in means.of(method, k).values()])
        below[method], above[method] = (shares < 0.85).sum(), (shares > 0.95).sum()
        assert method == "curve" or len(shares) == 49
    ours, process, gpboost, merf, boosting = (
        below[name] for name in ("auto", "Gaussian process", "GPBoost", "MERF", "boosting")
    )
    assert f"{ours} are below 85 % and {above['auto']} above 95 %. " in text
    others = f"{process} of the Gaussian process, {gpboost} of GPBoost and {merf} of MERF"
    assert f"Below 85 % are {others}." in text
    assert f"{boosting} are below 85 % and {above['boosting']} above 95 %, and" in text
    wide, own = (means.of(name, 5) for name in ("boosting", "auto"))
    ratio = np.exp(np.mean([np.log(wide[t]["width"] / own[t]["width"]) for t in own]))
    assert f"intervals are {ratio:.2f} times as wide" in text
    slowest = max((r for r in means.results if r["method"] == "auto"), key=lambda r: r["cpu"])
    assert f"at most {slowest['cpu']:.1f} s of CPU, on {slowest['table']}." in text


def test_what_the_document_says_of_classes_holds(kept):
    _, text = kept
    results = own_data.known(own_report.RESULTS / "classes.json")
    means = own_report.Means(results, own_classes.TABLES, own_classes.METHODS)
    over = dict.fromkeys(means.tables, 0.0)
    errors = []
    for k in SHOTS:
        found = {method: means.of(method, k) for method in means.methods}
        for table, ours in found["auto"].items():
            losses = [of[table]["log_loss"] for of in found.values() if table in of]
            over[table] = max(over[table], ours["log_loss"] - min(losses))
        if k == 3:
            for table, rows in {"bacteria": 73, "respiratory": 222}.items():
                assert found["auto"][table]["rows"] == rows
                errors += [of[table]["calibration_error"] for of in found.values() if table in of]
    best = [table for table, most in over.items() if most == 0]
    assert best == ["Contraception", "VerbAgg", own_classes.THREE]
    assert f"at most {max(over.values()):.3f} above the least" in text
    least, most = (f"{100 * e:.0f}" for e in (min(errors), max(errors)))
    assert f"between {least} and {most} %" in text
    cpu = {
        table: np.mean([r["cpu"] for r in results if (r["table"], r["method"]) == (table, "auto")])
        for table in means.tables
    }
    *small, answer, three = cpu.values()
    assert f"{min(small):.0f} to {max(small):.0f} s of CPU on the first four tables" in text
    assert f"{answer:.0f} s on the 7,584 rows of VerbAgg, and {three:.0f} s with three" in text


def test_what_the_document_says_of_curves_holds(kept):
    means, _ = kept
    text = (own_report.ROOT / "docs" / "curves.md").read_text()
    curve, auto = (
        {table: errors(means, method, table) for table in own_data.CURVES}
        for method in ("curve", "auto")
    )
    assert all(curve["Theoph"][k] < 0.86 * auto["Theoph"][k] for k in SHOTS)
    assert all((curve["Loblolly"][k] < auto["Loblolly"][k]) == (k >= 3) for k in SHOTS)
    assert all(curve["Soybean"][k] > auto["Soybean"][k] for k in SHOTS)
    found = {
        (table, k): means.scores(table, "curve", k)["coverage"]
        for table in own_data.CURVES
        for k in SHOTS
    }
    few = {case: f"{100 * share:.1f}" for case, share in found.items() if share < 0.85}
    assert max(found.values()) <= 0.95
    assert list(few) == [("Theoph", 2), ("Theoph", 3), ("Loblolly", 1), ("Loblolly", 3)]
    two, three, one, last = few.values()
    assert f"two and three rows of Theoph ({two} and {three} %) and one and three of" in text
    assert f"Loblolly ({one} and {last} %)." in text


@pytest.mark.parametrize("document", own_report.BLOCKS)
def test_the_documents_have_the_tables_of_the_results(document):
    text = (own_report.ROOT / "docs" / document).read_text()
    assert own_report.written(document, text) == text


def test_a_document_without_a_block_is_refused():
    with pytest.raises(ValueError, match="0 blocks of the name 'curves'"):
        own_report.written("curves.md", "nothing")
