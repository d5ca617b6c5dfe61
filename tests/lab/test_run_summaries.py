"""Runs as the lab shows them: whole, broken, growing."""

import numpy as np
import pytest
from run_folders import make_run, step_line

from pullback.lab import run_summaries
from pullback.lab.rooms.runs import view as room
from pullback.lab.session import Session


def by_name(folder, known=()):
    return {summary.name: summary for summary in run_summaries.read_runs(folder, known)}


def test_curves_are_what_the_run_wrote(tmp_path):
    make_run(tmp_path / "a")
    summary = by_name(tmp_path)["a"]
    steps, seconds, loss = summary.curves["loss"]
    np.testing.assert_array_equal(steps, np.arange(1, 41))
    np.testing.assert_allclose(seconds, 0.5 * steps)
    np.testing.assert_allclose(loss, 3.0 / steps)
    # Two of the eight tasks of each step.
    np.testing.assert_allclose(summary.curves["flagged"][2], 0.25)
    assert len(summary.curves["tasks_per_second"][2]) == 39
    assert summary.verdicts == {"ok": 240, "negative curvature": 80}
    assert (summary.step, summary.seconds, summary.error) == (40, 25.0, "")


def test_a_long_curve_is_thinned_to_means_that_end_where_it_ends(tmp_path):
    make_run(tmp_path / "a", steps=5000, written=1001)
    steps, _, loss = by_name(tmp_path)["a"].curves["loss"]
    assert len(steps) <= run_summaries.MAX_POINTS
    assert steps[-1] == 1001
    assert loss[0] == pytest.approx(np.mean([3.0, 1.5, 1.0]))


@pytest.mark.parametrize(
    "file, text, said",
    [
        ("config.toml", "steps = [", "TOML"),
        ("config.toml", "[training]\nsteps = -1\n", "steps"),
        ("config.toml", None, "config.toml is missing"),
        ("metrics.jsonl", '{"step": 1}\nnonsense\n{"step": 2}\n', "Line 2"),
        ("metrics.jsonl", b"\xff\xfe\x00\n{}\n", "Line 1"),
    ],
)
def test_a_broken_run_is_named_and_the_rest_stays(tmp_path, file, text, said):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", "maml")
    path = tmp_path / "a" / file
    if text is None:
        path.unlink()
    elif isinstance(text, bytes):
        path.write_bytes(text)
    else:
        path.write_text(text)
    found = by_name(tmp_path)
    assert said in found["a"].error
    assert found["a"].state() == "broken"
    assert not found["b"].error
    page = room.headline(tmp_path, list(found.values()))
    assert "1 of them broken" in page


def test_values_that_are_no_numbers_leave_gaps_and_nothing_else(tmp_path):
    run = make_run(tmp_path / "a", steps=50)
    run.append(
        step_line(41, loss="many", inner_residual=None),
        step_line(42, loss=True, seconds="soon"),
        step_line(43, loss=10**400),
        step_line(44, loss=0.5),
        {"kind": "flags", "step": 44, "codes": {"x": 1, "99": 2, "0": "three"}},
        {"kind": "flags", "step": 44, "codes": [1]},
    )
    summary = by_name(tmp_path)["a"]
    assert not summary.error
    assert summary.curves["loss"][0][-2:].tolist() == [40, 44]
    assert summary.verdicts["unknown"] == 3
    assert all(np.isfinite(column).all() for c in summary.curves.values() for column in c)


def test_a_run_without_metrics_is_listed_with_empty_curves(tmp_path):
    make_run(tmp_path / "a")
    (tmp_path / "a" / "metrics.jsonl").unlink()
    summary = by_name(tmp_path)["a"]
    assert not summary.error
    assert all(len(curve[0]) == 0 for curve in summary.curves.values())
    assert "nan" not in room.overview([summary], {}).lower()


def test_states(tmp_path):
    run = make_run(tmp_path / "a", written=20)
    (tmp_path / "a" / "metrics.jsonl").touch()
    summary = by_name(tmp_path)["a"]
    assert summary.state(now=summary.last_written + 1) == "training"
    assert summary.state(now=summary.last_written + run_summaries.STOPPED_AFTER + 1) == "stopped"
    run.append({"kind": "failed", "step": 21, "message": "the loss is nan"})
    failed = by_name(tmp_path)["a"]
    assert (failed.state(), failed.failure, failed.step) == ("failed", "the loss is nan", 20)
    assert by_name(tmp_path / "a")["a"].state() == "failed"


def test_only_what_changed_is_read_again(tmp_path):
    make_run(tmp_path / "a", written=20)
    make_run(tmp_path / "deep" / "b", "maml")
    first = run_summaries.read_runs(tmp_path)
    assert [summary.name for summary in first] == ["a", "deep/b"]
    run = run_summaries.Run.open(tmp_path / "a")
    run.append(step_line(21))
    second = run_summaries.read_runs(tmp_path, first)
    assert second[0].step == 21
    assert second[1] is first[1]


def test_differences_name_the_settings_that_differ(tmp_path):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", "maml", steps=50)
    rows = dict(run_summaries.differing_settings(run_summaries.read_runs(tmp_path)))
    assert rows["algorithm.name"] == ["imaml", "maml"]
    assert rows["training.steps"] == ["40", "50"]
    assert rows["algorithm.linear_solver"] == ["cg", "–"]
    assert "training.seed" not in rows


def test_what_comes_from_files_is_escaped(tmp_path):
    folder = tmp_path / "<b>x"
    make_run(folder).append({"kind": "failed", "step": 41, "message": "<script>"})
    (tmp_path / "<i>broken").mkdir()
    (tmp_path / "<i>broken" / "config.toml").write_text("[")
    runs = run_summaries.read_runs(tmp_path)
    page = room.headline(tmp_path, runs) + room.overview(runs, {})
    for raw in ("<b>x", "<script>", "<i>broken"):
        assert raw not in page


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 1.0], [0.0, 0.0], [1e-30, 1e30]])
@pytest.mark.parametrize("logarithmic", [True, False])
def test_limits_are_two_different_numbers(values, logarithmic):
    if logarithmic:
        values = [max(value, 1e-30) for value in values]
    low, high = room.axis_limits(values, logarithmic)
    assert np.isfinite([low, high]).all()
    assert low < high


def test_without_a_folder_the_room_says_how_to_have_one():
    assert "pullback lab --run runs" in room.build(Session()).object
