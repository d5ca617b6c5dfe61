"""Runs whose files are damaged, cut short or missing: told by what is wrong, or gone on with."""

import json
import shutil

import pytest
from cli_helpers import PICTURES, assert_equal_states, cli, state

from pullback.core.errors import InputError
from pullback.runs import config as configs
from pullback.runs import trainer
from pullback.runs.folder import Run

DEEP = "[" * 100_000
LONG = "9" * 5000
STEP = {"kind": "step", "step": 12, "count": 1, "seconds": 1, "compilation": 0}
STEP |= {"block_seconds": 1, "compiling": False}
EVALUATION = {"part": "test", "step": 12, "tasks": 4, "mean": 1.0}


def line(**changed):
    return json.dumps(STEP | changed)


METRICS = {
    "kind of a line": ('{"kind": "step", "step": 12}', ["count", "are missing"]),
    "no step": ('{"kind": "flags", "codes": {}}', ["step is missing"]),
    "step a text": (line(step="12"), ["step is '12'"]),
    "step true": (line(step=True), ["step is True"]),
    "step negative": (line(step=-1), ["step is -1"]),
    "loss a text": (line(loss="low"), ["loss is 'low'", "finite numbers"]),
    "loss not finite": (line(loss=float("nan")), ["loss is nan"]),
    "loss a list": (line(loss=[1]), ["loss is [1]"]),
    "residual huge": (line(inner_residual=10**400), ["inner_residual is 1000"]),
    "rate null": (line(tasks_per_second=None), ["tasks_per_second is None"]),
    "compiling a number": (line(compiling=1), ["compiling is 1", "true or false"]),
    "digits": (f'{{"step": {LONG}}}', ["is broken"]),
    "nesting": (f'{{"step": {DEEP}', ["nested too deeply"]),
    "codes a list": ('{"kind": "flags", "step": 1, "codes": [1]}', ["codes is [1]"]),
    "code a name": ('{"kind": "flags", "step": 1, "codes": {"bad": 1}}', ["codes is"]),
    "count a text": ('{"kind": "flags", "step": 1, "codes": {"2": "x"}}', ["codes is"]),
    "no codes": ('{"kind": "flags", "step": 1}', ["codes is missing"]),
    "no message": ('{"kind": "failed", "step": 1}', ["message is missing"]),
    "message a list": ('{"kind": "failed", "step": 1, "message": [1]}', ["message is [1]"]),
    "a list": ("[1]", ["no JSON object"]),
}


@pytest.mark.parametrize(("text", "words"), METRICS.values(), ids=METRICS.keys())
def test_info_names_a_line_of_the_metrics_that_is_broken(text, words, sinusoid_run, copied):
    run = copied(sinusoid_run)
    whole = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(f"{text}\n{whole}")
    said = cli("info", run, code=2).stderr
    assert all(word in said for word in ["Line 1 of", *words])
    assert len(said) < 600


DOCUMENTS = {
    "versions": ("versions.json", '{"jax": 7}', ["jax in", "is 7"]),
    "versions nested": ("versions.json", DEEP, ["nested too deeply"]),
    "versions a list": ("versions.json", "[]", ["no JSON object"]),
    "data": ("data.json", "{}", ["data.json", "broken"]),
    "data of text": ("data.json", '{"inputs": ["1"], "outputs": 1}', ["'1'"]),
    "data of a score": (
        "data.json",
        '{"inputs": [1], "outputs": 1, "score": {"name": 1, "higher_is_better": 1}}',
        ["no name"],
    ),
    "evaluation": ("evaluations/x.json", '{"mean": 1}', ["'x'", "part, step, tasks are missing"]),
    "evaluation of text": (
        "evaluations/x.json",
        json.dumps(EVALUATION | {"mean": "good"}),
        ["mean is 'good'", "evaluate again"],
    ),
    "evaluation of digits": ("evaluations/x.json", f'{{"step": {LONG}}}', ["is broken"]),
    "split": ("split.json", "{}", ["missing keys"]),
    "split nested": ("split.json", DEEP, ["nested too deeply"]),
    "config of digits": ("config.toml", f"[data]\nways = {LONG}", ["is no TOML"]),
    "config nested": ("config.toml", f"a = {DEEP}", ["nested too deeply"]),
    "config in UTF-16": ("config.toml", "[data]".encode("utf-16"), ["is no TOML"]),
    "config with a wrong folder": (
        "config.toml",
        '[data]\ndata_dir = "a\\u0000"',
        ["data_dir in [data] is"],
    ),
}


@pytest.mark.parametrize(("name", "text", "words"), DOCUMENTS.values(), ids=DOCUMENTS.keys())
def test_info_names_a_document_that_is_broken(name, text, words, sinusoid_run, copied):
    run = copied(sinusoid_run)
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    said = cli("info", run, code=2).stderr
    assert all(word in said for word in words)
    assert len(said) < 600


@pytest.mark.parametrize("name", ["metrics.jsonl", "versions.json", "evaluations/x.json"])
def test_info_names_a_folder_where_a_file_should_be(name, sinusoid_run, copied):
    run = copied(sinusoid_run)
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir(parents=True)
    assert "is no file" in cli("info", run, code=2).stderr


def test_info_passes_over_a_verdict_that_it_does_not_know(sinusoid_run, copied):
    run = copied(sinusoid_run)
    Run.open(run).append({"kind": "flags", "step": 12, "tasks": 8, "codes": {"99": 3}})
    assert "3: verdict 99, which this version does not know" in cli("info", run).stdout


def test_a_byte_order_mark_changes_nothing(sinusoid_run, copied):
    run = copied(sinusoid_run)
    before = cli("info", run, "--json").json
    for name in ("config.toml", "metrics.jsonl", "versions.json", "data.json"):
        (run / name).write_bytes(b"\xef\xbb\xbf" + (run / name).read_bytes())
    assert cli("info", run, "--json").json == before


def test_a_configuration_cut_short_anywhere_is_found(sinusoid_run, copied):
    run = copied(sinusoid_run)
    text = (run / "config.toml").read_text()
    for end in range(len(text) - 2):
        (run / "config.toml").write_text(text[:end])
        with pytest.raises(InputError, match=r"settings are missing|is no TOML|\] is |in \["):
            Run.open(run)
    # Given by --config, a file may leave out what it likes.
    (run / "config.toml").write_text("[training]\nsteps = 3")
    assert configs.resolve(configs.read_toml(run / "config.toml")).training.steps == 3


def test_a_run_that_ended_before_it_began_is_gone_on_with(sinusoid_run, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(sinusoid_run / "config.toml", run)
    assert "0 of" in cli("info", run).stdout
    for argv in (["evaluate", run], ["evaluate", run, "--split", "validation"]):
        said = cli(*argv, code=2).stderr
        assert "ended before anything was trained" in said
        assert f"pullback train --resume {run}" in said
    assert "--resume" in cli("train", "--out", run, code=2).stderr
    cli("train", "--resume", run)
    assert_equal_states(state(run), state(sinusoid_run))
    assert Run.open(run).versions() == Run.open(sinusoid_run).versions()


def test_its_split_is_drawn_then(omniglot, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "train_run", lambda run, *_, **__: 1 / 0)
    run = tmp_path / "run"
    with pytest.raises(AssertionError):
        cli("train", *PICTURES, "--data-dir", omniglot, "--out", run)
    before = Run.open(run)
    assert before.split is not None
    for name in ("split.json", "data.json", "versions.json"):
        (run / name).unlink()
    assert cli("info", run, "--json").json["step"] == 0
    with pytest.raises(AssertionError):
        cli("train", "--resume", run)
    assert Run.open(run) == before


def test_a_comparison_goes_on_with_a_run_that_ended_before_it_began(
    omniglot, tmp_path, monkeypatch
):
    argv = ["compare", *PICTURES, "--data-dir", omniglot, "--algorithms", "fomaml,reptile"]
    argv += ["--steps", "2", "--out", tmp_path / "all"]
    monkeypatch.setattr(trainer, "train_run", lambda run, *_, **__: 1 / 0)
    with pytest.raises(AssertionError):
        cli(*argv)
    run = tmp_path / "all" / "fomaml"
    split = Run.open(run).split
    (run / "split.json").unlink()
    with pytest.raises(AssertionError):
        cli(*argv)
    assert Run.open(run).split == split
