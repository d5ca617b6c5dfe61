"""How much memory there is for arrays, and how sizes are written."""

import contextlib
import os
from pathlib import Path

import jax

_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where a container's limit and use stand, in either version of control groups."""


def available_bytes() -> int | None:
    """Bytes that a device of JAX's default backend can still give to arrays.

    Returns:
        The bytes, of this machine or container where the backend is the CPU; None if neither the
        device nor the system says.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        known = [found for found in (_system(), *map(_left, _CGROUPS)) if found is not None]
        return min(known, default=None)
    stats = device.memory_stats() or {}
    limit = stats.get("bytes_limit")
    return None if limit is None else limit - stats.get("bytes_in_use", 0)


def _system() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    with contextlib.suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _left(files: tuple[str, str]) -> int | None:
    # Without a limit the file says "max", or does not exist.
    with contextlib.suppress(OSError, ValueError):
        limit, used = (int(Path(file).read_text(encoding="ascii")) for file in files)
        return max(0, limit - used)
    return None


def bytes_text(size: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            return f"{size:.3g} {unit}" if size < 1000 else f"{size:,.0f} {unit}"
        size /= 1000
    raise AssertionError
