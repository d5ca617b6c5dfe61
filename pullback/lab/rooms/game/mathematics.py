"""The few-shot game: who plays, what a network sees of a drawing, and what it answers."""

import functools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt8

from pullback.algorithms import imaml
from pullback.core import results
from pullback.core.errors import InputError, NumericalError
from pullback.core.results import Verdict
from pullback.core.trees import Params
from pullback.lab.background import Progress
from pullback.lab.result_cache import ResultCache
from pullback.lab.run_summaries import RunSummary
from pullback.meta import training
from pullback.models import cross_entropy
from pullback.runs import build, checkpoint
from pullback.runs.config import RunConfig, resolve
from pullback.runs.folder import Run
from pullback.runs.pretrained import load_pretrained
from pullback.solvers import Projected
from pullback.tasks import ClassSet, load_glyphs
from pullback.tasks.images import DRAWING, SIDE, shrink

CLASSES = 5
STROKE_WIDTHS = {"glyphs": 3.0, "omniglot": 1.6}
"""The stroke width of each data set in pixels of 28, measured as twice the ink over its outline."""

SMALL_MODEL = {
    "data": {"dataset": "glyphs", "queries": 5},
    "model": {"width": 16, "groups": 4},
    "algorithm": {"name": "imaml", "inner_steps": 8},
    "training": {"steps": 300, "tasks_per_step": 4, "learning_rate": 4e-3},
}
"""The settings of the model that is trained where no run is given."""

_OVERSAMPLING = 8
_MAX_POINTS = 4000
# The longer side of the median character of both data sets, in pixels of 28.
_CHARACTER_SIZE = 19.0
_MAX_SCALE = 2.5


@dataclass(frozen=True, eq=False)
class Player:
    """A meta-trained network that plays.

    Args:
        title: what the page calls it.
        config: how it was trained.
        theta: its initialisation.
        images: characters to draw rounds from, none of which it was trained on.
        facts: what is known about its training.
    """

    title: str
    config: RunConfig
    theta: Any
    images: ClassSet
    facts: dict[str, Any]

    @property
    def classes(self) -> int:
        """How many classes a round with it has."""
        return min(CLASSES, self.config.data.ways or CLASSES)

    @property
    def stroke_width(self) -> float:
        """The stroke width of its data set, in pixels of 28."""
        return STROKE_WIDTHS.get(self.config.data.dataset, 2.2)


def small_config() -> RunConfig:
    """The settings of the small model."""
    return resolve(SMALL_MODEL)


def train_small(
    progress: Progress, config: RunConfig, cache_dir: Path | str | None = None
) -> Player:
    """Meta-train the small model on glyphs, or read it from the cache.

    Args:
        progress: gets the meta-steps done and the seconds since the start, again and again; what
            it raises ends the training.
        config: the settings, as of :func:`small_config`.
        cache_dir: folder of the cache; None for the user's.

    Returns:
        The player. Its facts are ``seconds``, ``steps``, ``accuracy`` on unseen classes with its
        95 % ``interval``, and whether it is ``fresh``, that is not from the cache.
    """
    images = load_glyphs(cache_dir=cache_dir)
    built = build.build(config, data=images)
    cache = ResultCache("game", config.to_dict(), built.params, cache_dir)
    trained = cache.get()
    if trained is None:
        began = time.perf_counter()
        progress(0, 0.0)
        settings = config.training
        key = jax.random.key(settings.seed)
        # The certificate is not shown here, and it takes time to compile.
        algorithm = imaml(
            built.loss,
            strength=config.algorithm.strength,
            solver=Projected.where_separable(config.algorithm.inner_steps or 16),
            certify=None,
        )
        result = training.train(
            algorithm,
            built.params,
            built.tasks("train"),
            steps=settings.steps,
            key=jax.random.fold_in(key, build.TRAIN),
            tasks_per_step=settings.tasks_per_step,
            optimizer=built.optimizer,
            on_block=lambda state, _: progress(int(state.step), time.perf_counter() - began),
            block_seconds=0.5,
        )
        scores = built.evaluate(result.theta, built.tasks("test"), count=100, seed=0)
        facts = {"seconds": time.perf_counter() - began, "steps": settings.steps}
        facts |= {"accuracy": scores.mean, "interval": scores.interval}
        trained = cache.put(result.theta, facts)
    assert built.split is not None
    unseen = images.select(built.split.test)
    facts = trained.facts | {"fresh": trained.fresh}
    return Player("a small model trained here", config, trained.arrays, unseen, facts)


def playable(runs: Sequence[RunSummary]) -> list[RunSummary]:
    """The runs that can play: readable ones on images, with a checkpoint."""
    return [
        run
        for run in runs
        if not run.error
        and run.config is not None
        and run.config.data.ways is not None
        and checkpoint.steps(run.folder / "checkpoints")
    ]


def load_run(summary: RunSummary, cache_dir: Path | str | None = None) -> Player:
    """A run's best checkpoint as a player.

    Args:
        summary: one of :func:`playable`.
        cache_dir: folder of the glyphs' cache; None for the user's.

    Returns:
        The player. Rounds are drawn from glyphs, of the run's test classes if it is on glyphs.

    Raises:
        InputError: if the run or its checkpoint cannot be read.
    """
    run = Run.open(summary.folder)
    built = build.reopen(run)
    if built.summary.inputs != DRAWING:
        raise InputError(
            f"The run {summary.name!r} is not on drawn characters", allowed="runs on 28×28 drawings"
        )
    step = checkpoint.find(run.checkpoints, "best")
    theta = build.restore(run, built, step).theta
    images = load_glyphs(cache_dir=cache_dir)
    if run.config.data.dataset == images.name and run.split is not None:
        images = images.select(run.split.test)
    return Player(summary.name, run.config, theta, images, {"step": step})


def load_shipped(name: str, cache_dir: Path | str | None = None) -> Player:
    """A trained initialisation that comes with the package, as a player.

    Args:
        name: one of :func:`pullback.runs.pretrained.names`.
        cache_dir: folder of the glyphs' cache; None for the user's.

    Returns:
        The player. Rounds are drawn from glyphs.

    Raises:
        InputError: if it is damaged.
    """
    found = load_pretrained(name, ways=CLASSES)
    facts = {"about": found.card.get("about") or ""}
    return Player(name, found.config, found.theta, load_glyphs(cache_dir=cache_dir), facts)


def rasterise(strokes: Sequence[Any], width: float) -> UInt8[np.ndarray, "28 28"]:
    """A drawing as a picture like those of the data sets: centred, and of their size.

    Args:
        strokes: lists of points (x, y) from 0 to 1, y downward; anything else in them is left out.
        width: of a stroke, in pixels of the result.

    Returns:
        Grey values, 255 = ink; all 0 without a stroke.
    """
    from PIL import Image, ImageDraw

    lines = [line for line in map(_points, strokes[:_MAX_POINTS]) if len(line)]
    if not lines:
        return np.zeros((SIDE, SIDE), np.uint8)
    everything = np.concatenate(lines)
    low, high = everything.min(0), everything.max(0)
    longest = float(np.max(high - low))
    # Not enlarged without limit, so that a dot stays a dot.
    scale = min((_CHARACTER_SIZE - width) / (SIDE * longest), _MAX_SCALE) if longest > 0 else 1.0
    side = _OVERSAMPLING * SIDE
    sheet = Image.new("L", (side, side))
    brush, radius = ImageDraw.Draw(sheet), 0.5 * width * _OVERSAMPLING
    for line in lines:
        places = side * (0.5 + scale * (line - (low + high) / 2))
        if len(places) > 1:
            brush.line([tuple(p) for p in places.tolist()], 255, round(2 * radius), "curve")
        for x, y in places.tolist():
            brush.ellipse((x - radius, y - radius, x + radius, y + radius), 255)
    return shrink(sheet)


def _points(stroke: Any) -> Float[np.ndarray, "n 2"]:
    """The points of a stroke, moved into the square; what is no point is left out."""
    if not isinstance(stroke, list | tuple):
        return np.zeros((0, 2))
    kept = []
    for point in stroke[:_MAX_POINTS]:
        try:
            x, y = (float(value) for value in point)
        except (TypeError, ValueError, OverflowError):
            continue
        if math.isfinite(x) and math.isfinite(y):
            kept.append((min(max(x, 0.0), 1.0), min(max(y, 0.0), 1.0)))
    return np.asarray(kept).reshape(-1, 2)


class Round(NamedTuple):
    """One round: an example of each class, and a query.

    Args:
        support: the examples.
        query: the picture to name.
        label: the query's class.
    """

    support: UInt8[np.ndarray, "classes 28 28"]
    query: UInt8[np.ndarray, "28 28"]
    label: int


def draw_round(images: ClassSet, classes: int, seed: Sequence[int]) -> Round:
    """A round, as far as possible with classes of one script, which makes it harder.

    Args:
        images: to draw from.
        classes: how many.
        seed: the same seed gives the same round.

    Returns:
        The round.
    """
    rng = np.random.default_rng(seed)
    groups = np.asarray(images.groups)
    home = groups[rng.integers(len(groups))]
    near, far = np.flatnonzero(groups == home), np.flatnonzero(groups != home)
    rows = np.concatenate([rng.permutation(near), rng.permutation(far)])[:classes]
    rows = rng.permutation(rows)
    label = int(rng.integers(classes))
    drawings = [images.of_class(int(row))[..., 0] for row in rows]
    chosen = [each[rng.choice(len(each), 2, replace=False)] for each in drawings]
    return Round(np.stack([pair[0] for pair in chosen]), chosen[label][1], label)


class Answer(NamedTuple):
    """What a player answers.

    Args:
        probabilities: of each class.
        residual: relative stationarity residual of its inner problem.
        seconds: how long adapting and answering took.
    """

    probabilities: Float[np.ndarray, " classes"]
    residual: float
    seconds: float


@functools.lru_cache(maxsize=8)
def _program(config: RunConfig, classes: int) -> Callable[..., Any]:
    model = build.assemble(config).model

    def first_outputs(params: Params, x: Array) -> Array:
        return model.apply(params, x)[:, :classes]

    # A network with more outputs than the round has classes; the others know their head.
    apply = model.apply if config.data.ways == classes else first_outputs
    algorithm = build.make_algorithm(config, cross_entropy(apply))

    @jax.jit
    def answer(theta: Any, x: Array, y: Int[Array, " n"], query: Array) -> Any:
        phi, report = algorithm.adapt(theta, (x, y), jax.random.key(0))
        return jax.nn.softmax(apply(phi, query)[0]), report

    return answer


def answer(
    player: Player,
    support: UInt8[np.ndarray, "classes 28 28"],
    query: UInt8[np.ndarray, "28 28"],
) -> Answer:
    """Adapt to one example of each class, and classify the query.

    Args:
        player: who answers.
        support: the examples.
        query: the picture to name.

    Returns:
        The answer.

    Raises:
        NumericalError: if adaptation diverged.
    """
    began = time.perf_counter()
    x, q = (jnp.asarray(part, jnp.float32)[..., None] / 255.0 for part in (support, query[None]))
    labels = jnp.arange(len(support), dtype=jnp.int32)
    found, report = _program(player.config, len(support))(player.theta, x, labels, q)
    probabilities = np.asarray(found, float)
    if int(report.code) == Verdict.NOT_FINITE or not np.isfinite(probabilities).all():
        raise NumericalError(f"Adaptation failed: {results.message(Verdict.NOT_FINITE)}.")
    return Answer(probabilities, float(report.inner_residual), time.perf_counter() - began)
