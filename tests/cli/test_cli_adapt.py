import shutil

import numpy as np
import pytest
from cli_helpers import cli, drawing

CORNERS = {"left": np.array([1, 1]), "right": np.array([14, 17])}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes that differ by the place of a stroke, and queries with and without label."""
    root, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, corner in CORNERS.items():
        for part, count in (("support", 2), ("labelled", 3)):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                drawing(rng, corner).save(folder / f"{i}.png")
        (root / "loose").mkdir(exist_ok=True)
        drawing(rng, corner).save(root / "loose" / f"{name}.png")
    (root / "loose" / ".DS_Store").write_text("litter")
    return root


def adapt(run, support, query, *argv, code=0):
    return cli("adapt", run, "--support", support, "--query", query, *argv, code=code)


def test_each_picture_gets_a_class_and_its_probability(omniglot_run, pictures):
    # Two classes for a run of three ways: the third output takes no part.
    done = adapt(omniglot_run, pictures / "support", pictures / "loose", "--json")
    rows = done.json["predictions"]
    assert [row["file"].rsplit("/")[-1] for row in rows] == ["left.png", "right.png"]
    for row in rows:
        assert row["label"] is None
        assert sum(row["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert row["probability"] == row["probabilities"][row["predicted"]] >= 0.5
        assert row["probabilities"].keys() == CORNERS.keys()
    assert done.json["accuracy"] is None


def test_labelled_queries_give_an_accuracy(omniglot_run, pictures):
    done = adapt(omniglot_run, pictures / "support", pictures / "labelled", "--json")
    known = [row["predicted"] == row["label"] for row in done.json["predictions"]]
    assert len(known) == 6
    assert done.json["accuracy"] == np.mean(known)
    shown = adapt(omniglot_run, pictures / "support", pictures / "labelled").stdout
    assert "Accuracy" in shown
    assert "predicted class" in shown


def test_what_is_passed_over_is_said(omniglot_run, pictures, tmp_path):
    support = shutil.copytree(pictures / "support", tmp_path / "support")
    (support / "notes.txt").write_text("beside the classes")
    done = adapt(omniglot_run, support, pictures / "loose", "--json")
    assert done.json["passed_over"] == [str(support / "notes.txt")]
    assert "Passed over beside the class folders" in done.stderr and "notes.txt" in done.stderr


def test_more_classes_than_ways_are_refused(omniglot_run, pictures, tmp_path):
    support = shutil.copytree(pictures / "support", tmp_path / "support")
    for name in ("third", "fourth"):
        shutil.copytree(support / "left", support / name)
    done = adapt(omniglot_run, support, pictures / "loose", code=2)
    assert "holds 4 classes, but the run tells 3 apart" in done.stderr
    assert "--ways 4" in done.stderr


def test_folders_that_cannot_be_used_are_named(omniglot_run, sinusoid_run, pictures, tmp_path):
    support, loose = pictures / "support", pictures / "loose"
    assert "does not exist" in adapt(omniglot_run, tmp_path / "none", loose, code=2).stderr
    assert "does not exist" in adapt(omniglot_run, support, tmp_path / "none", code=2).stderr
    assert "no sub-folders" in adapt(omniglot_run, loose, loose, code=2).stderr
    assert "no pictures to adapt to" in adapt(sinusoid_run, support, loose, code=2).stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no pictures" in adapt(omniglot_run, support, empty, code=2).stderr
    (empty / "note.txt").write_text("no picture")
    assert "cannot be read as an image" in adapt(omniglot_run, support, empty, code=2).stderr
    (empty / "note.txt").unlink()
    (empty / "middle").mkdir()
    done = adapt(omniglot_run, support, empty, code=2)
    assert "is named as none of the support classes. Allowed: left, right" in done.stderr
