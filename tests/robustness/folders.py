"""Folders that a program may be handed, and what its message must say.

A row has a function that writes into an empty folder, a command line in which ``{}`` stands for
that folder, and words of the message.
"""

import io
import json
import os
import shutil
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pullback.core.scores import ACCURACY
from pullback.runs import checkpoint
from pullback.runs import config as configs
from pullback.runs.folder import Run
from pullback.tasks import ClassSplit
from pullback.tasks.datasets import DataSummary

PARTS = (("a/1", "a/2", "a/3"), ("b/1", "b/2", "b/3"), ("c/1", "c/2", "c/3"))


def write_nothing(folder):
    """The folder stays empty."""


def put(path, content=b""):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        content.save(path, "PNG")
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def link(path, target):
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


# Pictures.


def page(ink=0, paper=255, size=(40, 40)):
    """A drawing: a square of ink on paper."""
    values = np.full(size, paper, np.uint8)
    values[10:20, 10:20] = ink
    return Image.fromarray(values)


def see_through(colour, alpha):
    values = np.full((40, 40, 4), colour, np.uint8)
    values[..., 3] = 0
    values[10:20, 10:20, 3] = alpha
    return Image.fromarray(values)


def noise():
    return Image.fromarray(np.random.default_rng(0).integers(240, 246, (50, 50), dtype=np.uint8))


def encoded(picture, kind="TIFF"):
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def floats(*values):
    return encoded(Image.fromarray(np.asarray([values], np.float32)))


def head_of_png(width, height):
    """A picture that ends where its content should begin, and says how large it is."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n"


def pictures(change):
    """A run on drawings, two classes to adapt to and a picture to classify, and then a change."""

    def make(folder):
        make_run("omniglot", {"ways": 3}, change=begin)(folder / "run")
        for name in ("support/cat/1.png", "support/moon/1.png", "query/1.png"):
            put(folder / name, page())
        change(folder)

    return make


def with_picture(name, content):
    return pictures(lambda folder: put(folder / name, content))


def with_link(name, target):
    return pictures(lambda folder: link(folder / name, target))


def without(name):
    def remove(path):
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return pictures(lambda folder: remove(folder / name))


CAT = "support/cat/1.png"
PICTURES = {
    "white class": (with_picture(CAT, page(ink=255)), [CAT, "is blank"]),
    "black class": (with_picture(CAT, page(paper=0)), [CAT, "is blank"]),
    "class of noise": (with_picture(CAT, noise()), [CAT, "is blank", "contrast"]),
    "one blank picture of two": (with_picture("support/cat/2.png", page(255)), ["cat/2.png"]),
    "blank query": (with_picture("query/1.png", page(255)), ["query/1.png", "is blank"]),
    "blank query with a label": (with_picture("query/cat/1.png", page(255)), ["query/cat/1.png"]),
    "nothing but transparency": (with_picture(CAT, see_through(0, 0)), [CAT, "is blank"]),
    "white on transparent": (with_picture(CAT, see_through(255, 255)), [CAT, "is blank"]),
    "one value in 16 bits": (
        with_picture(CAT, Image.fromarray(np.full((9, 9), 3000, np.uint16))),
        [CAT, "is blank"],
    ),
    "one value as float": (with_picture(CAT, floats(0.5, 0.5, 0.5)), [CAT, "is blank"]),
    "float that is not finite": (with_picture(CAT, floats(0, np.nan, 1)), [CAT, "not finite"]),
    "infinite float": (with_picture(CAT, floats(0, np.inf, 1)), [CAT, "not finite"]),
    "PostScript as PNG": (with_picture(CAT, EPS), [CAT, "none of the formats", "PNG, JPEG"]),
    "PDF as PNG": (with_picture(CAT, encoded(page(), "PDF")), [CAT, "none of the formats"]),
    "icon": (with_picture("support/cat/2.ico", encoded(page(), "ICO")), ["2.ico"]),
    "drawing of lines": (with_picture("support/cat/2.svg", "<svg/>"), ["2.svg", "Allowed: PNG"]),
    "text among the pictures": (with_picture("support/cat/notes.txt", "hello"), ["notes.txt"]),
    "empty file": (with_picture(CAT, b""), [CAT, "cannot be read as an image"]),
    "picture cut short": (with_picture(CAT, encoded(page(), "PNG")[:70]), [CAT, "cannot be read"]),
    "169 million pixels": (with_picture(CAT, head_of_png(13000, 13000)), [CAT, "13000×13000"]),
    "400 million pixels": (with_picture(CAT, head_of_png(20000, 20000)), [CAT, "pixels"]),
    "very wide": (with_picture(CAT, head_of_png(300000, 1)), [CAT, "300000×1", "along a side"]),
    "very high": (with_picture("query/2.png", head_of_png(1, 300000)), ["2.png", "1×300000"]),
    "broken link as a picture": (with_link(CAT, "/nowhere"), [CAT, "link to '/nowhere'"]),
    "broken link as a query": (with_link("query/2.png", "gone.png"), ["2.png", "'gone.png'"]),
    "broken link as a class": (with_link("support/dog", "/nowhere"), ["support/dog", "link to"]),
    "link to itself": (with_link("support/cat/2.png", "2.png"), ["cat/2.png", "link to"]),
    "broken link in a class of queries": (
        pictures(lambda folder: [put(folder / "query/cat/1.png", page()),
                                 link(folder / "query/cat/2.png", "x")]),
        ["query/cat/2.png", "link to 'x'"],
    ),
    "folder in a class": (with_picture("support/cat/more/1.png", page()), ["cat/more", "a folder"]),
    "folder in a class of queries": (
        with_picture("query/cat/more/1.png", page()),
        ["query/cat/more", "is a folder"],
    ),
    "picture beside the classes": (with_picture("support/x.png", page()), ["x.png", "beside"]),
    "JPEG beside the classes": (with_picture("support/x.JPG", page()), ["x.JPG", "beside"]),
    "pipe as a picture": (
        pictures(lambda folder: os.mkfifo(folder / "support/cat/2.png")),
        ["cat/2.png", "neither a file nor a folder"],
    ),
    "pipe as a query": (
        pictures(lambda folder: os.mkfifo(folder / "query/2.png")),
        ["query/2.png", "not a file"],
    ),
    "class without pictures": (without(CAT), ["support/cat", "holds no pictures"]),
    "only litter in a class": (
        pictures(lambda folder: (folder / CAT).rename(folder / "support/cat/Thumbs.db")),
        ["support/cat", "holds no pictures"],
    ),
    "one class": (without("support/cat"), ["only one class, 'moon'"]),
    "no support": (without("support"), ["support", "does not exist"]),
    "no queries": (without("query"), ["query", "does not exist"]),
    "empty queries": (without("query/1.png"), ["query", "holds no pictures"]),
    "query of another class": (with_picture("query/dog/1.png", page()), ["dog", "cat, moon"]),
    "more classes than ways": (
        pictures(lambda folder: [put(folder / f"support/{n}/1.png", page()) for n in "ab"]),
        ["holds 4 classes", "--ways 4"],
    ),
    "run that never began": (
        pictures(lambda folder: (folder / "run/metrics.jsonl").unlink()),
        ["run", "before anything was trained"],
    ),
}  # fmt: skip


# Omniglot.

PLACE = "images_background/Greek/character01"


def unpacked(change, examples=20):
    """A folder of drawings, one class, and then a change."""

    def make(folder):
        for number in range(examples):
            put(folder / PLACE / f"{number:02}.png", page())
        change(folder)

    return make


def zipped(content, **how):
    """A zip file of one drawing."""

    def make(folder):
        with zipfile.ZipFile(folder / "images_background.zip", "w", **how) as archive:
            archive.writestr(f"{PLACE}/01.png", content)

    return make


def cut_zip(folder):
    zipped(bytes(1000))(folder)
    file = folder / "images_background.zip"
    file.write_bytes(file.read_bytes()[:500])


DEFLATED = {"compression": zipfile.ZIP_DEFLATED}
OMNIGLOT = {
    "no data": (write_nothing, ["holds no Omniglot data", "images_background.zip"]),
    "web page as a zip": (
        lambda folder: put(folder / "images_background.zip", "<html>404</html>"),
        ["images_background.zip", "is damaged", "md5"],
    ),
    "zip cut short": (cut_zip, ["images_background.zip", "is damaged"]),
    "zip without drawings": (
        lambda folder: zipfile.ZipFile(folder / "images_background.zip", "w").close(),
        ["holds no Omniglot drawings"],
    ),
    "zip that unpacks to much more": (
        zipped(bytes(5_000_000), **DEFLATED),
        ["01.png would unpack to 5,000,000 bytes"],
    ),
    "zip packed in blocks": (
        zipped(bytes(100), compression=zipfile.ZIP_BZIP2),
        ["01.png", "not packed as a drawing is"],
    ),
    "PostScript in a zip": (zipped(EPS, **DEFLATED), ["01.png", "none of the formats"]),
    "huge drawing in a zip": (zipped(head_of_png(13000, 13000)), ["01.png", "13000×13000"]),
    "text in a zip": (zipped("hello"), ["01.png", "none of the formats"]),
    "one drawing in a zip": (zipped(encoded(page(), "PNG")), ["has 1 drawings", "20 drawings"]),
    "19 drawings": (unpacked(write_nothing, 19), ["Greek/character01", "has 19 drawings"]),
    "drawing that is not square": (
        unpacked(lambda folder: put(folder / PLACE / "00.png", page(size=(40, 50)))),
        ["00.png", "50×40", "square"],
    ),
    "drawing that is text": (
        unpacked(lambda folder: put(folder / PLACE / "00.png", "hello")),
        ["00.png", "none of the formats"],
    ),
    "PostScript among the drawings": (
        unpacked(lambda folder: put(folder / PLACE / "00.PNG", EPS)),
        ["00.PNG", "none of the formats"],
    ),
    "drawing with a number that is not finite": (
        unpacked(lambda folder: put(folder / PLACE / "00.png", floats(0, np.nan))),
        ["00.png", "not finite"],
    ),
    "broken link among the drawings": (
        unpacked(lambda folder: link(folder / PLACE / "00.png", "/nowhere")),
        ["00.png", "link to '/nowhere'"],
    ),
    "broken link as an alphabet": (
        unpacked(lambda folder: link(folder / "images_background/Latin", "/nowhere")),
        ["Latin", "link to '/nowhere'"],
    ),
    "broken link as a character": (
        unpacked(lambda folder: link(folder / "images_background/Greek/character02", "x")),
        ["character02", "link to 'x'"],
    ),
    "folder named as a drawing": (
        unpacked(lambda folder: (folder / PLACE / "20.png").mkdir()),
        ["20.png", "not a file"],
    ),
    "class without drawings": (
        unpacked(lambda folder: put(folder / "images_background/Greek/character02/01.jpg")),
        ["character02", "holds no drawings"],
    ),
}


# Own pictures.


def own(change, names=("cat", "dog", "moon")):
    """A folder for each class, two pictures in each, and then a change."""

    def make(folder):
        for place, name in enumerate(names):
            for number in range(2):
                put(folder / name / f"{number}.png", page(ink=40 * place + number))
        change(folder)

    return make


def with_own(name, content):
    return own(lambda folder: put(folder / name, content))


OWN_PICTURES = {
    "nothing": (write_nothing, ["no class folders with pictures", "DIR/<class>/<picture>"]),
    "only pictures": (own(write_nothing, ("",)), ["2 pictures stand directly in", "no class"]),
    "one class of own pictures": (own(write_nothing, ("cat",)), ["one class of pictures only"]),
    "own picture that is text": (with_own("cat/2.png", "hello"), ["cat/2.png", "cannot be read"]),
    "own picture that is empty": (with_own("cat/2.jpg", b""), ["cat/2.jpg", "cannot be read"]),
    "own picture cut short": (
        with_own("cat/2.png", encoded(page(), "PNG")[:70]),
        ["cat/2.png", "cannot be read"],
    ),
    "own picture of 169 million pixels": (
        with_own("cat/2.png", head_of_png(13000, 13000)),
        ["cat/2.png", "13000×13000"],
    ),
    "own picture behind a broken link": (
        own(lambda folder: link(folder / "cat/0.png", "/nowhere")),
        ["cat/0.png", "link to '/nowhere'"],
    ),
    "class behind a link to a folder above": (
        own(lambda folder: link(folder / "cat/more", folder)),
        ["cat/more", "a folder above it"],
    ),
    "pipe among own pictures": (
        own(lambda folder: os.mkfifo(folder / "cat/2.png")),
        ["cat/2.png", "not a file"],
    ),
    "class of own pictures in two parts": (
        own(write_nothing, ("train/cat", "val/cat", "train/dog")),
        ["'cat' is in 'train' and in 'val'"],
    ),
    "class twice": (
        own(lambda f: shutil.copytree(f / "cat", f / "copy")),
        ["'cat' and 'copy'", "the very same pictures"],
    ),
}


# Runs.


def make_run(dataset, settings=None, change=write_nothing):
    """A run as it is before training, and then a change."""

    def make(folder):
        split = ClassSplit(dataset, "character", 0, *PARTS)
        data = {"data": {"dataset": dataset, **(settings or {})}}
        if dataset == "sinusoid":
            Run.create(folder, configs.resolve({**data, "model": {"hidden": [2]}}), None)
        else:
            summary = DataSummary((28, 28, 1), 3, ACCURACY, images=True)
            Run.create(folder, configs.resolve(data), split, summary)
        change(folder)

    return make


def begin(folder):
    put(folder / "metrics.jsonl", '{"kind": "step", "step": 0}\n')


class State(NamedTuple):
    """As little as can be saved."""

    step: Any
    theta: Any


def saved(theta):
    def change(folder):
        checkpoint.save(folder / "checkpoints", State(np.asarray(7), theta), seed=0)

    return change


def file_of(name, content):
    """A run of classes with another content of one file."""
    return make_run("omniglot", change=lambda folder: put(folder / name, content))


def changed_json(name, **changes):
    def change(folder):
        stored = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**stored, **changes}))

    return make_run("omniglot", change=change)


def linked_checkpoints(folder):
    (folder / "elsewhere").mkdir()
    link(folder / "checkpoints", folder / "elsewhere")


def linked_checkpoint(folder):
    saved(np.zeros(2))(folder)
    (folder / "checkpoints/7").rename(folder / "7")
    link(folder / "checkpoints/7", folder / "7")


def linked_metrics(folder):
    saved(np.zeros(2))(folder)
    put(folder / "notes")
    link(folder / "metrics.jsonl", folder / "notes")


INFO, EVALUATE, RESUME = ["info", "{}"], ["evaluate", "{}"], ["train", "--resume", "{}"]
RUNS = {
    "empty folder as a run": (write_nothing, INFO, ["config.toml"]),
    "folder as a configuration": (lambda f: (f / "config.toml").mkdir(), INFO, ["config.toml"]),
    "configuration that is no TOML": (file_of("config.toml", "[["), INFO, ["config.toml", "TOML"]),
    "split that is cut": (file_of("split.json", '{"train"'), INFO, ["split.json", "broken"]),
    "split that is a list": (file_of("split.json", "[]"), INFO, ["split.json", "JSON object"]),
    "split in bytes": (file_of("split.json", b"\xff\xfe"), INFO, ["split.json", "broken"]),
    "class in two parts": (
        changed_json("split.json", test=["a/1"]),
        INFO,
        ["split.json", "'a/1' occurs twice", "in train and in test"],
    ),
    "split of numbers": (changed_json("split.json", test=[3]), EVALUATE, ["list of class names"]),
    "split of other data": (changed_json("split.json", dataset="x"), INFO, ["a split of 'x'"]),
    "split with another key": (changed_json("split.json", more=1), INFO, ["unknown keys: 'more'"]),
    "negative shape": (changed_json("data.json", inputs=[-3]), INFO, ["data.json", "broken"]),
    "pictures of four lengths": (
        changed_json("data.json", inputs=[28, 28, 1, 28], images=True),
        INFO,
        ["data.json", "pictures with 4 lengths"],
    ),
    "digests as a list": (changed_json("data.json", digests=[1]), INFO, ["data.json", "broken"]),
    "line of metrics broken": (
        file_of("metrics.jsonl", '{"step": 1}\n{\n{"step": 2}\n'),
        INFO,
        ["Line 2", "metrics.jsonl"],
    ),
    "evaluation broken": (file_of("evaluations/x.json", "{"), INFO, ["x.json", "broken"]),
    "data folder for glyphs": (
        make_run("glyphs", change=begin),
        [*EVALUATE, "--data-dir", "{}"],
        ["data_dir", "'glyphs'", "Leave data_dir out"],
    ),
    "data folder for sinusoids": (
        make_run("sinusoid", change=begin),
        [*EVALUATE, "--data-dir", "{}"],
        ["data_dir", "'sinusoid'", "Leave data_dir out"],
    ),
    "data folder that does not exist": (
        make_run("omniglot", change=begin),
        [*EVALUATE, "--data-dir", "{}/none"],
        ["none", "does not exist"],
    ),
    "checkpoint of something else": (
        make_run("sinusoid", change=saved(np.zeros(2))),
        EVALUATE,
        ["step 7", "of another model"],
    ),
    "checkpoints behind a link": (
        make_run("sinusoid", change=linked_checkpoints),
        RESUME,
        ["checkpoints", "is a link"],
    ),
    "checkpoint behind a link": (
        make_run("sinusoid", change=linked_checkpoint),
        RESUME,
        ["checkpoints/7", "is a link"],
    ),
    "metrics behind a link": (
        make_run("sinusoid", change=linked_metrics),
        RESUME,
        ["metrics.jsonl", "is a link"],
    ),
}

ADAPT = ["adapt", "{}/run", "--support", "{}/support", "--query", "{}/query"]
TRAIN = ["train", "--dataset", "omniglot", "--data-dir", "{}"]
OWN = ["train", "--dataset", "folder", "--data-dir", "{}", "--ways", "2", "--image-size", "8"]
FOLDERS = {
    **{name: (make, ADAPT, words) for name, (make, words) in PICTURES.items()},
    **{name: (make, TRAIN, words) for name, (make, words) in OMNIGLOT.items()},
    **{name: (make, OWN, words) for name, (make, words) in OWN_PICTURES.items()},
    **RUNS,
}
assert len(FOLDERS) == sum(map(len, (PICTURES, OMNIGLOT, OWN_PICTURES, RUNS)))
