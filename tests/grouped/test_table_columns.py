"""What becomes of a table's columns."""

import numpy as np
import pandas as pd
import pytest

from pullback.core.errors import InputError
from pullback.grouped.table import Column, Encoder, columns_of

GROUP = np.array([0, 0, 1, 1, 2, 2])


def encode(**columns):
    given = [(name, np.asarray(column)) for name, column in columns.items()]
    encoder = Encoder.fit(given, np.ones(6), GROUP)
    return encoder, encoder(given)[0]


def test_columns_that_vary_within_groups_come_first():
    encoder, inputs = encode(age=[3.0, 3.0, 5.0, 5.0, 4.0, 4.0], time=[0, 1, 0, 2, 1, 2])
    assert encoder.names == ("time", "age")
    assert encoder.varying == 1
    np.testing.assert_allclose(inputs[:, :2].mean(0), 0, atol=1e-12)
    np.testing.assert_allclose(inputs[:, :2].std(0), 1)


def test_texts_truth_values_and_times_become_numbers():
    days = np.array(["2026-01-01", "2026-01-03"] * 3, "datetime64[ns]")
    encoder, inputs = encode(
        machine=np.array(["b", "a", "c", "a", "b", "c"], object), on=[True, False] * 3, day=days
    )
    assert encoder.names == ("machine=b", "machine=c", "on", "day")
    assert inputs.shape == (6, 4)
    np.testing.assert_allclose(np.unique(inputs[:, 3].round(9)), [-1.0, 1.0])


def test_a_new_category_is_the_average_and_is_counted():
    encoder, _ = encode(machine=np.array(["a", "b"] * 3, object))
    inputs, new = encoder([("machine", np.array(["z", "a"], object))])
    assert new == 1
    assert inputs[0, 0] == 0.0
    assert inputs[1, 0] != 0.0


def test_ranks_are_those_of_weighted_rows():
    x = np.arange(6.0)
    whole = Encoder.fit([("x", x)], np.array([1.0, 1, 1, 1, 1, 2]), GROUP)
    twice = Encoder.fit([("x", np.append(x, 5.0))], np.ones(7), np.append(GROUP, 2))
    np.testing.assert_allclose(whole([("x", x)])[0], twice([("x", x)])[0])


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (np.array([1.0, np.nan, 2.0]), "misses 1 of 3"),
        (np.array(["a", None, "b"], object), "misses 1 of 3"),
        (np.array(["2026-01-01", "NaT"], "datetime64[D]"), "misses 1 of 2"),
        (np.array([1.0, np.inf]), "1 infinite"),
        (np.array(["a", 1], object), "int, str"),
        (np.array([1 + 2j]), "complex"),
        (np.array([f"no. {i}" for i in range(200)]), "200 different texts"),
        (np.array([f"{i},5" for i in range(20)]), "numbers written as text, such as '9,5'"),
    ],
)
def test_a_column_that_cannot_be_used_is_named(column, message):
    with pytest.raises(InputError, match=f"column 'dose'.*{message}"):
        Column.of("dose", column)


def test_two_columns_of_one_name_are_refused():
    frame = pd.DataFrame([[1, 2]], columns=["x", "x"])
    with pytest.raises(InputError, match="'x' there is more than one"):
        columns_of(frame)


def test_a_column_of_another_kind_than_in_fit_is_named():
    encoder, _ = encode(time=[0, 1, 0, 2, 1, 2])
    with pytest.raises(InputError, match="'time' is a category here, and was a number in fit"):
        encoder([("time", np.array(["a", "b"]))])
