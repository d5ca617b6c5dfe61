"""Examples sorted into classes: any shape, and as many of each class as there are."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pullback.core.errors import InputError
from pullback.tasks import ClassSet, draw_split, episodes
from pullback.tasks.episodes import _distinct


def vectors(counts, size=3):
    """Every number of an example is its class, plus a thousandth of its place in it."""
    examples = [
        np.full((count, size), number) + np.arange(count)[:, None] / 1000
        for number, count in enumerate(counts)
    ]
    return ClassSet.of("vectors", examples, [f"c{n}" for n in range(len(counts))])


def test_a_class_is_found_again():
    made = vectors([2, 5, 3])
    assert made.shape == (3,) and made.starts.tolist() == [0, 2, 7]
    np.testing.assert_array_equal(made.of_class(1)[:, 0], 1 + np.arange(5) / 1000)
    chosen = made.select(["c2", "c0"])
    assert chosen.counts.tolist() == [3, 2]
    np.testing.assert_array_equal(chosen.of_class(0), made.of_class(2))


def test_a_digest_changes_with_an_example_and_with_a_name():
    made = vectors([2, 2])
    other = ClassSet.of("vectors", [made.of_class(0), made.of_class(1)], ["c0", "c2"])
    moved = made.examples.copy()
    moved[0, 0] += 1
    changed = ClassSet.of("vectors", [moved[:2], moved[2:]], made.classes)
    assert len({made.digest(), other.digest(), changed.digest()}) == 3
    assert made.digest() == vectors([2, 2]).digest()


@pytest.mark.parametrize("counts", [[4, 9, 6, 5], [6, 6, 6, 6]])
def test_ragged_classes_are_drawn_without_padding_and_without_repetition(counts):
    source = episodes(vectors(counts), ways=3, shots=1, queries=3)
    sample = jax.jit(jax.vmap(source.sample))
    tasks = sample(jax.random.split(jax.random.key(0), 400))
    x = np.concatenate([tasks.support[0], tasks.query[0]], axis=1)[..., 0]
    y = np.concatenate([tasks.support[1], tasks.query[1]], axis=1)
    seen: dict[int, set[int]] = {number: set() for number in range(len(counts))}
    for numbers, labels in zip(x, y, strict=True):
        for label in range(3):
            drawn = numbers[labels == label]
            (one,) = set(np.rint(drawn).astype(int))
            places = np.rint(1000 * (drawn - one)).astype(int)
            assert len(set(places)) == 4 and places.max() < counts[one]
            seen[one] |= set(places)
    # Every example of every class turns up sooner or later.
    assert [len(places) for places in seen.values()] == counts


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(4, 9))
def test_numbers_below_a_count_are_distinct_and_below_it(seed, count):
    found = np.asarray(DRAW(jax.random.key(seed), count))
    assert len(set(found.tolist())) == 4 and found.max() < count and found.min() >= 0


DRAW = jax.jit(lambda key, count: _distinct(key, 9, 4, count))


def test_every_example_of_a_small_class_is_as_likely():
    keys = jax.random.split(jax.random.key(1), 6000)
    first = np.asarray(jax.vmap(lambda key: DRAW(key, 5)[0])(keys))
    shares = np.bincount(first, minlength=9) / len(first)
    np.testing.assert_allclose(shares[:5], 0.2, atol=0.03)
    assert not shares[5:].any()


def test_equal_classes_are_drawn_as_ever():
    key = jax.random.key(3)
    one = _distinct(key, 7, 3)
    np.testing.assert_array_equal(one, _distinct(key, 7, 3, np.int32(7)))


@pytest.mark.parametrize("shape", [(6, 6, 1), (5, 8, 3), (4, 4, 4), (7, 7, 2)])
def test_images_of_any_size_and_one_to_four_channels(shape):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (count, *shape), np.uint8) for count in (4, 6, 5)]
    made = ClassSet.of("images", images, list("abc"))
    square = shape[0] == shape[1]
    source = episodes(
        made, ways=3, shots=1, queries=2, reflections=True, rotations=square, distortion=0.5
    )
    task = jax.jit(lambda key: source.sample(key))(jax.random.key(0))
    assert task.support[0].shape == (3, *shape) and task.query[0].shape == (6, *shape)
    assert task.query[0].min() >= 0 and task.query[0].max() <= 1
    plain = episodes(made, ways=3, shots=1, queries=2).sample(jax.random.key(0))
    drawings = {image.tobytes() for each in images for image in each}
    for image in np.rint(255 * np.asarray(plain.query[0])).astype(np.uint8):
        assert image.tobytes() in drawings


def test_channels_are_turned_and_reflected_together():
    image = np.arange(2 * 5 * 5 * 3, dtype=np.uint8).reshape(2, 5, 5, 3)
    made = ClassSet.of("one", [image[:1].repeat(2, 0), image[1:].repeat(2, 0)], list("ab"))
    source = episodes(made, ways=16, shots=1, queries=1, rotations=True, reflections=True)
    found = np.rint(255 * np.asarray(source.sample(jax.random.key(0)).support[0]))
    views = {
        np.rot90(view, turn).astype(float).tobytes()
        for one in image
        for view in (one, one[:, ::-1])
        for turn in range(4)
    }
    assert {view.astype(float).tobytes() for view in found} == views


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shots": 2, "queries": 3}, r"need 5 examples per class, but class 'c0' .* has 4"),
        ({"rotations": True}, "are no images, and have no rotations"),
        ({"distortion": 0.5}, "have no distortion"),
    ],
)
def test_what_a_set_cannot_give_is_named(options, message):
    with pytest.raises(InputError, match=message):
        episodes(vectors([4, 9, 6]), **{"ways": 2, "shots": 1, "queries": 1} | options)


def test_classes_without_groups_are_split_one_by_one():
    split = draw_split(vectors([3] * 10), validation=2, test=3)
    assert [len(split.classes(part)) for part in ("train", "validation", "test")] == [5, 2, 3]
