"""The skeletons of CONTRIBUTING.md, added as they stand to a copy of the package."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import ENVIRONMENT

ROOT = Path(__file__).parents[1]
SMALL = (
    *("--steps", "2", "--tasks-per-step", "2", "--validate-every", "2", "--validation-tasks", "2"),
    *("--inner-steps", "1", "--shots", "3", "--queries", "3", "--quiet"),
)
LINES = ("--dataset", "lines", *SMALL, "--out")
TRAIN = "train --algorithm halfway --model bilinear --width 4"
COMPARE = "compare --algorithms fomaml,halfway --tasks 2 --inner same --hidden 4"
CLOUDS = (
    "train --dataset clouds --algorithm fomaml --hidden 4 --validation-classes 8 --test-classes 8"
)
PROGRAM = """
import json, sys
import pullback as pb
from pullback.cli import app
from typer.testing import CliRunner

found = {}
for argv in json.load(sys.stdin):
    done = CliRunner().invoke(app, argv)
    found[" ".join(argv)] = [done.exit_code, done.output]
found["names"] = [getattr(pb, name).__name__ for name in ("halfway", "Bilinear", "Lines")]
found["directory"] = sorted({"halfway", "Bilinear", "Lines", "load_clouds"} & set(dir(pb)))
print(json.dumps(found))
"""


def skeletons():
    """What CONTRIBUTING.md says: files by their place, and lines by their registry."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    files = dict(
        zip(re.findall(r"opy this to `(pullback/\S+\.py)`", text), blocks[::2], strict=True)
    )
    registries = [re.match(r"AlgorithmEntry|Entry", line)[0] for line in blocks[1::2]]
    assert registries == ["AlgorithmEntry", "Entry", "Entry", "Entry"]
    names = ("ALGORITHMS", "MODELS", "DATASETS", "DATASETS")
    return files, list(zip(names, blocks[1::2], strict=True))


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the package with every skeleton in it: a file and a line each."""
    folder = tmp_path_factory.mktemp("extended")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "pullback", folder / "pullback", ignore=ignored)
    files, lines = skeletons()
    for place, code in files.items():
        assert not (folder / place).exists()
        (folder / place).write_text(code, encoding="utf-8")
    registries = folder / "pullback/registries.py"
    text = registries.read_text(encoding="utf-8")
    for name, line in lines:
        start = text.index(f"{name} = Registry(")
        end = text.index("\n)\n", start)
        text = f"{text[:end]}\n    {line.strip()},{text[end:]}"
    registries.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def said(extended, tmp_path_factory):
    """What the extended program says, and exits with, for each command."""
    out = tmp_path_factory.mktemp("runs")
    commands = [
        ["info", "algorithms"],
        ["info", "models"],
        ["info", "datasets"],
        ["train", "--help"],
        [
            *["train", "--algorithm", "halfway", "--model", "bilinear", "--width", "4"],
            *LINES,
            str(out / "a"),
        ],
        ["info", str(out / "a")],
        [*COMPARE.split(), *LINES, str(out / "all")],
        [*CLOUDS.split(), *SMALL, "--out", str(out / "clouds")],
        ["evaluate", str(out / "clouds"), "--tasks", "2"],
        [*CLOUDS.replace("--hidden 4", "--model conv4").split(), "--out", str(out / "no")],
        [*CLOUDS.split(), "--rotations", "--out", str(out / "no")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=extended,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(extended), "COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def done(said, *words):
    """The exit code and the output of the one command that has all these words."""
    (found,) = [value for key, value in said.items() if set(words) <= set(key.split())]
    return found


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("info algorithms", "halfway"),
        ("info models", "bilinear"),
        ("info datasets", "lines"),
        ("info datasets", "clouds"),
        ("train --help", "halfway"),
        ("train --help", "bilinear"),
        ("train --help", "clouds"),
        ("train halfway bilinear", "Best validation mean squared error"),
        ("compare", "halfway"),
        ("train clouds --quiet", "Best validation accuracy"),
        ("evaluate", "5-way 3-shot"),
    ],
)
def test_a_skeleton_is_known_everywhere(said, words, shown):
    code, output = done(said, *words.split())
    assert code == 0, output
    assert shown in output


def test_a_run_of_skeletons_can_be_looked_at(said):
    (run,) = [value for key, value in said.items() if key.startswith("info /")]
    assert run[0] == 0
    assert all(name in run[1] for name in ("halfway", "bilinear", "lines"))


def test_what_does_not_fit_a_skeleton_is_said_before_training(said):
    code, output = done(said, "conv4")
    assert code == 2 and "examples of shape [4]" in output and "--model mlp" in output
    code, output = done(said, "--rotations")
    assert code == 2 and "are no images" in output


def test_a_skeleton_is_a_name_of_the_library(said):
    assert said["names"] == ["halfway", "Bilinear", "Lines"]
    assert said["directory"] == ["Bilinear", "Lines", "halfway", "load_clouds"]


def test_an_installed_package_brings_an_algorithm(tmp_path, monkeypatch):
    files, _ = skeletons()
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package/halfway.py").write_text(files["pullback/algorithms/halfway.py"])
    metadata = tmp_path / "my_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    written = re.search(
        r"```toml\n\[project\.entry-points\.\"(\S+)\"\]\n(\w+) = \"(\S+)\"\n```",
        (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    )
    (metadata / "entry_points.txt").write_text(f"[{written[1]}]\n{written[2]} = {written[3]}\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()

    from pullback.core import registry
    from pullback.registries import ALGORITHMS
    from pullback.runs import config as configs

    registry._entry_points.cache_clear()
    try:
        assert "from the package my-package" in ALGORITHMS["halfway"].summary
        assert "halfway" in list(ALGORITHMS)
        for name in ("halfway", "my_package.halfway:halfway"):
            resolved = configs.resolve({"algorithm": {"name": name}})
            assert resolved.algorithm.solver == "gradient-descent"
            assert resolved.algorithm.linear_solver is None
    finally:
        registry._entry_points.cache_clear()


def test_code_in_the_folder_that_the_program_is_started_in_is_found(tmp_path):
    files, _ = skeletons()
    (tmp_path / "mine.py").write_text(files["pullback/tasks/lines.py"])
    # The installed program, which has no folder of its own on Python's path.
    program = "import sys; sys.path.remove(''); from pullback.cli import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, "train", "--dataset", "mine:Lines", "--ways", "3"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "ways is 3, but the data set 'mine:Lines' has no such setting" in done.stderr
