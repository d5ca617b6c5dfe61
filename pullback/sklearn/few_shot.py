"""New classes of feature vectors from a few examples of each."""

import warnings
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from pullback.core.errors import InputError, check_counts, check_number, unknown_name
from pullback.grouped import vectors

METHODS = ("auto", *vectors.METHODS)


class FewShotClassifier(ClassifierMixin, BaseEstimator):
    """New classes of feature vectors, from a few examples of each.

    Base classes, of which there are more examples, tell in which directions classes differ and how
    far probabilities can be trusted. :meth:`adapt` then returns the classifier of any number of new
    classes from one or a few examples of each, without another fit (docs/new-classes.md).

    Args:
        method: ``"centroid"`` is the nearest class mean. ``"logistic"`` is logistic regression.
            ``"between"`` is logistic regression on vectors mapped by what separates base classes,
            and ``"whitened"`` on vectors that are whitened within base classes too. ``"auto"`` is
            the one with the least log loss on base classes that were held back. The probabilities
            of each are calibrated on those.
        max_rows: the most examples that the classifier of the base classes is fitted to, a sample
            of which each class has its part. What is learned for new classes is of all examples.
        random_state: of held-back classes' examples, and of the sample.
        verbose: 1 to print what is being done.

    Attributes:
        classes_: names of the base classes.
        method_: the method that is used.
        losses_: the log loss of each method that was tried on held-back classes, in the mean over
            numbers of ways and shots; NaN where there are too few examples to hold any back.
        n_features_in_: columns of X.
        feature_names_in_: their names, where X has names that are texts.
    """

    def __init__(
        self,
        method: str = "auto",
        *,
        max_rows: int = 10_000,
        random_state: Any = 0,
        verbose: int = 0,
    ):
        self.method = method
        self.max_rows = max_rows
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any) -> "FewShotClassifier":
        """Learn from base classes.

        Args:
            X: vectors, one a row: an array or a data frame of numbers.
            y: the class of each: numbers or texts.

        Returns:
            The estimator.

        Raises:
            InputError: for an unknown method, or fewer than two classes.
            ValueError: for arrays that scikit-learn refuses.
        """
        if self.method not in METHODS:
            raise unknown_name("method", str(self.method), METHODS)
        check_counts("FewShotClassifier", max_rows=self.max_rows)
        X, names = _examples(self, X, y, reset=True)
        self.classes_, label = np.unique(names, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(
                f"y has 1 class, {self.classes_.tolist()[0]!r}",
                allowed="two base classes or more",
            )
        random = check_random_state(self.random_state)
        methods = vectors.METHODS if self.method == "auto" else (self.method,)
        with _one_thread():
            self._model, self.losses_ = vectors.fit(
                methods, X, label, seed=int(random.randint(2**30)), progress=self._say
            )
        self.method_ = self._model.method
        if self._model.calibration is vectors.DEFAULT:
            warnings.warn(
                "No class has examples enough to hold some back, so that probabilities are not "
                f"calibrated; the method is {self.method_!r}",
                UserWarning,
                stacklevel=2,
            )
        elif self.method not in ("auto", self.method_):
            warnings.warn(
                f"method={self.method!r} needs {vectors.FEWEST_CLASSES} base classes or more, and "
                f"there are {len(self.classes_)}; the method is {self.method_!r}",
                UserWarning,
                stacklevel=2,
            )
        calibration = self._model.calibration
        if calibration.loss > 0.98 * calibration.chance:
            warnings.warn(
                "The vectors hardly tell held-back classes apart: the log loss is "
                f"{calibration.loss:.3f}, and {calibration.chance:.3f} by chance. Perhaps X and y "
                "are not in the same order, or the encoder is not for such data",
                UserWarning,
                stacklevel=2,
            )
        self._say(f"the base classes, by {self.method_}")
        kept = _sample(label, self.max_rows, random)
        with _one_thread():
            self._base = self._model.adapt(X[kept], label[kept], steps=50)
        return self

    def predict(self, X: Any) -> Shaped[np.ndarray, " rows"]:
        """The base class of each vector.

        Args:
            X: as in :meth:`fit`.

        Returns:
            A name for each.
        """
        check_is_fitted(self)
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "rows classes"]:
        """The probability of each base class.

        Args:
            X: as in :meth:`fit`.

        Returns:
            One row for each vector, one column for each of ``classes_``.

        Raises:
            ValueError: for arrays that scikit-learn refuses, and before fit.
        """
        check_is_fitted(self)
        return self._base.probabilities(_vectors(self, X))

    def adapt(self, X: Any, y: Any) -> "AdaptedFewShotClassifier":
        """The classifier of new classes, from a few examples and without another fit.

        Args:
            X: vectors, as in :meth:`fit`; one or more of each class.
            y: the class of each. Base classes are not among the answers unless given here.

        Returns:
            Its fitted classifier. This estimator stays as it is.

        Raises:
            InputError: for names of several types.
            ValueError: for arrays that scikit-learn refuses, such as one without a row, and before
                fit.
        """
        check_is_fitted(self)
        X, names = _examples(self, X, y, reset=False)
        classes, label = np.unique(names, return_inverse=True)
        with _one_thread():
            adapted = self._model.adapt(X, label)
        return AdaptedFewShotClassifier(self, classes, adapted)

    def summary(self) -> str:
        """Which method is used and why, as text."""
        check_is_fitted(self)
        rows = [f"{len(self.classes_)} base classes; new ones by {self.method_}"]
        losses = {name: loss for name, loss in self.losses_.items() if np.isfinite(loss)}
        if losses:
            rows += ["", f"{'Log loss on held-back classes':<32}"]
            rows += [f"{name:<24}{loss:>8.4f}" for name, loss in losses.items()]
        return "\n".join(rows)

    def _say(self, what: str) -> None:
        if self.verbose:
            print(f"FewShotClassifier: {what}", flush=True)


class AdaptedFewShotClassifier(ClassifierMixin, BaseEstimator):
    """The classifier of a few new classes, as :meth:`FewShotClassifier.adapt` returns it.

    Args:
        base: the estimator that it was adapted from.
        classes: names of the new classes.
        adapted: their classifier.
    """

    def __init__(self, base: FewShotClassifier, classes: Any, adapted: Any):
        self.base = base
        self.classes = classes
        self.adapted = adapted

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def classes_(self) -> Shaped[np.ndarray, " classes"]:
        """Names of the new classes."""
        return self.classes

    def fit(self, X: Any, y: Any) -> "AdaptedFewShotClassifier":
        """Adapt to other examples, in place of those before."""
        other = self.base.adapt(X, y)
        self.classes, self.adapted = other.classes, other.adapted
        return self

    def predict(self, X: Any) -> Shaped[np.ndarray, " rows"]:
        """The class of each vector, taken to be one of the new ones."""
        return self.classes_[self.predict_proba(X).argmax(1)]

    def predict_proba(self, X: Any) -> Float[np.ndarray, "rows classes"]:
        """The probability of each class, given that it is one of them.

        Args:
            X: as in :meth:`FewShotClassifier.fit`.

        Returns:
            One row for each vector, one column for each of ``classes_``.
        """
        return self.adapted.probabilities(_vectors(self.base, X))

    def probability_of_none(self, X: Any, prior: float = 0.5) -> Float[np.ndarray, " rows"]:
        """The probability that a vector is of none of the classes.

        It is Bayes' rule on the predictive density under the nearest class and under a class of
        which nothing is known, calibrated on held-back base classes.

        Args:
            X: as in :meth:`FewShotClassifier.fit`.
            prior: how often that is so beforehand.

        Returns:
            One number for each vector.

        Raises:
            InputError: if the prior is no share, or where fit had too few classes to calibrate it.
        """
        check_number("probability_of_none", "0 < prior < 1", lambda p: 0 < p < 1, prior=prior)
        X = _vectors(self.base, X)
        if self.adapted.base.calibration.known is None:
            raise InputError(
                "Nothing tells how far new classes are from known ones, since fit had too few "
                "classes of two examples or more to hold some back",
                remedy="Give fit more base classes",
            )
        return vectors.probability_of_none(self.adapted.log_odds(X), prior)

    def known(self, X: Any, prior: float = 0.5) -> Bool[np.ndarray, " rows"]:
        """Which vectors are more likely of one of the classes than of none.

        Args:
            X: as in :meth:`FewShotClassifier.fit`.
            prior: as in :meth:`probability_of_none`.

        Returns:
            A truth value for each.
        """
        return self.probability_of_none(X, prior) < 0.5


def _one_thread() -> threadpool_limits:
    """On matrices as small as these, threads of BLAS mostly wait for each other."""
    return threadpool_limits(limits=1, user_api="blas")


def _vectors(estimator: Any, X: Any) -> Float[np.ndarray, "rows columns"]:
    return np.asarray(validate_data(estimator, X, reset=False, dtype=np.float64))


def _examples(
    estimator: Any, X: Any, y: Any, *, reset: bool
) -> tuple[Float[np.ndarray, "rows columns"], Shaped[np.ndarray, " rows"]]:
    """Vectors and the name of each one's class, checked."""
    X, names = map(np.asarray, validate_data(estimator, X, y, reset=reset, dtype=np.float64))
    kinds = {type(name).__name__ for name in names.tolist()}
    if len(kinds) > 1:
        raise InputError(
            f"y holds {', '.join(sorted(kinds))}",
            allowed="names of one type, and none missing",
        )
    with warnings.catch_warnings():
        # One example of each class is what this is for.
        warnings.filterwarnings("ignore", "The number of unique classes is greater than 50%")
        check_classification_targets(names)
    return X, names


def _sample(label: Int[np.ndarray, " rows"], most: int, random: Any) -> Int[np.ndarray, " kept"]:
    """Rows of all classes, at most so many, or one of each class where those are more."""
    if len(label) <= most:
        return np.arange(len(label))
    order = random.permutation(len(label))
    order = order[np.argsort(label[order], kind="stable")]
    counts = np.bincount(label)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    place = np.arange(len(label)) - first
    share = np.maximum(1, counts * most // len(label))
    return np.sort(order[place < share[label[order]]])
