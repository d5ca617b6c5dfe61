"""Models as pure functions over pytrees, losses over them, and adapters for other libraries."""

from pullback.models.activations import find_activation
from pullback.models.conv4 import Conv4
from pullback.models.convolution import convolve, extract_patches
from pullback.models.head import Head, LinearHead
from pullback.models.linear import Linear
from pullback.models.losses import (
    MeanLoss,
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    mean_squared_error,
    poisson_loss,
    without_aux,
)
from pullback.models.mlp import MLP
from pullback.models.modules import functional
from pullback.registries import ACTIVATIONS, MODELS, NORMALISATIONS

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "MODELS",
    "NORMALISATIONS",
    "Conv4",
    "Head",
    "Linear",
    "LinearHead",
    "MeanLoss",
    "accuracy",
    "binary_cross_entropy",
    "convolve",
    "cross_entropy",
    "extract_patches",
    "find_activation",
    "functional",
    "mean_squared_error",
    "poisson_loss",
    "without_aux",
]
