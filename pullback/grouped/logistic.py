"""Binary targets over the same basis: the logistic mixed model.

The logit of a row is η = F(x)w + Z(x)δ_g with the priors of :mod:`pullback.grouped.mixed`. The
weights of the columns themselves are found with the hyperparameters, as by lme4's glmer: at the
mode of the groups' heads they would be drawn toward zero (Breslow & Clayton 1993). The others, of
products and of learned features, are integrated out by the Gaussian about those that are most
probable (Laplace's approximation, Tierney & Kadane 1986). So is every δ where it has many numbers;
one of few is integrated out by points about its mode, since of a few rows its posterior is
lopsided. The modes are found by Newton's method, each step of which is a linear mixed model with a
weight of its own for each row. The gradient of the evidence sees them move with the
hyperparameters: one more Newton step at the mode has the derivative of the implicit function
theorem, and moves nothing.
"""

import functools
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import expit
from scipy.stats import norm, qmc

from pullback.grouped.basis import AnyArray, Basis, Rows
from pullback.grouped.elimination import Eliminated, eliminate

MOST_STEPS = 50

SHORTER = 2.0 ** -np.arange(12)
"""Parts of a Newton step that are tried."""

POINTS = 64
"""About each group's mode."""

MOST_INTEGRATED = 4
"""Up to so many numbers in δ it is integrated out by points, and not by Laplace's approximation."""

DONE = 1e-10
"""A step that lowers the objective by less than this part of it is the last."""


class Heads(NamedTuple):
    """What is integrated out.

    Args:
        w: the population's weights of products and of learned features.
        own: every δ.
    """

    w: Float[Array, " e"]
    own: Float[Array, "groups r"]


class _Columns(NamedTuple):
    offset: Float[Array, " n"]
    f: Float[Array, "n e"]
    z: Float[Array, "n r"]
    precision: Float[Array, " e"]


def zeros(basis: Basis, groups: int) -> Heads:
    """Heads to start from, in the precision that is on."""
    population, own = basis.widths
    return Heads(jnp.zeros(population - _flat(basis)), jnp.zeros((groups, own)))


def evidence(
    basis: Basis, params: Mapping[str, Any], rows: Rows, start: Heads
) -> tuple[Float[Array, ""], Heads]:
    """The negative log marginal likelihood, up to a constant.

    Args:
        basis: F and Z.
        params: its parameters.
        rows: of all groups; y is 0 or 1.
        start: heads near the mode, such as those of nearly the same parameters.

    Returns:
        Its value, and the heads at the mode.
    """
    columns = _columns(basis, params, rows)
    found = _mode(*jax.lax.stop_gradient((columns, rows, start)))
    heads = _newton(columns, rows, found)
    logits = _logits(columns, rows, heads)
    left = _quadratic(columns, rows, logits, len(heads.own))
    factor = jnp.linalg.cholesky(left.curved + jnp.diag(columns.precision))
    logs = 2.0 * jnp.sum(jnp.log(jnp.diag(factor))) - jnp.sum(jnp.log(columns.precision))
    prior = basis.precision(params, jnp)[: _flat(basis)] @ params["population"] ** 2
    prior += columns.precision @ heads.w**2
    if 0 < columns.z.shape[1] <= MOST_INTEGRATED:
        value = jnp.sum(_integrated(columns, rows, heads, left))
    else:
        value = _loss(rows, logits) + 0.5 * (jnp.sum(heads.own**2) + left.log_curved)
    return value + 0.5 * (prior + logs), found


def _integrated(
    columns: _Columns, rows: Rows, heads: Heads, left: Eliminated
) -> Float[Array, " groups"]:
    """Each group's −log ∫ p(y | w, δ) p(δ) dδ, by points about the mode."""
    noise = jnp.asarray(_noise(columns.z.shape[1], POINTS), columns.z.dtype)
    solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True, trans=1)
    reach = _reach(columns.z.shape[1])
    # The factor of a group's curvature C = KKᵀ gives points of covariance C⁻¹: K⁻ᵀε.
    spread = jax.vmap(lambda factor: solve(factor, reach * noise.T).T)(left.factor)
    points = heads.own[:, None] + spread
    shared = columns.offset + columns.f @ heads.w
    logits = shared[:, None] + jnp.einsum("nr,nmr->nm", columns.z, points[rows.group])
    each = rows.weight[:, None] * (jax.nn.softplus(logits) - rows.y[:, None] * logits)
    fit = jax.ops.segment_sum(each, rows.group, num_segments=len(heads.own))
    logs = 0.5 * jnp.sum(noise**2, 1) - 0.5 * jnp.sum(points**2, 2) - fit
    volume = jnp.sum(jnp.log(reach) - jnp.log(jnp.diagonal(left.factor, axis1=1, axis2=2)), 1)
    return -jax.nn.logsumexp(logs, 1) + jnp.log(len(noise)) - volume


def _reach(width: int) -> float:
    """How far points go: Laplace's tails are too light, which more dimensions feel less of."""
    return (1.0 + 1.25 / width) ** 0.5


def _noise(width: int, count: int) -> Float[np.ndarray, "points width"]:
    return norm.ppf(qmc.Sobol(width, seed=0).random(count))  # pyright: ignore[reportCallIssue]


def population(
    basis: Basis, params: Mapping[str, Any], rows: Rows, groups: int
) -> tuple[Float[Array, " f"], Float[Array, "f f"]]:
    """The population's weights, and how curved the objective is in them with every δ following.

    Args:
        basis: F and Z.
        params: its parameters.
        rows: of all groups.
        groups: how many there are.

    Returns:
        w, and FᵀSF less what the groups take of it.
    """
    columns = _columns(basis, params, rows)
    heads = _mode(columns, rows, zeros(basis, groups))
    f, _ = basis.columns(params, rows.inputs, jnp)
    logits = _logits(columns, rows, heads)
    left = _quadratic(columns._replace(f=f), rows, logits, groups)
    return jnp.concatenate([params["population"], heads.w]), left.curved


def _flat(basis: Basis) -> int:
    return 1 + basis.varying + basis.constant


def _columns(basis: Basis, params: Mapping[str, Any], rows: Rows) -> _Columns:
    f, z = basis.columns(params, rows.inputs, jnp)
    flat = _flat(basis)
    offset = f[:, :flat] @ params["population"]
    return _Columns(offset, f[:, flat:], z, basis.precision(params, jnp)[flat:])


def _logits(columns: _Columns, rows: Rows, heads: Heads) -> Float[Array, " n"]:
    own = jnp.sum(columns.z * heads.own[rows.group], 1)
    return columns.offset + columns.f @ heads.w + own


def _objective(
    columns: _Columns, rows: Rows, heads: Heads, logits: Float[Array, " n"]
) -> Float[Array, ""]:
    """−log p(y, w, δ), up to a constant."""
    prior = columns.precision @ heads.w**2 + jnp.sum(heads.own**2)
    return _loss(rows, logits) + 0.5 * prior


def _loss(rows: Rows, logits: Float[Array, " n"]) -> Float[Array, ""]:
    return jnp.asarray(rows.weight) @ (jax.nn.softplus(logits) - rows.y * logits)


def _quadratic(
    columns: _Columns, rows: Rows, logits: Float[Array, " n"], groups: int
) -> Eliminated:
    one = jax.nn.sigmoid(logits)
    weight, y = jnp.asarray(rows.weight), jnp.asarray(rows.y)
    share = weight * one * (1.0 - one)
    pull = share * (logits - columns.offset) + weight * (y - one)
    return eliminate(columns.f, columns.z, share, pull, jnp.asarray(rows.group), groups)


def _newton(columns: _Columns, rows: Rows, heads: Heads) -> Heads:
    left = _quadratic(columns, rows, _logits(columns, rows, heads), len(heads.own))
    w = jnp.linalg.solve(left.curved + jnp.diag(columns.precision), left.slope)
    return Heads(w, left.own(w) if columns.z.shape[1] else heads.own)


def _mode(columns: _Columns, rows: Rows, start: Heads) -> Heads:
    """Newton's method; the objective is convex, and a step that raises it is shortened."""
    parts = jnp.asarray(SHORTER, columns.offset.dtype)

    def along(heads, step, part):
        return jax.tree.map(lambda a, b: a + part * (b - a), heads, step)

    def one(state):
        heads, value, _, count = state
        step = _newton(columns, rows, heads)
        before, after = (_logits(columns, rows, h) for h in (heads, step))

        def at(part):
            moved = along(heads, step, part)
            return _objective(columns, rows, moved, before + part * (after - before))

        values = jax.lax.map(at, parts)
        best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
        better = values[best] < value
        part, found = jnp.where(better, parts[best], 0.0), jnp.where(better, values[best], value)
        going = value - found > DONE * (1.0 + jnp.abs(value))
        return along(heads, step, part), found, going, count + 1

    value = _objective(columns, rows, start, _logits(columns, rows, start))
    state = (start, value, jnp.array(True), 0)
    return jax.lax.while_loop(lambda s: s[2] & (s[3] < MOST_STEPS), one, state)[0]


class OwnPosterior(NamedTuple):
    """The posterior of each group's δ at one w.

    Args:
        mean: of δ.
        covariance: of δ.
        share: S, how curved each row is at the mode.
    """

    mean: Float[np.ndarray, "groups r"]
    covariance: Float[np.ndarray, "groups r r"]
    share: Float[np.ndarray, " n"]


def adapt(
    offset: Float[np.ndarray, " n"],
    z: Float[np.ndarray, "n r"],
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    total: Callable[[Any], Any],
) -> OwnPosterior:
    """Each group's δ from its rows: the mode by Newton's method, then the mean about it.

    Of a few rows that all say the same the posterior is lopsided: its mean lies well beyond its
    mode. Mean and covariance are therefore those of points about the mode, weighted by the
    posterior's density (importance sampling, with a fixed Sobol sequence).

    Args:
        offset: Fw.
        z: Z.
        y: the targets.
        weight: what each row counts for.
        group: the number of each row's group.
        total: sums rows of each group.

    Returns:
        The posterior; Laplace's where the weights are too uneven.
    """

    def value(own):
        logits = offset + np.einsum("nr,nr->n", z, own[group])
        return total(weight * (np.logaddexp(0.0, logits) - y * logits)) + 0.5 * (own**2).sum(1)

    def curved(own):
        one = expit(offset + np.einsum("nr,nr->n", z, own[group]))
        share = weight * one * (1.0 - one)
        whole = total((z * share[:, None])[:, :, None] * z[:, None, :]) + np.eye(z.shape[1])
        return share, whole, total(z * (weight * (y - one))[:, None]) - own

    own = np.zeros((len(total(weight)), z.shape[1]))
    lowest = value(own)
    for _ in range(MOST_STEPS):
        _, whole, slope = curved(own)
        step = np.linalg.solve(whole, slope[:, :, None])[:, :, 0]
        part = np.ones(len(own))
        moved = own + step
        found = value(moved)
        worse = ~(found <= lowest)
        for _ in SHORTER:
            if not worse.any():
                break
            part[worse] /= 2
            moved = own + part[:, None] * step
            found = value(moved)
            worse = ~(found <= lowest)
        moved[worse], found[worse] = own[worse], lowest[worse]
        lowered = lowest - found
        own, lowest = moved, found
        if (lowered <= DONE * (1.0 + np.abs(lowest))).all():
            break
    share, whole, _ = curved(own)
    covariance = np.linalg.inv(whole)
    if not z.shape[1]:
        return OwnPosterior(own, covariance, share)
    return OwnPosterior(*_moments(value, own, covariance, total(weight) > 0), share)


def _moments(
    value: Callable[[Any], Any],
    mode: Float[np.ndarray, "groups r"],
    covariance: Float[np.ndarray, "groups r r"],
    informed: Bool[np.ndarray, " groups"],
) -> tuple[Float[np.ndarray, "groups r"], Float[np.ndarray, "groups r r"]]:
    noise = _noise(mode.shape[1], POINTS)
    spread = _reach(mode.shape[1]) * np.linalg.cholesky(covariance)
    points = mode[:, None] + np.einsum("grs,ms->gmr", spread, noise)
    logs = 0.5 * (noise**2).sum(1) - np.stack([value(points[:, m]) for m in range(POINTS)], 1)
    weights = np.exp(logs - logs.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    mean = np.einsum("gm,gmr->gr", weights, points)
    left = points - mean[:, None]
    around = np.einsum("gm,gmr,gms->grs", weights, left, left)
    even = informed & (1.0 / (weights**2).sum(1) > POINTS / 8)
    return (
        np.where(even[:, None], mean, mode),
        np.where(even[:, None, None], around, covariance),
    )


NODES, SHARES = np.polynomial.hermite_e.hermegauss(40)


def probability(
    mean: Float[AnyArray, " n"], variance: Float[AnyArray, " n"], xp: ModuleType = np
) -> Float[AnyArray, " n"]:
    """The probability of a 1 whose logit is normal, by Gauss–Hermite quadrature.

    Args:
        mean: of the logit.
        variance: of the logit.
        xp: the array library to work it out with; inside ``jit`` that of JAX.

    Returns:
        The expected value of its sigmoid.
    """
    deviation, total = xp.sqrt(variance), xp.zeros(mean.shape)
    sigmoid = expit if xp is np else jax.nn.sigmoid
    for node, share in zip(NODES, SHARES / SHARES.sum(), strict=True):
        total = total + share * sigmoid(mean + node * deviation)
    return total
