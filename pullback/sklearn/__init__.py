"""Estimators for people with their own data, by scikit-learn's conventions.

It needs scikit-learn: ``pip install 'pullback[sklearn]'``.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pullback.sklearn needs scikit-learn; install it by: pip install 'pullback[sklearn]'"
    ) from error

from pullback.sklearn.base import AdaptedRegressor
from pullback.sklearn.classifier import AdaptedClassifier, MetaClassifier
from pullback.sklearn.curve import AdaptedCurve, CurveRegressor
from pullback.sklearn.few_shot import AdaptedFewShotClassifier, FewShotClassifier
from pullback.sklearn.regressor import MetaRegressor

__all__ = [
    "AdaptedClassifier",
    "AdaptedCurve",
    "AdaptedFewShotClassifier",
    "AdaptedRegressor",
    "CurveRegressor",
    "FewShotClassifier",
    "MetaClassifier",
    "MetaRegressor",
]
