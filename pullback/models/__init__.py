"""Models as pure functions over pytrees, losses over them, and the door for foreign ones."""

from pullback.models.activations import ACTIVATIONS, find_activation
from pullback.models.conv4 import NORMALISATIONS, Conv4
from pullback.models.convolution import convolve, patches
from pullback.models.losses import accuracy, cross_entropy, mean_squared_error
from pullback.models.mlp import MLP
from pullback.models.modules import functional

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "NORMALISATIONS",
    "Conv4",
    "accuracy",
    "convolve",
    "cross_entropy",
    "find_activation",
    "functional",
    "mean_squared_error",
    "patches",
]
