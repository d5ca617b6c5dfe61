import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from parallel_helpers import LIMIT, TINY, end, start

from pullback.core.errors import InputError
from pullback.meta import parallel
from pullback.runs.folder import Run

FOUR_DEVICES = """
import json
import jax, jax.numpy as jnp, numpy as np, optax
import closed_forms as cf
import test_evaluation as te
from pullback.core.errors import InputError
from pullback.meta import parallel
from pullback.meta.training import train

parallel.use_host_devices(4)
out = {}
for devices in (1, 2, 4):
    result = train(te.ALGORITHM, cf.nested(jnp.zeros(cf.SIZE)), te.Bowls(jnp.asarray(0.0)),
                   steps=5, key=jax.random.key(0), tasks_per_step=8, optimizer=optax.adam(0.01),
                   devices=devices)
    out[devices] = {
        "used": len(jax.tree.leaves(result.theta)[0].devices()),
        "theta": cf.flat(result.theta).tolist(),
        "loss": result.history["loss"].tolist(),
        "scores": te.run(count=9, block=4, devices=devices).scores.tolist(),
    }
try:
    parallel.check_devices(8, 3)
except InputError as error:
    out["three"] = str(error)
print(json.dumps(out))
"""


def test_one_two_and_four_devices_give_the_same():
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), str(tests.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", FOUR_DEVICES],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    out = json.loads(done.stdout)
    for devices in (1, 2, 4):
        assert out[str(devices)]["used"] == devices
        for name in ("theta", "loss", "scores"):
            np.testing.assert_allclose(
                out[str(devices)][name], out["1"][name], rtol=1e-5, atol=1e-7
            )
    assert "3 devices cannot share 8 tasks a step evenly. Allowed: 1, 2, 4, 8" in out["three"]


def test_the_number_of_host_devices_is_set_for_the_user(monkeypatch):
    flag = "--xla_force_host_platform_device_count="
    monkeypatch.setenv("XLA_FLAGS", "--xla_something=1")
    assert parallel.use_host_devices() == parallel.cores()
    assert os.environ["XLA_FLAGS"] == f"--xla_something=1 {flag}{parallel.cores()}"
    # What is set already holds, unless a number is given.
    monkeypatch.setenv("XLA_FLAGS", f"{flag}7")
    parallel.use_host_devices()
    assert os.environ["XLA_FLAGS"] == f"{flag}7"
    parallel.use_host_devices(3)
    assert os.environ["XLA_FLAGS"] == f"{flag}3"
    for count in (0, parallel.MOST_HOST_DEVICES + 1):
        with pytest.raises(InputError, match=f"1 to {parallel.MOST_HOST_DEVICES}"):
            parallel.use_host_devices(count)


def test_a_measured_strategy_is_written_into_the_run(tmp_path):
    run = tmp_path / "run"
    command = ("train", *TINY, "--strategy", "measure", "--devices", 2, "--out", run)
    _, stderr = end(start(*command))
    strategy = Run.open(run).config.training.strategy
    assert f"Strategy {strategy}; a meta-step by map" in stderr
    # 200 steps of this size take less time than compiling one of the others.
    assert strategy == "map"
    assert "would cost more than it can gain" in stderr
    # It goes on as it began, with any number of devices that share the tasks.
    _, stderr = end(start("train", "--resume", run, "--devices", 3), code=2)
    assert "3 devices cannot share 4 tasks a step evenly. Allowed: 1, 2, 4." in stderr
