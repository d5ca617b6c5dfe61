"""Two models of one table, pooled by how well each predicts groups that it has not seen."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from pullback.grouped.basis import Basis, Rows, part
from pullback.grouped.mixed import Adapted, Mixed, fit

SHOTS = (0, 1, 2, 3, 5)
"""Rows that a held-back group is adapted with, its first ones."""

FOLDS = 3

WEIGHTS = np.linspace(0.0, 1.0, 21)


def weigh(
    bases: Sequence[Basis],
    rows: Rows,
    groups: int,
    *,
    steps: int,
    seed: int,
    progress: Callable[[str], None] = lambda _: None,
) -> Float[np.ndarray, "2"]:
    """Weights of two models, by the predictive density of held-back groups.

    Args:
        bases: of the two.
        rows: of all groups, each group's in its own order.
        groups: how many there are; at least as many as folds.
        steps: of each fit.
        seed: of the folds and of the fits.
        progress: is told what is done.

    Returns:
        The weights, which add up to 1.
    """
    fold = np.empty(groups, int)
    fold[np.random.default_rng(seed).permutation(groups)] = np.arange(groups) % FOLDS
    densities: list[list[np.ndarray]] = [[] for _ in bases]
    room = (len(rows.y), groups)
    for number in range(FOLDS):
        held = fold[rows.group] == number
        train, count = part(rows, ~held)
        test, tests = part(rows, held)
        for basis, found in zip(bases, densities, strict=True):
            progress(f"held-back groups, part {number + 1} of {FOLDS}")
            model = fit(basis, train, count, seed=seed, steps=steps, room=room)
            found.append(_densities(model, test, tests))
    first, second = (np.concatenate(found) for found in densities)
    scores = [np.log(1e-12 + (1 - w) * first + w * second).sum() for w in WEIGHTS]
    best = WEIGHTS[int(np.argmax(scores))]
    return np.array([1 - best, best])


def _densities(model: Mixed, rows: Rows, groups: int) -> Float[np.ndarray, " predictions"]:
    """The predictive density of each row behind the first few of its group."""
    place = place_in_group(rows.group)
    found = []
    for shots in SHOTS:
        support = place < shots
        heads = model.adapt(Rows(*[a[support] for a in rows]), groups)
        query = Rows(*[a[~support] for a in rows])
        mean, variance = model.predict(query.inputs, heads, query.group)
        found.append(model.density(query.y, mean, variance))
    return np.concatenate(found)


def place_in_group(group: np.ndarray) -> np.ndarray:
    """Of each row, how many rows of its group stand before it."""
    order = np.argsort(group, kind="stable")
    _, first, counts = np.unique(group[order], return_index=True, return_counts=True)
    place = np.empty(len(group), int)
    place[order] = np.arange(len(group)) - np.repeat(first, counts)
    return place


def predict(
    models: Sequence[Mixed],
    heads: Sequence[Adapted],
    weights: Float[np.ndarray, " models"],
    inputs: Float[np.ndarray, "n inputs"],
    group: np.ndarray,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The mean and the variance of a mixture.

    Args:
        models: its members.
        heads: of the groups, for each model.
        weights: of the models.
        inputs: of the rows.
        group: the number of each row's group.

    Returns:
        Both for each row.
    """
    mean, second = np.zeros(len(inputs)), np.zeros(len(inputs))
    for model, adapted, weight in zip(models, heads, weights, strict=True):
        if weight:
            one, variance = model.predict(inputs, adapted, group)
            mean, second = mean + weight * one, second + weight * (variance + one**2)
    return mean, second - mean**2
