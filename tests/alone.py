"""Code of the documents in a process that has neither this package nor what it is built on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from compiling import ENVIRONMENT

ROOT = Path(__file__).parents[1]
# Of a module that is None an import fails.
CODE = """
import sys
sys.modules |= dict.fromkeys({without})
exec(compile(sys.stdin.read(), "the document", "exec"))
np.savez("found.npz", {kept})
loaded = [name for name, module in sys.modules.items() if module is not None]
sys.exit(any(name.partition(".")[0] in {without} for name in loaded))
"""
WITHOUT = ("pullback", "sklearn", "pandas", "equinox", "optax", "orbax", "jaxtyping", "lineax")


def blocks(document):
    """The blocks of Python in a document."""
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def run_alone(block, folder, *names):
    """Run a block in a folder.

    Args:
        block: the code.
        folder: that it runs in.
        names: of arrays that it makes.

    Returns:
        Those arrays by name.
    """
    code = CODE.format(without=WITHOUT, kept=", ".join(f"{name}={name}" for name in names))
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=block,
        cwd=folder,
        env=os.environ | ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "found.npz") as found:
        return dict(found)
