"""Regression on rows that come in groups."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from pullback.grouped.basis import Rows
from pullback.sklearn import groups as naming
from pullback.sklearn.base import AdaptedRegressor, GroupedRegressor, PooledEstimator
from pullback.sklearn.reading import in_units_of_the_table, report


class MetaRegressor(GroupedRegressor, PooledEstimator):
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
        verbose: 1 to print what is being done; a function is told it instead.

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
        self._check_settings()
        rows = self._learn_columns(self._rows_to_fit(X, y, groups, sample_weight))
        share = rows.weight / rows.weight.sum()
        self._centre = float(share @ rows.y)
        deviation = float(np.sqrt(share @ (rows.y - self._centre) ** 2))
        self._unit = deviation if deviation > 1e-12 * abs(self._centre) else 1.0
        self._pool = self._fit_pool(self._scaled(rows), binary=False)
        self.weights_ = self._pool.weights
        self._derive()
        return self

    _DERIVED = ("_known", "_population", "prior_", "noise_", "group_effects_")

    def _derive(self) -> None:
        """Set the attributes that follow from the others."""
        self._number_groups()
        reading = in_units_of_the_table(
            self._pool.models[0], self._pool.heads[0], self._encoder, self._centre, self._unit
        )
        self._population = reading.population
        self.prior_, self.noise_ = reading.prior, reading.noise
        self.group_effects_ = reading.effects_of(self.groups_)

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
        rows = self._scaled(self._to_rows(self._rows_to_adapt_to(X, y, sample_weight)))
        return AdaptedRegressor(self, self._pool.adapt(rows, 1))

    def with_groups(
        self, X: Any, y: Any, groups: Any, sample_weight: Any = None
    ) -> "MetaRegressor":
        """The same model with other groups, each of them adapted to from its own rows.

        Args:
            X: as in :meth:`fit`; it may have no rows.
            y: the target of each row.
            groups: the name of each row's group.
            sample_weight: what each row counts for.

        Returns:
            A fitted estimator that knows these groups in place of those of fit. This one stays
            as it is.

        Raises:
            InputError: if fit was given no groups, or for columns that cannot be used.
            ValueError: for arrays that scikit-learn refuses.
        """
        rows = self._scaled(self._to_rows(self._rows_to_adapt_to(X, y, sample_weight)))
        other = copy.copy(self)
        other.groups_, group = naming.number(naming.read(groups, rows.y))
        heads = self._pool.adapt(rows._replace(group=group), len(other.groups_) + 1)
        other._pool = replace(self._pool, heads=heads)
        other._derive()
        return other

    def summary(self) -> str:
        """What was learned, as text: the population's coefficients, the prior and the noise."""
        check_is_fitted(self)
        return report(
            self._population, self.prior_, self.noise_, self._rows, len(self.groups_), self.weights_
        )

    def _scaled(self, rows: Rows) -> Rows:
        return rows._replace(y=(rows.y - self._centre) / self._unit)

    def _predict(self, X: Any, groups: Any, heads: Any, return_std: bool) -> Any:
        columns, group = self._rows_to_predict(X, groups, heads)
        inputs = self._inputs(columns, stacklevel=3)
        mean, variance = self._pool.predict(inputs, group, heads)
        mean = self._centre + self._unit * mean
        return (mean, self._unit * np.sqrt(variance)) if return_std else mean
