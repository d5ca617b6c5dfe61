"""Evaluation on new tasks, and the same results on one device as on two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import closed_forms as cf
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.algorithms import fomaml
from pullback.core.results import Verdict
from pullback.meta.evaluation import Evaluation, evaluate
from pullback.solvers import GradientDescent
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")

ALGORITHM = fomaml(cf.loss, solver=GradientDescent(2, 0.1))


class Bowls(eqx.Module):
    """``bad`` is the share of tasks with a NaN in the query set."""

    bad: jax.Array

    def sample(self, key):
        x_key, y_key, luck_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (2, 10, cf.SIZE)) / 10**0.5
        y = jax.random.normal(y_key, (2, 10))
        spoilt = jnp.where(jax.random.uniform(luck_key) < self.bad, jnp.nan, y[1])
        return Task((x[0], y[0]), (x[1], spoilt))


def run(count=10, block=4, bad=0.0, key=0, **options):
    tasks = Bowls(jnp.asarray(bad))
    given = {"metric": cf.loss, "key": jax.random.key(key), "count": count, "block": block}
    return evaluate(ALGORITHM, cf.nested(jnp.zeros(cf.SIZE)), tasks, **given, **options)


def test_scores_are_those_of_the_documented_tasks():
    result = run(count=3)
    theta = cf.nested(jnp.zeros(cf.SIZE))
    adapt = jax.jit(ALGORITHM.adapt)
    for i in range(3):
        episode_key, solver_key = jax.random.split(jax.random.fold_in(jax.random.key(0), i))
        task = Bowls(jnp.asarray(0.0)).sample(episode_key)
        phi, report = adapt(theta, task.support, solver_key)
        np.testing.assert_allclose(result.scores[i], cf.loss(phi, task.query), rtol=1e-5)
        np.testing.assert_allclose(result.inner_residuals[i], report.inner_residual, rtol=1e-5)


def test_mean_and_interval_are_the_textbooks():
    scores = np.array([0.2, 0.4, 0.9, 0.5])
    result = Evaluation(scores, np.zeros(4), np.array([0, 1, 0, 2]))
    assert result.mean == pytest.approx(scores.mean())
    spread = np.sqrt(np.sum((scores - 0.5) ** 2) / 3)
    assert result.interval == pytest.approx(1.96 * spread / 2)
    assert result.failed == 1
    assert result.records()[1] == {"task": 1, "score": 0.4, "inner_residual": 0.0, "code": 1}


def test_one_task_has_no_interval():
    assert np.isnan(run(count=1).interval)


def test_the_key_decides_the_tasks():
    np.testing.assert_array_equal(run().scores, run().scores)
    assert not np.array_equal(run().scores, run(key=1).scores)


@pytest.mark.parametrize("block", [1, 3, 10, 64])
def test_any_block_gives_the_same_tasks_however_it_divides_their_number(block):
    result = run(count=10, block=block)
    assert len(result.scores) == len(result.codes) == len(result.inner_residuals) == 10
    np.testing.assert_allclose(result.scores, run(count=12).scores[:10], rtol=1e-6)


def test_progress_counts_tasks_up_to_the_number_asked_for():
    seen = []
    run(count=10, block=4, on_block=seen.append)
    assert seen == [4, 8, 10]


def test_tasks_that_are_not_finite_are_counted():
    result = run(count=40, block=20, bad=0.3)
    spoilt = np.isnan(result.scores)
    assert 0 < spoilt.sum() < 40
    assert result.failed == spoilt.sum()
    np.testing.assert_array_equal(result.codes == Verdict.NOT_FINITE, spoilt)


TWO_DEVICES = """
import json, sys
import jax, jax.numpy as jnp, numpy as np, optax
import closed_forms as cf
import test_evaluation as te
from pullback.meta import parallel
from pullback.meta.training import train

assert len(jax.local_devices()) == 2
out = {}
for devices in (1, 2):
    state = train(te.ALGORITHM, cf.nested(jnp.zeros(cf.SIZE)), te.Bowls(jnp.asarray(0.0)), steps=4,
                  key=jax.random.key(0), tasks_per_step=4, optimizer=optax.adam(0.01),
                  devices=devices).state
    scores = te.run(count=5, block=4, devices=devices)
    out[devices] = {
        "theta": cf.flat(state.theta).tolist(),
        "scores": scores.scores.tolist(),
        "used": len(jax.tree.leaves(state.theta)[0].devices()),
    }
# Three tasks cannot be shared evenly by two devices.
out["odd"] = parallel.task_mesh(3).size
print(json.dumps(out))
"""


def test_two_devices_give_what_one_gives():
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), *filter(None, sys.path)])
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2",
        "PYTHONPATH": path,
    }
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out = json.loads(done.stdout)
    assert (out["1"]["used"], out["2"]["used"], out["odd"]) == (1, 2, 1)
    for name in ("theta", "scores"):
        np.testing.assert_allclose(out["2"][name], out["1"][name], rtol=1e-5, atol=1e-7)
