"""Programs of estimators give the numbers of the estimators, by JAX alone."""

import datetime
import io
import json
import zipfile

import jax
import numpy as np
import pandas as pd
import pytest
from jax import export

from pullback.core.errors import InputError
from pullback.core.program import pack
from pullback.sklearn import CurveRegressor, MetaClassifier, MetaRegressor, program

pytestmark = pytest.mark.usefixtures("tiny")
ROWS = 6
DAY = datetime.timedelta(days=1)


def machines(groups=12, seed=0):
    """Rows with a column of each kind, two of them the same within a group."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), ROWS)
    load, own = rng.uniform(0, 10, len(group)), rng.normal(size=(groups, 2))[group]
    first = np.datetime64("2031-03-01T12:00", "s")
    table = pd.DataFrame(
        {
            "load": load,
            "oil": rng.choice(["thick", "thin", "none"], len(group)),
            "seen": first + rng.integers(0, 10**7, len(group)).astype("timedelta64[s]"),
            "old": np.repeat(rng.random(groups) < 0.5, ROWS),
            "maker": np.repeat(rng.choice(["a", "b"], groups), ROWS),
        }
    )
    y = 1e3 + 4 * own[:, 0] + (2 + own[:, 1]) * load + rng.normal(size=len(group))
    return table, y, group


TABLE, Y, GROUP = machines()
NEW, NEW_Y, _ = machines(3, seed=1)


@pytest.fixture(scope="module", params=["linear", "learned"])
def model(request, tiny):
    return MetaRegressor(request.param, hidden=3, members=2).fit(TABLE, Y, groups=GROUP)


def run(made, *arrays):
    """A program as it stands in a file, called by JAX."""
    about, content = pack(made, ("cpu",))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert json.loads(archive.read("about.json")) == json.loads(json.dumps(about))
        written = archive.read("program.bin")
    with jax.enable_x64(True):
        found = export.deserialize(bytearray(written)).call(*arrays)
    return [np.asarray(each) for each in found]


def numbers(table):
    """The rows of a table by the rule of the documents."""
    first = TABLE["seen"].min()
    return np.stack(
        [
            table["load"],
            [["none", "thick", "thin"].index(oil) if oil != "new" else 7 for oil in table["oil"]],
            [(seen - first) / DAY for seen in table["seen"]],
            table["old"],
            [["a", "b"].index(maker) for maker in table["maker"]],
        ],
        1,
    ).astype(float)


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_many_groups_of_unequal_sizes_are_adapted_to_in_one_call(model):
    x, y, weight = numbers(NEW).reshape(3, ROWS, -1), NEW_Y.reshape(3, ROWS).copy(), np.ones((3, 4))
    weight[1] = [1, 0, 2.5, 0]
    weight[2] = 0
    x, y = x[:, :4].copy(), y[:, :4]
    # Padding may hold anything.
    x[weight == 0], y[weight == 0] = np.nan, np.inf
    query = numbers(NEW).reshape(3, ROWS, -1)
    mean, std = run(program.adapting(model), x, y, weight, query)
    assert mean.dtype == std.dtype == np.float64
    for one, rows in enumerate(np.split(np.arange(3 * ROWS), 3)):
        seen = rows[:4][weight[one] > 0]
        counts = weight[one][weight[one] > 0] if len(seen) else None
        own = model.adapt(NEW.iloc[seen], NEW_Y[seen], counts)
        wanted, deviation = own.predict(NEW.iloc[rows], return_std=True)
        close(mean[one], wanted)
        close(std[one], deviation)
    close(mean[2], model.predict(NEW[2 * ROWS :]))


def test_a_new_category_is_the_average_and_a_missing_number_is_no_number(model):
    table = NEW[:3].assign(oil=["new", "thin", "thick"])
    with pytest.warns(UserWarning, match="not there in fit"):
        wanted = model.predict(table)
    query = numbers(table)[None]
    x, none = np.zeros((1, 1, 5)), np.zeros((1, 1))
    close(run(program.adapting(model), x, none, none, query)[0][0], wanted)
    query[0, 1, 0] = np.nan
    mean, std = run(program.adapting(model), x, none, none, query)
    assert np.isnan(mean[0]).tolist() == np.isnan(std[0]).tolist() == [False, True, False]


def test_groups_that_are_known_are_predicted_by_their_place(model):
    made = program.adapted(model)
    assert made.about["groups"] == [str(name) for name in range(12)]
    group = np.append(GROUP[:30], [12, 12]).astype(np.int32)
    table = TABLE[:32]
    mean, std = run(made, group, numbers(table))
    names = np.where(group == 12, "stranger", group.astype(str))
    with pytest.warns(UserWarning, match="none of these groups is known"):
        population = model.predict(table, groups=names)
    close(mean[30:], population[30:])
    wanted, deviation = model.predict(TABLE[:30], groups=GROUP[:30], return_std=True)
    close(mean[:30], wanted)
    close(std[:30], deviation)


def test_one_group_that_was_adapted_to(model):
    own = model.adapt(NEW[:2], NEW_Y[:2])
    made = program.adapted(own)
    assert list(made.inputs) == ["query"]
    mean, std = run(made, numbers(NEW[:ROWS]))
    wanted, deviation = own.predict(NEW[:ROWS], return_std=True)
    close(mean, wanted)
    close(std, deviation)


def test_without_groups_there_is_the_population_alone():
    alone = MetaRegressor("linear").fit(TABLE[["load", "maker"]], Y)
    with pytest.raises(InputError, match="fit was given no groups"):
        program.adapting(alone)
    query = numbers(NEW)[:, [0, 4]]
    mean, _ = run(program.adapted(alone), np.zeros(len(query), np.int32), query)
    close(mean, alone.predict(NEW[["load", "maker"]]))


def test_a_program_for_other_platforms_too_runs_here(model):
    made = program.adapted(model.adapt(NEW[:2], NEW_Y[:2]))
    about, content = pack(made, ("cpu", "cuda", "tpu"))
    assert about["platforms"] == ["cpu", "cuda", "tpu"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive, jax.enable_x64(True):
        program_ = export.deserialize(bytearray(archive.read("program.bin")))
        close(program_.call(numbers(NEW))[0], run(made, numbers(NEW))[0])


@pytest.mark.parametrize("other", [MetaClassifier(), CurveRegressor(max, ["a"]), object()])
def test_other_estimators_are_refused(other):
    for make in (program.adapting, program.adapted):
        with pytest.raises(InputError, match=r"cannot be exported. Allowed: MetaRegressor"):
            make(other)
