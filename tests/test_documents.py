"""The code in the documents runs as it stands there."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = pytest.mark.usefixtures("tiny")
ROOT = Path(__file__).parents[1]


def blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_readme_example_runs_and_learns(capsys):
    (example,) = blocks("README.md")
    exec(compile(example, "README.md", "exec"), {})
    loss, residual = map(float, capsys.readouterr().out.split())
    # Predicting zero costs 4.4 on average over the sinusoid's tasks.
    assert 0 < loss < 4.4
    assert 0 < residual < 1


def test_the_skeleton_of_an_algorithm_works():
    skeleton, line = blocks("CONTRIBUTING.md")
    names = {}
    exec(compile(skeleton, "CONTRIBUTING.md", "exec"), names)
    from pullback.algorithms import Algorithm
    from pullback.tasks import Task

    entry = eval(line, {"Algorithm": Algorithm, **names})

    def loss(params, batch):
        return 0.5 * jnp.sum((params["x"] - batch) ** 2)

    algorithm = entry.make(loss)
    theta = algorithm.init({"x": jnp.zeros(2)})
    task = Task(jnp.ones(2), -jnp.ones(2))
    value, gradient, info = algorithm.meta_gradient(theta, task, jax.random.key(0))
    phi = 1 - 0.9**5
    np.testing.assert_allclose(gradient["x"], 0.5 * ((phi + 1) - phi), rtol=1e-6)
    np.testing.assert_allclose(value, (phi + 1) ** 2, rtol=1e-6)
    assert info.code == 0


def test_the_examples_of_learned_hyperparameters_run(capsys):
    first, second = blocks("docs/learned.md")
    exec(compile(first, "learned.md", "exec"), {})
    assert "layer0" in capsys.readouterr().out
    names = {}
    exec(compile(second, "learned.md", "exec"), names)
    algorithm = names["algorithm"]
    theta = algorithm.init({"w": jnp.ones((2, 3))})
    batch = (jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), jnp.asarray([0, 2]))
    from pullback.tasks import Task

    key = jax.random.key(0)
    _, gradient, info = jax.jit(algorithm.meta_gradient)(theta, Task(batch, batch), key)
    assert info.code == 0
    assert all(float(leaf) != 0 for leaf in gradient.log_hyper.values())
