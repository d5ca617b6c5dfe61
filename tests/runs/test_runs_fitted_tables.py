"""A fitted table as functions: scored, saved, opened, and predicted from."""

import numpy as np
import pandas as pd
import pytest

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
        known.mean, fit.model.predict(pd.DataFrame({"price": table_numbers(table)}), known.groups)
    )
    adapted = fitted.predict(run, table, table)
    assert set(adapted.known) == {"adapted"}
    # The same rows as in the fit give the same model.
    np.testing.assert_allclose(adapted.mean, known.mean)
    assert known.as_csv().splitlines()[0] == "group,prediction,std,lower,upper,known"


def table_numbers(table):
    return table.columns["price"].astype(float)
