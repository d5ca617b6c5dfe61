"""Several processes that train together: how they meet, and how they agree on what to do next.

Every process runs the same program on the same configuration, and reaches the same calls in the
same order. What may differ between them, such as wall time, a wish to stop or a file that only
one can see, is exchanged by the functions here before anything depends on it.
"""

import functools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree, Shaped, UInt8

from pullback.core.errors import InputError, StorageError, span

HEARTBEAT = 10
"""Seconds of silence after which JAX's coordination service gives a process up for lost."""

PATIENCE = 120
"""Seconds that the processes wait for each other at the start, unless told otherwise."""

CLUSTERS = "SLURM, Kubernetes, Open MPI and Cloud TPU"
"""What JAX knows a cluster by, from the environment alone."""

AXIS = "process"
Tree = TypeVar("Tree", bound=PyTree[Any])


@dataclass(frozen=True)
class Place:
    """Where a process stands among those that train together.

    Args:
        coordinator: ``HOST:PORT`` at which process 0 listens; None to ask the cluster.
        process: this process's number, from 0; None to ask the cluster.
        processes: how many there are; None to ask the cluster.
        patience: seconds to wait for the others at the start.
    """

    coordinator: str | None = None
    process: int | None = None
    processes: int | None = None
    patience: int = PATIENCE


def find_place(
    hosts: bool,
    coordinator: str | None,
    process_id: int | None,
    processes: int | None,
    patience: int | None = None,
) -> Place | None:
    """The place that a command's options describe.

    Args:
        hosts: whether the cluster is to be asked.
        coordinator: ``HOST:PORT``.
        process_id: from 0.
        processes: how many.
        patience: seconds to wait for the others at the start; :data:`PATIENCE` if None.

    Returns:
        The place, or None where nothing asks for more than this one process.

    Raises:
        InputError: for options that do not go together, or out of range.
    """
    by_hand = {
        "--coordinator": coordinator,
        "--process-id": process_id,
        "--processes": processes,
    }
    given = [flag for flag, value in by_hand.items() if value is not None]
    missing = [flag for flag, value in by_hand.items() if value is None]
    if hosts and given:
        raise InputError(
            f"--hosts, which asks the cluster, was given together with {given[0]}",
            allowed="--hosts alone, or --coordinator, --process-id and --processes",
        )
    if not hosts and not given:
        if patience is not None:
            raise InputError(
                "--patience was given, but this process waits for no other",
                remedy="Leave it out, or give --hosts or --coordinator",
            )
        return None
    patience = PATIENCE if patience is None else patience
    if patience < 1:
        raise InputError(f"--patience is {patience}", allowed="seconds from 1")
    if hosts:
        return Place(patience=patience)
    if missing:
        raise InputError(
            f"{given[0]} was given without {' and '.join(missing)}",
            remedy="Give --coordinator HOST:PORT, --process-id I and --processes N to every "
            "process, or --hosts where the cluster knows them",
        )
    assert coordinator is not None and process_id is not None and processes is not None
    if processes < 1:
        raise InputError(f"--processes is {processes}", allowed="whole numbers from 1")
    if not 0 <= process_id < processes:
        raise InputError(
            f"--process-id is {process_id}, but --processes is {processes}",
            allowed=span(0, processes - 1),
        )
    found = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:/]+):(\d{1,5})", coordinator)
    if not found or not 0 < int(found[2]) < 2**16:
        raise InputError(
            f"--coordinator is {coordinator!r}",
            allowed="HOST:PORT, the host of process 0 and a free port there, as in node1:9876",
        )
    return Place(coordinator, process_id, processes, patience)


def join(place: Place) -> None:
    """Meet the other processes. Must run before JAX starts its backend.

    Where some stay away, JAX ends this process itself after ``place.patience`` seconds.

    Args:
        place: from :func:`find_place`.

    Raises:
        InputError: if no cluster was found, or its description cannot be used.
    """
    # The only collectives between processes that JAX has for a CPU and that need no launcher.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    by_hand = place.coordinator is not None
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.processes,
            place.process,
            # Else JAX would look for a cluster all the same, to choose this process's devices.
            cluster_detection_method="deactivate" if by_hand else None,
            initialization_timeout=place.patience,
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=60,
        )
    except (ValueError, RuntimeError, OSError) as error:
        why = " ".join(str(error).split())
        if by_hand:
            raise InputError(
                f"Process {place.process} of {place.processes} could not start at "
                f"{place.coordinator}: {why}",
                remedy="Is the port free on the host of process 0, and the host's name known?",
            ) from error
        if "should be defined" in why or "must be defined" in why:
            raise InputError(
                "--hosts was given, but no cluster was found in the environment",
                allowed=f"what JAX detects: {CLUSTERS}",
                remedy="Start it by srun, mpirun or as an indexed Kubernetes job, or give "
                "--coordinator HOST:PORT, --process-id I and --processes N",
            ) from error
        raise InputError(
            f"--hosts was given, but the cluster's description cannot be used: {why}",
            remedy="Give --coordinator HOST:PORT, --process-id I and --processes N instead",
        ) from error


def leave() -> None:
    """Part from the others in good order, when all are done."""
    if count() > 1:
        jax.distributed.shutdown()


def count() -> int:
    """How many processes train together."""
    return jax.process_count()


def index() -> int:
    """The number of this one, from 0."""
    return jax.process_index()


def is_first() -> bool:
    """Whether this is process 0, which alone writes and reports."""
    return jax.process_index() == 0


def agree(stop: bool, number: int = 0) -> tuple[bool, int]:
    """Whether any process wants to stop, and the first one's number.

    Args:
        stop: whether this one wants to.
        number: what process 0 proposes; the others' is passed over.

    Returns:
        The same in every process.
    """
    if count() == 1:
        return stop, number
    rows = gather(np.asarray([stop, number], np.int32))
    return bool(rows[:, 0].any()), int(rows[0, 1])


def exchange(text: str) -> list[str]:
    """The text of every process, in their order."""
    if count() == 1:
        return [text]
    raw = np.frombuffer(text.encode(), np.uint8)
    lengths = gather(np.asarray([raw.size], np.int32))[:, 0]
    # A power of two, so that few programs serve all lengths.
    room = max(256, 1 << (int(lengths.max()) - 1).bit_length())
    rows = gather(np.pad(raw, (0, room - raw.size)))
    return [row[:n].tobytes().decode() for row, n in zip(rows, lengths, strict=True)]


def together(function: Callable[[], Any]) -> list[Any]:
    """Call a function in every process, and give the results of all to all.

    Args:
        function: its result must be writable as JSON.

    Returns:
        The results, in the order of the processes.

    Raises:
        InputError: in every process, if the function raised one in any; likewise StorageError.
    """
    return _together(function, range(count()))


def from_first(function: Callable[[], Any]) -> Any:
    """Call a function in process 0 alone, and give its result to all.

    Args:
        function: its result must be writable as JSON.

    Returns:
        The result.

    Raises:
        InputError: in every process, if the function raised one; likewise StorageError.
    """
    return _together(function, range(1))[0]


def _together(function: Callable[[], Any], members: range) -> list[Any]:
    if count() == 1:
        return [function()]
    error, outcome = None, {}
    if index() in members:
        try:
            outcome = {"value": function()}
        except (InputError, StorageError) as raised:
            error = raised
            outcome = {"error": str(raised), "storage": isinstance(raised, StorageError)}
    outcomes = [json.loads(text) for text in exchange(json.dumps(outcome))]
    if error is not None:
        raise error
    for number in members:
        if "error" in outcomes[number]:
            words = f"Process {number} cannot go on: {outcomes[number]['error']}"
            raise StorageError(words) if outcomes[number]["storage"] else InputError(words)
    return [outcomes[number]["value"] for number in members]


def share(tree: Tree | None, like: Tree) -> Tree:
    """The arrays of process 0, equal in every bit, for all.

    Args:
        tree: arrays on the host; needed in process 0 only.
        like: a tree of the same structure, shapes and dtypes.

    Returns:
        The tree of process 0.
    """
    if count() == 1:
        assert tree is not None
        return tree
    leaves, structure = jax.tree.flatten(like if tree is None else tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    raw = np.frombuffer(b"".join(array.tobytes() for array in arrays), np.uint8)
    raw = _first_row(raw).tobytes()
    shared, at = [], 0
    for array in arrays:
        part = np.frombuffer(raw, array.dtype, array.size, at).reshape(array.shape)
        shared.append(jnp.asarray(part))
        at += array.nbytes
    return jax.tree.unflatten(structure, shared)


def gather(row: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "processes ..."]:
    """An array of the same shape from every process, stacked in their order."""
    # jax.experimental.multihost_utils.process_allgather wants as many devices of each process as
    # of any other, and hosts with different numbers of cores have different numbers of devices.
    if count() == 1:
        return row[None]
    return np.asarray(_replicated(_stack(row), mesh=_line()))


def _first_row(row: UInt8[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
    return np.asarray(_replicated(_stack(row), mesh=_line(), first=True))


def _stack(row: Shaped[np.ndarray, "..."]) -> Shaped[Array, "processes ..."]:
    sharding = NamedSharding(_line(), PartitionSpec(AXIS))
    return jax.make_array_from_process_local_data(sharding, row[None])


@functools.cache
def _line() -> Mesh:
    """One device of each process."""
    devices: dict[int, Any] = {}
    for device in jax.devices():
        devices.setdefault(device.process_index, device)
    return Mesh(np.asarray([devices[number] for number in sorted(devices)]), (AXIS,))


@functools.partial(jax.jit, static_argnames=("mesh", "first"))
def _replicated(rows, *, mesh, first=False):
    rows = rows[0] if first else rows
    return jax.lax.with_sharding_constraint(rows, NamedSharding(mesh, PartitionSpec()))
