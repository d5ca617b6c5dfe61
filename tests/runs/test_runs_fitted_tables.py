"""A fitted table as functions: scored, saved, opened, and predicted from."""

import numpy as np
import pandas as pd
import pytest

from pullback.core.errors import InputError
from pullback.runs import fitted
from pullback.runs.fitting import Settings, choose, fit_table
from pullback.runs.tables import read_table

pytestmark = pytest.mark.usefixtures("tiny")


def shops(path):
    rng = np.random.default_rng(0)
    shop = np.repeat(np.arange(8), 5)
    price = rng.uniform(1, 9, 40).round(2)
    sold = 50 + 5 * rng.normal(size=8)[shop] - 3 * price + rng.normal(size=40)
    pd.DataFrame({"shop": shop, "price": price, "sold": sold}).to_csv(path, index=False)
    return read_table(path)


def test_a_fit_is_scored_saved_and_predicted_from(tmp_path):
    table = shops(tmp_path / "t.csv")
    settings = choose(table, Settings("sold", "shop", method="linear"), (), ())
    told = []
    fit = fit_table(table, settings, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 11) for i in range(12)]
    assert fit.report["held_back"]["linear"]["3"]["error"] < 2
    assert len(fit.curves) == 6
    for curve in fit.curves:
        # Adapted to three rows, it is surer of them.
        assert (curve.after[:3, 1] < curve.before[:3, 1]).all()
    files = fitted.save(fit, tmp_path / "run")
    assert sorted(files) == sorted(path.name for path in (tmp_path / "run").iterdir())
    run = fitted.FittedRun.open(tmp_path / "run")
    assert run.settings == fit.settings
    known = fitted.predict(run, table)
    np.testing.assert_array_equal(
        known.columns["prediction"],
        fit.model.predict(pd.DataFrame({"price": table_numbers(table)}), known.groups),
    )
    adapted = fitted.predict(run, table, table)
    assert set(adapted.known) == {"adapted"}
    # The same rows as in the fit give the same model.
    np.testing.assert_allclose(adapted.columns["prediction"], known.columns["prediction"])
    assert known.as_csv().splitlines()[0] == "group,prediction,std,lower,upper,known"


def answers(path, kinds=("no", "yes"), shops=12):
    """Customers of shops who buy or not, more readily in some shops and at lower prices."""
    rng = np.random.default_rng(1)
    shop = np.repeat(np.arange(shops), 8)
    price = rng.uniform(1, 9, len(shop)).round(2)
    wish = 3 * rng.normal(size=shops)[shop] + 3 - 0.6 * price + rng.logistic(size=len(shop))
    bounds = np.quantile(wish, np.arange(1, len(kinds)) / len(kinds))
    bought = np.array(kinds)[np.searchsorted(bounds, wish)]
    pd.DataFrame({"shop": shop, "price": price, "bought": bought}).to_csv(path, index=False)
    return read_table(path)


@pytest.mark.parametrize("kinds", [("no", "yes"), ("1", "2", "10")], ids=["two", "three"])
def test_classes_are_scored_saved_and_predicted_from(tmp_path, kinds):
    table = answers(tmp_path / "t.csv", kinds)
    settings = choose(table, Settings("bought", "shop", classify=True, method="linear"), (), ())
    fit = fit_table(table, settings)
    scores = fit.report["held_back"]
    assert scores["linear"]["5"]["log_loss"] < scores["pooled"]["5"]["log_loss"] - 0.1
    assert fit.report["classes"] == sorted(kinds)
    for curve in fit.curves:
        assert set(curve.y) <= {0.0, 1.0}
        assert ((curve.after[:, 0] > 0) & (curve.after[:, 0] < 1)).all()
    fitted.save(fit, tmp_path / "run")
    text = (tmp_path / "run" / "report.md").read_text()
    assert f"bought is one of {', '.join(sorted(kinds))}." in text
    assert f"{scores['linear']['5']['log_loss']:.3f}" in text
    run = fitted.FittedRun.open(tmp_path / "run")
    known, adapted = fitted.predict(run, table), fitted.predict(run, table, table)
    names = [f"p({one})" for one in sorted(kinds)]
    chances = np.array([known.columns[name] for name in names]).T
    frame = pd.DataFrame({"price": table_numbers(table)})
    np.testing.assert_array_equal(chances, fit.model.predict_proba(frame, known.groups))
    assert known.columns["prediction"] == [sorted(kinds)[c] for c in chances.argmax(1)]
    # The same rows as in the fit give the same model.
    np.testing.assert_allclose([adapted.columns[name] for name in names], chances.T)
    assert known.as_csv().splitlines()[0] == f"group,prediction,{','.join(names)},known"
    with pytest.raises(InputError, match="has no interval"):
        fitted.predict(run, table, coverage=0.9)


def test_a_class_of_one_fold_alone_is_not_held_back(tmp_path):
    table = answers(tmp_path / "t.csv")
    shop, bought = table.columns["shop"].astype(int), table.columns["bought"]
    bought[:] = np.where((shop == 3) & (np.arange(len(shop)) % 2 == 0), "yes", "no")
    settings = choose(table, Settings("bought", "shop", classify=True, method="linear"), (), ())
    fit = fit_table(table, settings)
    assert "all rows are of the class 'no'" in fit.report["not_held_back"]
    assert fit.report["held_back"] == {}


def test_a_class_that_one_fold_has_alone_is_scored_where_there_are_others(tmp_path):
    table = answers(tmp_path / "t.csv")
    table.columns["bought"][:2] = "maybe"
    settings = choose(table, Settings("bought", "shop", classify=True, method="linear"), (), ())
    fit = fit_table(table, settings)
    assert fit.report["classes"] == ["maybe", "no", "yes"]
    assert np.isfinite(fit.report["held_back"]["linear"]["1"]["log_loss"])


@pytest.mark.parametrize(
    ("classify", "target", "words"),
    [(False, "bought", "add --classify"), (True, "price", "at most 20")],
)
def test_classes_and_numbers_are_told_apart(tmp_path, classify, target, words):
    table = answers(tmp_path / "t.csv")
    settings = choose(table, Settings(target, "shop", classify=classify), (), ())
    with pytest.raises(InputError, match=words):
        fit_table(table, settings)


def table_numbers(table):
    return table.columns["price"].astype(float)
