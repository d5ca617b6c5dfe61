import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.registries import STRONGEST_DISTORTION
from pullback.tasks import ClassSet, episodes
from pullback.tasks.distortion import distort


def disc(radius=4.0, centre=(13.5, 13.5)):
    rows, columns = np.mgrid[:28, :28]
    inside = np.hypot(rows - centre[0], columns - centre[1]) <= radius
    return np.where(inside, 255, 0).astype(np.uint8)


def moments(image):
    """Ink, its middle and its covariance, in pixels."""
    weight = np.asarray(image, float) / 255
    ink = weight.sum()
    places = np.stack(np.mgrid[:28, :28], -1).reshape(-1, 2)
    weight = weight.reshape(-1) / ink
    middle = weight @ places
    return ink, middle, (weight[:, None] * (places - middle)).T @ (places - middle)


@pytest.mark.parametrize("strength", [0.5, 1.0, STRONGEST_DISTORTION])
def test_shapes_move_and_stretch_within_the_stated_bounds(strength):
    count = 200
    images = jnp.asarray(np.stack([disc()] * count))
    result = distort(images, jax.random.key(0), strength)
    assert (result.shape, result.dtype) == ((count, 28, 28), jnp.uint8)
    ink, middles, spreads = zip(*map(moments, np.asarray(result)), strict=True)

    # A source is at most the shift away, and the place it is drawn to at most that, stretched.
    stretch = np.exp(0.15 * strength)
    bound = 0.07 * strength * 28 * np.sqrt(2) * stretch * (1 + 0.15 * strength)
    moved = np.abs(np.asarray(middles) - 13.5)
    assert moved.max() <= bound + 0.3
    assert moved.max() > 0.5 * 0.07 * strength * 28
    # An area changes by the product of both stretches.
    areas = np.asarray(ink) / moments(disc())[0]
    assert areas.max() <= stretch**2 * 1.05
    assert areas.min() >= stretch**-2 * 0.9
    assert areas.std() > 0.05 * strength
    # A disc becomes an ellipse, and the ellipses point to all sides.
    ratios = [np.divide(*np.linalg.eigvalsh(spread)[::-1]) for spread in spreads]
    assert max(ratios) > 1 + 0.3 * strength
    tilts = np.asarray([spread[0, 1] for spread in spreads])
    assert tilts.min() < 0 < tilts.max()


def test_a_line_turns_by_at_most_the_stated_angle():
    line = np.zeros((28, 28), np.uint8)
    line[13:15, 5:23] = 255
    results = distort(jnp.asarray(np.stack([line] * 300)), jax.random.key(1), 1.0)
    angles = []
    for image in np.asarray(results):
        vector = np.linalg.eigh(moments(image)[2])[1][:, -1]
        angles.append(np.degrees(np.arctan2(vector[0], vector[1])))
    angles = (np.asarray(angles) + 90) % 180 - 90
    # A shear of 0.15 and unequal stretches turn a line further.
    assert np.abs(angles).max() < 15 * 1.35 + 9
    assert np.abs(angles).max() > 10
    assert abs(angles.mean()) < 2


def test_every_image_has_a_distortion_of_its_own_and_a_key_gives_the_same():
    images = jnp.asarray(np.stack([disc()] * 5))
    one, again = (distort(images, jax.random.key(2), 1.0) for _ in range(2))
    other = distort(images, jax.random.key(3), 1.0)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    assert len({np.asarray(image).tobytes() for image in one}) == 5
    assert np.array_equal(jax.jit(lambda i, k: distort(i, k, 1.0))(images, jax.random.key(2)), one)


def test_nothing_is_left_of_a_distortion_so_weak():
    image = jnp.asarray(disc()[None])
    assert np.array_equal(distort(image, jax.random.key(0), 1e-6), image)


def test_what_comes_from_beyond_the_edge_has_the_colour_of_the_ground():
    photo = np.full((28, 28, 3), [250, 120, 30], np.uint8)
    photo[10:18, 10:18] = [0, 0, 200]
    result = np.asarray(distort(jnp.asarray(photo[None]), jax.random.key(5), 2.0))[0]
    assert not np.array_equal(result, photo)
    corners = result[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == [250, 120, 30]).all()
    # All channels of a picture are moved alike.
    shares = (photo[0, 0].astype(float) - result) / (photo[0, 0].astype(float) - [0, 0, 200])
    assert np.ptp(shares, axis=-1).max() < 0.03


def test_episodes_are_those_without_distortion_each_image_distorted():
    rng = np.random.default_rng(0)
    images = np.stack([[disc(rng.uniform(2, 6), rng.uniform(11, 16, 2)) for _ in range(6)]] * 8)
    names = tuple(map(str, range(8)))
    images = ClassSet.of("discs", images, names, names, ("",) * 8)
    shape = {"ways": 5, "shots": 2, "queries": 3, "rotations": True}
    plain = episodes(images, **shape).sample(jax.random.key(4))
    source = episodes(images, **shape, distortion=0.3)
    task = jax.jit(lambda s, k: s.sample(k))(source, jax.random.key(4))
    pairs = ((task.support, plain.support), (task.query, plain.query))
    for (x, y), (plain_x, plain_y) in pairs:
        assert np.array_equal(y, plain_y)
        assert x.shape == plain_x.shape
        for image, before in zip(np.asarray(x), np.asarray(plain_x), strict=True):
            assert not np.array_equal(image, before)
            middle, old = moments(image * 255)[1], moments(before * 255)[1]
            assert np.abs(middle - old).max() < 1.5
