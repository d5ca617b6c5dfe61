import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.core.errors import InputError
from pullback.tasks import ClassSet, ClassSplit, draw_split

PARTS = ("train", "validation", "test")


def image_set(sizes, evaluation=(), official=False):
    classes = [f"{group}/c{i}" for group, size in sizes.items() for i in range(size)]
    groups = tuple(name.split("/")[0] for name in classes)
    parts = tuple(
        ("evaluation" if g in evaluation else "background") if official or evaluation else ""
        for g in groups
    )
    images = np.zeros((len(classes), 1, 28, 28), np.uint8)
    return ClassSet.of("toy", images, tuple(classes), groups, parts)


TOY = image_set({f"g{i}": 5 + i for i in range(10)})


def groups_of(names):
    return {name.split("/")[0] for name in names}


@given(
    sizes=st.lists(st.integers(1, 20), min_size=4, max_size=15),
    by=st.sampled_from(["alphabet", "character"]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_every_class_is_in_exactly_one_part(sizes, by, seed, data):
    whole = image_set({f"g{i}": size for i, size in enumerate(sizes)})
    most = max(sum(sizes) // 3, 1)
    validation = data.draw(st.integers(0, most))
    test = data.draw(st.integers(0, most))
    try:
        split = draw_split(whole, by, seed, validation, test)
    except InputError:
        # Large alphabets can leave none to train on; dealing single classes always works
        # when fewer are asked for than there are.
        assert by == "alphabet" or validation + test >= sum(sizes)
        return
    together = [name for part in PARTS for name in split.classes(part)]
    assert sorted(together) == sorted(whole.classes)
    assert split.train
    if by == "character":
        assert (len(split.validation), len(split.test)) == (validation, test)
    else:
        for one in PARTS:
            for other in PARTS:
                if one != other:
                    assert not groups_of(split.classes(one)) & groups_of(split.classes(other))
        assert bool(split.test) == (test > 0)
        assert bool(split.validation) == (validation > 0)


def test_whole_alphabets_come_near_the_number_asked_for():
    for seed in range(20):
        split = draw_split(TOY, "alphabet", seed, validation=20, test=20)
        assert abs(len(split.test) - 20) <= 7
        assert abs(len(split.validation) - 20) <= 7


def test_same_seed_same_split_whatever_the_global_state():
    np.random.seed(1)  # noqa: NPY002
    first = draw_split(TOY, "character", 3, 10, 10)
    np.random.seed(2)  # noqa: NPY002
    assert draw_split(TOY, "character", 3, 10, 10) == first
    assert draw_split(TOY, "character", 4, 10, 10) != first
    assert draw_split(TOY, "alphabet", 3, 10, 10) != draw_split(TOY, "alphabet", 4, 10, 10)


def test_order_of_the_classes_does_not_matter():
    turned = TOY.select(reversed(TOY.classes))
    for by in ("alphabet", "character"):
        one, other = draw_split(TOY, by, 0, 10, 10), draw_split(turned, by, 0, 10, 10)
        assert all(set(one.classes(p)) == set(other.classes(p)) for p in PARTS)


def test_split_is_stable_across_versions():
    # Written down once: a stored seed must mean the same split for ever.
    small = image_set({"a": 3, "b": 3, "c": 3, "d": 3})
    split = draw_split(small, "character", 0, validation=2, test=2)
    assert split.test == ("b/c1", "c/c2")
    assert groups_of(draw_split(small, "alphabet", 0, 3, 3).test) == {"d"}


def test_official_takes_the_evaluation_part_for_test():
    whole = image_set({"a": 4, "b": 5, "c": 6, "x": 7, "y": 2}, evaluation=("x", "y"))
    split = draw_split(whole, "official", 0, validation=5)
    assert groups_of(split.test) == {"x", "y"}
    assert len(split.test) == 9
    assert split.validation
    assert groups_of(split.validation) | groups_of(split.train) == {"a", "b", "c"}
    assert not groups_of(split.validation) & groups_of(split.train)


def test_official_without_the_parts_it_needs():
    with pytest.raises(InputError, match="no official parts"):
        draw_split(TOY, "official")
    with pytest.raises(InputError, match=r"no official evaluation part.*images_evaluation\.zip"):
        draw_split(image_set({"a": 4, "b": 5}, official=True), "official")
    with pytest.raises(InputError, match="no official background part"):
        draw_split(image_set({"a": 4, "b": 5}, evaluation=("a", "b")), "official")


def test_too_few_classes():
    with pytest.raises(InputError, match=r"95 classes to deal.*at most 94"):
        draw_split(TOY, "character", 0, validation=50, test=45)
    assert len(draw_split(TOY, "character", 0, validation=50, test=44).train) == 1


def test_too_few_alphabets():
    with pytest.raises(InputError, match=r"2 alphabets.*at least 3.*character"):
        draw_split(image_set({"a": 10, "b": 10}), "alphabet", 0, validation=2, test=2)


@pytest.mark.wrong_types
def test_unknown_way_and_bad_numbers():
    with pytest.raises(InputError, match=r"'alphabets'.*Did you mean 'alphabet'"):
        draw_split(TOY, "alphabets")
    with pytest.raises(InputError, match="validation is -1"):
        draw_split(TOY, validation=-1)
    with pytest.raises(InputError, match=r"test is 1\.5"):
        draw_split(TOY, test=1.5)  # pyright: ignore
    with pytest.raises(InputError, match="seed is True"):
        draw_split(TOY, seed=True)


def test_stored_split_comes_back():
    split = draw_split(TOY, "alphabet", 5, 10, 10)
    assert ClassSplit.from_dict(json.loads(json.dumps(split.to_dict()))) == split


def test_parts_by_name():
    split = draw_split(TOY, "character", 5, 10, 10)
    assert split.classes("validation") == split.validation
    with pytest.raises(InputError, match=r"'tests'.*Did you mean 'test'"):
        split.classes("tests")


def test_overlap_names_the_class():
    with pytest.raises(InputError, match=r"'b'.*in train and in test"):
        ClassSplit("toy", "character", 0, ("a", "b"), ("c",), ("b",))
    with pytest.raises(InputError, match=r"'c' occurs twice.*in validation"):
        ClassSplit("toy", "character", 0, ("a", "b"), ("c", "c"), ())
    with pytest.raises(InputError, match="way to split"):
        ClassSplit("toy", "chance", 0, ("a",), (), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "unknown keys: 'extra'"),
        ({"train": None}, "missing keys: train"),
        ({"train": "abc"}, "train of a stored split is a str"),
        ({"test": [1]}, "test of a stored split"),
        ({"seed": "0"}, "seed is '0'"),
        ({"by": 3}, "by of a stored split is 3"),
        ({"by": "chance"}, "Unknown way to split"),
    ],
)
def test_stored_split_is_read_strictly(change, message):
    stored = draw_split(TOY, "alphabet", 5, 10, 10).to_dict() | change
    stored = {key: value for key, value in stored.items() if value is not None}
    with pytest.raises(InputError, match=message):
        ClassSplit.from_dict(stored)


@pytest.mark.wrong_types
def test_stored_split_must_be_a_mapping():
    with pytest.raises(InputError, match="is a list"):
        ClassSplit.from_dict([])  # pyright: ignore
