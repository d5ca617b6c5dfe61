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
from collections.abc import Callable, Iterable, Iterator
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

from pullback.grouped import logistic
from pullback.grouped.basis import AnyArray, Basis, Parameters, Rows, part
from pullback.grouped.elimination import Eliminated, eliminate

BLOCK = 2**16
"""More rows than this are taken in blocks, whose products with a group's columns fit in memory."""

MOST_STEPS = 200
"""Of L-BFGS over the population's weights alone."""


@dataclass(frozen=True)
class Mixed:
    """A fitted model.

    Args:
        basis: F and Z.
        params: its parameters.
        mean: of w.
        covariance: of w.
        noise: σ; 0 where targets are binary.
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
        f, z = self.basis.widths
        mean, across = np.zeros((groups, z)), np.zeros((groups, z, f))
        covariance = np.zeros((groups, z, z)) + np.eye(z)
        for block in _blocks(rows):
            present, first, group = np.unique(block.group, return_index=True, return_inverse=True)
            total = functools.partial(np.add.reduceat, indices=first, axis=0)
            own = self.adapt_by(total, block._replace(group=group))
            mean[present], covariance[present], across[present] = own
        return Adapted(mean, covariance, across)

    def adapt_by(self, total: Callable[[Any], Any], rows: Rows, xp: ModuleType = np) -> "Adapted":
        """The same by a function that sums rows of each group; inside ``jit`` with ``jax.numpy``.

        Args:
            total: from one row for each of ``rows`` to one for each group, in their order.
            rows: of the groups, each of which has some.
            xp: the array library to work them out with.

        Returns:
            The heads' posterior.
        """
        f, z = self.basis.columns(self.params, rows.inputs, xp)
        if self.basis.binary:
            offset = f @ self.mean
            own = logistic.adapt(offset, z, rows.y, rows.weight, rows.group, total)
            mean, covariance, share = own
        else:
            share = rows.weight / self.noise**2
            covariance = xp.linalg.inv(total(_outer(z * share[:, None], z)) + xp.eye(z.shape[1]))
            left = total(z * (share * (rows.y - f @ self.mean))[:, None])
            mean = xp.einsum("grs,gs->gr", covariance, left)
        return Adapted(mean, covariance, covariance @ total(_outer(z * share[:, None], f)))

    def predict(
        self,
        inputs: Float[AnyArray, "n inputs"],
        heads: "Adapted",
        group: Int[AnyArray, " n"],
        xp: ModuleType = np,
    ) -> tuple[Float[AnyArray, " n"], Float[AnyArray, " n"]]:
        """The mean and the variance of new targets, or of their logits where they are binary.

        Args:
            inputs: as in :class:`Rows`.
            heads: of the groups.
            group: the number of each row's group among them.
            xp: the array library to work them out with; inside ``jit`` that of JAX.

        Returns:
            Both for each row; the noise is part of the variance.
        """
        if xp is np and len(inputs) > BLOCK:
            cuts = range(BLOCK, len(inputs), BLOCK)
            parts = zip(np.split(inputs, cuts), np.split(group, cuts), strict=True)
            means, variances = zip(*(self.predict(x, heads, g) for x, g in parts), strict=True)
            return np.concatenate(means), np.concatenate(variances)
        f, z = self.basis.columns(self.params, inputs, xp)
        of_group = xp.einsum("nr,nrs,ns->n", z, heads.covariance[group], z)
        left = f - xp.einsum("nr,nrf->nf", z, heads.across[group])
        of_population = xp.einsum("nf,fe,ne->n", left, self.covariance, left)
        mean = f @ self.mean + xp.einsum("nr,nr->n", z, heads.mean[group])
        return mean, self.noise**2 + of_group + of_population

    def density(
        self,
        y: Float[np.ndarray, " n"],
        mean: Float[AnyArray, " n"],
        variance: Float[AnyArray, " n"],
    ) -> Float[np.ndarray, " n"]:
        """The predictive density of targets, or their probability where they are binary."""
        if self.basis.binary:
            one = logistic.probability(mean, variance)
            return np.where(y > 0.5, one, 1.0 - one)
        return np.exp(-0.5 * (y - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, :, None] * b[:, None, :]


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
    padded, size = _padded(rows, room[0]), rounded_up(max(groups, room[1]))
    with jax.enable_x64(True):
        params, converged = _maximise(basis, basis.init(seed), {}, padded, size, steps)
        return replace(_posterior(basis, params, [padded], size), converged=converged)


def posterior(basis: Basis, params: Parameters, rows: Rows, groups: int) -> Mixed:
    """The posterior of w at given hyperparameters.

    Args:
        basis: F and Z.
        params: its parameters; of binary targets the population's weights are found anew.
        rows: of all groups; of binary targets at most ``BLOCK``.
        groups: how many there are.

    Returns:
        The fitted model.
    """
    if basis.binary:
        padded, size = _padded(rows), rounded_up(groups)
        fixed = {name: value for name, value in params.items() if name != "population"}
        free = {"population": params["population"]}
        with jax.enable_x64(True):
            params, _ = _maximise(basis, free, fixed, padded, size, MOST_STEPS)
            return _posterior(basis, params, [padded], size)
    if len(rows.y) <= BLOCK:
        blocks = [(rows, groups)]
    else:
        blocks = [part(block, np.arange(len(block.y))) for block in _blocks(rows)]
    room, size = max(len(block.y) for block, _ in blocks), max(count for _, count in blocks)
    with jax.enable_x64(True):
        padded = (_padded(block, room) for block, _ in blocks)
        return _posterior(basis, params, padded, rounded_up(size))


def _maximise(
    basis: Basis, free: Parameters, fixed: Parameters, rows: Rows, groups: int, steps: int
) -> tuple[Parameters, bool]:
    """The parameters of the greatest evidence, and whether L-BFGS ended before its last step."""
    start, restore = jax.flatten_util.ravel_pytree(free)
    heads = logistic.zeros(basis, groups) if basis.binary else None

    def objective(flat):
        nonlocal heads
        params = {**restore(flat), **fixed}
        (value, found), slopes = _value_and_gradient(basis, groups, params, rows, heads)
        slopes = {name: slopes[name] for name in free}
        value, slope = float(value), np.asarray(jax.flatten_util.ravel_pytree(slopes)[0])
        if np.isfinite(value) and np.isfinite(slope).all():
            heads = found
            return value, slope
        return 1e10, np.zeros_like(slope)

    found = scipy.optimize.minimize(
        objective,
        np.asarray(start),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": steps, "maxcor": 20},
    )
    params = {**restore(jnp.asarray(found.x)), **fixed}
    return jax.tree.map(np.asarray, params), bool(found.success)


def _posterior(basis: Basis, params: Parameters, blocks: Iterable[Rows], groups: int) -> Mixed:
    pairs = [_population(basis, groups, params, rows) for rows in blocks]
    found, curved = (
        np.sum([np.asarray(each) for each in kind], 0) for kind in zip(*pairs, strict=True)
    )
    factor = scipy.linalg.cho_factor(curved + np.diag(basis.precision(params)))
    covariance = scipy.linalg.cho_solve(factor, np.eye(len(found)))
    if basis.binary:
        return Mixed(basis, params, found, covariance, 0.0)
    noise = float(np.sqrt(_variance(params)))
    return Mixed(basis, params, scipy.linalg.cho_solve(factor, found), covariance, noise)


def evidence(basis: Basis, params: Parameters, rows: Rows, groups: int) -> Float[Array, ""]:
    """The negative log marginal likelihood −log p(y), up to a constant.

    Args:
        basis: F and Z.
        params: its parameters.
        rows: of all groups.
        groups: how many there are.

    Returns:
        Its value, with w and every δ integrated out; for binary targets as in
        ``pullback.grouped.logistic``.
    """
    start = logistic.zeros(basis, groups) if basis.binary else None
    return _evidence(basis, params, rows, groups, start)[0]


def _evidence(
    basis: Basis, params: Parameters, rows: Rows, groups: int, start: Any
) -> tuple[Float[Array, ""], Any]:
    """The evidence, and the heads that the next one may start from."""
    if basis.binary:
        return logistic.evidence(basis, params, rows, start)
    left = _eliminated(basis, params, rows, groups)
    precision = basis.precision(params, jnp)
    factor = jnp.linalg.cholesky(left.curved + jnp.diag(precision))
    along = jax.scipy.linalg.solve_triangular(factor, left.slope, lower=True)
    variance = _variance(params, jnp)
    logs = jnp.sum(rows.weight) * jnp.log(variance) + left.log_curved
    logs += 2.0 * jnp.sum(jnp.log(jnp.diag(factor))) - jnp.sum(jnp.log(precision))
    square = rows.weight @ rows.y**2 / variance - left.square - along @ along
    return 0.5 * (square + logs), start


def _eliminated(basis: Basis, params: Parameters, rows: Rows, groups: int) -> Eliminated:
    f, z = basis.columns(params, rows.inputs, jnp)
    share = rows.weight / _variance(params, jnp)
    return eliminate(f, z, share, share * rows.y, jnp.asarray(rows.group), groups)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _population(basis: Basis, groups: int, params: Parameters, rows: Rows) -> Any:
    """The slope in w at zero, or w itself where targets are binary; and how curved it is."""
    if basis.binary:
        return logistic.population(basis, params, rows, groups)
    left = _eliminated(basis, params, rows, groups)
    return left.slope, left.curved


@functools.partial(jax.jit, static_argnums=(0, 1))
def _value_and_gradient(
    basis: Basis, groups: int, params: Parameters, rows: Rows, start: Any
) -> Any:
    def penalised(params):
        value, heads = _evidence(basis, params, rows, groups, start)
        return value + basis.penalty(params), heads

    return jax.value_and_grad(penalised, has_aux=True)(params)


def _variance(params: Parameters, xp: ModuleType = np) -> Any:
    return xp.exp(2.0 * xp.clip(params["noise"], -5.0, 2.0)) + 1e-6


def rounded_up(count: int) -> int:
    """The next of 8, 12, 16, 24, 32, ..., so that sets of nearly one size share a program."""
    size = 8
    while size < count:
        size *= 2
    return 3 * size // 4 if 3 * size // 4 >= max(count, 8) else size


def _padded(rows: Rows, room: int = 0) -> Rows:
    """Rows of no weight up to a round number."""
    missing = rounded_up(max(len(rows.y), room)) - len(rows.y)
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
