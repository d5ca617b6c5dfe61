import json
import os
import signal
import subprocess
import sys
import time

import pytest
from parallel_helpers import (
    STEPS,
    TINY,
    assert_same_metrics,
    end,
    pair,
    start,
    wait_for,
)

from pullback.runs import checkpoint
from pullback.runs.folder import Run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

STATED = 30
"""Seconds within which the others end, as docs/scale.md says."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, one device, from the first step to the last."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    end(start("train", *TINY, "--devices", 1, "--out", folder))
    return folder


def test_two_processes_give_what_one_gives_and_write_it_once(alone, tmp_path):
    first, second = pair("train", *TINY, "--out", tmp_path / "run", "--json")
    stdout, stderr = end(first)
    assert json.loads(stdout)["finished"]
    assert "All 2 processes are here." in stderr
    assert end(second) == ("", "")
    assert_same_metrics(alone, tmp_path / "run")
    kept = [checkpoint.steps(Run.open(folder).checkpoints) for folder in (alone, tmp_path / "run")]
    assert kept[0] == kept[1]
    assert kept[0][-1] == STEPS
    files = [{path.name for path in folder.iterdir()} for folder in (alone, tmp_path / "run")]
    assert files[0] == files[1]


def worker_of(process):
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return int(found.stdout)


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_killed_ends_the_other_in_time_and_another_number_goes_on(
    victim, alone, tmp_path
):
    run = tmp_path / "run"
    processes = pair("train", *TINY, "--out", run)
    wait_for(run / "checkpoints" / "50", *processes)
    killed, other = processes[victim], processes[1 - victim]
    # The program itself, or the process in which it computes.
    os.kill(killed.pid if victim == 0 else worker_of(killed), signal.SIGKILL)
    began = time.monotonic()
    _, stderr = end(other, code=3)
    assert time.monotonic() - began < STATED
    assert f"Error: Process {victim} of this training" in stderr
    assert f"pullback train --resume {run}" in stderr
    if victim == 1:
        assert "ended from outside by signal 9 (SIGKILL)" in end(killed, code=137)[1]
    else:
        killed.communicate(timeout=STATED)
    assert checkpoint.steps(Run.open(run).checkpoints)[-1] < STEPS
    # One process with two devices goes on where two with one each ended.
    end(start("train", "--resume", run, "--devices", 2))
    assert_same_metrics(alone, run)


def test_ctrl_c_in_any_process_stops_all_in_good_order_and_two_go_on(alone, tmp_path):
    run = tmp_path / "run"
    first, second = pair("train", *TINY, "--out", run)
    wait_for(run / "checkpoints" / "50", first, second)
    second.send_signal(signal.SIGINT)
    stdout, _ = end(first, code=130)
    assert f"Go on with: pullback train --resume {run}" in stdout
    assert "Stopping after this block" in end(second, code=130)[1]
    # Process 1 needs no sight of the folder: it is told what is in there.
    for each in pair("train", "--resume", run):
        end(each)
    assert_same_metrics(alone, run)


def test_a_cluster_is_found_and_different_settings_are_refused_with_both(tmp_path):
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_NODELIST": "localhost"}
    job |= {"SLURM_NTASKS": "2"}
    processes = [
        start(
            *("train", *TINY, "--hosts", "--devices", 1, "--seed", i, "--out", tmp_path / "run"),
            **job,
            SLURM_PROCID=str(i),
            SLURM_LOCALID=str(i),
        )
        for i in (0, 1)
    ]
    for process in processes:
        _, stderr = end(process, code=2)
        assert "training.seed is 0 in process 0, but 1 in process 1" in stderr
    assert not (tmp_path / "run").exists()


def test_tasks_that_processes_cannot_share_are_refused_before_compute(tmp_path):
    odd = list(TINY)
    odd[odd.index("--tasks-per-step") + 1] = 3
    for process in pair("train", *odd, "--out", tmp_path / "run"):
        _, stderr = end(process, code=2)
        assert "1 device in each of 2 processes cannot share 3 tasks a step evenly" in stderr
    assert not (tmp_path / "run").exists()


def test_a_coordinator_out_of_reach_is_told_in_time(tmp_path):
    began = time.monotonic()
    place = ("--coordinator", "127.0.0.1:9", "--process-id", 1, "--processes", 2)
    process = start("train", *TINY, "--out", tmp_path / "run", *place, "--patience", 3)
    _, stderr = end(process, code=3)
    assert "Process 0 could not be reached at 127.0.0.1:9 within 3 s" in stderr
    assert time.monotonic() - began < 3 + STATED


def test_without_a_cluster_hosts_says_what_would_be_one(tmp_path):
    _, stderr = end(start("train", *TINY, "--hosts", "--out", tmp_path / "run"), code=2)
    assert "no cluster was found" in stderr
    assert "SLURM, Kubernetes, Open MPI" in stderr
    assert "--coordinator HOST:PORT" in stderr
