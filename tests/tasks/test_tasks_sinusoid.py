import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.tasks import DATASETS, Sinusoid, TaskDistribution, gives_classes, load_glyphs


def test_points_lie_on_one_sine_wave():
    task = Sinusoid(shots=10, queries=40).sample(jax.random.key(0))
    (x, y), (qx, qy) = task.support, task.query
    assert (x.shape, y.shape, qx.shape, qy.shape) == ((10, 1), (10, 1), (40, 1), (40, 1))
    assert x.dtype == y.dtype == jnp.float32
    # a·sin(x − p) = (a cos p) sin x − (a sin p) cos x: fit on support, check on query.
    design = lambda v: np.concatenate([np.sin(v), np.cos(v)], axis=1)  # noqa: E731
    weights = np.linalg.lstsq(design(x), np.asarray(y), rcond=None)[0]
    np.testing.assert_allclose(design(qx) @ weights, qy, atol=1e-4)


def test_amplitude_phase_and_inputs_cover_their_ranges():
    source = Sinusoid(shots=10, queries=10)
    tasks = jax.vmap(source.sample)(jax.random.split(jax.random.key(1), 2000))
    x, y = (np.asarray(a, np.float64)[..., 0] for a in tasks.support)
    design = np.stack([np.sin(x), np.cos(x)], axis=-1)
    weights = (np.linalg.pinv(design) @ y[..., None])[..., 0]
    amplitude = np.hypot(*weights.T)
    phase = np.arctan2(-weights[:, 1], weights[:, 0])
    assert 0.1 - 1e-3 <= amplitude.min() < 0.2
    assert 4.9 < amplitude.max() <= 5.001
    assert -1e-2 <= phase.min() < 0.05
    assert np.pi - 0.05 < phase.max() <= np.pi + 1e-2
    assert -5 <= x.min() < -4.99
    assert 4.99 < x.max() <= 5


def test_same_key_same_task():
    source = Sinusoid()
    one, other = source.sample(jax.random.key(3)), jax.jit(source.sample)(jax.random.key(3))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert isinstance(source, TaskDistribution)


@pytest.mark.wrong_types
@pytest.mark.parametrize("given", [{"shots": 0}, {"queries": -1}, {"shots": 2.5}])
def test_numbers_must_be_positive(given):
    with pytest.raises(InputError, match=next(iter(given))):
        Sinusoid(**given)


def test_registry():
    assert set(DATASETS) == {"sinusoid", "glyphs", "omniglot", "folder", "vectors"}
    assert DATASETS.find("glyphs").load() is load_glyphs
    assert gives_classes(DATASETS.find("glyphs"))
    assert not gives_classes(DATASETS.find("sinusoid"))
    with pytest.raises(InputError, match=r"data set 'omnigolt'.*Did you mean 'omniglot'"):
        DATASETS.find("omnigolt")
