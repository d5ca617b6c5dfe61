"""Own pictures: what becomes of each kind of file, and which folders are classes."""

import os

import numpy as np
import pytest
from PIL import Image

from pullback.core import memory
from pullback.core.errors import DataError, InputError
from pullback.tasks import folder, load_folder, read_class_folders, read_picture
from pullback.tasks.images import read_fitted

SIDE = 8
GREY = np.arange(0, 256, 4, dtype=np.uint8).reshape(SIDE, SIDE)
COLOUR = np.stack([GREY, 255 - GREY, np.full_like(GREY, 90)], -1)
ALPHA = np.where(np.arange(SIDE)[None] < 4, 255, 0).astype(np.uint8) * np.ones((SIDE, 1), np.uint8)


def put(path, picture, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    picture.save(path, **how)
    return path


def with_alpha(values):
    return np.concatenate([values.reshape(SIDE, SIDE, -1), ALPHA[..., None]], -1)


def on_white(values):
    return np.where(ALPHA[..., None] == 255, values.reshape(SIDE, SIDE, -1), 255)


def palette():
    picture = Image.fromarray((np.arange(64, dtype=np.uint8) % 2).reshape(SIDE, SIDE), "P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    return picture


CHECKS = np.where((np.arange(64) % 2).reshape(SIDE, SIDE, 1), [200, 100, 50], [10, 20, 30])
DEEP = np.arange(64, dtype=np.uint16).reshape(SIDE, SIDE) * 1000
BLACK_AND_WHITE = Image.fromarray(GREY).point(lambda value: 255 * (value > 127), "1")
TURNED = Image.Exif()
TURNED[0x0112] = 6
KINDS = {
    "grey.png": (GREY, {}, GREY),
    "colour.png": (COLOUR, {}, COLOUR),
    "colour.bmp": (COLOUR, {}, COLOUR),
    "colour.webp": (COLOUR, {"lossless": True}, COLOUR),
    "colour.ppm": (COLOUR, {}, COLOUR),
    "grey.GIF": (GREY, {"format": "GIF"}, GREY),
    "grey-alpha.png": (Image.fromarray(with_alpha(GREY), "LA"), {}, on_white(GREY)),
    "colour-alpha.png": (with_alpha(COLOUR), {}, on_white(COLOUR)),
    "palette.png": (palette(), {}, CHECKS),
    "see-through-palette.png": (
        palette(),
        {"transparency": 0},
        np.where(CHECKS == [10, 20, 30], 255, CHECKS),
    ),
    "bits.png": (BLACK_AND_WHITE, {}, np.where(GREY > 127, 255, 0)),
    "deep.png": (DEEP, {}, np.rint(DEEP * (255 / DEEP.max()))),
    "deep.tiff": ((GREY / 255).astype(np.float32), {}, GREY * (255 / GREY.max())),
    "turned.png": (COLOUR, {"exif": TURNED}, np.rot90(COLOUR, -1)),
    "inks.tiff": (Image.fromarray(COLOUR).convert("CMYK"), {}, COLOUR),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_keeps_its_colours_whatever_its_file(kind, tmp_path):
    picture, how, wanted = KINDS[kind]
    read = read_picture(put(tmp_path / kind, picture, **how), SIDE)
    assert read.shape == (SIDE, SIDE, 3) and read.dtype == np.uint8
    wanted = np.broadcast_to(np.asarray(wanted).reshape(SIDE, SIDE, -1), read.shape)
    np.testing.assert_allclose(read.astype(int), wanted, atol=0.51)


def test_a_grey_reading_is_pillows_own_luma(tmp_path):
    path = put(tmp_path / "colour.png", COLOUR)
    grey = read_picture(path, SIDE, 1)
    assert np.array_equal(grey[..., 0], np.asarray(Image.fromarray(COLOUR).convert("L")))
    path = put(tmp_path / "grey.png", GREY)
    assert np.array_equal(read_picture(path, SIDE, 1)[..., 0], GREY)


def test_the_longer_side_fills_the_square_and_the_rest_has_the_colour_of_the_border(tmp_path):
    wide = np.full((20, 40, 3), [200, 10, 60], np.uint8)
    wide[5:15, 10:30] = 0
    read = read_picture(put(tmp_path / "wide.png", wide), SIDE)
    assert (read[[0, 1, 6, 7]] == [200, 10, 60]).all()
    assert (read[3:5, 3:5] < 20).all()
    high = read_picture(put(tmp_path / "high.png", wide.transpose(1, 0, 2)), SIDE)
    # The resize clips between its pass over the rows and that over the columns.
    np.testing.assert_allclose(high.astype(int), read.transpose(1, 0, 2), atol=12)
    line = read_picture(put(tmp_path / "line.png", np.full((1, 300), 7, np.uint8)), SIDE)
    assert (line == 7).all()


def test_a_photograph_is_decoded_small_and_looks_the_same(tmp_path):
    rows, columns = np.mgrid[:600, :800]
    photo = np.stack([rows * 255 // 600, columns * 255 // 800, 0 * rows + 128], -1)
    path = put(tmp_path / "photo.jpeg", photo.astype(np.uint8), quality=95)
    wanted = np.asarray(Image.open(path).resize((28, 21), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(read_picture(path)[3:24] - wanted).max() <= 4


def class_folders(root, *names, count=2, picture=GREY):
    """A folder for each class, of pictures that differ in one pixel."""
    for place, name in enumerate(names):
        for number in range(count):
            own = picture.copy()
            own[place // SIDE, place % SIDE] = 255 - number
            put(root / name / f"{number}.png", own)
    return root


def load(root, cache, **how):
    return load_folder(root, cache, image_size=SIDE, **how)


def test_a_class_is_a_folder_of_pictures_and_its_group_the_folder_around_it(tmp_path):
    root = class_folders(tmp_path / "own", "Ägypten/β", "Ägypten/α", "moon", "moon/new", count=1)
    put(root / "moon" / "2.JPEG", Image.new("L", (30, 9)), format="PNG")
    found = load(root, tmp_path)
    assert found.classes == ("moon", "moon/new", "Ägypten/α", "Ägypten/β")
    assert found.groups == ("moon", "moon", "Ägypten", "Ägypten")
    assert found.counts.tolist() == [2, 1, 1, 1]
    assert found.shape == (SIDE, SIDE, 1)


def test_names_with_accents_are_the_same_however_they_are_written(tmp_path):
    root = class_folders(tmp_path / "own", "e\u0301", "o")
    assert load(root, tmp_path).classes == ("\u00e9", "o")


def test_links_are_followed(tmp_path):
    elsewhere = class_folders(tmp_path / "elsewhere", "a", "b")
    root = tmp_path / "own"
    (root / "c").mkdir(parents=True)
    (root / "d").symlink_to(elsewhere / "a")
    (root / "c" / "1.png").symlink_to(elsewhere / "b" / "0.png")
    found = load(root, tmp_path)
    assert found.classes == ("c", "d") and found.counts.tolist() == [1, 2]


def test_one_coloured_picture_makes_all_of_them_coloured(tmp_path):
    root = class_folders(tmp_path / "own", "a", "b", picture=np.stack([GREY] * 3, -1))
    grey = load(root, tmp_path)
    assert grey.shape == (SIDE, SIDE, 1)
    put(root / "b" / "2.png", COLOUR)
    found = load(root, tmp_path)
    assert found.shape == (SIDE, SIDE, 3)
    assert (found.of_class(0) == grey.of_class(0)).all()
    assert np.array_equal(found.of_class(1)[2], COLOUR)
    assert load(root, tmp_path, channels="grey").shape == (SIDE, SIDE, 1)
    (root / "b" / "2.png").unlink()
    assert np.array_equal(load(root, tmp_path, channels="colour").examples[..., 2:], grey.examples)


def test_pictures_to_adapt_to_are_read_as_those_of_the_training(tmp_path):
    root = class_folders(tmp_path / "own", "a", "b", picture=np.full((5, 9), 255, np.uint8))
    images, names = read_class_folders(root, (SIDE, SIDE, 1), read_fitted)
    found = load(root, tmp_path)
    assert names == found.classes
    assert np.array_equal(np.concatenate(images), found.examples)


def test_what_is_no_picture_of_a_class_is_counted_and_said(tmp_path):
    root = class_folders(tmp_path / "own", "a", "b")
    for name in ("notes.txt", "a/readme.TXT", "b/photo.heic", "a/.DS_Store", ".git/x.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("")
    (root / "empty").mkdir()
    said = []
    found = load(root, tmp_path, say=said.append)
    assert found.counts.tolist() == [2, 2]
    assert said == [
        f"Passed over in {str(root)!r}: files that are no pictures (1 .heic, 2 .txt); 2 hidden; "
        "1 folders without pictures ('empty')."
    ]
    with pytest.warns(UserWarning, match="2 hidden"):
        load(root, tmp_path)


def test_pictures_are_decoded_once_and_anew_when_a_file_changed(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "own", "a", "b")
    before = load(root, tmp_path / "cache")
    read = []
    monkeypatch.setattr(folder, "read_picture", lambda *a: read.append(a) or read_picture(*a))
    assert load(root, tmp_path / "cache").digests == before.digests
    assert not read
    put(root / "b" / "1.png", 255 - GREY)
    after = load(root, tmp_path / "cache")
    assert len(read) == 4
    assert {n for n in "ab" if after.digests[n] != before.digests[n]} == {"b"}


def test_a_long_reading_says_how_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "PATIENCE", 0.0)
    said = []
    load(class_folders(tmp_path / "own", "a", "b"), tmp_path / "cache", say=said.append)
    assert said[0] == "Read 1 of 4 pictures of 2 classes …"


def broken(root):
    (root / "b" / "2.png").write_bytes(b"no picture")


def loose(root):
    put(root / "x.png", GREY)


def parts(root):
    class_folders(root, "train/cat", "test/cat", "test/dog")


def twins(root):
    for number in range(2):
        put(root / "c" / f"{number}.png", Image.open(root / "a" / f"{number}.png"))


def loop(root):
    (root / "a" / "loop").symlink_to(root)


def no_text(root):
    (root / "a").rename(root / os.fsdecode(b"\xff"))


def one_class(root):
    for file in (root / "b").iterdir():
        file.rename(file.with_suffix(".heic"))


FAULTS = {
    broken: r"2\.png.*cannot be read as an image",
    loose: r"1 pictures stand directly in .*'x\.png'",
    parts: r"class 'cat' is in 'test' and in 'train'",
    twins: r"'a' and 'c' have the very same pictures",
    loop: r"loop.* is a link to a folder above it",
    no_text: "is no text",
    one_class: r"one class of pictures only, 'a' \(there are .*2 \.heic",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_cannot_be_meant_is_refused(fault, tmp_path):
    root = class_folders(tmp_path / "own", "a", "b")
    fault(root)
    with pytest.raises(DataError, match=FAULTS[fault]):
        load(root, tmp_path / "cache", say=lambda text: None)


@pytest.mark.wrong_types
def test_wrong_arguments_are_told(tmp_path, monkeypatch):
    root = class_folders(tmp_path / "own", "a", "b")
    with pytest.raises(InputError, match="no folder of pictures"):
        load_folder()
    with pytest.raises(InputError, match="image_size=0"):
        load_folder(root, tmp_path, image_size=0)
    with pytest.raises(InputError, match="Did you mean 'colour'"):
        load(root, tmp_path, channels="color")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no class folders with pictures"):
        load(tmp_path / "none", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "gone", tmp_path)
    monkeypatch.setattr(memory, "available_bytes", lambda: 700)
    with pytest.raises(InputError, match=r"4 pictures of 8×8 take 768 bytes .*--image-size"):
        load(root, tmp_path)
