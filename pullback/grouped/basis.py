"""Rows of groups, and the columns F(x) and Z(x) that a linear head of each group is given."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

Parameters = Mapping[str, Any]

AnyArray = np.ndarray | Array
"""Of NumPy, or of JAX inside ``jit``."""

FLAT = 1e-4
"""The prior precision of the population's weights, of numbers in standard deviations."""

NEARLY_FLAT_LOGITS = 0.01
"""Of weights of logits: flat, but for columns that tell all zeros from all ones."""

MOST_PRODUCTS = 24
"""Up to so many, products of a varying and a constant column are columns of the basis."""


class Rows(NamedTuple):
    """Rows of all groups; inside ``jit`` arrays of JAX.

    Args:
        inputs: columns that vary within groups, then those that do not, then extra ones for a
            learned basis; in standard deviations.
        y: the targets, in standard deviations; 0 or 1 where they are binary.
        weight: what each row counts for; 0 for padding.
        group: the number of the group.
    """

    inputs: Float[np.ndarray, "n inputs"]
    y: Float[np.ndarray, " n"]
    weight: Float[np.ndarray, " n"]
    group: Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Basis:
    """F(x) and Z(x): the columns themselves, and a layer of features learned from them.

    Args:
        varying: columns that vary within groups; their slopes differ between groups.
        constant: columns that do not.
        extra: further columns, for the learned features alone.
        hidden: learned features; 0 for the linear mixed model.
        rank: of the covariance between groups, with learned features; without it is full.
        grouped: whether there are groups at all.
        binary: whether targets are 0 or 1, so that it is their logits that are modelled.
    """

    varying: int
    constant: int
    extra: int = 0
    hidden: int = 0
    rank: int = 4
    grouped: bool = True
    binary: bool = False

    @property
    def products(self) -> int:
        """Products of a varying with a constant column."""
        count = self.varying * self.constant
        return count if self.grouped and not self.hidden and count <= MOST_PRODUCTS else 0

    @property
    def widths(self) -> tuple[int, int]:
        """Columns of F and of Z."""
        linear = 1 + self.varying
        own = (self.rank if self.hidden else linear) if self.grouped else 0
        return linear + self.constant + self.products + self.hidden, own

    def init(self, seed: int) -> Parameters:
        """Parameters to start from."""
        rng = np.random.default_rng(seed)
        linear = 1 + self.varying
        params: dict[str, Any] = {"noise": np.array(np.log(0.5))}
        if self.binary:
            params = {"population": np.zeros(1 + self.varying + self.constant)}
        if self.hidden:
            inputs = self.varying + self.constant + self.extra
            params["weight"] = rng.normal(size=(inputs, self.hidden))
            params["bias"] = rng.normal(size=self.hidden)
            params["reach"] = np.array(np.log(0.3))
        elif self.products:
            params["reach"] = np.array(np.log(0.3))
        if self.grouped and self.hidden:
            spread = 0.05 * rng.normal(size=(linear, self.rank))
            spread[0, 0] += 0.4
            params["spread"] = spread
            params["hidden_spread"] = 0.3 * rng.normal(size=(self.hidden, self.rank))
        elif self.grouped:
            spread = 0.05 * np.eye(linear)
            spread[0, 0] = 0.4
            params["spread"] = spread
        return params

    def columns(self, params: Parameters, inputs: Any, xp: ModuleType = np) -> tuple[Any, Any]:
        """F and Z.

        Args:
            params: as from :meth:`init`.
            inputs: as in :class:`Rows`.
            xp: the array library to work them out with.

        Returns:
            F, one row a row, and Z, with no column where there are no groups.
        """
        one = xp.ones((inputs.shape[0], 1), inputs.dtype)
        varying = inputs[:, : self.varying]
        constant = inputs[:, self.varying : self.varying + self.constant]
        parts = [one, varying, constant]
        if self.products:
            crossed = varying[:, :, None] * constant[:, None, :]
            parts.append(crossed.reshape(inputs.shape[0], self.products))
        within = xp.concatenate([one, varying], 1)
        if not self.hidden:
            z = within @ xp.tril(params["spread"]) if self.grouped else within[:, :0]
            return xp.concatenate(parts, 1), z
        slope = 1.5 / inputs.shape[1] ** 0.5
        before = slope * (inputs @ params["weight"]) + params["bias"]
        features = before / (1.0 + xp.exp(-before)) / self.hidden**0.5
        parts.append(features)
        if not self.grouped:
            return xp.concatenate(parts, 1), within[:, :0]
        z = within @ params["spread"] + features @ params["hidden_spread"]
        return xp.concatenate(parts, 1), z

    def precision(self, params: Parameters, xp: ModuleType = np) -> Any:
        """P, of each column of F."""
        flat = NEARLY_FLAT_LOGITS if self.binary else FLAT
        flat = xp.full(1 + self.varying + self.constant, flat)
        learned = self.products + self.hidden
        if not learned:
            return flat
        return xp.concatenate([flat, xp.exp(-2.0 * params["reach"]) * xp.ones(learned)])

    def penalty(self, params: Parameters) -> Any:
        """The negative logarithm of the hyperparameters' prior, up to a constant."""
        total = jnp.zeros(())
        if "noise" in params:
            total += 0.5 * ((params["noise"] - np.log(0.5)) / (2.0 if self.hidden else 10.0)) ** 2
        if "reach" in params:
            centre = -1.0 if self.hidden else np.log(0.3)
            total += 0.5 * ((params["reach"] - centre) / 1.5) ** 2
        precisions = PRIOR if self.hidden else {"spread": NEARLY_FLAT}
        for name, precision in precisions.items():
            if name in params:
                total += 0.5 * precision * jnp.sum(params[name] ** 2)
        return total


PRIOR = {"weight": 1.0, "bias": 1.0, "spread": 1.0, "hidden_spread": 2.0}
"""Prior precisions of hyperparameters, in standard deviations of the columns and of y."""

NEARLY_FLAT = 0.01
"""That of the linear model's spread, which is REML's but for groups that say nothing of it."""


def part(rows: Rows, chosen: np.ndarray) -> tuple[Rows, int]:
    """The rows that a mask chooses, their groups numbered anew.

    Args:
        rows: of all groups.
        chosen: one truth value for each row, or the numbers of rows.

    Returns:
        The rows, and the number of groups that are left.
    """
    kept = Rows(*[a[chosen] for a in rows])
    names, group = np.unique(kept.group, return_inverse=True)
    return kept._replace(group=group.astype(np.int64)), len(names)
