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


FLAG = f"--{parallel.XLA_FLAG}="
HOST_DEVICES = {
    "one a core": ({}, None, parallel.cores()),
    "a number": ({}, 3, 3),
    "the user's flag": ({"XLA_FLAGS": f"{FLAG}5"}, None, 5),
    "the user's setting": ({"JAX_NUM_CPU_DEVICES": "5"}, None, 5),
    "a number before the user's flag": ({"XLA_FLAGS": f"{FLAG}5"}, 3, 3),
    "a number before the user's setting": ({"JAX_NUM_CPU_DEVICES": "5"}, 3, 3),
}


def count_host_devices(count, environment, before=""):
    """In a process of its own, since JAX chooses its devices once."""
    code = (
        f"import jax\nfrom pullback.meta import parallel\n{before}\n"
        f"print(parallel.use_host_devices({count}), jax.local_device_count())"
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.parametrize(
    ("environment", "count", "wanted"), HOST_DEVICES.values(), ids=HOST_DEVICES
)
def test_host_devices_are_made_before_jax_starts(environment, count, wanted):
    done = count_host_devices(count, environment)
    assert done.stdout.split() == [str(wanted), str(wanted)], done.stderr[-2000:]


def test_once_jax_runs_its_devices_stay():
    running = {"JAX_NUM_CPU_DEVICES": "2"}
    started = "jax.devices()"
    for count in (None, 2):
        done = count_host_devices(count, running, started)
        assert done.stdout.split() == ["2", "2"], done.stderr[-2000:]
    # The number was not set by the user, but by what ran before.
    done = count_host_devices(None, {"XLA_FLAGS": ""}, started)
    assert done.stdout.split() == ["1", "1"], done.stderr[-2000:]
    done = count_host_devices(3, running, started)
    assert "InputError: 3 host devices were asked for, but JAX runs already with 2" in done.stderr
    assert "Call use_host_devices before anything is computed" in done.stderr


def test_a_number_of_host_devices_beyond_reason_is_refused():
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
