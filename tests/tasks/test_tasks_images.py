import numpy as np
import pytest
from class_sets import stacked
from PIL import Image, ImageDraw

from pullback.core.errors import DataError, InputError
from pullback.tasks import ClassSet, read_class_folders, read_image


def small_set(classes=("a/1", "a/2", "b/1")):
    count = len(classes)
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 2, 28, 28), np.uint8
    )
    return ClassSet.of("small", images, classes, tuple(c[0] for c in classes), ("",) * count)


def drawing(size=(120, 80), paper=255, ink=0, mode="L"):
    picture = Image.new(mode, size, paper)
    ImageDraw.Draw(picture).rectangle((10, 10, 40, 60), fill=ink)
    return picture


def test_select_keeps_the_order_asked_for():
    chosen = small_set().select(["b/1", "a/1"])
    assert chosen.classes == ("b/1", "a/1")
    assert chosen.groups == ("b", "a")
    assert stacked(chosen)[:, 0, 0, 0].tolist() == [2, 0]


def test_select_names_unknown_classes_and_counts_them():
    with pytest.raises(InputError, match=r"2 of 3 classes.*'x'.*'y'"):
        small_set().select(["a/1", "x", "y"])


def test_select_shows_only_the_first_of_many_unknown_classes():
    with pytest.raises(InputError, match=r"9 of 9 classes.*'4' and 4 more"):
        small_set().select([str(i) for i in range(9)])


def test_select_nothing_is_an_error():
    with pytest.raises(InputError, match="No classes"):
        small_set().select([])


def test_class_twice_is_an_error():
    with pytest.raises(InputError, match="'a/1' occurs twice"):
        small_set(("a/1", "b/1", "a/1"))
    with pytest.raises(InputError, match="'a/1' occurs twice"):
        small_set().select(["a/1", "a/1"])


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("examples", "message"),
    [
        (np.zeros((1, 2, 28, 28), np.int32), "int32.*uint8"),
        (np.zeros((1, 2, 28, 28, 5), np.uint8), "one to four channels"),
        (np.zeros((1, 2, 28), np.uint8), "one to four channels"),
        (np.zeros((1, 2)), "float64"),
        (np.array([[[0.0, 1.0], [np.nan, 2.0]]]), "Example 1 .*not finite"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], "one shape and type for all"),
        ([np.zeros((2, 3)), np.zeros((2, 3), np.float32)], "one shape and type for all"),
    ],
)
def test_wrong_examples_are_an_error(examples, message):
    names = tuple("ab"[: len(examples)])
    with pytest.raises(InputError, match=message):
        ClassSet.of("small", examples, names)


def test_a_class_without_examples_is_an_error():
    with pytest.raises(InputError, match=r"Class 'b'.*no examples"):
        ClassSet.of("small", [np.zeros((2, 3)), np.zeros((0, 3))], ("a", "b"))


def test_lengths_must_agree():
    with pytest.raises(InputError, match="2 class names"):
        ClassSet.of("small", np.zeros((1, 2, 28, 28), np.uint8), ("a", "b"), ("a",), ("",))


def test_dark_on_light_and_light_on_dark_read_the_same(tmp_path):
    drawing().save(tmp_path / "dark.png")
    drawing(paper=0, ink=255).save(tmp_path / "light.png")
    dark, light = read_image(tmp_path / "dark.png"), read_image(tmp_path / "light.png")
    assert dark.shape == (28, 28)
    assert dark.dtype == np.uint8
    assert np.array_equal(dark, light)
    assert dark.max() == 255
    assert dark[-1, -1] == 0


def test_picture_is_padded_not_stretched(tmp_path):
    drawing(size=(120, 80)).save(tmp_path / "wide.png")
    rows, columns = np.nonzero(read_image(tmp_path / "wide.png") > 127)
    scale = 28 / 120
    assert np.ptp(columns) + 1 == pytest.approx(31 * scale, abs=1)
    assert np.ptp(rows) + 1 == pytest.approx(51 * scale, abs=1)
    assert rows.min() == pytest.approx((20 + 10) * scale, abs=1)


def test_transparent_ground_is_paper(tmp_path):
    drawing().save(tmp_path / "opaque.png")
    drawing(paper=(0, 0, 0, 0), ink=(0, 0, 0, 255), mode="RGBA").save(tmp_path / "clear.png")
    assert np.array_equal(read_image(tmp_path / "opaque.png"), read_image(tmp_path / "clear.png"))


def test_palette_picture_with_transparent_colour(tmp_path):
    drawing().save(tmp_path / "opaque.png")
    palette = drawing(paper=0, ink=1, mode="P")
    palette.putpalette([9, 9, 9, 0, 0, 0])
    palette.save(tmp_path / "palette.png", transparency=0)
    assert np.array_equal(read_image(tmp_path / "opaque.png"), read_image(tmp_path / "palette.png"))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    drawing().save(tmp_path / "eight.png")
    deep = np.asarray(drawing(), dtype=np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert np.array_equal(read_image(tmp_path / "eight.png"), read_image(tmp_path / "deep.png"))


DEEP = {
    "12 bits": lambda ink: np.where(ink, 0, 4095).astype(np.uint16),
    "10 bits": lambda ink: np.where(ink, 0, 1000).astype(np.uint16),
    "16 bits, low range": lambda ink: np.where(ink, 59000, 60000).astype(np.uint16),
    "0 to 1": lambda ink: np.where(ink, 0, 1).astype(np.float32),
    "-1 to 1": lambda ink: np.where(ink, -1, 1).astype(np.float32),
    "tiny": lambda ink: np.where(ink, 0, 1e-9).astype(np.float32),
    "faint": lambda ink: np.where(ink, 242, 250).astype(np.uint8),
}


@pytest.mark.parametrize("kind", DEEP)
def test_numbers_are_scaled_by_their_range(kind, tmp_path):
    drawing().save(tmp_path / "eight.png")
    values = DEEP[kind](np.asarray(drawing()) == 0)
    Image.fromarray(values).save(tmp_path / "deep.tiff")
    assert np.array_equal(read_image(tmp_path / "eight.png"), read_image(tmp_path / "deep.tiff"))


def test_a_faint_scan_is_read_as_long_as_it_stands_out_of_its_noise(tmp_path, rng):
    noise = rng.integers(0, 2, (80, 120))
    faint = np.where(np.asarray(drawing()) == 0, 236, 250) - noise
    Image.fromarray(faint.astype(np.uint8)).save(tmp_path / "faint.png")
    drawing().save(tmp_path / "clear.png")
    read, clear = (read_image(tmp_path / name) for name in ("faint.png", "clear.png"))
    assert np.corrcoef(read.ravel(), clear.ravel())[0, 1] > 0.98


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colours_of_deep_and_transparent_pictures(channels, tmp_path):
    Image.fromarray(np.full((9, 9), 3000, np.uint16)).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png", (4, 4, channels)) == 255).all()
    Image.new("RGBA", (9, 9), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    clear = read_image(tmp_path / "clear.png", (4, 4, channels))
    assert (clear == (255 if channels == 3 else 0)).all()


def test_grey_paper_becomes_zero_and_pencil_full_ink(tmp_path):
    drawing(paper=200, ink=90).save(tmp_path / "pencil.png")
    image = read_image(tmp_path / "pencil.png")
    assert image.max() == 255
    assert np.median(image) == 0


def test_blank_page_has_no_ink(tmp_path):
    noise = np.random.default_rng(0).integers(240, 246, (50, 50), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "blank.png")
    assert not read_image(tmp_path / "blank.png").any()


def test_camera_turn_is_honoured(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    drawing(size=(80, 80)).save(tmp_path / "turned.png", exif=exif)
    drawing(size=(80, 80)).save(tmp_path / "plain.png")
    turned, plain = read_image(tmp_path / "turned.png"), read_image(tmp_path / "plain.png")
    # The resize clips between its pass over the rows and that over the columns.
    np.testing.assert_allclose(turned.astype(int), np.rot90(plain, -1), atol=12)


def test_unreadable_image_is_named(tmp_path):
    (tmp_path / "no.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"no\.png.*cannot be read"):
        read_image(tmp_path / "no.png")
    with pytest.raises(DataError, match=r"no image file.*gone\.png"):
        read_image(tmp_path / "gone.png")


def test_cut_short_image_is_named(tmp_path):
    drawing(size=(300, 300)).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cut\.png"):
        read_image(tmp_path / "cut.png")


def class_folders(root, **counts):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            drawing().save(root / name / f"{index}.png")
    return root


def test_class_folders_come_in_order(tmp_path):
    root = class_folders(tmp_path, moon=1, cat=3)
    (root / "cat" / ".DS_Store").write_bytes(b"litter")
    (root / "cat" / "Thumbs.db").write_bytes(b"litter")
    (root / "__MACOSX").mkdir()
    (root / "notes.txt").write_text("beside the classes")
    images, names = read_class_folders(root)
    assert names == ("cat", "moon")
    assert [i.shape for i in images] == [(3, 28, 28), (1, 28, 28)]


def test_class_folder_errors(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_class_folders(tmp_path / "gone")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        read_class_folders(tmp_path / "file")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no sub-folders"):
        read_class_folders(tmp_path / "none")
    with pytest.raises(DataError, match="only one class, 'cat'"):
        read_class_folders(class_folders(tmp_path / "one", cat=1))
    with pytest.raises(DataError, match=r"moon' holds no pictures"):
        read_class_folders(class_folders(tmp_path / "empty", cat=1, moon=0))
    broken = class_folders(tmp_path / "broken", cat=1, moon=1)
    (broken / "moon" / "notes.txt").write_text("not a picture")
    with pytest.raises(DataError, match=r"notes\.txt"):
        read_class_folders(broken)
