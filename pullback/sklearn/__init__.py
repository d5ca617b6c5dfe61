"""Estimators for people with their own data, by scikit-learn's conventions.

It needs scikit-learn: ``pip install 'pullback[sklearn]'``.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pullback.sklearn needs scikit-learn; install it by: pip install 'pullback[sklearn]'"
    ) from error

from pullback.sklearn.classifier import AdaptedClassifier, MetaClassifier
from pullback.sklearn.few_shot import AdaptedFewShotClassifier, FewShotClassifier
from pullback.sklearn.regressor import AdaptedRegressor, MetaRegressor

__all__ = [
    "AdaptedClassifier",
    "AdaptedFewShotClassifier",
    "AdaptedRegressor",
    "FewShotClassifier",
    "MetaClassifier",
    "MetaRegressor",
]
