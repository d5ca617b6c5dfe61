import json

import pytest
from cli_helpers import cli

from pullback import study


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "all"
    shown = cli("study", "--quick", "--part", "noise", "--part", "memory", "--out", out, "--json")
    return out, shown


def test_a_study_is_a_record_and_a_picture_of_each_part(studied):
    out, shown = studied
    record = json.loads((out / "study.json").read_text())
    assert shown.json == record | {"out": str(out)}
    assert list(record["parts"]) == ["noise", "memory"]
    assert record["quick"] is True
    assert record["versions"]["jax"]
    assert {path.name for path in out.iterdir()} == {"study.json", "noise.png", "memory.png"}
    for name in record["parts"]:
        assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert study.rows(name, record["parts"][name])


def test_a_table_for_a_person_and_nothing_but_it(tmp_path):
    done = cli("study", "--quick", "--part", "tradeoff", "--out", tmp_path / "new", "--quiet")
    assert "relative error of imaml, 10 CG steps" in done.stdout
    assert (tmp_path / "new" / "tradeoff.png").is_file()
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("--part", "tradeof"), "Did you mean 'tradeoff'?"),
        (("--part", "noise", "--part", "noise"), "each of tradeoff, memory, noise once"),
        (("--seed", "-1"), "whole numbers from 0"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path, argv, text):
    done = cli("study", *argv, "--out", tmp_path / "new", code=2)
    assert text in done.stderr
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_left_alone(studied):
    out, _ = studied
    before = (out / "study.json").read_text()
    done = cli("study", "--quick", "--part", "memory", "--out", out, code=2)
    assert "is not empty" in done.stderr
    assert "--resume" not in done.stderr
    assert (out / "study.json").read_text() == before
    file = out / "study.json"
    assert "is a file" in cli("study", "--out", file, code=2).stderr


def test_help_names_every_part():
    shown = " ".join(cli("study", "--help").stdout.split())
    assert all(name in shown for name in study.PARTS)
