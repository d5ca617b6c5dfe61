"""Where the time of a compiled program goes: the profiler's operations, grouped by who wrote them.

Every operation of the program carries the Python frames it came from, inlining or not; the
innermost one of pullback's says what the operation is for. A fusion counts as its last operation.
"""

import collections
import re
import statistics
import tempfile
from pathlib import Path

import jax

GROUPS = (
    ("models/convolution.py", "patches: rows of the products, and back"),
    ("models/conv4.py", "normalisation"),
    ("models/activations.py", "activation"),
    ("models/losses.py", "loss"),
    ("linear/", "CG's vectors"),
    ("solvers/", "the inner solver's vectors"),
    ("core/problem.py", "the inner solver's vectors"),
    ("implicit/certificate.py", "certificate"),
    ("implicit/", "other of the implicit gradient"),
    ("algorithms/", "other of the implicit gradient"),
)
PRODUCTS, OTHER = "matrix products", "copies, loops and the rest"
SHARED = ("core/trees.py",)
"""Files whose functions work for whoever calls them."""


def measure(run, repeats=3):
    """Seconds of each group in one run, and those between operations; least of some runs.

    An operation counts as its median time by its number of calls, so that what interrupted one
    call does not count.
    """
    group_of = groups(run.program.as_text())
    spent = collections.Counter()
    for name, seconds in operations(run, repeats).items():
        spent[group_of.get(name, OTHER)] += seconds
    return dict(spent)


def operations(run, repeats):
    """Seconds of each operation in one run, by its name in the program."""
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(repeats):
                run()
        (path,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(path))
    calls = collections.defaultdict(list)
    for plane in data.planes:
        for line in plane.lines:
            for event in line.events:
                stats = dict(event.stats)
                # The end of an operation has an event of its own, and loops hold others.
                if stats.get("hlo_op") == event.name and not _holds_others(event.name):
                    calls[event.name].append(event.duration_ns * 1e-9)
    return {n: statistics.median(t) * len(t) / repeats for n, t in calls.items()}


def _holds_others(name):
    return name.startswith(("while", "call", "conditional"))


def groups(text):
    """The group of each operation of a compiled program, from its text."""
    files, frames = _tables(text)
    bodies = _bodies(text)
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
        if match:
            called = re.search(r"calls=%?([\w.\-]+)", line)
            found[match[1]] = _group(
                line, bodies.get(called[1], "") if called else "", files, frames
            )
    return found


def _group(line, body, files, frames):
    if re.search(r" (dot|convolution)\(", line + body):
        return PRODUCTS
    where = re.search(r"stack_frame_id=(\d+)", line)
    frame = int(where[1]) if where else 0
    while frame in frames:
        file, parent = frames[frame]
        path = files.get(file, "")
        if "/pullback/" in path and not path.endswith(SHARED):
            for ending, group in GROUPS:
                if path.rpartition("/pullback/")[2].startswith(ending):
                    return group
        frame = parent
    return OTHER


def _bodies(text):
    """The lines of each computation by name."""
    found, name = collections.defaultdict(str), None
    for line in text.splitlines():
        if line.startswith(("%", "ENTRY")) and line.rstrip().endswith("{"):
            name = re.match(r"(?:ENTRY )?%?([\w.\-]+)", line)[1]
        elif line.startswith("}"):
            name = None
        elif name:
            found[name] += line + "\n"
    return found


def _tables(text):
    """Path by number of file location, and (file location, parent) by number of frame."""
    sections, current = collections.defaultdict(dict), None
    for line in text.splitlines():
        if line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            current = line
        elif current and (match := re.match(r"(\d+) (.*)", line)):
            sections[current][int(match[1])] = match[2]
        elif line.strip():
            current = None
    names = {n: text.strip('"') for n, text in sections["FileNames"].items()}
    files = {
        n: names.get(int(re.search(r"file_name_id=(\d+)", entry)[1]), "")
        for n, entry in sections["FileLocations"].items()
    }
    frames = {}
    for n, entry in sections["StackFrames"].items():
        place = int(re.search(r"file_location_id=(\d+)", entry)[1])
        parent = re.search(r"parent_frame_id=(\d+)", entry)
        # The text counts parents from 1, and the root is its own.
        frames[n] = place, int(parent[1]) - 1 if parent else 0
    return files, frames
