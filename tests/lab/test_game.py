"""The few-shot game: what it computes, without a browser."""

import jax
import numpy as np
import pytest
from run_folders import make_run

from pullback.lab import run_summaries
from pullback.lab.drawing_pad import png_data_url
from pullback.lab.rooms.game import answer_panel, mathematics
from pullback.lab.rooms.game import view as room
from pullback.lab.rooms.game.mathematics import Answer, Player, Round
from pullback.lab.session import Session
from pullback.runs import build, checkpoint, pretrained
from pullback.runs.config import resolve
from pullback.runs.folder import Run
from pullback.tasks import load_glyphs

pytestmark = pytest.mark.filterwarnings("ignore:Widget.name is deprecated")
TINY = {
    "data": {"dataset": "glyphs", "queries": 2},
    "model": {"width": 4, "groups": 2},
    "algorithm": {"name": "imaml", "inner_steps": 8, "linear_steps": 1},
    "training": {"steps": 2, "tasks_per_step": 1},
}
CIRCLE = [[(0.3 + 0.1 * np.cos(a), 0.2 + 0.1 * np.sin(a)) for a in np.linspace(0, 6.28, 50)]]


def extent(image):
    rows, columns = np.nonzero(image > 100)
    return rows.min(), rows.max(), columns.min(), columns.max()


def test_a_drawing_is_centred_and_brought_to_size():
    image = mathematics.rasterise(CIRCLE, 3.0)
    top, bottom, left, right = extent(image)
    assert image.dtype == np.uint8 and image.shape == (28, 28) and image.max() == 255
    assert 18 <= bottom - top + 1 <= 20 and 18 <= right - left + 1 <= 20
    assert abs(top + bottom - 27) <= 1 and abs(left + right - 27) <= 1
    # A ring: no ink in the middle.
    assert image[12:16, 12:16].max() == 0


@pytest.mark.parametrize("pen", [1.6, 3.0])
def test_strokes_are_as_thick_as_asked(pen):
    image = mathematics.rasterise([[(0.5, 0.1), (0.5, 0.9)]], pen) / 255
    assert image[14].sum() == pytest.approx(pen, abs=0.4)


@pytest.mark.parametrize(
    "strokes",
    [
        [],
        [[]],
        [None, 3, "text"],
        [[("a", "b"), (1,), None]],
        [[(float("nan"), 0.5), (float("inf"), 0.5)]],
    ],
)
def test_what_is_no_drawing_gives_an_empty_picture(strokes):
    assert mathematics.rasterise(strokes, 3.0).max() == 0


def test_a_dot_stays_a_dot_and_what_is_outside_comes_in():
    top, bottom, left, right = extent(mathematics.rasterise([[(0.1, 0.9)]], 3.0))
    assert bottom - top <= 4 and right - left <= 4
    assert mathematics.rasterise([[(-1e9, 1e300), (2, 0.5)]], 3.0).max() == 255


def test_a_round_shows_two_drawings_of_the_same_class(glyphs):
    numbers = range(len(glyphs.classes))
    by_class = {image.tobytes(): c for c in numbers for image in glyphs.of_class(c)}
    scripts = []
    for seed in range(10):
        found = mathematics.draw_round(glyphs, 5, (seed, 1))
        classes = [by_class[image.tobytes()] for image in found.support]
        assert len(set(classes)) == 5
        assert by_class[found.query.tobytes()] == classes[found.label]
        assert not np.array_equal(found.query, found.support[found.label])
        scripts.append(len({glyphs.groups[c] for c in classes}))
    assert np.median(scripts) == 1
    again = mathematics.draw_round(glyphs, 5, (3, 1))
    np.testing.assert_array_equal(again.query, mathematics.draw_round(glyphs, 5, (3, 1)).query)


@pytest.fixture(scope="module")
def cache(home):
    """The cache that the labs use too: characters are drawn once."""
    return home / "pullback"


@pytest.fixture(scope="module")
def glyphs(cache):
    return load_glyphs(cache_dir=cache)


@pytest.fixture(scope="module")
def player(tiny, cache):
    reported = []
    config = resolve(TINY)
    first = mathematics.train_small(lambda *what: reported.append(what), config, cache)
    assert reported[0] == (0, 0.0) and reported[-1][0] == 2
    assert first.facts["fresh"] and 0 <= first.facts["accuracy"] <= 1
    again = mathematics.train_small(lambda *_: pytest.fail("trained again"), config, cache)
    assert not again.facts["fresh"]
    return again


def test_an_answer_is_the_librarys_own_adaptation(player):
    found = mathematics.draw_round(player.images, 5, (0, 0))
    answer = mathematics.answer(player, found.support, found.query)
    built = build.assemble(player.config)
    x, query = (part[..., None] / np.float32(255) for part in (found.support, found.query[None]))
    adapt = jax.jit(built.algorithm.adapt)
    phi, report = adapt(player.theta, (x, np.arange(5)), jax.random.key(0))
    expected = jax.nn.softmax(built.model.apply(phi, query)[0])
    np.testing.assert_allclose(answer.probabilities, expected, atol=1e-4)
    assert answer.residual == pytest.approx(float(report.inner_residual), rel=1e-2)
    other = mathematics.answer(player, found.support[::-1].copy(), found.query)
    assert np.abs(other.probabilities - answer.probabilities).max() > 1e-3


def test_a_player_has_not_seen_the_classes_of_its_rounds(player):
    built = build.build(player.config)
    assert not set(player.images.classes) & {*built.split.train, *built.split.validation}


def test_runs_that_can_play_are_found_and_loaded(player, cache, tmp_path):
    built = build.build(player.config)
    run = Run.create(tmp_path / "glyphs", player.config, built.split)
    checkpoint.save(run.checkpoints, built.fresh_state(), seed=0, value=0.5)
    Run.create(tmp_path / "empty", player.config, built.split)
    make_run(tmp_path / "sine")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.toml").write_text("[")
    found = mathematics.playable(run_summaries.read_runs(tmp_path))
    assert [run.name for run in found] == ["glyphs"]
    loaded = mathematics.load_run(found[0], cache)
    assert loaded.images.classes == built.split.test
    support = np.stack([loaded.images.of_class(c)[0, ..., 0] for c in range(5)])
    assert np.isfinite(mathematics.answer(loaded, support, support[0]).probabilities).all()


def test_the_score_counts_a_round_once_both_have_answered(player, monkeypatch):
    view = room._View(Session())
    view._ready(player)
    view._next_round()
    for number in range(1, answer_panel.ROUNDS + 1):
        assert view.round is not None and view.answer is not None
        label = view.round.label
        assert "sealed" in view.answer_text.object and "✓" not in view.answer_text.object
        view._guessed(label, None)
        view._guessed((label + 1) % 5, None)
        assert view.score[0] == view.score[2] == number
        assert "You said" in view.answer_text.object
        if number < answer_panel.ROUNDS:
            view._next_round()
    assert view.play.name == "Play again"
    view._next_round()
    assert view.score == [0, 0, 0] and view.in_rounds


def test_a_drawing_leads_to_an_answer(player):
    view = room._View(Session())
    view._ready(player)
    assert view.answer is None and "Now draw" in view.answer_text.object
    view.query.strokes = CIRCLE
    assert view.answer is not None and "The machine says" in view.answer_text.object
    view.pads[0].cleared += 1
    assert view.answer is None and "Still to draw: A" in view.answer_text.object
    view.pads[0].strokes = [[(0.2, 0.2), (0.8, 0.8)]]
    assert view.answer is not None


def test_panel_shows_no_nan():
    answer = Answer(np.array([1.0, 0, 0, 0, 0]), float("nan"), 0.1)
    current = Round(np.zeros((5, 28, 28), np.uint8), np.zeros((28, 28), np.uint8), 2)
    assert "nan" not in answer_panel.answer_panel(answer, current, 1, [0, 0, 1], True, [], False)


def test_a_picture_keeps_its_ink():
    import base64
    import io

    from PIL import Image

    image = mathematics.rasterise(CIRCLE, 3.0)
    raw = base64.b64decode(png_data_url(image).split(",")[1])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(raw)))[..., 1], image)


def test_pens_are_as_wide_as_the_data_sets_strokes(glyphs):
    player = Player("", mathematics.small_config(), None, glyphs, {})
    ours = mathematics.rasterise(CIRCLE, player.stroke_width)
    theirs = width(glyphs.examples[::7, ..., 0])
    assert width(ours[None]) == pytest.approx(theirs, rel=0.1)


def width(images):
    ink = images / 255.0
    outline = sum(np.abs(np.diff(ink, axis=axis)).sum((1, 2)) for axis in (1, 2)) * np.pi / 4
    return np.median(2 * ink.sum((1, 2)) / outline)


@pytest.mark.parametrize("name", pretrained.names())
def test_what_comes_with_the_package_plays(name, tiny, cache):
    found = mathematics.load_shipped(name, cache)
    right = 0
    for number in range(10):
        asked = mathematics.draw_round(found.images, 5, (0, number))
        answer = mathematics.answer(found, asked.support, asked.query)
        right += int(np.argmax(answer.probabilities) == asked.label)
    # One in five by chance.
    assert right >= 6
    assert found.facts["about"]
