"""Settings that keep a run tiny, and ways to look at what the program did."""

import json
from types import SimpleNamespace

import jax
import numpy as np
from PIL import Image
from typer.testing import CliRunner

from pullback.cli import app
from pullback.runs import build, checkpoint
from pullback.runs.folder import Run

SINUSOID = (
    *("--dataset", "sinusoid", "--algorithm", "fomaml", "--hidden", "8", "--shots", "5"),
    *("--inner-steps", "1", "--inner-learning-rate", "0.001", "--tasks-per-step", "2"),
    *("--steps", "12", "--validate-every", "5", "--validation-tasks", "4"),
)
PICTURES = (
    *("--dataset", "omniglot", "--ways", "3", "--queries", "3", "--model", "mlp", "--hidden", "8"),
    *("--validation-classes", "3", "--test-classes", "3", "--no-rotations"),
)
OMNIGLOT = (
    *(*PICTURES, "--algorithm", "fomaml", "--inner-steps", "1", "--tasks-per-step", "2"),
    *("--steps", "4", "--validate-every", "2", "--validation-tasks", "4"),
)


def cli(*argv, code=0):
    """Run the program in this process; it must end with ``code``, and never by a traceback."""
    done = CliRunner().invoke(app, [str(arg) for arg in argv])
    if done.exit_code != code:
        raise AssertionError(f"exit code {done.exit_code}: {done.output}") from done.exception
    stderr = " ".join(done.stderr.split())
    if code:
        assert "Traceback" not in done.output
    parsed = json.loads(done.stdout) if "--json" in argv and done.stdout else None
    return SimpleNamespace(stdout=done.stdout, stderr=stderr, json=parsed)


def theta(folder, which="last"):
    """The arrays of a checkpoint's initialisation, by path."""
    return {
        path: np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(state(folder, which).theta)
    }


def state(folder, which="last"):
    run = Run.open(folder)
    fresh = build.reopen(run).fresh_state()
    return checkpoint.restore(run.checkpoints, fresh, which)


def assert_equal_states(one, other):
    """Equal in every bit."""
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def write_omniglot(folder, part, alphabets, characters=3):
    """A folder laid out as Omniglot's, each class a stroke at a place of its own."""
    rng = np.random.default_rng(sum(map(ord, "".join(alphabets))))
    for alphabet in alphabets:
        for number in range(1, characters + 1):
            place = folder / f"images_{part}" / alphabet / f"character{number:02d}"
            place.mkdir(parents=True)
            corner = rng.integers(0, 14, 2)
            for example in range(1, 21):
                drawing(rng, corner).save(place / f"{number:04d}_{example:02d}.png")
    return folder


def drawing(rng, corner):
    page = np.full((28, 28), 255, np.uint8)
    top, left = corner + rng.integers(0, 3, 2)
    page[top : top + 9, left : left + 5] = 0
    return Image.fromarray(page)
