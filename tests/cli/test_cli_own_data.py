"""Own pictures and own feature vectors: trained on, scored, adapted to, and taken up again."""

import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import cli, theta
from PIL import Image

import pullback as pb
from pullback.runs import build, predict, score
from pullback.runs import config as configs
from pullback.runs.folder import Run

SMALL = (
    *("--ways", "2", "--queries", "2", "--algorithm", "fomaml", "--hidden", "4"),
    *("--inner-steps", "1", "--tasks-per-step", "2", "--steps", "3", "--validate-every", "2"),
    *("--validation-tasks", "4", "--devices", "1"),
)
SMALL_PICTURES = ("--image-size", "8", "--model", "mlp", *SMALL)
PICTURES = ("--dataset", "folder", *SMALL_PICTURES)
VECTORS = ("--dataset", "vectors", *SMALL)
CLASSES = 8
EXAMPLES = 6


def documented(words, root):
    """A command of docs/tasks.md, by how it begins; my/ and runs/ are in a folder of the test's."""
    lines = (Path(__file__).parents[2] / "docs/tasks.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"pullback {words}"))
    return [re.sub("^(my|runs)/", f"{root}/\\g<0>", word) for word in shlex.split(line)[1:]]


def picture(rng, place, colour=False):
    """A stroke at the place of its class, on a page of any size."""
    height, width = rng.integers(10, 30, 2)
    page = np.full((height, width, 3), 255, np.uint8)
    page[place * height // 10 :][:3, : width // 2] = [200, 20, 20] if colour else 20
    return Image.fromarray(page if colour else page[..., 0])


def write_classes(root, names, count=EXAMPLES, colour=False):
    rng = np.random.default_rng(0)
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(rng, place, colour).save(root / name / f"{number}.png")
    return root


def blobs(classes, count, seed=0):
    """Rows around a centre of each class, and labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([f"c{n}" for n in range(classes)], count)
    centres = np.repeat(2 * rng.normal(size=(classes, 5)), count, 0)
    return centres + rng.normal(size=centres.shape), labels


def save_vectors(path, x, labels=None):
    np.savez(path, x=x, **({} if labels is None else {"y": labels}))
    return path


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("own") / "my/pictures"
    write_classes(root, [f"class {number}" for number in range(CLASSES)])
    picture(np.random.default_rng(1), 3).save(root / "class 3" / "one more.JPEG")
    (root / "notes.txt").write_text("beside the classes")
    return root


@pytest.fixture(scope="module")
def pictures_run(pictures):
    root = pictures.parents[1]
    done = cli(*documented("train --dataset folder", root), *SMALL_PICTURES)
    assert "Passed over in" in done.stderr and "1 .txt" in done.stderr
    return root / "runs/mine"


@pytest.fixture(scope="module")
def vectors_run(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    (root / "my").mkdir()
    save_vectors(root / "my/vectors.npz", *blobs(CLASSES, EXAMPLES))
    cli(*documented("train --dataset vectors", root), *SMALL)
    return root / "runs/vectors"


def test_what_the_data_decide_is_settled_in_the_run(pictures_run):
    data = tomllib.loads((pictures_run / "config.toml").read_text())["data"]
    assert (data["channels"], data["image_size"]) == ("grey", 8)
    assert (data["validation_classes"], data["test_classes"]) == (2, 2)
    assert not data["standardise"]
    split = json.loads((pictures_run / "split.json").read_text())
    dealt = [name for part in ("train", "validation", "test") for name in split[part]]
    assert [len(split[part]) for part in ("train", "validation", "test")] == [4, 2, 2]
    assert sorted(dealt) == [f"class {number}" for number in range(CLASSES)]


def test_the_same_seed_deals_the_same_classes(pictures_run, pictures):
    run = Run.open(pictures_run)
    assert build.build(run.config, say=lambda text: None).split == run.split
    other = {"dataset": "folder", "data_dir": str(pictures), "ways": 2, "queries": 2}
    given = {"data": other | {"split_seed": 1}, "model": {"model": "mlp"}}
    other = build.build(configs.resolve(given), say=lambda text: None)
    assert other.split.test != run.split.test


def test_a_run_on_pictures_is_scored_and_gone_on_with(pictures_run, pictures, tmp_path):
    run = shutil.copytree(pictures_run, tmp_path / "run")
    done = cli("evaluate", run, "--tasks", "4", "--json")
    assert done.json["ways"] == 2 and 0 <= done.json["mean"] <= 1
    assert "have changed" not in done.stderr
    for kept in (run / "checkpoints").iterdir():
        if kept.name == "3":
            shutil.rmtree(kept)
    assert cli("train", "--resume", run, "--json").json["step"] == 3
    # The same pictures elsewhere, and a class more: neither changes the score.
    more = shutil.copytree(pictures, tmp_path / "more")
    write_classes(more, ["class a", "class b"], colour=True)
    again = cli("evaluate", run, "--tasks", "4", "--data-dir", more, "--json")
    assert "2 classes are new, such as 'class a', and take no part" in again.stderr
    assert again.json["mean"] == done.json["mean"]
    unseen = cli("evaluate", run, "--data-dir", more, "--split", "unseen", "--tasks", "4", "--json")
    assert "are new" not in unseen.stderr
    assert "2 classes are new" in cli("train", "--resume", run, "--data-dir", more).stderr


def test_a_folder_that_has_changed_is_noticed(pictures_run, pictures, tmp_path):
    run, moved = shutil.copytree(pictures_run, tmp_path / "run"), tmp_path / "moved"
    shutil.copytree(pictures, moved)
    test, train = (Run.open(run).split.classes(part)[0] for part in ("test", "train"))
    picture(np.random.default_rng(5), 1).save(moved / test / "added.png")
    for argv in (["evaluate", run], ["train", "--resume", run]):
        refused = cli(*argv, "--data-dir", moved, code=2).stderr
        assert "1 classes of 'folder' have other examples" in refused and test in refused
    shutil.rmtree(moved / test)
    refused = cli("evaluate", run, "--data-dir", moved, code=2).stderr
    assert f"classes are not in the data set 'folder': {test!r}" in refused
    shutil.copytree(pictures / test, moved / test)
    shutil.rmtree(moved / train)
    said = cli("evaluate", run, "--data-dir", moved, "--tasks", "4").stderr
    assert f"1 are gone, such as {train!r}" in said
    assert train in cli("train", "--resume", run, "--data-dir", moved, code=2).stderr


def test_a_run_adapts_to_pictures_of_any_size_and_colour(pictures_run):
    root = pictures_run.parents[1]
    write_classes(root / "my/known", ["left", "right"], 2, colour=True)
    query = write_classes(root / "my/unknown", ["left", "right"], 3)
    Image.new("L", (400, 200), 255).save(query / "blank.png")
    done = cli(*documented("adapt runs/mine", root), "--json")
    assert len(done.json["predictions"]) == 7
    assert done.json["support"] == {"left": 2, "right": 2}
    known = [row for row in done.json["predictions"] if row["label"]]
    assert done.json["accuracy"] == np.mean([row["predicted"] == row["label"] for row in known])


def test_pictures_in_colour_are_pretrained_on_turned_and_distorted(tmp_path):
    root = write_classes(tmp_path / "own", [f"g{n % 4}/{n}" for n in range(CLASSES)], colour=True)
    settings = ("--rotations", "--reflections", "--distortion", "1", "--same-alphabet", "0.5")
    pretraining = ("--pretrain", "2", "--pretrain-batch", "4", "--pretrain-distortion", "1")
    out = tmp_path / "run"
    cli("train", *PICTURES, *settings, *pretraining, "--data-dir", root, "--out", out)
    run = Run.open(out)
    assert run.summary.inputs == (8, 8, 3) and run.config.data.channels == "colour"
    # No group is in two parts.
    groups = [{n.split("/")[0] for n in run.split.classes(p)} for p in ("train", "test")]
    assert not groups[0] & groups[1]


REFUSED = {
    "too few classes": (("--ways", "3"), ["3 ways need 3 classes each", "9 in all", "--ways 2"]),
    "too few pictures": (("--queries", "6"), ["need 7 examples", "has 6", "queries"]),
    "blind ratio": (("--channels", "color"), ["Did you mean 'colour'"]),
    "standardised bytes": (("--standardise",), ["are images", "Leave standardise out"]),
    "nothing left to normalise": (
        ("--model", "conv4", "--width", "8"),
        ["last layer sees one place", "fewer --groups"],
    ),
    "too many kept": (("--test-classes", "8"), ["8 for test", "has 8 classes"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_pictures_do_not_allow_is_said_before_training(name, pictures, tmp_path):
    argv, words = REFUSED[name]
    given = list(PICTURES)
    if "conv4" in argv:
        place = given.index("--hidden")
        del given[place : place + 2]
    done = cli("train", *given, "--data-dir", pictures, *argv, "--out", tmp_path / "x", code=2)
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "x").exists()


def test_vectors_are_standardised_by_the_training_classes_for_good(vectors_run, tmp_path):
    run = Run.open(vectors_run)
    x, labels = blobs(CLASSES, EXAMPLES)
    rows = x[np.isin(labels, run.split.train)]
    np.testing.assert_allclose(run.summary.standardisation.mean, rows.mean(0))
    np.testing.assert_allclose(run.summary.standardisation.deviation, rows.std(0))
    built = build.build(run.config, run.split, summary=run.summary)
    examples = np.asarray(score.evaluation_tasks(run, built, "test").examples)
    wanted = (x[np.isin(labels, run.split.test)] - rows.mean(0)) / rows.std(0)
    np.testing.assert_allclose(examples, wanted, rtol=1e-5, atol=1e-6)
    # In adaptation, too, which knows two rows only.
    seen = x[[0, 6]] + 100, ["new", "other"]
    support, query = save_vectors(tmp_path / "s.npz", *seen), save_vectors(tmp_path / "q.npz", x)
    given = predict._read_rows(support, query, run.summary, lambda classes: None)
    np.testing.assert_allclose(
        np.concatenate(given.examples), (seen[0] - rows.mean(0)) / rows.std(0), rtol=1e-5
    )


def test_units_of_the_columns_change_nothing(vectors_run, tmp_path):
    scale, shift = np.array([1e-9, 1, 1e6, 3, 1e3]), np.array([1e-3, 0, 1e9, 7, -1e5])
    x, labels = blobs(CLASSES, EXAMPLES)
    file = save_vectors(tmp_path / "own.npz", scale * x + shift, labels)
    cli("train", *VECTORS, "--data-dir", file, "--out", tmp_path / "run")
    one, other = theta(vectors_run), theta(tmp_path / "run")
    for path, leaf in one.items():
        np.testing.assert_allclose(leaf, other[path], rtol=1e-3, atol=1e-5)
    means = [
        cli("evaluate", run, "--tasks", "50", "--json").json["mean"]
        for run in (shutil.copytree(vectors_run, tmp_path / "copy"), tmp_path / "run")
    ]
    assert means[0] == pytest.approx(means[1])


def test_rows_of_new_classes_are_classified(vectors_run, tmp_path):
    root = vectors_run.parents[1]
    x, labels = blobs(2, 4, seed=7)
    first = np.array([0, 4])
    support = save_vectors(root / "my/known.npz", x[first], labels[first])
    rest = np.delete(np.arange(8), first)
    query = save_vectors(root / "my/unknown.npz", x[rest], labels[rest])
    record = cli(*documented("adapt runs/vectors", root), "--json").json
    assert [row["file"] for row in record["predictions"]] == [f"row {n}" for n in range(6)]
    assert [row["label"] for row in record["predictions"]] == labels[rest].tolist()
    hits = [row["predicted"] == row["label"] for row in record["predictions"]]
    assert record["accuracy"] == np.mean(hits)

    # One file of the same, which standardises by itself.
    cli("export", vectors_run, tmp_path / "program", "--adapt", support)
    exported = pb.load_exported(tmp_path / "program")(query=x[rest].astype(np.float32))
    probabilities = [list(row["probabilities"].values()) for row in record["predictions"]]
    np.testing.assert_allclose(exported["probabilities"], probabilities, rtol=1e-4, atol=1e-5)

    def refused(support, query):
        return cli("adapt", vectors_run, "--support", support, "--query", query, code=2).stderr

    narrow = save_vectors(tmp_path / "narrow.npz", x[:, :4], labels)
    assert "has 4 columns. Allowed: 5" in refused(support, narrow)
    assert "has 4 columns. Allowed: 5" in refused(narrow, query)
    third = save_vectors(tmp_path / "third.npz", *blobs(3, 2))
    assert "holds 3 classes, but the run tells 2 apart" in refused(third, query)
    assert "labels of no support class, such as 'c2'" in refused(support, third)
    assert "cannot be read as feature vectors" in refused(tmp_path, query)
    unlabelled = save_vectors(tmp_path / "unlabelled.npz", x)
    assert "has no array y" in refused(unlabelled, query)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("--rotations",), "are no images, and have no rotations"),
        (("--distortion", "1"), "are no images, and have no distortion"),
        (("--model", "conv4", "--width", "8"), "--model mlp"),
        (("--image-size", "8"), "'vectors' has no such setting"),
    ],
)
def test_what_vectors_do_not_allow_is_said_before_training(argv, words, vectors_run, tmp_path):
    own = [*VECTORS[:2], "--ways", "2", "--queries", "2"]
    file = vectors_run.parents[1] / "my/vectors.npz"
    done = cli("train", *own, "--data-dir", file, *argv, "--out", tmp_path / "x", code=2)
    assert words in done.stderr


def test_data_of_ones_own_must_be_given(tmp_path):
    for dataset, words in (("folder", "no folder of pictures"), ("vectors", "has no file")):
        done = cli("train", "--dataset", dataset, "--out", tmp_path / "x", code=2)
        assert words in done.stderr and "--data-dir" in done.stderr
