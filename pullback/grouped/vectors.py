"""New classes of feature vectors from a few examples of each, by what base classes have in common.

The vectors of a class are taken to be Gaussian about a mean of its own,

    x = m_c + ε,    m_c ~ N(μ, B),    ε ~ N(0, W),

the two-covariance model (Ioffe 2006, "Probabilistic Linear Discriminant Analysis"). With one
example of each class, the predictive log densities of a query differ between classes by a bilinear
form of query and example, which along a direction of variances v between and w within classes
weighs v / (w (w + 2v)). Its square root is the map: it turns down directions in which classes do
not differ. With W a multiple of the identity it takes no more than the means of base classes.

Over mapped vectors stands a head for the new classes: their means (Snell et al. 2017, "Prototypical
Networks for Few-shot Learning"), or logistic regression, which is iMAML's inner problem on a linear
head that starts at zero (Bertinetto et al. 2019, "Meta-learning with Differentiable Closed-form
Solvers", have such heads). Which map and head to take, how strong the prior of the head is, and the
temperature of its probabilities are measured on episodes of base classes that were held back.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Float, Int
from scipy.special import expit, logit, softmax

LEARNED = ("between", "whitened")
"""Methods whose map is learned from base classes."""

METHODS = ("centroid", "logistic", *LEARNED)

SHOTS = (1, 2, 5)
"""Examples of each class in an episode."""

STRENGTHS = (1.0, 10.0, 100.0)
"""Weights of an example against the prior of a logistic head, to choose from for each shots."""

PLAIN_STRENGTH = 10.0
"""That of plain logistic regression."""

FOLDS = 2

MOST_GROUPS = 16
"""Of base classes that are alike, each of which is in one fold."""

FEWEST_CLASSES = 6
"""With fewer base classes none is held back, and no map is learned."""

MOST_WHITENED = 1024
"""With more dimensions than this there is no whitening."""

QUERIES = 8
"""Of each class in an episode, where it has as many."""

EPISODES = 6
"""Of each number of ways and shots, in each fold."""

BETWEEN_SHRINKAGE, WITHIN_SHRINKAGE = 0.5, 0.1
"""By how much covariances are drawn toward a multiple of the identity."""


@dataclass(frozen=True)
class Map:
    """From vectors to those that a head stands over.

    Args:
        centre: is taken from each.
        unit: what they are divided by; None to give each the length 1 before and after.
        directions: orthonormal, or any basis where ``rest`` is 0.
        gains: what is along each direction is multiplied by.
        rest: what is along none of them.
    """

    centre: Float[np.ndarray, " d"]
    unit: float | None
    directions: Float[np.ndarray, "d r"]
    gains: Float[np.ndarray, " r"]
    rest: float = 1.0

    def __call__(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
        """The mapped vectors."""
        z = x - self.centre
        z = _unit(z) if self.unit is None else z / self.unit
        along = z @ self.directions
        if not self.rest:
            z = along * self.gains
        elif len(self.gains):
            z = self.rest * z + (along * (self.gains - self.rest)) @ self.directions.T
        return _unit(z) if self.unit is None else z


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    length = np.sqrt((x * x).sum(1, keepdims=True))
    return x / np.where(length > 0, length, 1.0)


def learn_map(method: str, x: Float[np.ndarray, "n d"], label: Int[np.ndarray, " n"]) -> Map:
    """The map of a method.

    Args:
        method: one of ``METHODS``.
        x: vectors of base classes.
        label: the number of each one's class; numbers from 0, each with an example.

    Returns:
        The map.
    """
    centre = _means(x, label).mean(0)
    dimensions = x.shape[1]
    none = np.zeros((dimensions, 0))
    unit = float(np.sqrt(((x - centre) ** 2).sum(1).mean())) or 1.0
    plain = Map(centre, unit, none, none[0])
    if method == "between":
        z = Map(centre, None, none, none[0])(x)
        means, within = _means(z, label), two_variances(z, label)[0]
        # The means' own noise is no variance between classes.
        noise = within * np.mean(1 / np.bincount(label))
        _, singular, along = np.linalg.svd(means - means.mean(0), full_matrices=False)
        between = np.maximum(singular**2 / (len(means) - 1) - noise, 0.0)
        level = BETWEEN_SHRINKAGE * between.sum() / dimensions
        gains = np.sqrt(_share((1 - BETWEEN_SHRINKAGE) * between + level, within))
        rest = float(np.sqrt(_share(level, within)))
        if not rest:
            return Map(centre, None, none, none[0])
        return Map(centre, None, along.T, gains / rest)
    if method == "whitened":
        z = plain(x)
        means = _means(z, label)
        left = z - means[label]
        within = _shrunk(left.T @ left / max(len(z) - len(means), 1), WITHIN_SHRINKAGE)
        spread = means - means.mean(0)
        between = _shrunk(spread.T @ spread / (len(means) - 1), BETWEEN_SHRINKAGE)
        variances, basis = scipy.linalg.eigh(between, within)
        gains = np.sqrt(_share(variances, 1.0))
        whole = Map(centre, unit, basis, gains, 0.0)
        unit *= float(np.sqrt((whole(x) ** 2).sum(1).mean())) or 1.0
        return Map(centre, unit, basis, gains, 0.0)
    return plain


def _log_softmax(logits: Float[np.ndarray, "n ways"]) -> Float[np.ndarray, "n ways"]:
    """scipy's, which takes half a millisecond to begin with, and is called ten thousand times."""
    left = logits - logits.max(1, keepdims=True)
    return left - np.log(np.exp(left).sum(1, keepdims=True))


def _means(x: Float[np.ndarray, "n d"], label: Int[np.ndarray, " n"]) -> Float[np.ndarray, "c d"]:
    order = np.argsort(label, kind="stable")
    _, first, counts = np.unique(label[order], return_index=True, return_counts=True)
    return np.add.reduceat(x[order], first, axis=0) / counts[:, None]


def _share(between, within):
    """v / (w (w + 2v)), but for a factor of 1/w that all directions have."""
    return between / np.maximum(within + 2 * between, 1e-300)


def _shrunk(covariance: Float[np.ndarray, "d d"], by: float) -> Float[np.ndarray, "d d"]:
    level = np.trace(covariance) / len(covariance) or 1.0
    return (1 - by) * covariance + by * level * np.eye(len(covariance))


def two_variances(z: Float[np.ndarray, "n d"], label: Int[np.ndarray, " n"]) -> tuple[float, float]:
    """The variances within and between classes of one coordinate, by their moments.

    Args:
        z: vectors.
        label: the number of each one's class; numbers from 0, each with an example.

    Returns:
        Both, averaged over coordinates.
    """
    means, counts = _means(z, label), np.bincount(label)
    within = float(((z - means[label]) ** 2).sum() / max(len(z) - len(means), 1) / z.shape[1])
    spread = float(((means - means.mean(0)) ** 2).mean()) * len(means) / max(len(means) - 1, 1)
    return within, max(spread - within * float(np.mean(1 / counts)), 0.0)


class Head(NamedTuple):
    """A linear head.

    Args:
        weight: of each class.
        bias: of each class.
    """

    weight: Float[np.ndarray, "ways e"]
    bias: Float[np.ndarray, " ways"]

    def __call__(self, z: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "n ways"]:
        """Logits."""
        return z @ self.weight.T + self.bias


def centroid_head(z: Float[np.ndarray, "n e"], label: Int[np.ndarray, " n"]) -> Head:
    """That of the nearest class mean: −½‖z − m‖², without what all classes share.

    Args:
        z: mapped examples.
        label: the number of each one's class; numbers from 0, each with an example.

    Returns:
        The head.
    """
    means = _means(z, label)
    return Head(means, -0.5 * (means**2).sum(1))


def logistic_head(
    z: Float[np.ndarray, "n e"],
    label: Int[np.ndarray, " n"],
    strength: float,
    *,
    steps: int = 200,
) -> Head:
    """Logistic regression, classes of unequal counts weighing the same.

    It minimises ``strength Σ ω_i ℓ_i + ½‖weight‖²``, the bias free, where an example weighs the
    mean count over that of its class.

    Args:
        z: mapped examples.
        label: the number of each one's class; numbers from 0, each with an example.
        strength: the weight of an example against the prior.
        steps: the most iterations.

    Returns:
        The head.
    """
    counts = np.bincount(label)
    rows, ways = len(z), len(counts)
    basis = None
    if rows < z.shape[1]:
        # The weights lie in the span of the examples.
        basis, upper = np.linalg.qr(z.T)
        z = upper.T
    share = (1 / (ways * counts))[label]
    pull = 1 / (strength * rows)
    target = np.zeros((rows, ways))
    target[np.arange(rows), label] = 1.0

    def objective(flat):
        both = flat.reshape(ways, -1)
        weight, bias = both[:, :-1], both[:, -1]
        logs = _log_softmax(z @ weight.T + bias)
        left = share[:, None] * (np.exp(logs) - target)
        value = -share @ logs[np.arange(rows), label] + 0.5 * pull * (weight**2).sum()
        return value, np.column_stack([left.T @ z + pull * weight, left.sum(0)]).ravel()

    found = scipy.optimize.minimize(
        objective,
        np.zeros(ways * (z.shape[1] + 1)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps, "gtol": 1e-4, "ftol": 1e-9},
    )
    both = found.x.reshape(ways, -1)
    weight = both[:, :-1]
    return Head(weight if basis is None else weight @ basis.T, both[:, -1])


class Calibration(NamedTuple):
    """What was measured on held-back classes.

    Args:
        strengths: of the logistic head, for each of ``SHOTS``.
        temperature: coefficients of the logarithm of what logits are multiplied by.
        known: coefficients of the logit of being one of the classes; None where not measured.
        loss: the log loss, in the mean over numbers of ways and shots.
        chance: that of probabilities which are all the same.
    """

    strengths: Float[np.ndarray, " shots"]
    temperature: Float[np.ndarray, "3"]
    known: Float[np.ndarray, "4"] | None = None
    loss: float = np.nan
    chance: float = np.nan


DEFAULT = Calibration(np.full(len(SHOTS), PLAIN_STRENGTH), np.array([2.0, 0.0, 0.0]))
"""Of base classes that allow no episode."""


@dataclass(frozen=True)
class BaseClasses:
    """What base classes have in common.

    Args:
        method: one of ``METHODS``.
        map: of vectors.
        within: the variance of a mapped coordinate within classes.
        between: that of classes' means.
        calibration: of heads over mapped vectors.
    """

    method: str
    map: Map
    within: float
    between: float
    calibration: Calibration

    def adapt(
        self, x: Float[np.ndarray, "n d"], label: Int[np.ndarray, " n"], *, steps: int = 200
    ) -> "NewClasses":
        """The classifier of new classes.

        Args:
            x: a few vectors of each.
            label: the number of each one's class; numbers from 0, each with an example.
            steps: the most iterations of a logistic head.

        Returns:
            The classifier.
        """
        z = self.map(x)
        counts = np.bincount(label)
        strength = strength_at(self.calibration.strengths, counts)
        head = make_head(self.method, z, label, strength, steps=steps)
        scale = np.exp(_situation(counts) @ self.calibration.temperature)
        head = Head(scale * head.weight, scale * head.bias)
        return NewClasses(self, head, _means(z, label), counts)


@dataclass(frozen=True)
class NewClasses:
    """A classifier of new classes.

    Args:
        base: what base classes have in common.
        head: over mapped vectors, in its temperature.
        means: of the classes, mapped.
        counts: examples of each class.
    """

    base: BaseClasses
    head: Head
    means: Float[np.ndarray, "ways e"]
    counts: Int[np.ndarray, " ways"]

    def probabilities(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n ways"]:
        """Of each class, given that it is one of them.

        Args:
            x: vectors.

        Returns:
            One row a vector, which adds up to 1.
        """
        return softmax(self.head(self.base.map(x)), axis=1)

    def log_odds(self, x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """The log odds of being one of the classes, where both are as likely beforehand.

        Args:
            x: vectors.

        Returns:
            One number a vector.
        """
        base = self.base
        assert base.calibration.known is not None
        ratio = density_ratio(base.map(x), self.means, self.counts, base.within, base.between)
        return _known(ratio, self.counts) @ base.calibration.known


def make_head(
    method: str,
    z: Float[np.ndarray, "n e"],
    label: Int[np.ndarray, " n"],
    strength: float,
    *,
    steps: int = 200,
) -> Head:
    """The head of a method, of one scale whatever its prior.

    Args:
        method: one of ``METHODS``.
        z: mapped examples.
        label: the number of each one's class; numbers from 0, each with an example.
        strength: of a logistic head.
        steps: the most iterations of one.

    Returns:
        The head whose weights, less their mean, have a mean square length of 1.
    """
    if method == "centroid":
        head = centroid_head(z, label)
    else:
        head = logistic_head(z, label, strength, steps=steps)
    weight = head.weight - head.weight.mean(0)
    scale = np.sqrt((weight**2).sum(1).mean()) or 1.0
    return Head(weight / scale, (head.bias - head.bias.mean()) / scale)


def strength_at(strengths: Float[np.ndarray, " shots"], counts: Int[np.ndarray, " ways"]) -> float:
    """The strength for classes of such counts, between those of ``SHOTS``."""
    shots = np.log(counts).mean()
    return float(np.exp(np.interp(shots, np.log(SHOTS), np.log(strengths))))


def density_ratio(
    z: Float[np.ndarray, "n e"],
    means: Float[np.ndarray, "ways e"],
    counts: Int[np.ndarray, " ways"],
    within: float,
    between: float,
) -> Float[np.ndarray, " n"]:
    """The log of the predictive density under the nearest class, less that under a new class.

    In each coordinate the mean of a class with n examples of mean m is N(κm, v(1 − κ)) with
    κ = nv / (nv + w), and that of a new class N(0, v).

    Args:
        z: mapped vectors.
        means: of the classes' examples.
        counts: of them.
        within: w.
        between: v.

    Returns:
        The largest ratio over classes, per coordinate.
    """
    within = max(within, 1e-12)
    known = counts * between / (counts * between + within)
    variance = within + between * (1 - known)
    whole = within + between
    square = (z**2).mean(1)
    centre = known[:, None] * means
    apart = square[:, None] - 2 * z @ centre.T / z.shape[1] + (centre**2).mean(1)
    ratios = 0.5 * (square / whole + np.log(whole))[:, None]
    return (ratios - 0.5 * (apart / variance + np.log(variance))).max(1)


def probability_of_none(log_odds: Float[np.ndarray, " n"], prior: float) -> Float[np.ndarray, " n"]:
    """From the log odds of being one of the classes, by Bayes' rule."""
    return expit(logit(prior) - log_odds)


def _situation(counts: Int[np.ndarray, " ways"]) -> Float[np.ndarray, "3"]:
    """What temperatures hang on; bounded for many examples."""
    return np.array([1.0, np.mean(counts**-0.5), np.log(len(counts))])


def _known(ratio: Float[np.ndarray, " n"], counts: Int[np.ndarray, " ways"]) -> np.ndarray:
    return np.column_stack([ratio, np.tile(_situation(counts), (len(ratio), 1))])


class Episode(NamedTuple):
    """Examples and queries of a few classes.

    Args:
        support: rows of examples.
        label: the number of each one's class.
        query: rows of queries, those of no class last.
        query_label: the number of each one's class.
        shots: examples of each class.
    """

    support: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"]
    query: Int[np.ndarray, " q"]
    query_label: Int[np.ndarray, " k"]
    shots: int


def groups_of_classes(means: Float[np.ndarray, "c d"], folds: int) -> Int[np.ndarray, " c"]:
    """A fold for each class, such that classes alike are in one fold.

    Halves along the direction in which they differ most are halved again, to up to sixteen groups,
    and each group goes to the fold of the fewest classes. What is measured so holds for classes of
    another kind.

    Args:
        means: of the classes.
        folds: how many.

    Returns:
        The fold of each.
    """
    parts = [np.arange(len(means))]
    while len(parts) < MOST_GROUPS and max(map(len, parts)) > 1:
        halves = []
        for part in parts:
            left = means[part] - means[part].mean(0)
            along = np.linalg.svd(left, full_matrices=False)[2][0]
            order = part[np.argsort(left @ along, kind="stable")]
            halves += [order[: len(part) // 2], order[len(part) // 2 :]]
        parts = [half for half in halves if len(half)]
    fold = np.empty(len(means), int)
    sizes = np.zeros(folds, int)
    for part in parts:
        smallest = int(sizes.argmin())
        fold[part] = smallest
        sizes[smallest] += len(part)
    return fold


def episodes(
    label: Int[np.ndarray, " n"],
    classes: Int[np.ndarray, " c"],
    ways: int,
    shots: int,
    count: int,
    rng: np.random.Generator,
) -> list[Episode]:
    """Episodes of some classes.

    Args:
        label: the number of each row's class.
        classes: to draw from.
        ways: classes of an episode; the other ones' queries are of none.
        shots: examples of each; a class needs one example more.
        count: how many episodes.
        rng: draws them.

    Returns:
        The episodes; none where too few classes have as many examples.
    """
    rows = {c: np.flatnonzero(label == c) for c in classes}
    fitting = [c for c in classes if len(rows[c]) > shots]
    if len(fitting) < ways:
        return []
    found = []
    for _ in range(count):
        dealt = rng.permutation(fitting)
        drawn = [rng.permutation(rows[c])[: shots + QUERIES] for c in dealt]
        queries = [rows[shots:] for rows in drawn]
        found.append(
            Episode(
                np.concatenate([rows[:shots] for rows in drawn[:ways]]),
                np.repeat(np.arange(ways), shots),
                np.concatenate(queries),
                np.repeat(np.arange(ways), [len(q) for q in queries[:ways]]),
                shots,
            )
        )
    return found


class Played(NamedTuple):
    """A head's answers to the queries of an episode.

    Args:
        logits: of the queries of its classes.
        label: the number of each one's class.
        situation: what temperatures hang on.
        shots: examples of each class.
    """

    logits: Float[np.ndarray, "k ways"]
    label: Int[np.ndarray, " k"]
    situation: Float[np.ndarray, "3"]
    shots: int


def _log_loss(played: Sequence[Played], temperature: np.ndarray) -> tuple[float, np.ndarray]:
    """The mean over episodes, and its derivative by the coefficients; a weak pull to DEFAULT's."""
    pull = temperature - DEFAULT.temperature
    value, slope = 1e-3 * pull @ pull, 2e-3 * pull
    for logits, label, situation, _ in played:
        scale = np.exp(np.clip(situation @ temperature, -20, 20))
        rows = np.arange(len(label))
        logs = _log_softmax(scale * logits)
        value -= logs[rows, label].mean() / len(played)
        moved = (np.exp(logs) * logits).sum(1) - logits[rows, label]
        slope = slope + scale * moved.mean() * situation / len(played)
    return float(value), slope


def _temper(played: Sequence[Played]) -> tuple[np.ndarray, float]:
    found = scipy.optimize.minimize(
        lambda t: _log_loss(played, t), DEFAULT.temperature, jac=True, method="BFGS"
    )
    return found.x, float(found.fun)


class _Fold(NamedTuple):
    """Base classes in two parts: a map is learned from one, and episodes are of the other."""

    train: Int[np.ndarray, " n"]
    episodes: list[Episode]


def _deal(x, label, seed: int) -> tuple[list[_Fold], bool]:
    """The folds, and whether the training part leaves the episodes' classes out."""
    rng = np.random.default_rng(seed)
    counts = np.bincount(label)
    held = len(counts) >= FEWEST_CLASSES
    fold = np.zeros(len(counts), int)
    if held:
        z = Map(x.mean(0), None, np.zeros((x.shape[1], 0)), np.zeros(0))(x)
        fold = groups_of_classes(_means(z, label), FOLDS)
    folds = []
    for number in range(FOLDS if held else 1):
        classes = np.flatnonzero(fold == number)
        train = np.flatnonzero(fold[label] != number) if held else np.arange(len(label))
        dealt = []
        for shots in SHOTS:
            fitting = int((counts[classes] > shots).sum())
            few = min(5, max(2, fitting - 1))
            for ways in sorted({few, max(few, fitting // 2), fitting} - {0, 1}):
                dealt += episodes(label, classes, ways, shots, EPISODES, rng)
        folds.append(_Fold(train, dealt))
    return folds, held


def fit(
    methods: Sequence[str],
    x: Float[np.ndarray, "n d"],
    label: Int[np.ndarray, " n"],
    *,
    seed: int = 0,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[BaseClasses, dict[str, float]]:
    """Learn from base classes, by the method that has the least log loss on held-back ones.

    Args:
        methods: to choose from.
        x: vectors of base classes.
        label: the number of each one's class; numbers from 0, each with an example.
        seed: of the episodes.
        progress: is told what is done.

    Returns:
        What they have in common, and the log loss of each method that was tried.
    """
    folds, held = _deal(x, label, seed)
    whole = [e for fold in folds for e in fold.episodes]
    learnable = held and len(whole) > 0
    tried = [m for m in methods if learnable or m not in LEARNED] or ["logistic"]
    if x.shape[1] > MOST_WHITENED and len(tried) > 1:
        tried.remove("whitened")
    calibrations = {}
    for method in tried:
        progress(f"{method} on held-back classes")
        calibrations[method] = _calibrate(method, x, label, folds) if whole else DEFAULT
    losses = {method: calibrations[method].loss for method in tried}
    best = min(tried, key=lambda m: losses[m]) if whole else tried[-1]
    learned = learn_map(best, x, label)
    within, between = two_variances(learned(x), label)
    return BaseClasses(best, learned, within, between, calibrations[best]), losses


def _calibrate(method: str, x, label, folds: Sequence[_Fold]) -> Calibration:
    strengths = STRENGTHS if method in LEARNED else (PLAIN_STRENGTH,)
    played: dict[float, list[Played]] = {strength: [] for strength in strengths}
    ratios, known = [], []
    for fold in folds:
        _, numbers = np.unique(label[fold.train], return_inverse=True)
        learned = learn_map(method, x[fold.train], numbers)
        within, between = two_variances(learned(x[fold.train]), numbers)
        rows = np.unique(np.concatenate([np.r_[e.support, e.query] for e in fold.episodes] or [[]]))
        rows = rows.astype(int)
        z = learned(x[rows])
        for episode in fold.episodes:
            support = z[np.searchsorted(rows, episode.support)]
            query = z[np.searchsorted(rows, episode.query)]
            of_class = len(episode.query_label)
            counts = np.bincount(episode.label)
            situation = _situation(counts)
            for strength in strengths:
                head = make_head(method, support, episode.label, strength)
                answers = head(query[:of_class])
                played[strength].append(
                    Played(answers, episode.query_label, situation, episode.shots)
                )
            ratio = density_ratio(query, _means(support, episode.label), counts, within, between)
            if of_class < len(query):
                ratios.append(_known(ratio, counts))
                known.append(np.arange(len(query)) < of_class)
    chosen: list[float] = []
    for shots in SHOTS:
        some = {c: [one for one in all_ if one.shots == shots] for c, all_ in played.items()}
        if not some[strengths[0]]:
            # Then no class has as many examples.
            chosen.append(chosen[-1] if chosen else PLAIN_STRENGTH)
        elif len(some) == 1:
            chosen.append(strengths[0])
        else:
            losses = {strength: _temper(answers)[1] for strength, answers in some.items()}
            chosen.append(min(losses, key=lambda strength: losses[strength]))
    best = [
        one
        for shots, strength in zip(SHOTS, chosen, strict=True)
        for one in played[strength]
        if one.shots == shots
    ]
    temperature, loss = _temper(best)
    odds = _fit_odds(np.concatenate(ratios), np.concatenate(known)) if known else None
    chance = float(np.mean([np.log(one.logits.shape[1]) for one in best]))
    return Calibration(np.array(chosen), temperature, odds, loss, chance)


def _fit_odds(columns: Float[np.ndarray, "n 4"], known: np.ndarray) -> Float[np.ndarray, "4"]:
    """Logistic regression on columns, either answer weighing the same."""
    share = np.where(known, 0.5 / known.sum(), 0.5 / (~known).sum())
    sign = np.where(known, 1.0, -1.0)
    spread = np.append(columns[:, 0].std() or 1.0, np.ones(3))

    def objective(w):
        margin = sign * (columns / spread @ w)
        value = share @ np.logaddexp(0, -margin) + 5e-4 * w @ w
        return value, (columns / spread).T @ (-share * sign * expit(-margin)) + 1e-3 * w

    return scipy.optimize.minimize(objective, np.zeros(4), jac=True, method="BFGS").x / spread
