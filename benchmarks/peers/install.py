"""The peers into this Python's environment, one by one, so that one that fails is only listed.

    python -m benchmarks.peers.install

What was refused, and why, goes to a file beside the environment, and from there into the tables.
"""

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PINS = HERE / "requirements.txt"
REFUSED = Path(sys.prefix) / "peers-refused.json"
LONGEST = 600


def pins():
    """``name==version`` by name."""
    lines = (line.partition("#")[0].strip() for line in PINS.read_text().splitlines())
    return {line.partition("==")[0]: line for line in lines if line}


def install(requirement):
    """Why a requirement could not be installed, in one line; None if it could."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    limits = ["--constraint", str(HERE.parents[1] / "constraints.txt"), "--constraint", str(PINS)]
    try:
        done = subprocess.run(
            [*command, *limits, requirement], capture_output=True, text=True, timeout=LONGEST
        )
    except subprocess.TimeoutExpired:
        return f"pip did not finish within {LONGEST} s"
    return reason(done.stdout + done.stderr) if done.returncode else None


def reason(output):
    """The line of pip's output that says most: the first error that is not about pip itself."""
    lines = [re.sub(r"\s+", " ", line).strip(" ×╰─>│") for line in output.splitlines()]
    vague = ("subprocess-exited-with-error", "note:", "hint:", "WARNING", "[")
    telling = [n for n in lines if "error" in n.lower() and not any(v in n for v in vague)]
    return (telling or [n for n in lines if n] or ["pip gave no reason"])[0]


def is_there(requirement):
    name, _, version = requirement.partition("==")
    try:
        return importlib.metadata.version(name).partition("+")[0] == version
    except importlib.metadata.PackageNotFoundError:
        return False


def main():
    refused = {}
    for name, requirement in pins().items():
        why = None if is_there(requirement) else install(requirement)
        print(f"{requirement}: {'installed' if why is None else why}", file=sys.stderr)
        if why is not None:
            refused[name] = f"{requirement} does not install: {why}"
    REFUSED.write_text(json.dumps(refused, indent=1) + "\n")


if __name__ == "__main__":
    main()
