import hashlib
import io
import logging
import os
import time
import zipfile
from pathlib import Path

import numpy as np
import pooch
import pytest
import requests
from class_sets import stacked
from PIL import Image, ImageDraw

from pullback.core.errors import DataError
from pullback.tasks import load_omniglot, omniglot
from pullback.tasks.omniglot import OFFICIAL_MD5

REAL = Path(__file__).parents[3] / "shared" / "data" / "omniglot"


def png(seed):
    picture = Image.new("1", (105, 105), 1)
    x = 10 + 3 * seed
    ImageDraw.Draw(picture).rectangle((x, 20, x + 5, 80), fill=0)
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def tree(part, alphabets, examples=20):
    return {
        f"images_{part}/{alphabet}/character{character:02}/{character:04}_{example:02}.png": png(
            example
        )
        for alphabet, characters in alphabets.items()
        for character in range(1, characters + 1)
        for example in range(1, examples + 1)
    }


def write_zip(folder, part, files):
    path = folder / f"images_{part}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_folder(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise requests.ConnectionError("no network in tests")

    monkeypatch.setattr(requests, "get", refuse)


def test_zip_and_folder_give_the_same(data, tmp_path, cache):
    files = tree("background", {"Greek": 2, "Latin": 1})
    write_zip(data, "background", files | {"__MACOSX/images_background/Greek/x/._1.png": b"no"})
    other = tmp_path / "other"
    write_folder(other, files)
    from_zip, from_folder = load_omniglot(data, cache), load_omniglot(other, cache)
    assert from_zip.classes == ("Greek/character01", "Greek/character02", "Latin/character01")
    assert from_zip.groups == ("Greek", "Greek", "Latin")
    assert from_zip.parts == ("background",) * 3
    assert from_zip.classes == from_folder.classes
    assert np.array_equal(stacked(from_zip), stacked(from_folder))
    assert len(list(cache.glob("omniglot-*.npz"))) == 2


def test_ink_is_white_and_examples_are_in_order(data, cache):
    write_zip(data, "background", tree("background", {"Greek": 1}))
    images = stacked(load_omniglot(data, cache))
    assert images[0, 0, 0, 0] == 0
    assert images.max() == 255
    columns = (images[0].astype(float) * np.arange(28)).sum((1, 2)) / images[0].sum((1, 2))
    assert (np.diff(columns) > 0).all()
    # The stroke begins at 10 + 3·1 of 105 pixels and is six wide.
    assert columns[0] == pytest.approx((13 + 3) * 28 / 105 - 0.5, abs=0.1)


def test_both_parts_one_zipped_one_unpacked(data, cache):
    write_zip(data, "evaluation", tree("evaluation", {"Angelic": 1}))
    write_folder(data, tree("background", {"Greek": 1}))
    assert load_omniglot(data, cache).parts == ("background", "evaluation")


def test_evaluation_alone_is_enough(data, cache):
    write_zip(data, "evaluation", tree("evaluation", {"Angelic": 1}))
    assert load_omniglot(data, cache).parts == ("evaluation",)


def test_missing_data(data, tmp_path, cache):
    with pytest.raises(DataError, match=r"images_background\.zip, images_evaluation\.zip"):
        load_omniglot(data, cache)
    with pytest.raises(DataError, match="does not exist"):
        load_omniglot(tmp_path / "gone", cache)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        load_omniglot(tmp_path / "file", cache)


def damaged(data, cache):
    with pytest.raises(DataError) as caught:
        load_omniglot(data, cache)
    message = str(caught.value)
    assert "images_background.zip" in message
    assert "is damaged" in message
    assert OFFICIAL_MD5["background"] in message
    assert not list(cache.glob("*"))
    return message


def test_no_zip_at_all(data, cache):
    (data / "images_background.zip").write_bytes(b"<html>404</html>")
    assert hashlib.md5(b"<html>404</html>").hexdigest() in damaged(data, cache)


def test_truncated_zip(data, cache):
    path = write_zip(data, "background", tree("background", {"Greek": 1}))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    damaged(data, cache)


def test_flipped_bytes_inside_a_zip(data, cache):
    path = write_zip(data, "background", tree("background", {"Greek": 1}))
    with zipfile.ZipFile(path) as archive:
        member = archive.infolist()[7]
    content = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len(member.filename)
    content[start + 20 : start + 40] = bytes(20)
    path.write_bytes(content)
    damaged(data, cache)


def test_drawing_inside_a_zip_is_no_picture(data, cache):
    files = tree("background", {"Greek": 1})
    files["images_background/Greek/character01/0001_03.png"] = b"not a picture"
    write_zip(data, "background", files)
    damaged(data, cache)


def test_broken_drawing_in_a_folder_is_named(data, cache):
    files = tree("background", {"Greek": 1})
    name = "images_background/Greek/character01/0001_03.png"
    write_folder(data, files | {name: files[name][:60]})
    with pytest.raises(DataError, match=r"0001_03\.png.*cannot be read"):
        load_omniglot(data, cache)


def test_drawing_that_is_not_square(data, cache):
    stream = io.BytesIO()
    Image.new("1", (105, 50), 1).save(stream, "PNG")
    files = tree("background", {"Greek": 1})
    write_folder(data, files | {next(iter(files)): stream.getvalue()})
    with pytest.raises(DataError, match="105×50"):
        load_omniglot(data, cache)


def test_wrong_number_of_drawings(data, cache):
    write_zip(data, "background", tree("background", {"Greek": 1}, examples=19))
    with pytest.raises(DataError, match=r"Greek/character01.*has 19 drawings.*20 drawings"):
        load_omniglot(data, cache)


def test_archive_without_drawings(data, cache):
    write_zip(data, "background", {"readme.txt": b"hello"})
    with pytest.raises(DataError, match="holds no Omniglot drawings"):
        load_omniglot(data, cache)


def test_second_load_reads_the_cache(data, cache, monkeypatch):
    write_zip(data, "background", tree("background", {"Greek": 1}))
    first = load_omniglot(data, cache)
    monkeypatch.setattr(omniglot, "_decode", lambda _: pytest.fail("decoded again"))
    second = load_omniglot(data, cache)
    assert np.array_equal(stacked(first), stacked(second))
    assert (first.classes, first.groups, first.parts) == (
        second.classes,
        second.groups,
        second.parts,
    )
    assert not list(cache.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["emptied", "cut", "garbage", "flipped"])
def test_broken_cache_is_rebuilt(data, cache, damage):
    write_zip(data, "background", tree("background", {"Greek": 2}))
    first = load_omniglot(data, cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    middle = len(whole) // 3
    file.write_bytes(
        {
            "emptied": b"",
            "cut": whole[:middle],
            "garbage": b"garbage" * 100,
            "flipped": whole[:middle] + bytes(64) + whole[middle + 64 :],
        }[damage]
    )
    assert np.array_equal(stacked(load_omniglot(data, cache)), stacked(first))
    assert len(file.read_bytes()) == len(whole)


def test_changed_source_is_decoded_again(data, cache):
    write_zip(data, "background", tree("background", {"Greek": 1}))
    assert len(load_omniglot(data, cache).classes) == 1
    write_zip(data, "background", tree("background", {"Greek": 2}))
    assert len(load_omniglot(data, cache).classes) == 2


def test_changed_drawing_in_a_folder_is_decoded_again(data, cache):
    files = tree("background", {"Greek": 1})
    write_folder(data, files)
    first = load_omniglot(data, cache)
    drawing = data / next(iter(files))
    drawing.write_bytes(png(15))
    os.utime(drawing, ns=(1, 1))
    assert not np.array_equal(stacked(load_omniglot(data, cache)), stacked(first))


def test_folders_behind_links_are_told_apart_though_all_their_names_and_times_agree(
    data, tmp_path, cache
):
    loaded = []
    for number in range(2):
        # As large as each other, and of the same time.
        place = tmp_path / f"version{number}"
        pages = [bytes([255 * (number ^ (j > 400)) for j in range(28 * 28)]) for _ in range(20)]
        for example, page in enumerate(pages):
            file = place / "character01" / f"{example:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.frombytes("L", (28, 28), page).save(file, compress_level=0)
            os.utime(file, ns=(1, 1))
        alphabet = data / "images_background" / "Greek"
        alphabet.parent.mkdir(exist_ok=True)
        alphabet.unlink(missing_ok=True)
        alphabet.symlink_to(place)
        loaded.append(stacked(load_omniglot(data, cache)))
    assert loaded[0].any() and not np.array_equal(*loaded)


def test_endings_in_capitals_count(data, tmp_path, cache):
    files = tree("background", {"Greek": 2})
    write_folder(data, {name.replace(".png", ".PNG"): each for name, each in files.items()})
    write_zip(tmp_path, "background", files)
    loaded, wanted = load_omniglot(data, cache), load_omniglot(tmp_path, cache)
    assert loaded.digests == wanted.digests and len(loaded.classes) == 2


@pytest.mark.parametrize(
    "write", [write_folder, lambda f, files: write_zip(f, "background", files)]
)
def test_transparent_drawings_are_on_white_paper(write, data, tmp_path, cache):
    opaque = tree("background", {"Greek": 1})

    def clear(content):
        ink = np.asarray(Image.open(io.BytesIO(content)).convert("L")) == 0
        layers = np.zeros((*ink.shape, 4), np.uint8)
        layers[..., 3] = 255 * ink
        stream = io.BytesIO()
        Image.fromarray(layers).save(stream, "PNG")
        return stream.getvalue()

    write(data, {name: clear(content) for name, content in opaque.items()})
    write_folder(tmp_path / "opaque", opaque)
    assert load_omniglot(data, cache).digests == load_omniglot(tmp_path / "opaque", cache).digests


def test_unwritable_cache_does_not_fail_the_load(data, tmp_path):
    write_zip(data, "background", tree("background", {"Greek": 1}))
    (tmp_path / "file").write_text("in the way")
    assert len(load_omniglot(data, tmp_path / "file" / "cache").classes) == 1


def test_default_cache_is_the_users(data, tmp_path, monkeypatch):
    import platformdirs

    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    write_zip(data, "background", tree("background", {"Greek": 1}))
    load_omniglot(data)
    assert list((tmp_path / "pullback").glob("omniglot-*.npz"))


def test_no_network_is_said_with_a_remedy(cache):
    with pytest.raises(DataError, match=r"images_background\.zip could not be downloaded.*data"):
        load_omniglot(cache_dir=cache)


class FakeResponse:
    def __init__(self, content):
        self.content = content
        self.headers = {"content-length": str(len(content))}

    def raise_for_status(self):
        pass

    def iter_content(self, chunk_size):
        yield self.content

    def close(self):
        pass


def serve(monkeypatch, contents):
    asked = []

    def get(url, **_):
        asked.append(url)
        return FakeResponse(contents[url.rsplit("/", 1)[1]])

    monkeypatch.setattr(requests, "get", get)
    return asked


def test_download_checks_the_official_checksum(cache, monkeypatch):
    serve(monkeypatch, {"images_background.zip": b"something else"})
    with pytest.raises(DataError, match="could not be downloaded"):
        load_omniglot(cache_dir=cache)


@pytest.mark.parametrize("progress", [False, True])
def test_download_once_then_work_offline(tmp_path, cache, monkeypatch, capsys, caplog, progress):
    names = {}
    for part, alphabet in (("background", "Greek"), ("evaluation", "Angelic")):
        path = write_zip(tmp_path, part, tree(part, {alphabet: 1}))
        names[path.name] = path.read_bytes()
        monkeypatch.setitem(OFFICIAL_MD5, part, pooch.file_hash(str(path), alg="md5"))
    asked = serve(monkeypatch, names)
    with caplog.at_level(logging.INFO):
        loaded = load_omniglot(cache_dir=cache, progress=progress)
    assert loaded.parts == ("background", "evaluation")
    assert len(asked) == 2
    output = "".join(capsys.readouterr())
    assert ("images_background.zip" in output) == progress
    again = load_omniglot(cache_dir=cache)
    assert len(asked) == 2
    assert np.array_equal(stacked(loaded), stacked(again))


@pytest.mark.skipif(
    not (REAL / "images_background.zip").is_file(),
    reason="the real images_background.zip is not beside the repository",
)
def test_real_background_part(cache):
    loaded = load_omniglot(REAL, cache)
    assert stacked(loaded).shape == (964, 20, 28, 28)
    assert len(set(loaded.groups)) == 30
    assert set(loaded.parts) == {"background"}
    assert stacked(loaded).max(axis=(2, 3)).min() > 100
    start = time.perf_counter()
    load_omniglot(REAL, cache)
    assert time.perf_counter() - start < 0.5
