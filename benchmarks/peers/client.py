"""The other end of a worker: starts its process, gives orders, and survives what it does."""

import contextlib
import dataclasses
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import platformdirs

LONGEST = 400.0


class Failed(Exception):
    """A worker that crashed, hung or answered with an error."""


def cache():
    """The folder for what the next run need not make again."""
    return Path(platformdirs.user_cache_dir("pullback")) / "peers"


def environment(threads, devices):
    """One worker's variables: as many threads of arithmetic as asked for, in every library."""
    count = str(threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC", "PJRT_NPROC")
    found = os.environ | {"JAX_PLATFORMS": "cpu"} | dict.fromkeys(names, count)
    found.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache() / "programs"))
    found.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    if devices > 1:
        flags = f"--xla_force_host_platform_device_count={devices}"
        found["XLA_FLAGS"] = f"{found.get('XLA_FLAGS', '')} {flags}".strip()
    return found


class Client:
    """A worker process.

    Args:
        module: of this package.
        threads: threads of arithmetic, and cores that it is held to while it is timed.
        devices: host devices of JAX.
        longest: seconds after which an answer is no longer waited for.
        extra: more variables of the process.
    """

    def __init__(self, module, threads=1, devices=1, longest=LONGEST, extra=None):
        self.module, self.longest = module, longest
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers.worker", module, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment(threads, devices) | (extra or {}),
            text=True,
            bufsize=1,
        )
        self.answers = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self):
        for line in self.process.stdout:
            self.answers.put(line)
        self.answers.put(None)

    def ask(self, order, **given):
        """Give an order and wait for the answer.

        Raises:
            Failed: in one line, why there is none.
        """
        try:
            self.process.stdin.write(json.dumps({"order": order, **given}) + "\n")
            line = self.answers.get(timeout=self.longest)
        except queue.Empty:
            self.close()
            raise Failed(f"no answer to {order!r} within {self.longest:.0f} s") from None
        except OSError:  # It reads no more.
            line = None
        if line is None:
            self.process.wait()
            last = self._last_line()
            self.close()
            raise Failed(f"ended with {self.process.returncode}: {last}")
        found = json.loads(line)
        if "error" in found:
            raise Failed(" ".join(found["error"].split()))
        return found

    def _last_line(self):
        self.log.seek(0)
        lines = [line.strip() for line in self.log if line.strip()]
        return lines[-1] if lines else "nothing was said"

    def prepare(self, problem, setting):
        return self.ask("prepare", problem=str(problem), setting=dataclasses.asdict(setting))

    def gradients(self):
        """The gradients of all tasks, by name."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "gradients.npz"
            self.ask("gradients", path=str(path))
            with np.load(path) as file:
                return {name: file[name] for name in file}

    def close(self):
        """End the process; may be called again."""
        self.process.kill()
        self.process.wait()
        self.listener.join()
        for stream in (self.process.stdin, self.process.stdout, self.log):
            # What was still to be written has no reader any more.
            with contextlib.suppress(OSError):
                stream.close()
