import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.tasks import ClassSet, TaskDistribution, batches
from pullback.tasks.views import view


def ragged(*counts):
    """Each class's pictures say in one pixel which class and which example they are."""
    pictures = []
    for number, count in enumerate(counts):
        images = np.zeros((count, 6, 6), np.uint8)
        images[:, 0, 1] = 10 * (number + 1) + np.arange(count)
        pictures.append(images)
    return ClassSet.of("marked", pictures, [f"c{n}" for n in range(len(counts))])


def test_a_batch_is_the_query_set_of_a_task_without_support():
    source = batches(ragged(3, 4, 5), size=7)
    assert isinstance(source, TaskDistribution)
    task = source.sample(jax.random.key(0))
    x, y = task.query
    assert task.support == ()
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((7, 6, 6, 1), jnp.float32, (7,), jnp.int32)
    assert np.all((np.asarray(x) >= 0) & (np.asarray(x) <= 1))


def test_each_label_and_each_of_its_examples_is_as_likely_as_any_other():
    source = batches(ragged(2, 5, 3), size=6000)
    x, y = source.sample(jax.random.key(1)).query
    marks = np.rint(255 * np.asarray(x)[:, 0, 1, 0]).astype(int)
    np.testing.assert_array_equal(marks // 10 - 1, y)
    for label, count in enumerate((2, 5, 3)):
        found = np.bincount(marks[np.asarray(y) == label] % 10, minlength=count)
        assert len(found) == count
        # Six standard deviations of a count.
        expected = 2000 / count
        assert np.all(np.abs(found - expected) < 6 * expected**0.5)


@pytest.mark.parametrize(
    ("rotations", "reflections", "views"),
    [(False, False, 1), (True, False, 4), (False, True, 2), (True, True, 8)],
)
def test_views_are_labels_of_their_own(rotations, reflections, views):
    classes = ragged(2, 2, 2)
    source = batches(classes, size=400, rotations=rotations, reflections=reflections)
    assert source.classes == 3 * views
    x, y = map(np.asarray, source.sample(jax.random.key(2)).query)
    assert set(y.tolist()) == set(range(source.classes))
    for picture, label in zip(x, y, strict=True):
        number, turned = label % 3, label // 3
        originals = classes.examples[2 * number : 2 * number + 2] / 255
        if turned >= (4 if rotations else 1):
            picture = picture[:, ::-1]
        if rotations:
            picture = np.rot90(picture, -(turned % 4))
        assert any(np.allclose(picture, each) for each in originals)


def test_all_views_of_a_picture_differ():
    picture = np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1)
    shown = view(jnp.repeat(picture[None], 8, 0), jnp.arange(8), rotations=True, reflections=True)
    assert len({np.asarray(each).tobytes() for each in shown}) == 8


def test_distortion_changes_pictures_and_no_label():
    plain = batches(ragged(3, 3), size=16).sample(jax.random.key(0)).query
    other = batches(ragged(3, 3), size=16, distortion=2).sample(jax.random.key(0)).query
    np.testing.assert_array_equal(plain[1], other[1])
    assert np.any(np.asarray(plain[0]) != np.asarray(other[0]))


def test_feature_vectors_need_no_pictures():
    vectors = [np.full((3, 4), float(n), np.float32) for n in range(2)]
    source = batches(ClassSet.of("vectors", vectors, ["a", "b"]), size=5)
    x, y = source.sample(jax.random.key(0)).query
    assert x.shape == (5, 4)
    np.testing.assert_array_equal(np.asarray(x)[:, 0], y)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": 0}, "size"),
        ({"size": 2, "distortion": 3.0}, "distortion is 3.0"),
        ({"size": 2, "rotations": True}, "have no rotations"),
        ({"size": 2, "reflections": True}, "have no reflections"),
    ],
)
def test_bad_input(options, words):
    vectors = ClassSet.of("vectors", [np.zeros((3, 4), np.float32)], ["a"])
    with pytest.raises(InputError, match=words):
        batches(vectors, **options)
