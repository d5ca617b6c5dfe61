"""Own feature vectors: the file they come in, and the scale they are brought to."""

import re

import numpy as np
import pytest

from pullback.core.errors import DataError, InputError
from pullback.tasks import ClassSet, load_vectors
from pullback.tasks.datasets import DataSummary, summarise_data
from pullback.tasks.standardisation import Standardisation
from pullback.tasks.vectors import read_vectors

X = np.arange(12.0).reshape(6, 2)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "b", "é", "a", "b"], ("a", "b", "é")),
        ([10, 9, 10, 11, 9, 10], ("9", "10", "11")),
        ([b"y", b"x", b"y", b"z", b"x", b"y"], ("x", "y", "z")),
    ],
)
def test_rows_are_sorted_into_the_classes_of_their_labels(labels, names, tmp_path):
    found = load_vectors(saved(tmp_path / "own.npz", x=X, y=labels))
    assert found.classes == found.groups == names
    assert found.counts.tolist() == [2, 3, 1]
    assert found.of_class(1).tolist() == X[[0, 2, 5]].tolist()
    assert found.shape == (2,) and not found.is_images


def test_rows_to_classify_need_no_labels(tmp_path):
    x, labels = read_vectors(saved(tmp_path / "own.npz", x=X.astype(np.float16)))
    assert labels is None and x.dtype == np.float64 and (x == X).all()


Y = np.arange(6) % 2
FILES = {
    "x under another name": ({"data": X, "label": Y}, r"no array x .*arrays: data, label.*savez"),
    "no labels": ({"x": X}, "has no array y"),
    "one column without an axis": ({"x": X[:, 0], "y": Y}, r"x as float64\[6\]"),
    "no rows": ({"x": X[:0], "y": Y[:0]}, r"x as float64\[0, 2\]"),
    "text in x": ({"x": X.astype(str), "y": Y}, r"x as <U"),
    "too few labels": ({"x": X, "y": Y[:5]}, r"y as int64\[5\] for 6 rows"),
    "labels with a fraction": ({"x": X, "y": Y / 2}, r"y as float64\[6\]"),
    "objects": ({"x": X, "y": np.array([None] * 6)}, "cannot be read as feature vectors"),
    "one class": ({"x": X, "y": Y * 0}, "All 6 rows .* of one class, '0'"),
    "missing numbers": (
        {"x": np.where(np.isin(X, [4, 11]), np.nan, X), "y": Y},
        r"2 rows of x .* not finite, the first is row 2",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_another_file_is_refused_with_what_is_in_it(name, tmp_path):
    arrays, message = FILES[name]
    with pytest.raises(DataError, match=message):
        load_vectors(saved(tmp_path / "own.npz", **arrays))


def test_what_is_no_such_file_is_refused(tmp_path):
    np.save(tmp_path / "own.npy", X)
    (tmp_path / "text.npz").write_text("x,y")
    for name in ("own.npy", "text.npz", "", "gone.npz"):
        with pytest.raises(DataError, match=re.escape(str(tmp_path / name))):
            load_vectors(tmp_path / name)
    with pytest.raises(InputError, match="has no file"):
        load_vectors()


def a_set(examples):
    return ClassSet.of("own", [examples[:2], examples[2:]], ["a", "b"])


def test_training_classes_get_the_mean_0_and_the_deviation_1(rng):
    x = rng.normal(size=(50, 3)) * [1e-200, 1, 1e200] + [1e-200, -7, 0]
    scaled = Standardisation.of(a_set(x))(x)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-6)
    assert scaled.dtype == np.float32


def test_other_examples_are_put_on_the_same_scale_and_constants_are_only_shifted():
    x = np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]])
    scale = Standardisation.of(a_set(x))
    np.testing.assert_allclose(scale(np.array([[1.1, 3.0]])), [[1.0, 0.0]], atol=1e-6)
    assert scale.deviation == (1.0, pytest.approx(np.sqrt(8 / 3)))


def test_a_number_out_of_all_range_and_images_are_refused():
    scale = Standardisation.of(a_set(np.array([[1.0, 1.0], [1.0, 2.0], [1.0, 4.0]])))
    with pytest.raises(InputError, match="Column 0"):
        scale(np.array([[1e300, 1.0]]))
    images = ClassSet.of("own", np.zeros((2, 2, 4, 4), np.uint8), ["a", "b"])
    with pytest.raises(InputError, match="are images"):
        summarise_data(images, 2, ["a"])


def test_the_scale_is_that_of_the_classes_named_and_comes_back_from_json():
    summary = summarise_data(a_set(X), 2, ["b"])
    assert summary.standardisation == Standardisation.of(a_set(X).select(["b"]))
    assert DataSummary.from_dict(summary.to_dict()) == summary
    stored = summary.to_dict()
    for broken in ({"mean": [0.0]}, {"deviation": [0.0, 1.0]}, {"mean": ["x", 1.0]}):
        stored["standardisation"] = {"mean": [0.0, 0.0], "deviation": [1.0, 1.0]} | broken
        with pytest.raises(InputError, match="summary of the data is broken"):
            DataSummary.from_dict(stored)


def test_classes_that_come_and_go_are_said():
    summary = summarise_data(a_set(X), 2)
    assert summary.come_and_gone(a_set(X)) == ""
    other = ClassSet.of("own", [X[:2], X[2:4], X[4:]], ["a", "c", "d"])
    text = summary.come_and_gone(other)
    assert "2 classes are new, such as 'c'" in text and "1 are gone, such as 'b'" in text
