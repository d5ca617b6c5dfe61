"""How tasks are spread: over a device's time by ``map`` or ``vmap``, over devices by a mesh.

On a CPU ``lax.map`` on one host device per core wins, since under ``vmap`` every task's own
weights turn one matrix product into many small ones; on an accelerator ``vmap`` does.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import PyTree

from pullback import trees
from pullback.errors import InputError, unknown_name

STRATEGIES = {
    "auto": "map on a CPU, vmap on an accelerator",
    "map": "one task after the other on each device; least memory",
    "vmap": "all tasks of a device at once",
}
"""Ways to run the tasks that share a device."""

TaskFunction = Callable[[PyTree[Any], PyTree[Any]], tuple[PyTree[Any], PyTree[Any]]]
"""``function(shared, item) -> (summed, stacked)``."""

AXIS = "tasks"


def use_host_devices(count: int | None = None) -> int:
    """Give each core a host device of its own. Must run before JAX starts its backend.

    Does nothing if the user has set ``--xla_force_host_platform_device_count`` already.

    Args:
        count: number of devices; the cores this process may run on if None.

    Returns:
        The number asked for.
    """
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = count or available or 1
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={count}".strip()
    return count


def find_strategy(name: str) -> str:
    """``map`` or ``vmap`` for a name in :data:`STRATEGIES`.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    if name not in STRATEGIES:
        raise unknown_name("strategy", name, STRATEGIES)
    if name == "auto":
        return "map" if jax.default_backend() == "cpu" else "vmap"
    return name


def task_mesh(tasks: int, devices: int | None = None) -> Mesh:
    """A mesh over the most devices that can share ``tasks`` tasks evenly.

    Args:
        tasks: tasks per step.
        devices: the most devices to use; all if None.

    Returns:
        The mesh, with one axis over tasks.

    Raises:
        InputError: if more devices are asked for than there are.
    """
    count = max(n for n in range(1, count_devices(devices) + 1) if tasks % n == 0)
    return Mesh(np.asarray(jax.local_devices()[:count]), (AXIS,))


def count_devices(devices: int | None) -> int:
    """How many devices there are to use.

    Args:
        devices: the most to use; all if None.

    Raises:
        InputError: if more are asked for than there are, or none.
    """
    available = len(jax.local_devices())
    if devices is None:
        return available
    if not 1 <= devices <= available:
        raise InputError(f"{devices} devices were asked for", allowed=f"1 to {available}")
    return devices


def over_tasks(
    function: TaskFunction, shared: PyTree[Any], items: PyTree[Any], strategy: str, mesh: Mesh
) -> tuple[PyTree[Any], PyTree[Any]]:
    """Run a function on every item of a batch of tasks, spread over the mesh's devices.

    Args:
        function: ``function(shared, item) -> (summed, stacked)``.
        shared: what every call gets, held by every device.
        items: pytree whose leaves have the tasks as first axis, a multiple of the mesh's size.
        strategy: ``"map"`` or ``"vmap"`` within a device.
        mesh: from :func:`task_mesh`.

    Returns:
        The sum of the first result over all tasks, and the second stacked over them.
    """

    def on_one_device(shared, items):
        summed, stacked = _locally(functools.partial(function, shared), items, strategy)
        return jax.lax.psum(summed, AXIS), stacked

    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(everywhere, split),
        out_specs=(everywhere, split),
        check_vma=False,
    )(shared, items)


def _locally(function, items, strategy):
    if strategy == "vmap":
        summed, stacked = jax.vmap(function)(items)
        return jax.tree.map(lambda x: jnp.sum(x, axis=0), summed), stacked
    first = jax.tree.map(lambda x: x[0], items)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first)[0])

    def step(total, item):
        summed, stacked = function(item)
        return trees.add(total, summed), stacked

    return jax.lax.scan(step, zero, items)


def replicate(tree: PyTree[Any], mesh: Mesh) -> PyTree[Any]:
    """Every array held by every device of the mesh, so that no step copies it there again."""
    sharding = jax.sharding.NamedSharding(mesh, PartitionSpec())
    return jax.device_put(tree, sharding)
