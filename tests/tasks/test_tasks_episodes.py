import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from class_sets import stacked

from pullback.core.errors import InputError
from pullback.tasks import ClassSet, TaskDistribution, episodes

CLASSES, EXAMPLES = 30, 8


def marked():
    """Pixels tell class and example; one bright corner tells the rotation."""
    images = np.zeros((CLASSES, EXAMPLES, 28, 28), np.uint8)
    images[:, :, 10, 10:18] = np.arange(CLASSES)[:, None, None]
    images[:, :, 12:16, 12:16] = np.arange(CLASSES)[:, None, None, None]
    images[:, :, 13:15, 13:15] = 100 + np.arange(EXAMPLES)[None, :, None, None]
    images[:, :, 0, 0] = 255
    names = tuple(f"c{i}" for i in range(CLASSES))
    return ClassSet.of("marked", images, names, names, ("",) * CLASSES)


IMAGES = marked()
# Where the corner that was top left lies after 0, 1, 2, 3 turns to the left by 90°.
CORNERS = {(0, 0): 0, (27, 0): 1, (27, 27): 2, (0, 27): 3}


def read(x):
    """Class, example and rotation of each image of a batch."""
    raw = np.rint(np.asarray(x)[..., 0] * 255).astype(int)
    turn = [next(r for place, r in CORNERS.items() if image[place] == 255) for image in raw]
    return raw[:, 12, 12], raw[:, 13, 13] - 100, np.array(turn)


def test_shapes_types_and_label_order():
    task = episodes(IMAGES, ways=5, shots=2, queries=3).sample(jax.random.key(0))
    (x, y), (qx, qy) = task.support, task.query
    assert (x.shape, x.dtype) == ((10, 28, 28, 1), jnp.float32)
    assert (qx.shape, qx.dtype) == ((15, 28, 28, 1), jnp.float32)
    assert (y.dtype, qy.dtype) == (jnp.int32, jnp.int32)
    assert y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert qy.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert float(x.max()) == 1.0
    assert float(x.min()) == 0.0


@pytest.mark.parametrize("rotations", [False, True])
def test_classes_are_distinct_and_no_example_comes_twice(rotations):
    source = episodes(IMAGES, ways=20, shots=3, queries=5, rotations=rotations)
    sample = jax.jit(lambda s, k: s.sample(k))
    turns = set()
    for seed in range(30):
        task = sample(source, jax.random.key(seed))
        classes, examples, turned = read(jnp.concatenate([task.support[0], task.query[0]]))
        labels = np.concatenate([task.support[1], task.query[1]])
        identity = [
            set(zip(classes[labels == i], turned[labels == i], strict=True)) for i in range(20)
        ]
        assert all(len(one) == 1 for one in identity)
        assert len(set.union(*identity)) == 20
        assert all(len(set(examples[labels == i])) == 8 for i in range(20))
        turns |= set(turned.tolist())
    assert turns == ({0, 1, 2, 3} if rotations else {0})


def test_rotated_images_are_numpys_rot90():
    source = episodes(IMAGES, ways=40, shots=1, queries=1, rotations=True)
    x = source.sample(jax.random.key(1)).support[0]
    for image, one, example, turn in zip(np.asarray(x), *read(x), strict=True):
        expected = np.rot90(stacked(IMAGES)[one, example], turn)
        assert np.array_equal(np.rint(image[..., 0] * 255), expected)


@pytest.mark.parametrize("rotations", [False, True])
def test_a_class_its_turns_and_their_mirror_images_are_classes_of_their_own(rotations):
    images = stacked(IMAGES).copy()
    images[:, :, 0, 5] = 200
    source = episodes(
        ClassSet.of(IMAGES.name, images, IMAGES.classes),
        ways=CLASSES * (8 if rotations else 2),
        shots=1,
        queries=1,
        rotations=rotations,
        reflections=True,
    )
    task = source.sample(jax.random.key(1))
    seen = set()
    for image in np.rint(np.asarray(task.support[0])[..., 0] * 255).astype(np.uint8):
        one, example = int(image[12, 12]), int(image[13, 13]) - 100
        drawn = images[one, example]
        views = [np.rot90(view, turn) for view in (drawn, drawn[:, ::-1]) for turn in range(4)]
        (view,) = [i for i, expected in enumerate(views) if np.array_equal(image, expected)]
        seen.add((one, view))
    expected = range(8) if rotations else (0, 4)
    assert seen == {(one, view) for one in range(CLASSES) for view in expected}


def test_all_classes_and_examples_can_be_drawn():
    source = episodes(IMAGES, ways=CLASSES, shots=EXAMPLES - 1, queries=1)
    classes, _, _ = read(source.sample(jax.random.key(0)).query[0])
    assert sorted(classes) == list(range(CLASSES))
    assert classes.tolist() != list(range(CLASSES))


def test_every_class_and_example_is_equally_likely():
    source = episodes(IMAGES, ways=5, shots=1, queries=1)
    x = jax.jit(jax.vmap(source.sample))(jax.random.split(jax.random.key(0), 1500)).support[0]
    classes, examples, _ = read(x.reshape(-1, 28, 28, 1))
    for values, count in ((classes, CLASSES), (examples, EXAMPLES)):
        expected = len(values) / count
        counts = np.bincount(values, minlength=count)
        assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def grouped(sizes):
    """The marked images, their classes dealt in turn to alphabets of these sizes."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    names = tuple(f"alphabet {group}" for group in groups)
    return dataclasses.replace(IMAGES, groups=names), groups


@pytest.mark.parametrize("rotations", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_tasks_is_of_one_alphabet_and_classes_stay_equally_likely(share, rotations):
    images, groups = grouped([5, 10, 15])
    source = episodes(images, ways=4, shots=1, queries=1, rotations=rotations, same_alphabet=share)
    count = 1500
    x = jax.jit(jax.vmap(source.sample))(jax.random.split(jax.random.key(0), count)).support[0]
    classes, _, turns = read(x.reshape(-1, 28, 28, 1))
    assert all(
        len({*zip(*pair, strict=True)}) == 4
        for pair in zip(classes.reshape(count, 4), turns.reshape(count, 4), strict=True)
    )
    alone = np.mean([len(set(groups[task])) == 1 for task in classes.reshape(count, 4)])
    sizes = np.asarray([5, 10, 15]) * (4 if rotations else 1)
    choices = [math.comb(size, 4) for size in sizes]
    expected = share + (1 - share) * sum(choices) / math.comb(sum(sizes), 4)
    assert abs(alone - expected) < 5 * np.sqrt(max(expected * (1 - expected), 1e-9) / count)
    likely = 4 * count / CLASSES
    counts = np.bincount(classes, minlength=CLASSES)
    # Classes of one task are not independent of each other: a wider bound than for one draw.
    assert np.abs(counts - likely).max() < 8 * np.sqrt(likely)


def test_an_alphabet_too_small_gives_all_it_has_and_others_the_rest():
    images, groups = grouped([2, 28])
    source = episodes(images, ways=5, shots=1, queries=1, same_alphabet=1.0)
    tasks = [groups[read(source.sample(jax.random.key(i)).support[0])[0]] for i in range(60)]
    small = [task for task in tasks if 0 in task]
    assert small
    assert all((task == 0).sum() in (0, 2) for task in tasks)


def test_same_key_same_task_under_jit_and_vmap():
    source = episodes(IMAGES, ways=5, shots=1, queries=2, rotations=True)
    keys = jax.random.split(jax.random.key(7), 3)
    sample = jax.jit(lambda s, k: s.sample(k))
    plain = source.sample(keys[0])
    jitted = [sample(source, key) for key in keys]
    mapped = jax.jit(jax.vmap(source.sample))(keys)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(jitted[0]), strict=True):
        assert np.array_equal(a, b)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *jitted)
    for a, b in zip(jax.tree.leaves(stacked), jax.tree.leaves(mapped), strict=True):
        assert np.array_equal(a, b)
    assert not np.array_equal(jitted[0].support[0], jitted[1].support[0])


def test_images_are_an_argument_not_a_constant():
    source = episodes(IMAGES, ways=5, shots=1, queries=1)
    images, *others = jax.tree.leaves(source)
    assert images.dtype == jnp.uint8
    assert [leaf.shape for leaf in others] == [(CLASSES,)] * 3
    traced = jax.make_jaxpr(lambda s, k: s.sample(k))(source, jax.random.key(0))
    assert all(np.size(constant) < 100 for constant in traced.consts)


def test_is_a_task_distribution():
    assert isinstance(episodes(IMAGES, ways=5, shots=1, queries=1), TaskDistribution)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ways": 31}, r"31 ways.*30 classes.*1 to 30"),
        ({"ways": 121, "rotations": True}, r"121 ways.*120 classes with rotations"),
        (
            {"ways": 241, "rotations": True, "reflections": True},
            "240 classes with rotations and reflections",
        ),
        ({"shots": 5, "queries": 4}, r"5 shots and 4 queries need 9.*at most 8"),
        ({"ways": 0}, "ways is 0"),
        ({"shots": -1}, "shots is -1"),
        ({"queries": 0}, "queries is 0"),
        ({"queries": 1.0}, "queries is 1.0"),
        ({"shots": True}, "shots is True"),
        ({"same_alphabet": 1.5}, r"same_alphabet is 1\.5.*numbers from 0 to 1"),
        ({"distortion": 2.5}, r"distortion is 2\.5.*numbers from 0 to 2"),
        ({"distortion": float("nan")}, "distortion is nan"),
    ],
)
def test_impossible_episodes_are_refused(given, message):
    numbers = {"ways": 5, "shots": 1, "queries": 1} | given
    with pytest.raises(InputError, match=message):
        episodes(IMAGES, **numbers)
