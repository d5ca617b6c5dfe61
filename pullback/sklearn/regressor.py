"""Regression on rows that come in groups."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted

from pullback.core.errors import InputError, check_counts, unknown_name
from pullback.grouped import mixed, pooled
from pullback.grouped.basis import Basis, Rows, part
from pullback.grouped.table import Encoder
from pullback.sklearn import groups as naming
from pullback.sklearn.inputs import (
    FEWEST_GROUPS,
    Columns,
    interval,
    read_columns,
    read_target,
    read_weight,
    warn_about_categories,
    warn_about_groups,
)
from pullback.sklearn.reading import in_units_of_the_table, report

METHODS = ("auto", "linear", "learned")


class MetaRegressor(RegressorMixin, BaseEstimator):
    """Regression on rows that come in groups: patients, machines, shops, schools.

    Each group has a model of its own, drawn toward the population's by a prior that is learned
    from all groups. A new group is adapted to from a handful of rows, in closed form and without
    another fit, and every prediction has its standard deviation (docs/own-data.md).

    Args:
        method: ``"linear"`` is the linear mixed model by REML, with a random intercept and a random
            slope for each column that varies within groups. ``"learned"`` has features of the
            columns learned beside them. ``"auto"`` pools the two by their predictive density on
            held-back groups.
        hidden: learned features.
        rank: of the learned model's covariance between groups.
        members: learned models, each from a start of its own, whose predictions are averaged.
        steps: the most iterations of a fit.
        max_rows: the most rows that the prior, the noise and the learned features are fitted
            to; where there are more a sample of whole groups, or of rows where that would be
            fewer than a hundred groups. The population's weights and
            each group's own are always those of all rows.
        random_state: of the learned features' start, of the sample and of held-back groups.
        verbose: 1 to print what is being done.

    Attributes:
        groups_: names of the groups, in the order of their first rows.
        prior_: the covariance of the groups' intercept and slopes, in units of the table.
        noise_: the standard deviation of a row about its group's own line, in units of y.
        group_effects_: each group's intercept and slopes as differences from the population's, in
            units of the table. These three are read off the linear model.
        weights_: of the linear model, and of the learned ones together.
        n_features_in_: columns of X.
        feature_names_in_: their names, where X has names that are texts.
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        hidden: int = 16,
        rank: int = 4,
        members: int = 4,
        steps: int = 80,
        max_rows: int = 10_000,
        random_state: Any = 0,
        verbose: int = 0,
    ):
        self.method = method
        self.hidden = hidden
        self.rank = rank
        self.members = members
        self.steps = steps
        self.max_rows = max_rows
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> "MetaRegressor":
        """Learn the population, and each group.

        Args:
            X: a table of rows × columns: an array of numbers, or a data frame whose columns are
                numbers, truth values, texts or times (docs/own-data.md).
            y: the target of each row.
            groups: the name of each row's group; None for a pooled linear regression.
            sample_weight: what each row counts for; a row of weight 0 is left out.

        Returns:
            The estimator.

        Raises:
            InputError: for columns that cannot be used; says which and why.
            ValueError: for arrays that scikit-learn refuses.
        """
        if self.method not in METHODS:
            raise unknown_name("method", str(self.method), METHODS)
        check_counts(
            "MetaRegressor",
            hidden=self.hidden,
            rank=self.rank,
            members=self.members,
            steps=self.steps,
            max_rows=self.max_rows,
        )
        columns = read_columns(self, X, reset=True)
        target = read_target(y, columns, "MetaRegressor")
        weight = read_weight(sample_weight, target)
        names = None if groups is None else naming.read(groups, target)
        kept = weight > 0
        columns = [(name, column[kept]) for name, column in columns]
        target, weight = target[kept], weight[kept]
        self.groups_, group = (
            ([], np.zeros(len(target), int)) if names is None else naming.number(names[kept])
        )
        self._known = {name: place for place, name in enumerate(self.groups_)}
        grouped = names is not None
        self._encoder = Encoder.fit(columns, weight, group if grouped else None)
        warn_about_groups(group, len(self.groups_), columns, stacklevel=2)
        share = weight / weight.sum()
        self._centre = float(share @ target)
        deviation = float(np.sqrt(share @ (target - self._centre) ** 2))
        self._unit = deviation if deviation > 1e-12 * abs(self._centre) else 1.0
        inputs, _ = self._encoder(columns)
        rows = Rows(inputs, (target - self._centre) / self._unit, weight, group)
        self._fit(rows, grouped)
        return self

    def _fit(self, rows: Rows, grouped: bool) -> None:
        encoder, count = self._encoder, max(len(self.groups_), 1)
        random = check_random_state(self.random_state)
        seed = int(random.randint(2**30))
        sample, in_sample = _sample(rows, count, self.max_rows, random)
        linear = Basis(
            encoder.varying,
            len(encoder.names) - encoder.varying,
            len(encoder.grids),
            grouped=grouped,
        )
        learned = Basis(
            linear.varying, linear.constant, linear.extra, self.hidden, self.rank, grouped
        )
        pool = self.method == "auto" and grouped and in_sample >= FEWEST_GROUPS
        self.weights_ = np.array([0.0, 1.0] if self.method == "learned" else [1.0, 0.0])
        if pool:
            self.weights_ = pooled.weigh(
                (linear, learned),
                sample,
                in_sample,
                steps=self.steps,
                seed=seed,
                progress=self._say,
            )
        members = self.members if self.weights_[1] else 0
        share = self.weights_[1] / self.members
        self._shares = np.append(self.weights_[0], np.full(members, share))
        self._models = []
        for number, basis in enumerate([linear] + [learned] * members):
            self._say(f"learned model {number} of {members}" if number else "the linear model")
            model = mixed.fit(basis, sample, in_sample, seed=seed + number, steps=self.steps)
            # Learned features stop early: more steps only fit the groups at hand.
            if not (model.converged or basis.hidden):
                warnings.warn(
                    f"The linear model was still changing after {self.steps} steps: raise steps",
                    ConvergenceWarning,
                    stacklevel=3,
                )
            if len(sample.y) < len(rows.y):
                model = mixed.posterior(basis, model.params, rows, count)
            self._models.append(model)
        self._heads = [model.adapt(rows, count).with_unknown() for model in self._models]
        if not grouped:
            self._heads = [_only_unknown(heads) for heads in self._heads]
        self._rows = len(rows.y)
        reading = in_units_of_the_table(
            self._models[0], self._heads[0], encoder, self._centre, self._unit
        )
        self._population = reading.population
        self.prior_, self.noise_ = reading.prior, reading.noise
        self.group_effects_ = reading.effects_of(self.groups_)

    def predict(self, X: Any, groups: Any = None, return_std: bool = False) -> Any:
        """The expected target of each row.

        Args:
            X: as in :meth:`fit`.
            groups: the name of each row's group. One that was not there in fit, or None for
                all, has the population's model; :meth:`known_groups` tells which are.
            return_std: also return the standard deviation of the target.

        Returns:
            One number for each row, or two arrays of them.

        Raises:
            InputError: for columns that cannot be used.
            ValueError: for arrays that scikit-learn refuses, and before fit.
        """
        check_is_fitted(self)
        columns = self._read(X)
        rows = len(columns[0][1])
        unknown = len(self.groups_)
        group = np.full(rows, unknown)
        if groups is not None:
            group = naming.find(naming.read(groups, columns[0][1]), self._known)
        return self._predict(columns, self._heads, group, return_std)

    def predict_interval(
        self, X: Any, groups: Any = None, coverage: float = 0.9
    ) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        """The bounds that the target of each row lies between.

        Args:
            X: as in :meth:`fit`.
            groups: as in :meth:`predict`.
            coverage: how often it should.

        Returns:
            The lower and the upper bound.

        Raises:
            InputError: if the coverage is no share; else as :meth:`predict`.
        """
        return interval(coverage, *self.predict(X, groups, return_std=True))

    def known_groups(self, groups: Any) -> Bool[np.ndarray, " rows"]:
        """Which groups have a model of their own.

        Args:
            groups: names.

        Returns:
            A truth value for each.
        """
        check_is_fitted(self)
        names = column_or_1d(groups)
        return naming.find(names, self._known) < len(self.groups_)

    def adapt(self, X: Any, y: Any, sample_weight: Any = None) -> "AdaptedRegressor":
        """The model of one new group, from a handful of its rows and without another fit.

        Args:
            X: as in :meth:`fit`; it may have no rows.
            y: the target of each row.
            sample_weight: what each row counts for.

        Returns:
            Its fitted model. This estimator stays as it is.

        Raises:
            InputError: if fit was given no groups, or for columns that cannot be used.
            ValueError: for arrays that scikit-learn refuses.
        """
        check_is_fitted(self)
        if not self.groups_:
            raise InputError(
                "adapt needs to know how groups differ, and fit was given no groups",
                remedy="Write fit(X, y, groups=...)",
            )
        columns = read_columns(self, X, reset=False, may_be_empty=True)
        target = read_target(y, columns, "MetaRegressor")
        weight = read_weight(sample_weight, target, may_be_empty=True)
        inputs, new = self._encoder(columns)
        warn_about_categories(new, len(target), stacklevel=2)
        rows = Rows(
            inputs, (target - self._centre) / self._unit, weight, np.zeros(len(target), int)
        )
        return AdaptedRegressor(self, [model.adapt(rows, 1) for model in self._models])

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """R² of the predictions.

        Args:
            X: as in :meth:`predict`.
            y: the targets.
            sample_weight: what each row counts for.
            groups: as in :meth:`predict`.

        Returns:
            1 for perfect predictions, 0 for the mean's.
        """
        return float(r2_score(y, self.predict(X, groups), sample_weight=sample_weight))

    def summary(self) -> str:
        """What was learned, as text: the population's coefficients, the prior and the noise."""
        check_is_fitted(self)
        return report(
            self._population, self.prior_, self.noise_, self._rows, len(self.groups_), self.weights_
        )

    def _predict(self, columns, heads, group, return_std: bool) -> Any:
        inputs, new = self._encoder(columns)
        warn_about_categories(new, len(inputs), stacklevel=3)
        mean, variance = pooled.predict(self._models, heads, self._shares, inputs, group)
        mean = self._centre + self._unit * mean
        return (mean, self._unit * np.sqrt(variance)) if return_std else mean

    def _read(self, X: Any) -> Columns:
        return read_columns(self, X, reset=False)

    def _say(self, what: str) -> None:
        if self.verbose:
            print(f"MetaRegressor: {what}", flush=True)


class AdaptedRegressor(RegressorMixin, BaseEstimator):
    """The model of one group, as :meth:`MetaRegressor.adapt` returns it.

    Args:
        population: the estimator that it was adapted from.
        heads: the group's own, for each of its models.
    """

    def __init__(self, population: MetaRegressor, heads: Any):
        self.population = population
        self.heads = heads

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "AdaptedRegressor":
        """Adapt to other rows, in place of those before."""
        self.heads = self.population.adapt(X, y, sample_weight).heads
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The expected target of each row of the group; see :meth:`MetaRegressor.predict`."""
        columns = self.population._read(X)
        group = np.zeros(len(columns[0][1]), int)
        return self.population._predict(columns, self.heads, group, return_std)

    def predict_interval(
        self, X: Any, coverage: float = 0.9
    ) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        """Bounds of the targets; see :meth:`MetaRegressor.predict_interval`."""
        return interval(coverage, *self.predict(X, return_std=True))


def _sample(rows: Rows, groups: int, most: int, random: Any) -> tuple[Rows, int]:
    """Whole groups, drawn at random, of at most so many rows; rows where that were few groups."""
    if len(rows.y) <= most:
        return rows, groups
    order = random.permutation(groups)
    sizes = np.bincount(rows.group, minlength=groups)[order]
    fitting = order[: np.searchsorted(np.cumsum(sizes), most, side="right")]
    if len(fitting) >= 100:
        return part(rows, np.isin(rows.group, fitting))
    chosen = np.zeros(len(rows.y), bool)
    chosen[random.permutation(len(rows.y))[:most]] = True
    return part(rows, chosen)


def _only_unknown(heads: Any) -> Any:
    return type(heads)(*[part[-1:] for part in heads])
