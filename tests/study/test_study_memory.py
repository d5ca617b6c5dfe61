import jax
import pytest

from pullback.models import MLP
from pullback.study import memory


@pytest.fixture(scope="module")
def sizes():
    result = memory.measure(memory.QUICK, 0, lambda done: None)
    return {curve["algorithm"]: curve["bytes"] for curve in result["curves"]}


def test_memory_is_flat_for_implicit_gradients_and_grows_with_unrolling(sizes):
    first, last = 0, -1
    assert memory.QUICK.inner_steps == (1, 64)
    for name in ("imaml", "fomaml"):
        assert max(sizes[name]) < 1.05 * min(sizes[name])
    # Every step keeps at least its φ.
    model = MLP(1, 1, hidden=memory.QUICK.hidden)
    weights = sum(x.nbytes for x in jax.tree.leaves(model.init(jax.random.key(0))))
    assert sizes["maml"][last] - sizes["maml"][first] > 60 * weights
    assert sizes["maml"][last] > 4 * sizes["imaml"][last]
    assert sizes["imaml"][last] < sizes["maml, checkpointed"][last] < sizes["maml"][last] / 2
