"""The same weights in the layouts of pullback, PyTorch and ``lax.conv``.

In pullback a convolution's weights are Float[filters, 9·channels], a row a filter in the order
(line, column, channel), and images have their channels last. PyTorch wants Float[filters,
channels, 3, 3] and channels first, JAX's own convolution Float[3, 3, channels, filters]. Any
leading axes, such as one of tasks, stay.
"""

import numpy as np

LAYERS = 4


def _is_convolution(name):
    return name.startswith("conv") and name.endswith("/weight")


def to_torch(weights):
    """From pullback's layout to PyTorch's, by name."""
    found = {}
    for name, array in weights.items():
        if _is_convolution(name):
            windows = array.reshape(*array.shape[:-1], 3, 3, -1)
            array = np.moveaxis(windows, -1, -3)
        elif name == "linear/weight":
            array = _swap_features(array, channels_last=True)
            array = np.swapaxes(array, -1, -2)
        found[name] = np.ascontiguousarray(array)
    return found


def from_torch(weights):
    """Back again."""
    channels = weights["conv3/bias"].shape[-1]
    found = {}
    for name, array in weights.items():
        if _is_convolution(name):
            windows = np.moveaxis(array, -3, -1)
            array = windows.reshape(*windows.shape[:-3], -1)
        elif name == "linear/weight":
            array = np.swapaxes(array, -1, -2)
            array = _swap_features(array, channels_last=False, channels=channels)
        found[name] = np.ascontiguousarray(array)
    return found


def _swap_features(array, channels_last, channels=None):
    """The rows of the last layer, one a feature, from (h, w, c) to (c, h, w) or back."""
    *lead, features, ways = array.shape
    pixels = 4 if channels is None else features // channels
    if channels_last:
        cube = array.reshape(*lead, pixels, features // pixels, ways)
    else:
        cube = array.reshape(*lead, channels, pixels, ways)
    return np.swapaxes(cube, -2, -3).reshape(*lead, features, ways)


def to_convolution(weights):
    """From pullback's layout to that of JAX's own convolution."""
    found = {}
    for name, array in weights.items():
        if _is_convolution(name):
            windows = array.reshape(*array.shape[:-1], 3, 3, -1)
            array = np.moveaxis(windows, -4, -1)
        found[name] = np.ascontiguousarray(array)
    return found


def from_convolution(weights):
    """Back again."""
    found = {}
    for name, array in weights.items():
        if _is_convolution(name):
            rows = np.moveaxis(np.asarray(array), -1, -4)
            array = rows.reshape(*rows.shape[:-3], -1)
        found[name] = np.ascontiguousarray(array)
    return found


def nested(weights):
    """``"conv0/weight"`` and so on as the tree that pullback's models take."""
    tree = {}
    for name, array in weights.items():
        layer, part = name.split("/")
        tree.setdefault(layer, {})[part] = array
    return tree


def flat(tree):
    """Back again, as NumPy arrays."""
    return {
        f"{layer}/{part}": np.asarray(array)
        for layer, parts in tree.items()
        for part, array in parts.items()
    }
