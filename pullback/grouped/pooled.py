"""Two models of one table, pooled by how well each predicts groups that it has not seen."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from jaxtyping import Float, Int

from pullback.grouped import held_back, logistic, mixed
from pullback.grouped.basis import AnyArray, Basis, Rows, part
from pullback.grouped.held_back import SHOTS, deal, place_in_group
from pullback.grouped.mixed import Adapted, Mixed, fit, posterior

FOLDS = 3

FEWEST_GROUPS = 6
"""With fewer groups none is held back."""

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
    fold = deal(groups, seed, FOLDS)
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


@dataclass(frozen=True)
class Pool:
    """A mixture of a linear model and learned ones, and its groups.

    Args:
        models: the linear one first, then those of learned features.
        shares: of each; they add up to 1.
        heads: of the groups of fit for each model, an unknown group at the end.
    """

    models: tuple[Mixed, ...]
    shares: Float[np.ndarray, " models"]
    heads: tuple[Adapted, ...]

    @property
    def weights(self) -> Float[np.ndarray, "2"]:
        """Of the linear model, and of the learned ones together."""
        return np.array([self.shares[0], self.shares[1:].sum()])

    def adapt(self, rows: Rows, groups: int) -> tuple[Adapted, ...]:
        """The heads of other groups, for each model."""
        return tuple(model.adapt(rows, groups) for model in self.models)

    def predict(
        self,
        inputs: Float[AnyArray, "n inputs"],
        group: Int[AnyArray, " n"],
        heads: Sequence[Adapted] | None = None,
        xp: ModuleType = np,
    ) -> tuple[Float[AnyArray, " n"], Float[AnyArray, " n"]]:
        """The mean and the variance of new targets; those of a binary one are p and p(1 − p).

        Args:
            inputs: of the rows.
            group: the number of each row's group.
            heads: of the groups, for each model; those of fit if None.
            xp: the array library to work them out with; inside ``jit`` that of JAX.

        Returns:
            Both for each row.
        """
        mean, second = xp.zeros(inputs.shape[0]), xp.zeros(inputs.shape[0])
        for model, adapted, share in zip(
            self.models, self.heads if heads is None else heads, self.shares, strict=True
        ):
            if not share:
                continue
            one, variance = model.predict(inputs, adapted, group, xp)
            if model.basis.binary:
                one = logistic.probability(one, variance, xp)
                variance = one * (1.0 - one)
            mean, second = mean + share * one, second + share * (variance + one**2)
        return mean, second - mean**2


def fit_pool(
    linear: Basis,
    learned: Basis,
    rows: Rows,
    groups: int,
    *,
    method: str,
    members: int,
    steps: int,
    max_rows: int,
    random: np.random.RandomState,
    progress: Callable[[str], None] = lambda _: None,
) -> Pool:
    """Fit the linear model, the learned ones, and their weights.

    Args:
        linear: the basis of columns.
        learned: that with learned features.
        rows: of all groups.
        groups: how many there are.
        method: ``"linear"``, ``"learned"``, or ``"auto"`` to weigh them on held-back groups.
        members: learned models, each from a start of its own.
        steps: the most iterations of a fit.
        max_rows: the most rows that hyperparameters are fitted to.
        random: of the sample, the starts and the held-back groups.
        progress: is told what is done.

    Returns:
        The mixture, with the heads of the groups.
    """
    seed = int(random.randint(2**30))
    fitted, count = rows, groups
    if len(rows.y) > max_rows:
        fitted, count = part(rows, held_back.sample(rows.group, groups, max_rows, random))
    weights = np.array([0.0, 1.0] if method == "learned" else [1.0, 0.0])
    if method == "auto" and linear.grouped and count >= FEWEST_GROUPS:
        bases = (linear, learned)
        weights = weigh(bases, fitted, count, steps=steps, seed=seed, progress=progress)
    members = members if weights[1] else 0
    to_all = len(fitted.y) < len(rows.y)
    models = []
    for number, basis in enumerate([linear] + [learned] * members):
        progress(f"learned model {number} of {members}" if number else "the linear model")
        model = fit(basis, fitted, count, seed=seed + number, steps=steps)
        if to_all and (not basis.binary or len(rows.y) <= mixed.BLOCK):
            whole = posterior(basis, model.params, rows, groups)
            model = replace(whole, converged=model.converged)
        models.append(model)
    shares = np.append(weights[0], np.full(members, weights[1] / max(members, 1)))
    # One more group, without rows: it stands for those that are not known.
    heads = [model.adapt(rows, groups + 1) for model in models]
    if not linear.grouped:
        heads = [Adapted(*[part[-1:] for part in head]) for head in heads]
    return Pool(tuple(models), shares, tuple(heads))
