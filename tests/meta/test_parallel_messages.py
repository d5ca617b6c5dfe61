import re
import subprocess
from pathlib import Path

import pytest
import typer

from pullback.cli import app, distributed
from pullback.core.errors import InputError
from pullback.meta.multihost import PATIENCE, Place, exchange, find_place, from_first, together
from pullback.runs import agreement
from pullback.runs.config import resolve

BY_HAND = {"coordinator": "node1:9876", "process_id": 0, "processes": 2}
BAD = {
    "alone": ({"process_id": 1}, "--process-id was given without --coordinator and --processes"),
    "no id": ({**BY_HAND, "process_id": None}, "without --process-id"),
    "both": ({**BY_HAND, "hosts": True}, "--hosts, which asks the cluster, was given together"),
    "high": ({**BY_HAND, "process_id": 2}, "--process-id is 2, but --processes is 2. Allowed: 0"),
    "negative": ({**BY_HAND, "process_id": -1}, "Allowed: 0 to 1"),
    "none": ({**BY_HAND, "processes": 0}, "--processes is 0. Allowed: whole numbers from 1"),
    "no port": ({**BY_HAND, "coordinator": "node1"}, "'node1'. Allowed: HOST:PORT"),
    "word": ({**BY_HAND, "coordinator": "node1:http"}, "Allowed: HOST:PORT"),
    "large": ({**BY_HAND, "coordinator": "node1:70000"}, "Allowed: HOST:PORT"),
    "address": ({**BY_HAND, "coordinator": "http://node1:80"}, "Allowed: HOST:PORT"),
    "patience": ({**BY_HAND, "patience": 0}, "--patience is 0. Allowed: seconds from 1"),
    "for nothing": ({"patience": 5}, "waits for no other"),
}


def place(hosts=False, coordinator=None, process_id=None, processes=None, patience=None):
    return find_place(hosts, coordinator, process_id, processes, patience)


@pytest.mark.parametrize(("given", "message"), BAD.values(), ids=BAD.keys())
def test_options_that_do_not_go_together_are_refused(given, message):
    with pytest.raises(InputError) as caught:
        place(**given)
    assert message in str(caught.value)


def test_options_that_do_are_a_place():
    assert place() is None
    assert place(hosts=True) == Place(None, None, None, PATIENCE)
    assert place(**BY_HAND) == Place("node1:9876", 0, 2, PATIENCE)
    assert place(**BY_HAND | {"coordinator": "[::1]:80"}).coordinator == "[::1]:80"


def test_alone_all_exchanges_are_with_oneself():
    assert exchange("Λ") == ["Λ"]
    assert together(lambda: {"a": 1}) == [{"a": 1}]
    assert from_first(lambda: 3) == 3
    with pytest.raises(InputError, match="mine"):
        together(lambda: _refuse("mine"))


def _refuse(words):
    raise InputError(words)


def test_only_a_training_by_several_is_supervised(monkeypatch):
    monkeypatch.delenv("PULLBACK_WORKER", raising=False)
    assert distributed.is_wanted(["train", "--hosts"])
    assert distributed.is_wanted(["train", "--steps", "3", "--coordinator=a:1"])
    assert not distributed.is_wanted(["train", "--devices", "2"])
    assert not distributed.is_wanted(["evaluate", "--hosts"])
    monkeypatch.setenv("PULLBACK_WORKER", "somewhere")
    assert not distributed.is_wanted(["train", "--hosts"])


# As JAX writes them.
HEARTBEATS = """absl::Status: UNAVAILABLE: The following tasks are unhealthy (stopped sending \
heartbeats):
1
4
The tasks have crashed. Check the task logs for an earlier error, or scheduler events"""
LEADER = "UNAVAILABLE: Failed to send RPC to coordination service. Either the leader task was"
ABSENT = "DEADLINE_EXCEEDED: Deadline Exceeded RPC: /xla.coordination.CoordinationService/Register"


def test_last_words_become_a_sentence():
    facts = {"place": {"coordinator": "a:1", "process": 1, "processes": 5, "patience": 9}}
    assert distributed.explain(HEARTBEATS, facts).startswith("Processes 1, 4 of this training")
    assert distributed.explain(LEADER, facts).startswith("Process 0 of this training")
    assert "at a:1 within 9 s" in distributed.explain(ABSENT + "Task", facts)
    facts["place"]["process"] = 0
    assert "Not all of the 5 processes came" in distributed.explain(ABSENT + "Task", facts)
    assert "Gloo" in distributed.explain("", {"lost": "Gloo all-reduce failed"})
    assert distributed.explain("Segmentation fault", facts) is None


def summary(**changes):
    settings = resolve({"data": {"dataset": "sinusoid"}}).to_dict()
    base = {"settings": settings, "devices": None, "minutes": None, "split": "a"}
    return base | {"examples": "b", "versions": {"jax": "1"}} | changes


DIFFERENT = {
    "devices": (1, "--devices is None in process 0, but 1 in process 1"),
    "minutes": (2.0, "--minutes is None in process 0, but 2.0 in process 1"),
    "split": ("c", "the digest of the class split is 'a' in process 0, but 'c' in process 1"),
    "examples": ("c", "the digest of the examples"),
    "versions": ({"jax": "2"}, "{'jax': '1'} in process 0, but {'jax': '2'}"),
    "settings": (
        resolve({"data": {"dataset": "sinusoid"}, "training": {"steps": 7}}).to_dict(),
        "training.steps is 1000 in process 0, but 7 in process 1",
    ),
}


@pytest.mark.parametrize(("name", "value"), DIFFERENT.items())
def test_what_differs_between_processes_is_named_with_both_values(name, value):
    agreement.check_same([summary(), summary()])
    with pytest.raises(InputError) as caught:
        agreement.check_same([summary(), summary(**{name: value[0]})])
    assert value[1] in str(caught.value)


def test_a_new_run_and_a_resumed_one_do_not_train_together():
    agreement.check_resume(["runs/a", "runs/a"])
    with pytest.raises(InputError, match="--resume is 'runs/a' in process 0, but None"):
        agreement.check_resume(["runs/a", None])


def test_data_may_lie_elsewhere_on_every_host():
    summaries = [summary(), summary()]
    for number, each in enumerate(summaries):
        images = {"dataset": "omniglot", "data_dir": f"disk{number}"}
        each["settings"] = resolve({"data": images}).to_dict()
    agreement.check_same(summaries)


def test_the_examples_give_options_that_exist():
    root = Path(__file__).parents[2]
    options = typer.main.get_command(app).commands["train"].params
    known = {flag for option in options for flag in option.opts}
    for name in ("examples/slurm.sh", "examples/kubernetes.yaml"):
        text = re.sub(r"(?m)^\s*#.*$|srun --\S+", "", (root / name).read_text())
        used = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", text)) - {"--"}
        assert used
        assert used <= known
        assert f"(../{name})" in (root / "docs/scale.md").read_text()


def test_the_slurm_script_is_bash():
    script = Path(__file__).parents[2] / "examples/slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
