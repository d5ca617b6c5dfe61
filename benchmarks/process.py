"""The memory that one call really takes, in a process of its own."""

import ctypes
import gc
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    # XLA plans the memory before LLVM gets the code; the bytes are the same, in half the time.
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    # Every large block is then given back when it is freed, and none is hidden in one kept from
    # an earlier call. Left to itself, glibc raises this limit with every block that it frees.
    "MALLOC_MMAP_THRESHOLD_": str(128 * 1024),
}


def peak(call, repeats=3):
    """By how much a call raises the memory of this process at its peak, in bytes.

    What Python, JAX and the compiler hold does not count: free memory is given back first, and
    the peak that the kernel remembers is set to what is left. Neither does what only a first
    call takes (threads, pages of code); the median of the later ones does.

    Returns:
        The bytes, or None where the kernel cannot set a peak back, which only Linux does.
    """
    if not os.access(CLEAR, os.W_OK):
        return None
    call()
    found = []
    for _ in range(repeats):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR.write_text(RESET_PEAK)
        before = _bytes("VmRSS")
        call()
        found.append(_bytes("VmHWM") - before)
    return statistics.median(found)


def _bytes(name):
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def in_process(module, order):
    """Run ``python -m module --order ORDER`` and read the JSON object it prints last."""
    command = [sys.executable, "-m", module, "--order", json.dumps(order)]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])
