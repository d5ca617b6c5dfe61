"""The comparison on intents runs, on a small file of drawn vectors."""

import json

import numpy as np
import pytest

from benchmarks import intents

pytestmark = pytest.mark.usefixtures("tiny")


@pytest.fixture
def file(tmp_path):
    """Four domains of four intents, which differ in few directions."""
    rng = np.random.default_rng(0)
    means = np.zeros((16, 12))
    means[:, :5] = rng.normal(size=(16, 5))
    number = np.repeat(np.arange(16), 10)
    path = tmp_path / "small.npz"
    np.savez(
        path,
        embedding=(means[number] + 0.4 * rng.normal(size=(160, 12))).astype(np.float16),
        intent=np.array([f"intent {n}" for n in number]),
        domain=np.array([f"domain {n // 4}" for n in number]),
    )
    return path


def test_every_method_answers_the_same_episodes_of_held_out_domains(
    file, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(intents, "SETTINGS", ((5, 1), (None, 1), (20, 1)))
    out = tmp_path / "out.json"
    options = f"--seeds 1 --episodes 3 --data {file} --json {out} --test"
    intents.main([*options.split(), "domain 1", "domain 3"])
    printed = capsys.readouterr().out
    assert "held out domain 1, domain 3: " in printed
    (found,) = json.loads(out.read_text())
    # There are not so many as 20.
    assert [(s["ways"], s["classes"]) for s in found["settings"]] == [(5, 5), (None, 8)]
    for setting in found["settings"]:
        for scores in setting["methods"].values():
            assert len(scores["accuracy"]) == 3
            assert np.mean(scores["accuracy"]) > 1.5 / setting["classes"]
    ours = np.mean(found["settings"][1]["methods"][intents.OURS]["accuracy"])
    line = next(line for line in printed.splitlines() if line.startswith("| all 8 | 1 | "))
    assert f" {100 * ours:.2f} " in line


def test_the_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    # 0.95 where one of two is right, 0.55 where both are: half of the rows each.
    right = np.array([True, False, True, True])
    assert intents.calibration_error(confidence, right) == pytest.approx(0.45)
