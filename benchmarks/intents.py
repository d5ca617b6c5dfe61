"""New intents from a few of their questions: FewShotClassifier beside what it has to beat.

    python -m benchmarks.intents --data FILE [--seeds 3] [--episodes 60] [--folds 2] [--json FILE]
    python -m benchmarks.intents --data FILE --test DOMAIN [DOMAIN ...]

It needs ``pullback[sklearn]``. FILE is an ``.npz`` of ``embedding``, ``intent`` and ``domain``, one
row a question. Whole domains are dealt into folds, anew for each seed; the intents of a fold's
domains are the new classes, and those of the others the base classes. ``--test`` names domains to
hold out instead. Every method sees the same episodes: so many ways, so many examples of each, eight
queries of each. Intervals of 95 % are over episodes; the base classes behind the episodes of one
fold are the same.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import log_softmax
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score

from pullback.sklearn import FewShotClassifier

SETTINGS = ((5, 1), (5, 5), (20, 1), (20, 5), (None, 1), (None, 5))
"""Ways and shots; None for all classes."""

QUERIES = 8
BINS = 15
RIDGES = (0.1, 0.3, 1.0, 3.0)
OURS = "FewShotClassifier"
BASELINES = ("centroid", "logistic, C = 10", "ridge", "whitening")

Answer = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""From examples, the number of each one's class, and queries, to the logits of the queries."""


class Questions(NamedTuple):
    """Vectors, each with the number of its class."""

    x: np.ndarray
    label: np.ndarray


class Episode(NamedTuple):
    """Rows of examples and of queries, and rows of queries that are of none of its classes."""

    support: np.ndarray
    label: np.ndarray
    query: np.ndarray
    query_label: np.ndarray
    none: np.ndarray


def read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors, intents and domains of a file."""
    with np.load(path) as data:
        return data["embedding"].astype(float), data["intent"], data["domain"]


def episodes(
    label: np.ndarray, ways: int | None, shots: int, count: int, rng: np.random.Generator
) -> list[Episode]:
    """Episodes of all classes, or of so many; none where there are not more than that."""
    classes = np.unique(label)
    if ways is not None and ways >= len(classes):
        return []
    ways = len(classes) if ways is None else ways
    found = []
    for _ in range(count):
        drawn = [
            rng.permutation(np.flatnonzero(label == c))[: shots + QUERIES]
            for c in rng.permutation(classes)
        ]
        queries = [rows[shots:] for rows in drawn]
        found.append(
            Episode(
                np.concatenate([rows[:shots] for rows in drawn[:ways]]),
                np.repeat(np.arange(ways), shots),
                np.concatenate(queries[:ways]),
                np.repeat(np.arange(ways), [len(q) for q in queries[:ways]]),
                np.concatenate([*queries[ways:], np.zeros(0, int)]).astype(int),
            )
        )
    return found


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def centroid(x: np.ndarray, label: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The class whose mean has the largest cosine."""
    means = np.array([x[label == c].mean(0) for c in range(label.max() + 1)])
    return _unit(query) @ _unit(means).T


def logistic(x: np.ndarray, label: np.ndarray, query: np.ndarray) -> np.ndarray:
    """scikit-learn's logistic regression."""
    return LogisticRegression(C=10, max_iter=500).fit(x, label).predict_log_proba(query)


def ridge(base: Questions) -> Answer:
    """Ridge regression on indicators, its strength the best on base classes."""

    def with_strength(strength: float) -> Answer:
        return lambda x, label, query: np.asarray(
            RidgeClassifier(alpha=strength).fit(x, label).decision_function(query)
        )

    rng = np.random.default_rng(0)
    ways = min(20, len(np.unique(base.label)) - 1)
    tried = [e for shots in (1, 5) for e in episodes(base.label, ways, shots, 10, rng)]
    scores = [
        np.mean([_accuracy(base.x, e, with_strength(strength)) for e in tried])
        for strength in RIDGES
    ]
    return with_strength(RIDGES[int(np.argmax(scores))])


def whitening(base: Questions) -> Answer:
    """The nearest mean of vectors that are whitened within base classes."""
    classes, number = np.unique(base.label, return_inverse=True)
    means = np.array([base.x[base.label == c].mean(0) for c in classes])
    within = LedoitWolf(assume_centered=True).fit(base.x - means[number]).covariance_
    factor = np.linalg.cholesky(np.linalg.inv(within))
    return lambda x, label, query: centroid(x @ factor, label, query @ factor)


def _accuracy(x: np.ndarray, episode: Episode, answer: Answer) -> float:
    logits = answer(x[episode.support], episode.label, x[episode.query])
    return float(np.mean(logits.argmax(1) == episode.query_label))


def calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    """The expected calibration error, of bins of equal width."""
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    apart = np.bincount(place, confidence, BINS) - np.bincount(place, right, BINS)
    return float(np.abs(apart).sum() / len(confidence))


def score(base: Questions, new: Questions, count: int, seed: int) -> dict[str, Any]:
    """Every method on episodes of new classes.

    Args:
        base: questions of the base classes.
        new: of the new ones.
        count: episodes of each setting.
        seed: of the episodes.

    Returns:
        For each setting and method, what each episode gave; and what the fit did.
    """
    began = time.process_time()
    model = FewShotClassifier(random_state=seed).fit(base.x, base.label)
    fitted = {"method": model.method_, "losses": model.losses_}
    fitted["cpu"] = time.process_time() - began
    plain: dict[str, Answer] = dict(
        zip(BASELINES, (centroid, logistic, ridge(base), whitening(base)), strict=True)
    )
    rng = np.random.default_rng(seed)
    settings = []
    for ways, shots in SETTINGS:
        dealt = episodes(new.label, ways, shots, count, rng)
        if not dealt:
            continue
        found: dict[str, Any] = {name: {"accuracy": []} for name in (OURS, *BASELINES)}
        for name in (OURS, BASELINES[1]):
            found[name] |= {"loss": [], "confidence": [], "right": []}
        nothing: dict[str, list[float]] = {"probability": [], "none": [], "area": []}
        for episode in dealt:
            x, query = new.x[episode.support], new.x[episode.query]
            adapted = model.adapt(x, episode.label)
            for name in (OURS, *BASELINES):
                if name == OURS:
                    logits = np.log(adapted.predict_proba(query) + 1e-300)
                else:
                    logits = plain[name](x, episode.label, query)
                right = logits.argmax(1) == episode.query_label
                one = found[name]
                one["accuracy"].append(float(right.mean()))
                if "loss" in one:
                    logs = log_softmax(logits, axis=1)
                    own = logs[np.arange(len(right)), episode.query_label]
                    one["loss"].append(float(-own.mean()))
                    one["confidence"] += np.exp(logs.max(1)).tolist()
                    one["right"] += right.tolist()
            if len(episode.none):
                # As many of none as of the classes, as the prior of a half says.
                strangers = new.x[rng.choice(episode.none, len(query))]
                chance = adapted.probability_of_none(np.concatenate([query, strangers]))
                truth = np.repeat([0, 1], len(query))
                nothing["probability"] += chance.tolist()
                nothing["none"] += truth.tolist()
                nothing["area"].append(float(roc_auc_score(truth, chance)))
        size = len(np.unique(dealt[0].label))
        settings.append(
            {"ways": ways, "classes": size, "shots": shots, "methods": found, "none": nothing}
        )
    return {"fit": fitted, "settings": settings}


def as_table(results: Sequence[dict[str, Any]]) -> str:
    """The means over all episodes of all folds and seeds, in Markdown."""
    head = ["ways", "shots", *BASELINES, OURS, "over the best", "over logistic"]
    head += ["calibration error", "of logistic", "log loss", "of logistic"]
    head += ["none of these: area", "calibration error"]
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for ways, shots in SETTINGS:
        some = [
            s for r in results for s in r["settings"] if (s["ways"], s["shots"]) == (ways, shots)
        ]
        if not some:
            continue

        def joined(name: str, what: str, some: Sequence[Any] = some) -> np.ndarray:
            return np.concatenate([s["methods"][name][what] for s in some])

        accuracy = {name: 100 * joined(name, "accuracy") for name in (OURS, *BASELINES)}
        best = max(BASELINES, key=lambda name: accuracy[name].mean())
        sizes = sorted({s["classes"] for s in some})
        named = str(ways) if ways else "all " + ", ".join(map(str, sizes))
        cells = [named, str(shots)]
        cells += [f"{accuracy[name].mean():.2f}" for name in (*BASELINES, OURS)]
        for other in (best, BASELINES[1]):
            gain = accuracy[OURS] - accuracy[other]
            reach = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else np.nan
            cells.append(f"{gain.mean():+.2f} ± {reach:.2f}")
        for name in (OURS, BASELINES[1]):
            error = calibration_error(joined(name, "confidence"), joined(name, "right"))
            cells.append(f"{100 * error:.1f}")
        cells += [f"{joined(name, 'loss').mean():.3f}" for name in (OURS, BASELINES[1])]
        area = np.concatenate([s["none"]["area"] for s in some])
        if len(area):
            chance = np.concatenate([s["none"]["probability"] for s in some])
            none = np.concatenate([s["none"]["none"] for s in some])
            confidence = np.maximum(chance, 1 - chance)
            error = calibration_error(confidence, (chance > 0.5) == none)
            cells += [f"{area.mean():.3f}", f"{100 * error:.1f}"]
        else:
            cells += ["–", "–"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Score every method on new classes of held-out domains, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--episodes", type=int, default=60)
    parser.add_argument("--folds", type=int, default=2)
    parser.add_argument("--test", nargs="+", metavar="DOMAIN")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    x, intent, domain = read(given.data)
    _, label = np.unique(intent, return_inverse=True)
    names = np.unique(domain)
    results = []
    for seed in range(given.seeds):
        dealt = np.random.default_rng(seed).permutation(names)
        parts = [given.test] if given.test else np.array_split(dealt, given.folds)
        for part in parts:
            held = np.isin(domain, part)
            base, new = Questions(x[~held], label[~held]), Questions(x[held], label[held])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = score(base, new, given.episodes, seed)
            results.append({"seed": seed, "held": list(map(str, part)), **found})
            fit = found["fit"]
            print(f"held out {', '.join(part)}: {fit['method']}, {fit['cpu']:.0f} s of CPU")
            if given.json:
                given.json.write_text(json.dumps(results) + "\n")
    print(as_table(results), flush=True)


if __name__ == "__main__":
    main()
