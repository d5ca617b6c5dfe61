import errno
import json
import os
import shutil

import pytest
from cli_helpers import cli, theta

from pullback.core.errors import InputError, StorageError
from pullback.runs import config as configs
from pullback.runs import folder
from pullback.runs.folder import Run
from pullback.tasks import ClassSplit

CONFIG = configs.resolve({"data": {"dataset": "sinusoid"}})
SPLIT = ClassSplit("glyphs", "character", 0, ("a", "b"), ("c",), ("d",))


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", CONFIG, None)


def test_a_run_opens_as_it_was_created(tmp_path):
    config = configs.resolve({})
    created = Run.create(tmp_path / "deep" / "run", config, SPLIT)
    assert Run.open(created.folder) == created


def test_an_empty_folder_may_be_used(tmp_path):
    (tmp_path / "run").mkdir()
    assert Run.create(tmp_path / "run", CONFIG, None).config == CONFIG


@pytest.mark.parametrize("kind", ["missing", "file", "empty"])
def test_what_is_no_run_is_refused(kind, tmp_path):
    place = tmp_path / "run"
    if kind == "file":
        place.write_text("")
    if kind == "empty":
        place.mkdir()
    message = {
        "missing": "does not exist",
        "file": "is not a folder",
        "empty": r"is no run: config\.toml is missing",
    }
    with pytest.raises(InputError, match=message[kind]):
        Run.open(place)


def test_a_configuration_changed_by_hand_to_nonsense_is_named_with_its_run(run):
    (run.folder / "config.toml").write_text("[data]\nwais = 5\n")
    with pytest.raises(InputError, match="cannot be opened: Unknown setting 'wais'"):
        Run.open(run.folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing"),
        ("{", "is broken"),
        ("[]", "holds no JSON object"),
        ('{"train": []}', "missing keys"),
    ],
)
def test_a_broken_split_is_an_error_and_never_drawn_anew(text, message, tmp_path):
    run = Run.create(tmp_path / "run", configs.resolve({}), SPLIT)
    run.append({"kind": "step", "step": 1})
    file = run.folder / "split.json"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(InputError, match=message):
        Run.open(run.folder)


def test_the_split_of_other_data_is_refused(tmp_path):
    run = Run.create(tmp_path / "run", configs.resolve({}), SPLIT)
    stored = SPLIT.to_dict() | {"dataset": "omniglot"}
    (run.folder / "split.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="is a split of 'omniglot'"):
        Run.open(run.folder)


def test_numbers_that_are_not_finite_are_left_out(run):
    run.append({"kind": "step", "step": 1, "loss": float("nan"), "deep": {"x": float("inf")}})
    assert run.metrics() == [{"kind": "step", "step": 1, "deep": {}}]


def test_a_last_line_that_was_cut_is_passed_over_and_dropped_on_resuming(run):
    run.append({"kind": "step", "step": 1}, {"kind": "step", "step": 2})
    file = run.folder / "metrics.jsonl"
    whole = file.read_text()
    file.write_text(whole + '{"kind": "step", "st')
    assert [line["step"] for line in run.metrics()] == [1, 2]
    run.rewind(2)
    assert file.read_text() == whole


@pytest.mark.parametrize("line", ["{", "[1]", '{"kind": "step"}'])
def test_a_broken_line_elsewhere_is_an_error(line, run):
    (run.folder / "metrics.jsonl").write_text(line + '\n{"kind": "step", "step": 1}\n')
    with pytest.raises(InputError, match="Line 1 of"):
        run.metrics()


def test_lines_beyond_a_step_are_dropped(run):
    run.append(*({"kind": "step", "step": i} for i in range(1, 6)))
    run.rewind(3)
    assert [line["step"] for line in run.metrics()] == [1, 2, 3]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_refused_write_leaves_the_former_file_whole(code, run, monkeypatch):
    run.store_evaluation("test", {"mean": 1})

    def refuse(source, target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="what stood there before is whole") as caught:
        run.store_evaluation("test", {"mean": 2})
    assert os.strerror(code) in str(caught.value)
    assert run.evaluations() == {"test": {"mean": 1}}
    assert len(list((run.folder / "evaluations").iterdir())) == 1


def test_a_line_that_cannot_be_added_is_a_storage_error(run):
    (run.folder / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match="could not be written"):
        run.append({"kind": "step", "step": 1})


ESCAPE = "\x1b]0;title\x07\x1b[31m\x9b2J\u202e"


def test_no_file_of_a_run_commands_the_terminal(run, capsys):
    run.append({"kind": "failed", "step": 1, "message": f"failed {ESCAPE}"})
    run.store_evaluation(f"x{ESCAPE}", {"part": ESCAPE, "step": 1, "tasks": 4, "mean": 1.0})
    shown = cli("info", run.folder)
    assert "failed \\u001b]0;title" in shown.stdout
    printed = cli("info", run.folder, "--json")
    assert printed.json["failed"] == [f"failed {ESCAPE}"]
    broken = run.folder / "split.json"
    broken.write_text("{}")
    broken.rename(run.folder / "split.json")
    (run.folder / "config.toml").write_text(f'[data]\n"{ESCAPE[2]}\\u001b[31m" = 1\n')
    for done in (shown, printed, cli("info", run.folder, code=2)):
        assert not set(ESCAPE) & {*"\x1b\x07\x9b\u202e"} & {*(done.stdout + done.stderr)}


def test_versions_name_what_numbers_depend_on():
    assert folder.versions().keys() == {"python", "platform", *folder.PACKAGES}


def as_of_version_0_1(run):
    """The folder of a run as the first version wrote it."""
    settings = (run / "config.toml").read_text()
    for now, then in (("reflections", "mirrors"), ("same_alphabet", "kindred")):
        settings = settings.replace(now, then)
    usual = configs.resolve({"data": {"dataset": Run.open(run).config.data.dataset}}).model.model
    added = (f'model = "{usual}"', "pretrain = ", "start = ")
    lines = [line for line in settings.splitlines() if not line.startswith(added)]
    (run / "config.toml").write_text("\n".join(lines))
    (run / "data.json").unlink()


@pytest.mark.parametrize("name", ["sinusoid_run", "omniglot_run"])
def test_a_run_of_the_first_version_is_read_scored_and_gone_on_with(name, request, copied):
    run = copied(request.getfixturevalue(name))
    before = cli("evaluate", run, "--tasks", "4", "--json").json
    config = Run.open(run).config
    as_of_version_0_1(run)
    assert Run.open(run).config == config
    after = cli("evaluate", run, "--tasks", "4", "--json").json
    assert after["mean"] == before["mean"] and after["step"] == before["step"]
    assert f"{config.training.steps} of {config.training.steps}" in cli("info", run).stdout
    steps = sorted(int(step.name) for step in (run / "checkpoints").iterdir())
    shutil.rmtree(run / "checkpoints" / str(steps[-1]))
    wanted = theta(request.getfixturevalue(name))
    cli("train", "--resume", run)
    found = theta(run)
    assert all(found[path].tobytes() == wanted[path].tobytes() for path in wanted)


def test_a_resumed_run_may_find_its_data_elsewhere(omniglot_run, omniglot, copied, tmp_path):
    run = copied(omniglot_run)
    moved = shutil.copytree(omniglot, tmp_path / "moved")
    cli("train", "--resume", run, "--data-dir", moved)
    assert Run.open(run).config.data.data_dir == str(moved)
    refused = cli("train", "--resume", run, "--data-dir", moved, "--seed", "9", code=2)
    assert "training.seed is 0 in the run, but 9 was asked for" in refused.stderr
