"""``pb.export`` and ``pb.load_exported``: the file, and what is refused."""

import json
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest

import pullback as pb
from pullback.core import program
from pullback.sklearn import MetaClassifier, MetaRegressor

pytestmark = pytest.mark.usefixtures("tiny")
RNG = np.random.default_rng(0)
GROUP = np.repeat(np.arange(8), 5)
SEEN = np.datetime64("2031-03-01") + RNG.integers(0, 99, 40).astype("timedelta64[D]")
TABLE = pd.DataFrame({"load": RNG.random(40), "oil": ["thick", "thin"] * 20, "seen": SEEN})
Y = 3 * TABLE["load"].to_numpy() + RNG.normal(size=8)[GROUP] + 0.1 * RNG.normal(size=40)


@pytest.fixture(scope="module")
def model(tiny):
    return MetaRegressor("linear").fit(TABLE, Y, groups=GROUP)


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "wear.pullback"
    pb.export(model, path)
    return path


@pytest.fixture(scope="module")
def wear(path):
    return pb.load_exported(path)


def arguments(wear, **changed):
    x = wear.rows(TABLE[:6]).reshape(2, 3, 3)
    given = {"x": x, "y": Y[:6].reshape(2, 3), "weight": np.ones((2, 3)), "query": x[:, :1]}
    return given | changed


def test_what_is_loaded_gives_the_estimator_s_numbers(model, wear):
    found = wear(**arguments(wear))
    assert list(found) == ["mean", "std"]
    for one in range(2):
        own = model.adapt(TABLE[3 * one :][:3], Y[3 * one :][:3])
        mean, deviation = own.predict(TABLE[3 * one :][:1], return_std=True)
        np.testing.assert_allclose(found["mean"][one], mean, rtol=1e-10)
        np.testing.assert_allclose(found["std"][one], deviation, rtol=1e-10)
    # Whole numbers and lists are numbers too.
    whole = wear(**arguments(wear, y=[[1, 2, 3], [4, 5, 6]]))
    assert np.isfinite(whole["mean"]).all()


def test_a_table_becomes_numbers_by_the_columns_of_the_fit(wear):
    rows = wear.rows(TABLE.assign(note="x"))
    assert rows.shape == (40, 3)
    np.testing.assert_array_equal(rows[:, 0], TABLE["load"])
    np.testing.assert_array_equal(rows[:4, 1], [0, 1, 0, 1])
    days = (SEEN - SEEN.min()) / np.timedelta64(1, "D")
    np.testing.assert_array_equal(rows[:, 2], days)
    columns = {name: TABLE[name].to_numpy() for name in TABLE}
    np.testing.assert_array_equal(wear.rows(columns), rows)
    with pytest.warns(UserWarning, match="1 of 2 rows have a value of 'oil'"):
        assert wear.rows(TABLE[:2].assign(oil=["thin", "new"]))[:, 1].tolist() == [1, -1]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            TABLE.drop(columns=["oil", "load"]),
            "lacks the columns 'load', 'oil'. Allowed: load, oil",
        ),
        (TABLE.assign(load="much"), "'load' is a category here, and was a number in fit"),
        (TABLE.assign(oil=1.0), "'oil' is a number here, and was a category"),
        (TABLE.assign(load=np.nan), "'load' misses 40 of 40 values"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(table, words, wear):
    with pytest.raises(pb.InputError, match=words):
        wear.rows(table)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"z": 1.0}, r"given x, y, weight, query, z. Allowed: x, y, weight, query"),
        ({"x": np.zeros((2, 3, 2))}, r"x has shape \[2, 3, 2\]. Allowed: \[groups, rows, 3\]"),
        ({"x": np.zeros((2, 3))}, r"x has shape \[2, 3\]"),
        ({"y": np.zeros((2, 4))}, r"y has shape \[2, 4\].*where groups = 2, rows = 3"),
        ({"query": np.zeros((2, 0, 3))}, r"query has shape \[2, 0, 3\].*none of them 0"),
        ({"y": [["much"] * 3] * 2}, r"y is of type <U4. Allowed: float64"),
        ({"y": [[1.0, 2.0], [3.0]]}, "y is no array"),
        ({"weight": -np.ones((2, 3))}, "weight has numbers from -1.0 to -1.0. Allowed: from 0"),
        ({"weight": np.full((2, 3), np.nan)}, "weight has numbers from nan"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(changed, words, wear):
    with pytest.raises(pb.InputError, match=words):
        wear(**arguments(wear, **changed))


def test_a_place_beyond_the_groups_is_refused(model, tmp_path):
    pb.export(model, tmp_path / "some", adapt=(TABLE[:10], Y[:10], GROUP[:10]))
    some = pb.load_exported(tmp_path / "some")
    assert some.about["groups"] == ["0", "1"]
    query = some.rows(TABLE[:3])
    mean = some(group=[0, 0, 2], query=query)["mean"]
    other = model.with_groups(TABLE[:10], Y[:10], GROUP[:10])
    np.testing.assert_allclose(mean, other.predict(TABLE[:3], groups=[0, 0, 99]), rtol=1e-10)
    with pytest.raises(pb.InputError, match=r"group has numbers from 0 to 3. Allowed: from 0 to 2"):
        some(group=[0, 0, 3], query=query)


def rewritten(change=lambda about: None, cut=0):
    """Spoils a file from within."""

    def spoil(path):
        with zipfile.ZipFile(path) as archive:
            about, written = json.loads(archive.read("about.json")), archive.read("program.bin")
        change(about)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("about.json", json.dumps(about))
            archive.writestr("program.bin", written[: len(written) - cut])

    return spoil


def without(member):
    def spoil(path):
        with zipfile.ZipFile(path) as archive:
            parts = {name: archive.read(name) for name in archive.namelist() if name != member}
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, part)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda p: p.unlink(), "No such file"),
        (lambda p: p.write_bytes(b""), "is no program, or a damaged one"),
        (lambda p: p.write_bytes(p.read_bytes()[:-200]), "is no program, or a damaged one"),
        (lambda p: p.write_bytes(p.read_bytes().replace(b"a", b"b")), "damaged"),
        (without("about.json"), "no item named 'about.json'"),
        (without("program.bin"), "no item named 'program.bin'"),
        (rewritten(lambda a: a.update(format=2)), "of format 2. Allowed: format 1"),
        (rewritten(lambda a: a.pop("inputs")), "is broken: inputs is missing"),
        (rewritten(cut=1), "its checksum|the checksum of its program.bin is another one"),
    ],
)
def test_a_file_that_is_none_is_refused(spoil, words, path, tmp_path):
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    spoil(copy)
    with pytest.raises(pb.InputError, match=words):
        pb.load_exported(copy)


def test_a_program_that_this_jax_cannot_read_is_refused(path, tmp_path, monkeypatch):
    def refuse(written):
        raise ValueError("serialization version 99")

    monkeypatch.setattr("jax.export.deserialize", refuse)
    with pytest.raises(pb.InputError, match=r"cannot read .* wrote: serialization version 99"):
        pb.load_exported(path)


def test_a_program_for_another_platform_is_refused(model, tmp_path):
    pb.export(model, tmp_path / "cuda", platforms=["cuda"])
    with pytest.raises(pb.InputError, match="is for cuda, and JAX computes on cpu here"):
        pb.load_exported(tmp_path / "cuda")


def test_what_cannot_be_exported_is_refused_before_anything_is_written(model, tmp_path):
    for what in (MetaClassifier(), 3, max):
        with pytest.raises(pb.InputError, match=r"cannot be exported. Allowed:"):
            pb.export(what, tmp_path / "new")
    own = model.adapt(TABLE[:2], Y[:2])
    with pytest.raises(pb.InputError, match="has adapted already"):
        pb.export(own, tmp_path / "new", adapt=(TABLE[:2], Y[:2], GROUP[:2]))
    with pytest.raises(pb.InputError, match=r"Unknown platform 'gpu'"):
        pb.export(model, tmp_path / "new", platforms=["gpu"])
    with pytest.raises(pb.InputError, match="No platform was given"):
        pb.export(model, tmp_path / "new", platforms=[])
    with pytest.raises(pb.InputError, match="is a file"):
        (tmp_path / "file").touch()
        pb.export(model, tmp_path / "file/new")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    with pytest.raises(pb.InputError, match="is there already"):
        pb.export(model, tmp_path / "file")
    with pytest.raises(pb.InputError, match="is there already"):
        pb.export(model, tmp_path, overwrite=True)
    pb.export(own, tmp_path / "file", overwrite=True)
    assert pb.load_exported(tmp_path / "file").about["model"] == "MetaRegressor"


def test_what_jax_needs_for_it_is_asked_for_first(model, path, tmp_path, monkeypatch):
    monkeypatch.setattr(program.importlib.util, "find_spec", lambda name: None)
    for call in (lambda: pb.export(model, tmp_path / "new"), lambda: pb.load_exported(path)):
        with pytest.raises(pb.InputError, match=r"pip install 'pullback\[export\]'"):
            call()


def test_loading_imports_nothing_that_trains(path):
    heavy = "{'sklearn', 'pandas', 'optax', 'orbax', 'equinox'}"
    code = f"import sys, pullback as pb; pb.load_exported({str(path)!r})"
    code += f"\nprint(sorted({heavy} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
