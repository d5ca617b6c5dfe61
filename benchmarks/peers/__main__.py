"""Pullback and its peers side by side, in one run.

    python -m benchmarks.peers [--out bench] [--quick] [--cores 1] [--into docs/benchmarks.md]

Run by the Python of ``.venv-bench`` (``make bench``). How to read the tables: docs/benchmarks.md.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from benchmarks.peers import install, rows, standard_tables, tables, trained_table
from pullback.runs import folder

ABOUT = Path("/proc/cpuinfo")


def parser():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=Path("bench"), help="folder for the results")
    options.add_argument("--quick", action="store_true", help="one table, few repeats")
    options.add_argument("--repeats", type=int, default=9, help="turns")
    options.add_argument("--cores", type=int, nargs="+", default=[1, 2], help="cores, a table each")
    options.add_argument("--only", nargs="+", help="names of rows, beside the first")
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    options.add_argument("--longest", type=float, default=400.0, help="seconds for any answer")
    options.add_argument("--data-dir", type=Path, help="Omniglot; embedded characters without it")
    options.add_argument("--into", type=Path, help="a document whose tables are replaced")
    return options


PARTS = {
    "standard": standard_tables.imaml,
    "ceiling": standard_tables.ceiling,
    "maml": standard_tables.maml,
    "trained": trained_table.run,
}


def main():
    arguments = parser().parse_args()
    began = time.perf_counter()

    def report(line):
        print(f"[{time.perf_counter() - began:4.0f} s] {line}", file=sys.stderr, flush=True)

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    arguments.cores = [n for n in arguments.cores if n <= cores] or [1]
    if arguments.quick:
        arguments.repeats, arguments.cores = min(arguments.repeats, 3), arguments.cores[:1]
        arguments.only = arguments.only or list(rows.QUICK)
    refused = install.REFUSED
    missing = json.loads(refused.read_text()) if refused.is_file() else {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    texts, record = [about(cores)], {"versions": versions(), "arguments": plain(arguments)}
    with tempfile.TemporaryDirectory() as scratch:
        given = standard_tables.Given(arguments, report, missing, Path(scratch))
        for name in arguments.parts:
            report(name)
            text, record[name] = PARTS[name](given)
            texts.append(text)
    text = "\n\n".join(texts)
    (arguments.out / "benchmarks.md").write_text(text + "\n", encoding="utf-8")
    folder.write_json(arguments.out / "benchmarks.json", record)
    if arguments.into is not None:
        document = arguments.into.read_text(encoding="utf-8")
        arguments.into.write_text(tables.insert(document, text), encoding="utf-8")
    print(text)
    report("done")


def versions():
    found = folder.versions()
    for name in install.pins():
        try:
            found[name] = install.importlib.metadata.version(name)
        except install.importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def about(cores):
    """One line on the machine and the versions."""
    names = (
        [n for n in ABOUT.read_text().splitlines() if "model name" in n] if ABOUT.exists() else []
    )
    chip = names[0].partition(":")[2].strip() if names else "an unknown processor"
    used = ", ".join(f"{name} {v}" for name, v in versions().items() if name not in ("platform",))
    return f"{chip}, {cores} cores; {time.strftime('%Y-%m-%d')}. {used}."


def plain(arguments):
    return {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items()}


if __name__ == "__main__":
    main()
