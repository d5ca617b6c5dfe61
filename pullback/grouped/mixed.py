"""A linear head for each group, in closed form: the linear mixed model over any basis.

The rows of group g are modelled as

    y = F(x) w + Z(x) δ_g + ε,    δ_g ~ N(0, I),    ε ~ N(0, σ²),    w ~ N(0, P⁻¹),

with Z = F·L for a factor L of the covariance between groups (Laird & Ware 1982). It is iMAML's
inner problem with a quadratic loss: θ is the population's head, φ_g = w + Lδ_g the group's own, the
pull ½‖δ_g‖² has its Λ in L, and the minimum, log|H + Λ| and every derivative are closed forms. So
nothing is sampled: L, σ and what is learned of the basis maximise the marginal likelihood of all
rows at once, w integrated out, which for a flat prior of w is REML.

Rows of all groups lie in one array, with the number of the group beside each; sums over a group are
segment sums, so that groups of unequal sizes cost what their rows cost.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
from jaxtyping import Array, Float, Int

Parameters = Mapping[str, Any]

FLAT = 1e-4
"""The prior precision of the population's weights, of numbers in standard deviations."""

MOST_PRODUCTS = 24
"""Up to so many, products of a varying and a constant column are columns of the basis."""

BLOCK = 2**16
"""More rows than this are taken in blocks, whose products with a group's columns fit in memory."""


class Rows(NamedTuple):
    """Rows of all groups; inside ``jit`` arrays of JAX.

    Args:
        inputs: columns that vary within groups, then those that do not, then extra ones for a
            learned basis; in standard deviations.
        y: the targets, in standard deviations.
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
    """

    varying: int
    constant: int
    extra: int = 0
    hidden: int = 0
    rank: int = 4
    grouped: bool = True

    @property
    def products(self) -> int:
        """Products of a varying with a constant column."""
        count = self.varying * self.constant
        return count if self.grouped and not self.hidden and count <= MOST_PRODUCTS else 0

    def init(self, seed: int) -> Parameters:
        """Parameters to start from."""
        rng = np.random.default_rng(seed)
        linear = 1 + self.varying
        params: dict[str, Any] = {"noise": np.array(np.log(0.5))}
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
        one = xp.ones((len(inputs), 1), inputs.dtype)
        varying = inputs[:, : self.varying]
        constant = inputs[:, self.varying : self.varying + self.constant]
        parts = [one, varying, constant]
        if self.products:
            crossed = varying[:, :, None] * constant[:, None, :]
            parts.append(crossed.reshape(len(inputs), self.products))
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
        flat = xp.full(1 + self.varying + self.constant, FLAT)
        learned = self.products + self.hidden
        if not learned:
            return flat
        return xp.concatenate([flat, xp.exp(-2.0 * params["reach"]) * xp.ones(learned)])

    def penalty(self, params: Parameters) -> Any:
        """The negative logarithm of the hyperparameters' prior, up to a constant."""
        total = 0.5 * ((params["noise"] - np.log(0.5)) / (2.0 if self.hidden else 10.0)) ** 2
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


@dataclass(frozen=True)
class Mixed:
    """A fitted model.

    Args:
        basis: F and Z.
        params: its parameters.
        mean: of w.
        covariance: of w.
        noise: σ.
        converged: whether L-BFGS ended before its last step.
    """

    basis: Basis
    params: Parameters
    mean: Float[np.ndarray, " f"]
    covariance: Float[np.ndarray, "f f"]
    noise: float
    converged: bool = True

    def adapt(self, rows: Rows, groups: int) -> "Adapted":
        """Each group's own head, from its rows.

        Args:
            rows: of the groups, numbered from 0.
            groups: how many there are.

        Returns:
            The heads' posterior.
        """
        f, z = (part.shape[1] for part in self.basis.columns(self.params, rows.inputs[:0]))
        mean, across = np.zeros((groups, z)), np.zeros((groups, z, f))
        covariance = np.zeros((groups, z, z)) + np.eye(z)
        for block in _blocks(rows):
            present, first = np.unique(block.group, return_index=True)
            own = self._adapt(block, first)
            mean[present], covariance[present], across[present] = own
        return Adapted(mean, covariance, across)

    def _adapt(self, rows: Rows, first: Int[np.ndarray, " groups"]) -> "Adapted":
        """The same for rows in the order of their groups, each of which begins at ``first``."""
        f, z = self.basis.columns(self.params, rows.inputs)
        weighted = z * (rows.weight / self.noise**2)[:, None]
        total = functools.partial(np.add.reduceat, indices=first, axis=0)
        curved = total(weighted[:, :, None] * z[:, None, :]) + np.eye(z.shape[1])
        inverse = np.linalg.inv(curved)
        left = total(weighted * (rows.y - f @ self.mean)[:, None])
        across = total(weighted[:, :, None] * f[:, None, :])
        return Adapted(np.einsum("grs,gs->gr", inverse, left), inverse, inverse @ across)

    def predict(
        self,
        inputs: Float[np.ndarray, "n inputs"],
        heads: "Adapted",
        group: Int[np.ndarray, " n"],
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """The mean and the variance of new targets.

        Args:
            inputs: as in :class:`Rows`.
            heads: of the groups.
            group: the number of each row's group among them.

        Returns:
            Both for each row; the noise is part of the variance.
        """
        if len(inputs) > BLOCK:
            cuts = range(BLOCK, len(inputs), BLOCK)
            parts = zip(np.split(inputs, cuts), np.split(group, cuts), strict=True)
            means, variances = zip(*(self.predict(x, heads, g) for x, g in parts), strict=True)
            return np.concatenate(means), np.concatenate(variances)
        f, z = self.basis.columns(self.params, inputs)
        of_group = np.einsum("nr,nrs,ns->n", z, heads.covariance[group], z)
        left = f - np.einsum("nr,nrf->nf", z, heads.across[group])
        of_population = np.einsum("nf,fe,ne->n", left, self.covariance, left)
        mean = f @ self.mean + np.einsum("nr,nr->n", z, heads.mean[group])
        return mean, self.noise**2 + of_group + of_population


class Adapted(NamedTuple):
    """The posterior of δ for each group; all of it is N(0, I) for a group without rows.

    Args:
        mean: at the mean of w.
        covariance: at any one w.
        across: by how much the mean falls with w.
    """

    mean: Float[np.ndarray, "groups r"]
    covariance: Float[np.ndarray, "groups r r"]
    across: Float[np.ndarray, "groups r f"]


def fit(
    basis: Basis,
    rows: Rows,
    groups: int,
    *,
    seed: int = 0,
    steps: int = 150,
    room: tuple[int, int] = (0, 0),
) -> Mixed:
    """Maximise the marginal likelihood by L-BFGS, on all rows at once.

    Args:
        basis: F and Z.
        rows: of all groups.
        groups: how many there are.
        seed: of the learned features' start.
        steps: the most iterations.
        room: rows and groups to compile for, where fits to more of both are to come.

    Returns:
        The fitted model.
    """
    padded, size = _padded(rows, room[0]), _rounded_up(max(groups, room[1]))
    with jax.enable_x64(True):
        start, restore = jax.flatten_util.ravel_pytree(basis.init(seed))

        def objective(flat):
            value, slope = _value_and_gradient(basis, size, restore(flat), padded)
            value, slope = float(value), np.asarray(jax.flatten_util.ravel_pytree(slope)[0])
            if np.isfinite(value) and np.isfinite(slope).all():
                return value, slope
            return 1e10, np.zeros_like(slope)

        found = scipy.optimize.minimize(
            objective,
            np.asarray(start),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "maxcor": 20},
        )
        params = restore(jnp.asarray(found.x))
        params = jax.tree.map(np.asarray, params)
        model = _posterior(basis, params, [padded], size)
        return replace(model, converged=bool(found.success))


def posterior(basis: Basis, params: Parameters, rows: Rows, groups: int) -> Mixed:
    """The posterior of w at given hyperparameters.

    Args:
        basis: F and Z.
        params: its parameters.
        rows: of all groups.
        groups: how many there are.

    Returns:
        The fitted model.
    """
    if len(rows.y) <= BLOCK:
        blocks = [(rows, groups)]
    else:
        blocks = [part(block, np.arange(len(block.y))) for block in _blocks(rows)]
    room, size = max(len(block.y) for block, _ in blocks), max(count for _, count in blocks)
    with jax.enable_x64(True):
        padded = (_padded(block, room) for block, _ in blocks)
        return _posterior(basis, params, padded, _rounded_up(size))


def _posterior(basis: Basis, params: Parameters, blocks: Iterable[Rows], groups: int) -> Mixed:
    sums = [_collapsed(basis, groups, params, rows) for rows in blocks]
    curved = np.sum([np.asarray(each.curved) for each in sums], axis=0)
    slope = np.sum([np.asarray(each.slope) for each in sums], axis=0)
    factor = scipy.linalg.cho_factor(curved + np.diag(basis.precision(params)))
    covariance = scipy.linalg.cho_solve(factor, np.eye(len(slope)))
    noise = float(np.sqrt(_variance(params)))
    return Mixed(basis, params, scipy.linalg.cho_solve(factor, slope), covariance, noise)


def evidence(basis: Basis, params: Parameters, rows: Rows, groups: int) -> Float[Array, ""]:
    """The negative log marginal likelihood −log p(y), up to a constant.

    Args:
        basis: F and Z.
        params: its parameters.
        rows: of all groups.
        groups: how many there are.

    Returns:
        Its value, with w and every δ integrated out.
    """
    summed = _sums(basis, params, rows, groups)
    precision = basis.precision(params, jnp)
    factor = jnp.linalg.cholesky(summed.curved + jnp.diag(precision))
    along = jax.scipy.linalg.solve_triangular(factor, summed.slope, lower=True)
    logs = summed.log_curved + 2.0 * jnp.sum(jnp.log(jnp.diag(factor)))
    return 0.5 * (summed.square - along @ along + logs - jnp.sum(jnp.log(precision)))


class _Sums(NamedTuple):
    """What is left of all rows once every δ is integrated out.

    Args:
        curved: FᵀV⁻¹F.
        slope: FᵀV⁻¹y.
        square: yᵀV⁻¹y.
        log_curved: log|V|.
    """

    curved: Float[Array, "f f"]
    slope: Float[Array, " f"]
    square: Float[Array, ""]
    log_curved: Float[Array, ""]


def _sums(basis: Basis, params: Parameters, rows: Rows, groups: int) -> _Sums:
    f, z = basis.columns(params, rows.inputs, jnp)
    variance = _variance(params, jnp)
    share = rows.weight / variance
    both = jnp.concatenate([f, rows.y[:, None]], 1)
    whole = both.T @ (both * share[:, None])
    logs = jnp.sum(rows.weight) * jnp.log(variance)
    if z.shape[1]:
        total = functools.partial(jax.ops.segment_sum, segment_ids=rows.group, num_segments=groups)
        weighted = z * share[:, None]
        curved = total(weighted[:, :, None] * z[:, None, :]) + jnp.eye(z.shape[1])
        factor = jnp.linalg.cholesky(curved)
        across = total(weighted[:, :, None] * both[:, None, :])
        solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True)
        along = jax.vmap(solve)(factor, across)
        whole = whole - jnp.einsum("gri,grj->ij", along, along)
        logs = logs + 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor, axis1=1, axis2=2)))
    return _Sums(whole[:-1, :-1], whole[:-1, -1], whole[-1, -1], logs)


_collapsed = jax.jit(
    lambda basis, groups, params, rows: _sums(basis, params, rows, groups), static_argnums=(0, 1)
)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradient(basis: Basis, groups: int, params: Parameters, rows: Rows) -> Any:
    return jax.value_and_grad(
        lambda params: evidence(basis, params, rows, groups) + basis.penalty(params)
    )(params)


def _variance(params: Parameters, xp: ModuleType = np) -> Any:
    return xp.exp(2.0 * xp.clip(params["noise"], -5.0, 2.0)) + 1e-6


def _rounded_up(count: int) -> int:
    """The next of 8, 12, 16, 24, 32, ..., so that sets of nearly one size share a program."""
    size = 8
    while size < count:
        size *= 2
    return 3 * size // 4 if 3 * size // 4 >= max(count, 8) else size


def _padded(rows: Rows, room: int = 0) -> Rows:
    """Rows of no weight up to a round number."""
    missing = _rounded_up(max(len(rows.y), room)) - len(rows.y)
    filled = [np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) for a in rows]
    return Rows(*filled)


def _blocks(rows: Rows) -> Iterator[Rows]:
    """All rows, sorted by group, in blocks of whole groups of about ``BLOCK`` rows."""
    order = np.argsort(rows.group, kind="stable")
    sorted_ = rows.group[order]
    _, first, sizes = np.unique(sorted_, return_index=True, return_counts=True)
    cuts = np.flatnonzero(np.diff(np.repeat(first // BLOCK, sizes))) + 1
    for chosen in np.split(order, cuts) if len(order) else ():
        yield Rows(*[a[chosen] for a in rows])


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
