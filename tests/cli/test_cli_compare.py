import json

import pytest
from cli_helpers import assert_equal_states, cli, state

from pullback.core.errors import InputError
from pullback.runs import compare as comparing
from pullback.runs.folder import Run

SMALL = (
    *("--dataset", "sinusoid", "--hidden", "8", "--shots", "5", "--tasks-per-step", "2"),
    *("--validate-every", "2", "--validation-tasks", "4", "--tasks", "4"),
)
NAMES = ["imaml", "maml", "fomaml", "reptile"]


def compare(out, *argv, code=0):
    return cli("compare", *SMALL, *argv, "--out", out, code=code)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    out = tmp_path_factory.mktemp("compare") / "all"
    shown = compare(out, "--inner", "same", "--inner-steps", "2", "--steps", "4")
    return out, shown


def test_one_table_with_all_algorithms_and_the_untrained_one(compared):
    out, shown = compared
    record = json.loads((out / "table.json").read_text())
    assert [row["algorithm"] for row in record["rows"]] == ["without meta-learning", *NAMES]
    assert all(row["mean"] > 0 and row["interval"] > 0 for row in record["rows"])
    table = (out / "table.md").read_text()
    for name in NAMES:
        assert name in shown.stdout
        assert f"| {name} | 2 steps of nesterov, λ = 2 |" in table
    # Which checkpoint each was scored with; the untrained one is at step 0.
    assert "| checkpoint |" in table and "checkpoint" in shown.stdout
    for row in record["rows"]:
        assert f"| step {row['best_step']} | {row['steps']} |" in table
    for picture in ("compare.png", "adaptation.png"):
        assert (out / picture).read_bytes().startswith(b"\x89PNG")


def test_all_start_from_the_same_initialisation(compared):
    out, _ = compared
    means = [Run.open(out / name).metrics("validation")[0]["mean"] for name in NAMES]
    assert len(set(means)) == 1


def test_finished_runs_are_used_again_and_a_lost_one_is_trained_alike(compared):
    out, _ = compared
    before = state(out / "fomaml")
    (out / "fomaml").rename(out.parent / "moved")
    done = compare(out, "--inner", "same", "--inner-steps", "2", "--steps", "4")
    assert done.stderr.count("trained already") == 3
    assert_equal_states(state(out / "fomaml"), before)


def test_another_setting_in_the_same_folder_is_refused(compared):
    out, _ = compared
    done = compare(out, "--inner", "same", "--inner-steps", "2", "--steps", "6", code=2)
    assert "training.steps = 4, but 6 was asked for" in done.stderr


def test_json_is_the_table(compared):
    out, _ = compared
    argv = ("--inner", "same", "--inner-steps", "2", "--steps", "4", "--no-baseline", "--json")
    done = compare(out, "--algorithms", "fomaml,maml", *argv)
    assert [row["algorithm"] for row in done.json["rows"]] == ["fomaml", "maml"]


def test_seconds_set_the_steps_by_each_ones_pace(tmp_path):
    argv = ("--algorithms", "fomaml", "--inner-learning-rate", "0.001", "--no-baseline")
    done = compare(tmp_path / "out", *argv, "--seconds-each", "0.001", "--json")
    steps = Run.open(tmp_path / "out" / "fomaml").config.training.steps
    assert done.json["rows"][0]["steps"] == steps


def test_customary_inner_loops_are_those_of_the_papers():
    planned = comparing.plan(NAMES, "customary", {"algorithm": {"strength": 3.0}})
    words = {name: comparing.describe_inner(config) for name, config in planned.items()}
    assert words == {
        "imaml": "16 steps of projected, λ = 3",
        "maml": "5 steps of gradient-descent (0.1), no proximal term",
        "fomaml": "5 steps of gradient-descent (0.1), no proximal term",
        "reptile": "10 steps of gradient-descent (0.1), no proximal term, fits support and query",
    }


def test_the_same_inner_loop_is_the_same_for_all():
    planned = comparing.plan(NAMES, "same", {"algorithm": {"inner_steps": 7}})
    assert {comparing.describe_inner(config) for config in planned.values()} == {
        "7 steps of nesterov, λ = 5"
    }
    assert planned["reptile"].algorithm.fit == "support"


@pytest.mark.parametrize(
    ("names", "inner", "given", "message"),
    [
        (["maml", "maml"], "same", {}, "at most once"),
        ([], "same", {}, "none"),
        (["mamal"], "same", {}, "Did you mean 'maml'"),
        (NAMES, "some", {}, "Did you mean 'same'"),
        (NAMES, "customary", {"algorithm": {"inner_steps": 3}}, "each algorithm has its own"),
        (NAMES, "same", {"data": {"dataset": "glyph"}}, "Did you mean 'glyphs'"),
        (NAMES, "same", {"algorithm": {"solver": "lbfgs"}}, None),
    ],
)
def test_what_cannot_be_compared_is_refused(names, inner, given, message):
    if message is None:
        # Found when the algorithms are built, which is before any is trained.
        assert comparing.plan(names, inner, given)["maml"].algorithm.solver == "lbfgs"
        return
    with pytest.raises(InputError, match=message):
        comparing.plan(names, inner, given)


def test_each_takes_of_the_shared_settings_what_it_has_a_use_for():
    shared = {"linear_steps": 3, "fit": "support", "inner_learning_rate": 0.5}
    planned = comparing.plan(NAMES, "customary", {"algorithm": shared})
    given = {name: config.algorithm for name, config in planned.items()}
    assert given["imaml"].linear_steps == 3
    assert given["imaml"].inner_learning_rate is None
    assert given["maml"].linear_steps is None
    assert given["maml"].inner_learning_rate == 0.5
    assert given["reptile"].fit == "support"
    with pytest.raises(InputError, match="has no such setting"):
        comparing.plan(["maml"], "customary", {"algorithm": {"linear_steps": 3}})


def test_a_file_says_all_and_options_go_before_it(tmp_path):
    file = tmp_path / "demo.toml"
    file.write_text(
        """
        [compare]
        algorithms = ["fomaml"]
        tasks = 5
        baseline = false
        [data]
        dataset = "sinusoid"
        shots = 5
        [model]
        hidden = [8]
        [algorithm]
        inner_learning_rate = 0.001
        [training]
        steps = 2
        tasks_per_step = 2
        validate_every = 2
        validation_tasks = 4
        """
    )
    done = cli("compare", "--config", file, "--tasks", "4", "--out", tmp_path / "o", "--json")
    assert [row["algorithm"] for row in done.json["rows"]] == ["fomaml"]
    assert done.json["tasks"] == 4
    assert Run.open(tmp_path / "o" / "fomaml").config.training.steps == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[compare]\ntask = 4", "Did you mean 'tasks'"),
        ("[compare]\ntasks = 1", "tasks in [compare] is 1. Allowed: whole numbers from 2"),
        ("[compare]\nseconds_each = 0", "seconds_each in [compare] is 0"),
        ("[compare]\nalgorithms = 'maml'", "Allowed: a list of names"),
        ("[compare]\nseconds_each = 3\n[training]\nsteps = 3", "Both steps and seconds_each"),
        ("compare = 4", "compare is 4. Allowed: a section [compare]"),
        ("[algorithm]\nname = 'maml'", "The algorithms of a comparison"),
        ("[training]\nstep = 4", "Did you mean 'steps'"),
        ("algorithm = 4", "algorithm is 4"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(text, message, tmp_path):
    (tmp_path / "demo.toml").write_text(text)
    out = ("--out", tmp_path / "out")
    assert message in cli("compare", "--config", tmp_path / "demo.toml", *out, code=2).stderr
    assert not (tmp_path / "out").exists()


def test_nothing_is_trained_if_one_of_them_cannot_be(tmp_path):
    argv = ("--inner", "same", "--solver", "lbfgs", "--steps", "2")
    done = compare(tmp_path / "out", *argv, code=2)
    assert "MAML differentiates through its inner solver" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    assert "holds no comparison" in compare(tmp_path, "--steps", "2", code=2).stderr
    both = ("--steps", "2", "--seconds-each", "1")
    assert "Both steps and seconds_each" in compare(tmp_path / "o", *both, code=2).stderr
    assert "is a file" in compare(tmp_path / "mine", "--steps", "2", code=2).stderr
