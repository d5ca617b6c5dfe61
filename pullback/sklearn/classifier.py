"""Classification of rows that come in groups."""

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import assert_all_finite, check_is_fitted

from pullback.core.errors import InputError
from pullback.grouped.basis import Rows
from pullback.grouped.pooled import Pool
from pullback.sklearn import groups as naming
from pullback.sklearn.base import AdaptedEstimator, PooledEstimator
from pullback.sklearn.inputs import Columns
from pullback.sklearn.reading import in_units_of_the_table, report


class MetaClassifier(ClassifierMixin, PooledEstimator):
    """Classification of rows that come in groups: patients, machines, shops, schools.

    As :class:`MetaRegressor`, for a target of yes and no or of a few classes. Each group has a
    model of its own, drawn toward the population's by a prior that is learned from all groups;
    a new group is adapted to from a handful of rows and without another fit. Probabilities count
    what is not known of the group and of the population (docs/own-data.md).

    Args:
        method: ``"linear"`` is the logistic mixed model, with a random intercept and a random slope
            for each column that varies within groups.
            ``"learned"`` has features of the columns learned beside them. ``"auto"`` pools the two
            by the probability that they give to the rows of held-back groups.
        hidden: learned features.
        rank: of the learned model's covariance between groups.
        members: learned models, each from a start of its own, whose probabilities are averaged.
        steps: the most iterations of a fit.
        max_rows: the most rows that the prior and the learned features are fitted to; see
            :class:`MetaRegressor`. Of a table of more than 65,536 rows the population's weights
            are those of the sample too.
        random_state: of the learned features' start, of the sample and of held-back groups.
        verbose: 1 to print what is being done; a function is told it instead.

    Attributes:
        classes_: the classes. With more than two of them each has a model of its own against all
            others, and the probabilities are divided by their sum.
        groups_: names of the groups, in the order of their first rows.
        prior_: the covariance of the groups' intercept and slopes, in logits of the second class;
            with more than two classes, for each class by name.
        group_effects_: each group's intercept and slopes as differences from the population's,
            likewise. These two are read off the linear model.
        weights_: of the linear model, and of the learned ones together; likewise.
        n_features_in_: columns of X.
        feature_names_in_: their names, where X has names that are texts.
    """

    def fit(
        self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None
    ) -> "MetaClassifier":
        """Learn the population, and each group.

        Args:
            X: a table of rows × columns: an array of numbers, or a data frame whose columns are
                numbers, truth values, texts or times (docs/own-data.md).
            y: the class of each row.
            groups: the name of each row's group; None for a pooled logistic regression.
            sample_weight: what each row counts for; a row of weight 0 is left out.

        Returns:
            The estimator.

        Raises:
            InputError: for columns that cannot be used, and for fewer than two classes.
            ValueError: for arrays that scikit-learn refuses.
        """
        self._check_settings()
        given = self._rows_to_fit(X, y, groups, sample_weight)
        self.classes_ = np.unique(given.y)
        if len(self.classes_) < 2:
            raise InputError(
                f"y has one class, {str(self.classes_[0])!r}", allowed="two classes or more"
            )
        self._pools = []
        targets = self._against_others(self._learn_columns(given))
        for one, binary in zip(self._modelled(), targets, strict=True):
            what = "" if len(self.classes_) == 2 else f"class {one}: "
            self._pools.append(self._fit_pool(binary, binary=True, what=what))
        self.weights_ = self._by_class([pool.weights for pool in self._pools])
        self._derive()
        return self

    _DERIVED = ("_known", "_readings", "prior_", "group_effects_")

    def _derive(self) -> None:
        """Set the attributes that follow from the others."""
        self._number_groups()
        self._readings = [
            in_units_of_the_table(pool.models[0], pool.heads[0], self._encoder, 0.0, 1.0)
            for pool in self._pools
        ]
        self.prior_ = self._by_class([reading.prior for reading in self._readings])
        self.group_effects_ = self._by_class(
            [reading.effects_of(self.groups_) for reading in self._readings]
        )

    def predict_proba(self, X: Any, groups: Any = None) -> Float[np.ndarray, "rows classes"]:
        """The probability of each class.

        Args:
            X: as in :meth:`fit`.
            groups: the name of each row's group. One that was not there in fit, or None for
                all, has the population's model; ``known_groups`` tells which are.

        Returns:
            Rows that add up to 1, classes in the order of ``classes_``.

        Raises:
            InputError: for columns that cannot be used.
            ValueError: for arrays that scikit-learn refuses, and before fit.
        """
        return self._probabilities(X, groups, None)

    def predict(self, X: Any, groups: Any = None) -> Shaped[np.ndarray, " rows"]:
        """The most probable class of each row; see :meth:`predict_proba`."""
        most = self._probabilities(X, groups, None).argmax(1)
        return self.classes_[most]

    def adapt(self, X: Any, y: Any, sample_weight: Any = None) -> "AdaptedClassifier":
        """The model of one new group, from a handful of its rows and without another fit.

        Args:
            X: as in :meth:`fit`; it may have no rows.
            y: the class of each row; not every class need be there.
            sample_weight: what each row counts for.

        Returns:
            Its fitted model. This estimator stays as it is.

        Raises:
            InputError: if fit was given no groups, for columns that cannot be used, and for a
                class that was not there in fit.
            ValueError: for arrays that scikit-learn refuses.
        """
        rows = self._to_rows(self._rows_to_adapt_to(X, y, sample_weight))
        heads = [pool.adapt(targets, 1) for pool, targets in self._pools_and_targets(rows)]
        return AdaptedClassifier(self, heads)

    def with_groups(
        self, X: Any, y: Any, groups: Any, sample_weight: Any = None
    ) -> "MetaClassifier":
        """The same model with other groups, each of them adapted to from its own rows.

        Args:
            X: as in :meth:`fit`; it may have no rows.
            y: the class of each row; not every class need be there.
            groups: the name of each row's group.
            sample_weight: what each row counts for.

        Returns:
            A fitted estimator that knows these groups in place of those of fit. This one stays
            as it is.

        Raises:
            InputError: as :meth:`adapt`.
            ValueError: for arrays that scikit-learn refuses.
        """
        rows = self._to_rows(self._rows_to_adapt_to(X, y, sample_weight))
        other = copy.copy(self)
        other.groups_, group = naming.number(naming.read(groups, rows.y))
        other._pools = [
            replace(pool, heads=pool.adapt(targets, len(other.groups_) + 1))
            for pool, targets in self._pools_and_targets(rows._replace(group=group))
        ]
        other._derive()
        return other

    def _pools_and_targets(self, rows: Rows) -> Iterable[tuple[Pool, Rows]]:
        """Each pool, and the rows of new groups as it reads them."""
        known = set(self.classes_.tolist())
        unseen = set(rows.y.tolist()) - known
        if unseen:
            # A text that reads as a number is another class than the number.
            kinds = ({type(label).__name__ for label in some} for some in (unseen, known))
            here, before = (" or ".join(sorted(kind)) for kind in kinds)
            types = "" if here == before else f" ({here} here, {before} in fit)"
            raise InputError(
                f"y has classes that were not there in fit: {_listed(unseen)}{types}",
                allowed=_listed(known),
            )
        return zip(self._pools, self._against_others(rows), strict=True)

    def score(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> float:
        """The share of rows whose most probable class is theirs.

        Args:
            X: as in :meth:`predict`.
            y: the classes.
            sample_weight: what each row counts for.
            groups: as in :meth:`predict`.

        Returns:
            1 if all are.
        """
        return float(accuracy_score(y, self.predict(X, groups), sample_weight=sample_weight))

    def summary(self) -> str:
        """What was learned, as text: the population's coefficients and the prior, in logits."""
        check_is_fitted(self)
        texts = []
        for one, pool, reading in zip(self._modelled(), self._pools, self._readings, strict=True):
            text = report(
                reading.population,
                reading.prior,
                reading.noise,
                self._rows,
                len(self.groups_),
                pool.weights,
            )
            texts.append(f"Logits of {one!s}\n{text}")
        return "\n\n".join(texts)

    def _modelled(self) -> Shaped[np.ndarray, " models"]:
        """The classes that have a model: of two the second."""
        return self.classes_[1:] if len(self.classes_) == 2 else self.classes_

    def _against_others(self, rows: Rows) -> list[Rows]:
        """For each class that has a model the rows with 1 for it and 0 for any other."""
        return [rows._replace(y=(rows.y == one).astype(float)) for one in self._modelled()]

    def _read_y(self, y: Any, columns: Columns) -> Shaped[np.ndarray, " rows"]:
        return _labels(y, columns)

    def _by_class(self, found: list[Any]) -> Any:
        return found[0] if len(found) == 1 else dict(zip(self.classes_, found, strict=True))

    def _probabilities(self, X: Any, groups: Any, heads: Any) -> Float[np.ndarray, "rows classes"]:
        columns, group = self._rows_to_predict(X, groups, heads)
        inputs = self._inputs(columns, stacklevel=3)
        each = [
            pool.predict(inputs, group, None if heads is None else heads[number])[0]
            for number, pool in enumerate(self._pools)
        ]
        whole = np.stack([1.0 - each[0], each[0]] if len(each) == 1 else each, 1)
        return whole / whole.sum(1, keepdims=True)


class AdaptedClassifier(ClassifierMixin, AdaptedEstimator):
    """The model of one group, as :meth:`MetaClassifier.adapt` returns it.

    Args:
        population: the estimator that it was adapted from.
        heads: the group's own, for each of its models.
    """

    @property
    def classes_(self) -> Shaped[np.ndarray, " classes"]:
        """Those of the population."""
        return self.population.classes_

    def predict_proba(self, X: Any) -> Float[np.ndarray, "rows classes"]:
        """The probability of each class; see :meth:`MetaClassifier.predict_proba`."""
        return self.population._probabilities(X, None, self.heads)

    def predict(self, X: Any) -> Shaped[np.ndarray, " rows"]:
        """The most probable class of each row."""
        return self.classes_[self.population._probabilities(X, None, self.heads).argmax(1)]


def _listed(classes: Iterable[Any]) -> str:
    return ", ".join(sorted(map(str, classes)))


def _labels(y: Any, columns: Columns) -> Shaped[np.ndarray, " rows"]:
    if y is None:
        raise InputError("MetaClassifier requires y to be passed, but the target y is None")
    labels = column_or_1d(y, warn=True)
    if labels.dtype.kind == "f":
        assert_all_finite(labels, input_name="y")
    missing = np.array([label is None or label != label for label in labels], bool)
    if missing.any():
        raise InputError(
            f"y misses {int(missing.sum())} of {len(labels)} classes",
            remedy="Leave those rows out",
        )
    if len(labels):
        check_classification_targets(labels)
    check_consistent_length(columns[0][1], labels)
    return labels
