import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cli_helpers import cli, drawing, write_omniglot

import pullback as pb
from pullback.core.errors import InputError
from pullback.runs import build
from pullback.runs import pretrained as p
from pullback.runs.folder import Run


@pytest.fixture(scope="module")
def packed(omniglot_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "three-ways"
    pb.pack(Run.open(omniglot_run), folder, about="Strokes.", dtype="float32")
    return folder


def leaves(theta):
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(theta)}


def test_a_packed_initialisation_is_the_run_s_with_a_head_of_zeros(omniglot_run, packed):
    run = Run.open(omniglot_run)
    built = build.reopen(run)
    _, theta = p.trained_theta(run, built)
    found = pb.load_pretrained(packed)
    body, head = built.model.apply.split(found.theta)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(head))
    expected, _ = built.model.apply.split(theta)
    for one, other in zip(*map(jax.tree.leaves, (body, expected)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.card["name"] == "three-ways"
    assert found.config.data.data_dir == ""


def test_half_precision_halves_the_file_and_rounds(omniglot_run, packed, tmp_path):
    pb.pack(Run.open(omniglot_run), tmp_path / "half")
    sizes = [(folder / "theta.npz").stat().st_size for folder in (tmp_path / "half", packed)]
    assert sizes[0] < 0.7 * sizes[1]
    one, other = (leaves(pb.load_pretrained(f).theta) for f in (tmp_path / "half", packed))
    for path, leaf in one.items():
        assert leaf.dtype == jnp.float32
        np.testing.assert_allclose(leaf, other[path], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("ways", [2, 3, 7])
def test_the_number_of_ways_is_free(packed, ways):
    found = pb.load_pretrained(packed, ways=ways)
    support = (jax.random.uniform(jax.random.key(0), (ways, 28, 28, 1)), jnp.arange(ways))
    phi, _ = found.algorithm.adapt(found.theta, support, jax.random.key(1))
    assert found.model.apply(phi, support[0]).shape == (ways, ways)


def test_it_is_evaluated_like_the_run_it_was_packed_from(omniglot_run, packed, omniglot):
    given = ("--tasks", 4, "--json", "--data-dir", omniglot)
    before = sorted(packed.rglob("*"))
    shown = cli("evaluate", packed, *given).json
    assert shown["ways"] == 3
    assert shown["step"] == cli("evaluate", omniglot_run, *given).json["step"]
    assert cli("evaluate", packed, *given, "--ways", 2).json["ways"] == 2
    assert sorted(packed.rglob("*")) == before
    assert "three-ways" in cli("info", packed).stdout


def test_unseen_classes_are_those_of_another_folder(packed, tmp_path):
    write_omniglot(tmp_path, "evaluation", ["Other"])
    shown = cli(
        *("evaluate", packed, "--split", "unseen", "--tasks", 4, "--json"),
        *("--data-dir", tmp_path),
    ).json
    assert shown["tasks"] == 4


def test_a_training_class_under_another_name_is_no_unseen_one(packed, omniglot, tmp_path):
    run = Run.open(packed)
    alphabet, character = run.split.train[0].split("/")
    write_omniglot(tmp_path, "evaluation", ["Other"])
    source = omniglot / "images_background" / alphabet / character
    shutil.copytree(source, tmp_path / "images_evaluation" / "Other" / "character09")
    done = cli(
        *("evaluate", packed, "--split", "unseen", "--tasks", 4, "--data-dir", tmp_path), code=2
    )
    assert "Other/character09" in done.stderr
    assert run.split.train[0] in done.stderr


@pytest.mark.parametrize("classes", [2, 4])
def test_pictures_of_any_number_of_classes(packed, tmp_path, classes):
    rng = np.random.default_rng(0)
    for number in range(classes):
        corner = rng.integers(0, 14, 2)
        for part in ("known", "asked"):
            place = tmp_path / part / f"class{number}"
            place.mkdir(parents=True)
            drawing(rng, corner).save(place / "a.png")
    shown = cli(
        *("adapt", "--pretrained", packed, "--json"),
        *("--support", tmp_path / "known", "--query", tmp_path / "asked"),
    ).json
    assert len(shown["predictions"]) == classes
    assert len(shown["predictions"][0]["probabilities"]) == classes


def test_bad_input(omniglot_run, packed, sinusoid_run, tmp_path, monkeypatch):
    run = Run.open(omniglot_run)
    folders = ("--support", tmp_path, "--query", tmp_path)
    with pytest.raises(InputError, match="type of numbers 'float8'"):
        pb.pack(run, tmp_path / "new", dtype="float8")
    with pytest.raises(InputError, match="not empty"):
        pb.pack(run, packed)
    with pytest.raises(InputError, match="There is no checkpoint 77"):
        pb.pack(run, tmp_path / "new", which=77)
    assert not (tmp_path / "new").exists()
    with pytest.raises(InputError, match="was trained with 3"):
        pb.load_pretrained(omniglot_run, ways=4)
    with pytest.raises(InputError, match="was trained with"):
        pb.load_pretrained(sinusoid_run, ways=4)
    assert "is not packed" in cli("evaluate", packed, "--baseline", code=2).stderr
    assert "no other was packed" in cli("evaluate", packed, "--checkpoint", "1", code=2).stderr
    assert "Neither was given" in cli("adapt", *folders, code=2).stderr
    assert (
        "Both were given" in cli("adapt", packed, "--pretrained", packed, *folders, code=2).stderr
    )
    monkeypatch.setattr(p, "names", lambda: ("omniglot-5w1s",))
    assert "Did you mean 'omniglot-5w1s'?" in cli("evaluate", "omniglot-5w5s", code=2).stderr


@pytest.mark.parametrize("file", ["theta.npz", "card.json", "config.toml"])
@pytest.mark.parametrize("harm", ["cut", "changed", "missing"])
def test_a_damaged_file_is_named(packed, tmp_path, file, harm):
    folder = tmp_path / "copy"
    shutil.copytree(packed, folder)
    content = (folder / file).read_bytes()
    if harm == "missing":
        (folder / file).unlink()
    elif harm == "cut":
        (folder / file).write_bytes(content[: len(content) // 2])
    else:
        (folder / file).write_bytes(content[:20] + b"\x00\x01" + content[22:])
    with pytest.raises(InputError, match=r"copy"):
        pb.load_pretrained(folder)
