import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from class_sets import stacked

from pullback.core.errors import DataError, InputError
from pullback.tasks import glyphs, load_glyphs
from pullback.tasks.writing_systems import SCRIPTS


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def loaded(cache):
    return load_glyphs(0, cache)


@pytest.fixture
def few(monkeypatch):
    """A handful of characters, so that drawing takes no time."""
    monkeypatch.setattr(glyphs, "SCRIPTS", {"Latin": (0x41, 0x42), "Lao": (0xE81,)})


def test_shape_and_scripts(loaded):
    assert stacked(loaded).shape == (len(loaded.classes), 20, 28, 28)
    assert 400 <= len(loaded.classes) <= 900
    count = Counter(loaded.groups)
    assert count == {script: len(codes) for script, codes in SCRIPTS.items()}
    assert len(count) >= 15
    assert max(count.values()) <= 100
    assert set(loaded.parts) == {""}
    assert "Greek/U+03B1" in loaded.classes


def test_every_drawing_has_ink_inside_the_picture(loaded):
    ink = stacked(loaded).astype(float) / 255
    assert ink.sum((2, 3)).min() > 3
    assert ink.mean((2, 3)).max() < 0.6
    edge = np.concatenate([ink[:, :, 0], ink[:, :, -1], ink[..., 0], ink[..., -1]], axis=-1)
    assert edge.mean() < 0.01


def test_drawings_of_a_class_differ(loaded):
    for images in stacked(loaded):
        assert len({image.tobytes() for image in images}) == 20


def test_no_two_characters_look_the_same():
    fonts = glyphs._fonts()
    sans = [pair for pair in fonts if pair[1].getname() == ("DejaVu Sans", "Book")]
    codes = [code for codes in SCRIPTS.values() for code in codes]
    assert len(set(codes)) == len(codes)
    thumbs = []
    for code in codes:
        fit = glyphs._faces(sans, code)[0].reshape(32, 2, 32, 2).mean((1, 3))
        thumbs.append(fit / np.linalg.norm(fit))
    thumbs = np.stack(thumbs)
    flat = thumbs.reshape(len(codes), -1)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            alike = flat @ np.roll(thumbs, (down, right), (1, 2)).reshape(flat.shape).T
            np.fill_diagonal(alike, 0.0)
            assert alike.max() < 0.95


def test_look_alikes_of_other_scripts_are_left_out(loaded):
    latin = {chr(code) for code in SCRIPTS["Latin"]}
    others = {chr(c) for script, codes in SCRIPTS.items() if script != "Latin" for c in codes}
    assert "A" in latin
    assert not others & set("ΑАВЕЕНКМТХаеорсух")


def test_classes_can_be_told_apart_but_not_too_easily(loaded):
    rng = np.random.default_rng(0)
    x = stacked(loaded).reshape(len(loaded.classes), 20, -1).astype(np.float32) / 255
    right = []
    for _ in range(600):
        classes = rng.choice(len(x), 5, replace=False)
        picks = np.stack([rng.choice(20, 2, replace=False) for _ in classes])
        support, query = x[classes, picks[:, 0]], x[classes, picks[:, 1]]
        distance = ((query[:, None] - support) ** 2).sum(-1)
        right.append((distance.argmin(1) == np.arange(5)).mean())
    assert 0.5 < np.mean(right) < 0.78


def test_second_load_reads_the_cache(loaded, cache, monkeypatch):
    monkeypatch.setattr(glyphs, "_draw_all", lambda _: pytest.fail("drawn again"))
    again = load_glyphs(0, cache)
    assert np.array_equal(stacked(again), stacked(loaded))
    assert again.classes == loaded.classes


def test_seed_decides_the_drawings_and_nothing_else_does(few, tmp_path):
    np.random.seed(5)  # noqa: NPY002
    one = load_glyphs(0, tmp_path / "a")
    np.random.seed(6)  # noqa: NPY002
    same, other = load_glyphs(0, tmp_path / "b"), load_glyphs(1, tmp_path / "a")
    assert np.array_equal(stacked(one), stacked(same))
    assert one.classes == other.classes == ("Latin/U+0041", "Latin/U+0042", "Lao/U+0E81")
    assert not np.array_equal(stacked(one), stacked(other))


def test_drawings_do_not_depend_on_the_other_classes(few, loaded, tmp_path):
    alone = load_glyphs(0, tmp_path)
    assert np.array_equal(stacked(alone), stacked(loaded.select(alone.classes)))


def test_broken_cache_is_rebuilt(few, tmp_path):
    first = load_glyphs(0, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:200])
    assert np.array_equal(stacked(load_glyphs(0, tmp_path)), stacked(first))


def test_missing_font_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(glyphs, "SCRIPTS", {"Han": (0x4E00,)})
    with pytest.raises(DataError, match=r"U\+4E00"):
        load_glyphs(0, tmp_path)


@pytest.mark.wrong_types
@pytest.mark.parametrize("seed", [-1, 1.5, True])
def test_seed_must_be_whole(seed, tmp_path):
    with pytest.raises(InputError, match="seed is"):
        load_glyphs(seed, tmp_path)


def test_importing_tasks_loads_nothing_heavy():
    code = (
        "import sys, pullback.tasks\n"
        "heavy = {'PIL', 'pooch', 'matplotlib', 'fontTools', 'rich', 'platformdirs'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
