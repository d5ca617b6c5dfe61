"""How tasks are spread: over a device's time by a strategy, over devices and hosts by a mesh.

On a CPU ``lax.map`` on one host device per core wins for convolutions, since under ``vmap`` every
task's own weights turn one matrix product into many small ones; on an accelerator ``vmap`` does.
"""

import functools
import os
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from pullback.core import trees
from pullback.core.errors import InputError, span
from pullback.meta import multihost
from pullback.registries import CHUNKED, check_strategy

TaskFunction = Callable[[PyTree[Any], PyTree[Any]], tuple[PyTree[Any], PyTree[Any]]]
"""``function(shared, item) -> (summed, stacked)``."""

AXIS = "tasks"


XLA_FLAG = "xla_force_host_platform_device_count"
MOST_HOST_DEVICES = 256


def use_host_devices(count: int | None = None) -> int:
    """Make as many host devices as asked for. Must run before JAX starts its backend.

    Args:
        count: number of devices. None leaves a number that ``JAX_NUM_CPU_DEVICES`` or ``XLA_FLAGS``
            sets, or a backend that runs already, and else makes one for each core that this process
            may run on.

    Returns:
        The number of host devices.

    Raises:
        InputError: if the number is not from 1 to :data:`MOST_HOST_DEVICES`, or JAX runs already
            with another one.
    """
    if count is not None and not 1 <= count <= MOST_HOST_DEVICES:
        raise InputError(f"{count} devices were asked for", allowed=f"1 to {MOST_HOST_DEVICES}")
    if count is None and (chosen := _chosen_by_user()) is not None:
        return chosen
    try:
        jax.config.update("jax_num_cpu_devices", count or cores())
    except RuntimeError as error:
        running = len(jax.local_devices(backend="cpu"))
        if count in (None, running):
            return running
        raise InputError(
            f"{count} host devices were asked for, but JAX runs already with {running}",
            allowed=str(running),
            remedy="Call use_host_devices before anything is computed",
        ) from error
    return count or cores()


def _chosen_by_user() -> int | None:
    if (number := jax.config.values["jax_num_cpu_devices"]) >= 0:
        return number
    flags = re.findall(rf"--{XLA_FLAG}=(\d+)", os.environ.get("XLA_FLAGS", ""))
    # XLA takes the last one.
    return int(flags[-1]) if flags else None


def cores() -> int:
    """How many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def find_strategy(name: str) -> str:
    """What a name in :data:`pullback.registries.STRATEGIES` stands for on this backend.

    Args:
        name: ``"auto"`` and an unmeasured ``"measure"`` stand for the backend's own.

    Returns:
        ``"map"``, ``"vmap"`` or ``"chunked:N"``.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    if check_strategy(name) in ("auto", "measure"):
        return "map" if jax.default_backend() == "cpu" else "vmap"
    return name


def rivals(tasks: int) -> list[str]:
    """The strategies worth timing for so many tasks on a device, the backend's own first."""
    own = find_strategy("auto")
    other = {"map": "vmap", "vmap": "map"}[own]
    chunks = [f"chunked:{n}" for n in (2, 4) if n < tasks and tasks % n == 0]
    return [own] if tasks == 1 else [own, other, *chunks]


def task_mesh(tasks: int, devices: int | None = None) -> Mesh:
    """A mesh over the most devices that can share ``tasks`` tasks evenly, of every process.

    Args:
        tasks: tasks per step.
        devices: the most devices of each process to use; all if None.

    Returns:
        The mesh, with one axis over tasks and as many devices of each process as of any other.

    Raises:
        InputError: if more devices are asked for than there are, or the processes cannot share
            the tasks evenly.
    """
    most, processes_ = count_devices(devices), multihost.count()
    if tasks % processes_:
        raise InputError(
            f"{tasks} tasks a step cannot be shared evenly by {processes_} processes",
            allowed=f"multiples of {processes_}",
        )
    each = max(n for n in range(1, most + 1) if tasks % (n * processes_) == 0)
    return Mesh(np.asarray([row[:each] for row in _devices()]).reshape(-1), (AXIS,))


def count_devices(devices: int | None) -> int:
    """How many devices of each process there are to use.

    Args:
        devices: the most to use; all if None.

    Raises:
        InputError: if more are asked for than there are, or none.
    """
    available = min(map(len, _devices()))
    if devices is None:
        return available
    if not 1 <= devices <= available:
        raise InputError(f"{devices} devices were asked for", allowed=span(1, available))
    return devices


def check_devices(tasks: int, devices: int | None) -> None:
    """Whether a number of devices asked for can share the tasks of a step evenly.

    Args:
        tasks: tasks per step.
        devices: of each process; any if None.

    Raises:
        InputError: if not; names the numbers that can.
    """
    if devices is None:
        return
    count_devices(devices)
    number = multihost.count()
    if tasks % (devices * number):
        what = f"{devices} device{'s' * (devices > 1)}"
        what += f" in each of {number} processes" if number > 1 else ""
        fitting = [n for n in range(1, tasks + 1) if tasks % (n * number) == 0]
        raise InputError(
            f"{what} cannot share {tasks} tasks a step evenly",
            allowed=", ".join(map(str, fitting)) or None,
            remedy=f"Or let --tasks-per-step be a multiple of {devices * number}",
        )


def _devices() -> list[list[Any]]:
    """The devices of each process."""
    found: dict[int, list[Any]] = {}
    for device in jax.devices():
        found.setdefault(device.process_index, []).append(device)
    return [found[number] for number in sorted(found)]


def over_tasks(
    function: TaskFunction, shared: PyTree[Any], items: PyTree[Any], strategy: str, mesh: Mesh
) -> tuple[PyTree[Any], PyTree[Any]]:
    """Run a function on every item of a batch of tasks, spread over the mesh's devices.

    Args:
        function: ``function(shared, item) -> (summed, stacked)``.
        shared: what every call gets, held by every device.
        items: pytree whose leaves have the tasks as first axis, a multiple of the mesh's size.
        strategy: from :func:`find_strategy`, within a device.
        mesh: from :func:`task_mesh`.

    Returns:
        The sum of the first result over all tasks, and the second stacked over them.
    """

    def on_one_device(shared, items):
        summed, stacked = _locally(functools.partial(function, shared), items, strategy)
        return _over_devices(summed, mesh), stacked

    everywhere, split = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(everywhere, split),
        out_specs=(everywhere, split),
        check_vma=False,
    )(shared, items)


def _over_devices(summed, mesh):
    if len({device.process_index for device in mesh.devices.flat}) == 1:
        return jax.lax.psum(summed, AXIS)
    leaves = jax.tree.leaves(summed)
    if not leaves:
        return summed
    # Between hosts every array costs a round of messages, so that all of them travel as one.
    flat, unravel = jax.flatten_util.ravel_pytree(summed)
    return unravel(jax.lax.psum(flat, AXIS))


def _locally(function, items, strategy):
    count = len(jax.tree.leaves(items)[0])
    if strategy == "vmap":
        return _at_once(function, items)
    size = 1
    if found := CHUNKED.fullmatch(strategy):
        # The largest that cuts the tasks into equal chunks, for instance of a validation.
        size = max(n for n in range(1, min(int(found[1]), count) + 1) if count % n == 0)
    first = jax.tree.map(lambda x: x[0], items)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, first)[0])

    def step(total, chunk):
        summed, stacked = function(chunk) if size == 1 else _at_once(function, chunk)
        return trees.add(total, summed), stacked

    if size == 1:
        return jax.lax.scan(step, zero, items)
    chunks = jax.tree.map(lambda x: x.reshape(count // size, size, *x.shape[1:]), items)
    summed, stacked = jax.lax.scan(step, zero, chunks)
    return summed, jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), stacked)


def _at_once(function, items):
    summed, stacked = jax.vmap(function)(items)
    return jax.tree.map(lambda x: jnp.sum(x, axis=0), summed), stacked


def replicate(tree: PyTree[Any], mesh: Mesh) -> PyTree[Any]:
    """Every array held by every device of the mesh, so that no step copies it there again.

    Args:
        tree: arrays; with several processes, the same ones in each.
        mesh: from :func:`task_mesh`.

    Returns:
        The same tree, each of its arrays a whole on every device.
    """
    sharding = NamedSharding(mesh, PartitionSpec())
    if multihost.count() == 1:
        return jax.device_put(tree, sharding)

    def everywhere(leaf):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            data = everywhere(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        # device_put would have all processes compare the array first.
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, sharding, lambda part: whole[part])

    return jax.tree.map(everywhere, tree)


def gathered(tree: PyTree[Any], mesh: Mesh) -> PyTree[Any]:
    """Inside ``jit``: every array whole on every device, so that any process can read it.

    Args:
        tree: arrays, some of them stacked over tasks.
        mesh: from :func:`task_mesh`.

    Returns:
        The same values.
    """
    if multihost.count() == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(mesh, PartitionSpec()))
