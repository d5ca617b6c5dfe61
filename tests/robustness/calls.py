"""Calls of the library that cannot be meant, and what their message must say."""

import closed_forms as cf

from pullback.algorithms import imaml

CALLS = {
    "zero strength": (lambda: imaml(cf.loss, strength=0.0), ["0.0", "positive", "strength=None"]),
}
