"""What estimators of rows that come in groups have in common."""

import warnings
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import r2_score
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import check_is_fitted

from pullback.core.errors import InputError, check_counts, unknown_name
from pullback.grouped.basis import Basis, Rows
from pullback.grouped.pooled import Pool, fit_pool
from pullback.grouped.table import Encoder
from pullback.sklearn import groups as naming
from pullback.sklearn.inputs import (
    Columns,
    interval,
    read_columns,
    read_target,
    read_weight,
    warn_about_categories,
    warn_about_groups,
)

METHODS = ("auto", "linear", "learned")


class Given(NamedTuple):
    """The rows of a fit, or of a new group.

    Args:
        columns: by name.
        y: the target of each row, as it is read.
        weight: what each row counts for.
        group: the number of each row's group.
    """

    columns: Columns
    y: Shaped[np.ndarray, " rows"]
    weight: Float[np.ndarray, " rows"]
    group: Int[np.ndarray, " rows"]


class GroupedEstimator(BaseEstimator):
    """A model that differs between groups, known, unknown and new."""

    groups_: list[Any]
    verbose: Any
    _known: dict[Any, int]

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

    def _rows_to_fit(self, X: Any, y: Any, groups: Any, sample_weight: Any) -> Given:
        """Rows of positive weight; their groups are numbered and named."""
        columns = read_columns(self, X, reset=True)
        target = self._read_y(y, columns)
        weight = read_weight(sample_weight, target)
        names = None if groups is None else naming.read(groups, target)
        kept = weight > 0
        columns = [(name, column[kept]) for name, column in columns]
        target, weight = target[kept], weight[kept]
        self.groups_, group = (
            ([], np.zeros(len(target), int)) if names is None else naming.number(names[kept])
        )
        self._grouped = names is not None
        self._rows = len(target)
        return Given(columns, target, weight, group)

    def _number_groups(self) -> None:
        self._known = {name: place for place, name in enumerate(self.groups_)}

    def _rows_to_adapt_to(self, X: Any, y: Any, sample_weight: Any) -> Given:
        """Rows of one new group; there may be none."""
        check_is_fitted(self)
        if not self._grouped:
            raise InputError(
                "adapt needs to know how groups differ, and fit was given no groups",
                remedy="Write fit(X, y, groups=...)",
            )
        columns = read_columns(self, X, reset=False, may_be_empty=True)
        target = self._read_y(y, columns)
        weight = read_weight(sample_weight, target, may_be_empty=True)
        return Given(columns, target, weight, np.zeros(len(target), int))

    def _rows_to_predict(
        self, X: Any, groups: Any, heads: Any
    ) -> tuple[Columns, Int[np.ndarray, " rows"]]:
        """The columns of rows, and the number of each one's group; 0 for the heads of one group."""
        check_is_fitted(self)
        columns = read_columns(self, X, reset=False)
        group = np.full(len(columns[0][1]), 0 if heads is not None else len(self.groups_))
        if groups is not None:
            group = naming.find(naming.read(groups, group), self._known, stacklevel=4)
        return columns, group

    def _read_y(self, y: Any, columns: Columns) -> np.ndarray:
        raise NotImplementedError

    def _say(self, what: str) -> None:
        if callable(self.verbose):
            self.verbose(what)
        elif self.verbose:
            print(f"{type(self).__name__}: {what}", flush=True)


class PooledEstimator(GroupedEstimator):
    """A pool of mixed models of one table; see :class:`pullback.sklearn.MetaRegressor`."""

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
        verbose: Any = 0,
    ):
        self.method = method
        self.hidden = hidden
        self.rank = rank
        self.members = members
        self.steps = steps
        self.max_rows = max_rows
        self.random_state = random_state
        self.verbose = verbose

    def _check_settings(self) -> None:
        if self.method not in METHODS:
            raise unknown_name("method", str(self.method), METHODS)
        check_counts(
            type(self).__name__,
            hidden=self.hidden,
            rank=self.rank,
            members=self.members,
            steps=self.steps,
            max_rows=self.max_rows,
        )

    def _learn_columns(self, given: Given) -> Rows:
        self._encoder = Encoder.fit(
            given.columns, given.weight, given.group if self._grouped else None
        )
        warn_about_groups(given.group, len(self.groups_), given.columns, stacklevel=3)
        return Rows(self._encoder(given.columns)[0], *given[1:])

    def _fit_pool(self, rows: Rows, *, binary: bool, what: str = "") -> Pool:
        encoder, grouped = self._encoder, self._grouped
        varying, constant = encoder.varying, len(encoder.names) - encoder.varying
        extra = len(encoder.grids)
        pool = fit_pool(
            Basis(varying, constant, extra, grouped=grouped, binary=binary),
            Basis(varying, constant, extra, self.hidden, self.rank, grouped, binary),
            rows,
            max(len(self.groups_), 1),
            method=self.method,
            members=self.members,
            steps=self.steps,
            max_rows=self.max_rows,
            random=check_random_state(self.random_state),
            progress=lambda text: self._say(what + text),
        )
        # Learned features stop early: more steps only fit the groups at hand.
        if not pool.models[0].converged:
            warnings.warn(
                f"The linear model was still changing after {self.steps} steps: raise steps",
                ConvergenceWarning,
                stacklevel=3,
            )
        return pool

    def _to_rows(self, given: Given) -> Rows:
        return Rows(self._inputs(given.columns, stacklevel=3), *given[1:])

    def _inputs(self, columns: Columns, *, stacklevel: int) -> Float[np.ndarray, "rows inputs"]:
        inputs, new = self._encoder(columns)
        warn_about_categories(new, len(inputs), stacklevel=stacklevel + 1)
        return inputs


class GroupedRegressor(RegressorMixin, GroupedEstimator):
    """A regression whose ``_predict`` gives means, and standard deviations where asked for."""

    def predict(self, X: Any, groups: Any = None, return_std: bool = False) -> Any:
        """The expected target of each row.

        Args:
            X: as in ``fit``.
            groups: the name of each row's group. One that was not there in fit, or None for
                all, has the population's model; ``known_groups`` tells which are.
            return_std: also return the standard deviation of the target.

        Returns:
            One number for each row, or two arrays of them.

        Raises:
            InputError: for columns that cannot be used.
            ValueError: for arrays that scikit-learn refuses, and before fit.
        """
        return self._predict(X, groups, None, return_std)

    def predict_interval(
        self, X: Any, groups: Any = None, coverage: float = 0.9
    ) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        """The bounds that the target of each row lies between.

        Args:
            X: as in ``fit``.
            groups: as in ``predict``.
            coverage: how often it should.

        Returns:
            The lower and the upper bound.

        Raises:
            InputError: if the coverage is no share; else as ``predict``.
        """
        return interval(coverage, *self._predict(X, groups, None, True))

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """R² of the predictions.

        Args:
            X: as in ``predict``.
            y: the targets.
            sample_weight: what each row counts for.
            groups: as in ``predict``.

        Returns:
            1 for perfect predictions, 0 for the mean's.
        """
        return float(r2_score(y, self.predict(X, groups), sample_weight=sample_weight))

    def _read_y(self, y: Any, columns: Columns) -> Float[np.ndarray, " rows"]:
        return read_target(y, columns, type(self).__name__)

    def _predict(self, X: Any, groups: Any, heads: Any, return_std: bool) -> Any:
        raise NotImplementedError


class AdaptedEstimator(BaseEstimator):
    """The model of one group, as ``adapt`` returns it.

    Args:
        population: the estimator that it was adapted from.
        heads: the group's own, for each of its models.
    """

    def __init__(self, population: Any, heads: Any):
        self.population = population
        self.heads = heads

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Adapt to other rows, in place of those before."""
        self.heads = self.population.adapt(X, y, sample_weight).heads
        return self


class AdaptedRegressor(RegressorMixin, AdaptedEstimator):
    """The model of one group, as the ``adapt`` of ``MetaRegressor`` returns it.

    Args:
        population: the estimator that it was adapted from.
        heads: the group's own, for each of its models.
    """

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The expected target of each row of the group; see ``MetaRegressor.predict``."""
        return self.population._predict(X, None, self.heads, return_std)

    def predict_interval(
        self, X: Any, coverage: float = 0.9
    ) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
        """Bounds of the targets; see ``MetaRegressor.predict_interval``."""
        return interval(coverage, *self.population._predict(X, None, self.heads, True))
