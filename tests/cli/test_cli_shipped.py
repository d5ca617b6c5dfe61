"""The trained initialisations that come with the package."""

from pathlib import Path

import numpy as np
import pytest
from cli_helpers import cli, drawing, write_omniglot

import pullback as pb
from pullback.runs import pretrained

NAMES = pretrained.names()


def test_there_are_some_and_they_are_listed():
    assert NAMES
    listed = cli("info", "pretrained", "--json").json
    assert set(NAMES) <= set(listed["names"])


@pytest.mark.parametrize("name", NAMES)
def test_its_card_says_what_it_is_for_what_it_cost_and_how_well_it_does(name):
    run = pretrained.open_trained(name)
    card = run.card
    assert card["name"] == name
    assert "drawn characters" in card["about"]
    assert card["seconds"] > 0
    assert run.config.data.data_dir == ""
    tested = [each for each in card["evaluations"] if each["part"] == "test"]
    assert tested
    for each in tested:
        assert each["tasks"] >= 1000
        assert 0.9 < each["mean"] < 1
    size = (run.folder / pretrained.THETA).stat().st_size
    document = Path(__file__).parents[2] / "docs" / "pretraining.md"
    assert f"{size / 1000:.0f} kB" in document.read_text()


def test_pictures_are_told_apart_by_name_alone(tmp_path):
    rng = np.random.default_rng(0)
    for number, corner in enumerate(([0, 0], [14, 14])):
        place = tmp_path / "support" / "ab"[number]
        place.mkdir(parents=True)
        drawing(rng, corner).save(place / "one.png")
    (tmp_path / "query").mkdir()
    drawing(rng, [14, 14]).save(tmp_path / "query" / "what.png")
    given = ("--support", tmp_path / "support", "--query", tmp_path / "query")
    done = cli("adapt", "--pretrained", NAMES[0], *given, "--json").json
    assert done["predictions"][0]["probabilities"].keys() == {"a", "b"}
    assert done["normalisation"] == "group: inductive"


def test_it_is_scored_on_a_copy_of_other_classes(tmp_path):
    write_omniglot(tmp_path, "evaluation", ["One", "Two"])
    given = ("--split", "unseen", "--tasks", 4, "--data-dir", tmp_path)
    assert cli("evaluate", NAMES[0], *given, "--json").json["part"] == "unseen"
    assert "normalisation group: inductive" in cli("evaluate", NAMES[0], *given).stdout


def test_python_loads_it_by_name():
    found = pb.load_pretrained(NAMES[0], ways=3)
    assert found.config.data.ways == 3
