"""Models as pure functions over pytrees, losses over them, and the door for foreign ones."""

from pullback.models.conv4 import NORMALISATIONS, Conv4, patches
from pullback.models.foreign import functional
from pullback.models.losses import accuracy, cross_entropy, mean_squared_error
from pullback.models.mlp import ACTIVATIONS, MLP

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "NORMALISATIONS",
    "Conv4",
    "accuracy",
    "cross_entropy",
    "functional",
    "mean_squared_error",
    "patches",
]
