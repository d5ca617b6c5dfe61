"""Binary targets over the same basis: the logistic mixed model by Laplace's approximation.

The logit of a row is η = F(x)w + Z(x)δ_g with the priors of :mod:`pullback.grouped.mixed`. The
heads that are most probable, w and every δ at once, are found by Newton's method, each step of
which is a linear mixed model with a weight of its own for each row (Breslow & Clayton 1993). The
evidence is that of the Gaussian about them (Tierney & Kadane 1986). Its gradient sees the mode move
with the hyperparameters: one more Newton step at the mode has the derivative of the implicit
function theorem, −H⁻¹ ∂²/∂φ∂η, and moves nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import expit

from pullback.grouped.basis import Basis, Rows
from pullback.grouped.elimination import Eliminated, eliminate

MOST_STEPS = 50

SHORTER = 2.0 ** -np.arange(12)
"""Parts of a Newton step that are tried."""

DONE = 1e-10
"""A step that lowers the objective by less than this part of it is the last."""


class Heads(NamedTuple):
    """The population's head and the groups' own.

    Args:
        w: the population's.
        own: every δ.
    """

    w: Float[Array, " f"]
    own: Float[Array, "groups r"]


def zeros(basis: Basis, groups: int) -> Heads:
    """Heads to start from, in the precision that is on."""
    population, own = basis.widths
    return Heads(jnp.zeros(population), jnp.zeros((groups, own)))


def evidence(
    basis: Basis, params: Mapping[str, Any], rows: Rows, groups: int, start: Heads
) -> tuple[Float[Array, ""], Heads]:
    """The negative log marginal likelihood, by Laplace's approximation.

    Args:
        basis: F and Z.
        params: its parameters.
        rows: of all groups; y is 0 or 1.
        groups: how many there are.
        start: heads near the mode, such as those of nearly the same parameters.

    Returns:
        Its value, and the heads at the mode.
    """
    found = _mode(*jax.lax.stop_gradient((_columns(basis, params, rows), rows, start)))
    columns = _columns(basis, params, rows)
    heads = _newton(columns, rows, found)
    logits = _logits(columns, rows, heads)
    left = _quadratic(columns, rows, heads, logits)
    factor = jnp.linalg.cholesky(left.curved + jnp.diag(columns.precision))
    logs = left.log_curved + 2.0 * jnp.sum(jnp.log(jnp.diag(factor)))
    logs -= jnp.sum(jnp.log(columns.precision))
    return _objective(columns, rows, heads, logits) + 0.5 * logs, found


def at_the_mode(basis: Basis, params: Mapping[str, Any], rows: Rows, groups: int) -> Eliminated:
    """The quadratic model of all rows about the most probable heads.

    Args:
        basis: F and Z.
        params: its parameters.
        rows: of all groups.
        groups: how many there are.

    Returns:
        Its system, whose solution is the mode.
    """
    columns = _columns(basis, params, rows)
    heads = _mode(columns, rows, zeros(basis, groups))
    return _quadratic(columns, rows, heads, _logits(columns, rows, heads))


class _Columns(NamedTuple):
    f: Float[Array, "n f"]
    z: Float[Array, "n r"]
    precision: Float[Array, " f"]


def _columns(basis: Basis, params: Mapping[str, Any], rows: Rows) -> _Columns:
    return _Columns(*basis.columns(params, rows.inputs, jnp), basis.precision(params, jnp))


def _logits(columns: _Columns, rows: Rows, heads: Heads) -> Float[Array, " n"]:
    return columns.f @ heads.w + jnp.sum(columns.z * heads.own[rows.group], 1)


def _objective(
    columns: _Columns, rows: Rows, heads: Heads, logits: Float[Array, " n"]
) -> Float[Array, ""]:
    """−log p(y, w, δ), up to a constant."""
    likelihood = rows.weight @ (jax.nn.softplus(logits) - rows.y * logits)
    return likelihood + 0.5 * (columns.precision @ heads.w**2 + jnp.sum(heads.own**2))


def _quadratic(
    columns: _Columns, rows: Rows, heads: Heads, logits: Float[Array, " n"]
) -> Eliminated:
    one = jax.nn.sigmoid(logits)
    share = rows.weight * one * (1.0 - one)
    pull = share * logits + rows.weight * (rows.y - one)
    return eliminate(columns.f, columns.z, share, pull, rows.group, len(heads.own))


def _newton(columns: _Columns, rows: Rows, heads: Heads) -> Heads:
    left = _quadratic(columns, rows, heads, _logits(columns, rows, heads))
    w = jnp.linalg.solve(left.curved + jnp.diag(columns.precision), left.slope)
    return Heads(w, left.own(w) if columns.z.shape[1] else heads.own)


def _mode(columns: _Columns, rows: Rows, start: Heads) -> Heads:
    """Newton's method; the objective is convex, and a step that raises it is shortened."""

    def along(heads, step, part):
        return jax.tree.map(lambda a, b: a + part * (b - a), heads, step)

    def one(state):
        heads, value, _, count = state
        step = _newton(columns, rows, heads)
        before, after = (_logits(columns, rows, h) for h in (heads, step))

        def at(part):
            moved = along(heads, step, part)
            return _objective(columns, rows, moved, before + part * (after - before))

        values = jax.lax.map(at, jnp.asarray(SHORTER, before.dtype))
        best = jnp.argmin(jnp.where(jnp.isfinite(values), values, jnp.inf))
        better = values[best] < value
        part = jnp.where(better, jnp.asarray(SHORTER, before.dtype)[best], 0.0)
        found = jnp.where(better, values[best], value)
        going = value - found > DONE * (1.0 + jnp.abs(value))
        return along(heads, step, part), found, going, count + 1

    value = _objective(columns, rows, start, _logits(columns, rows, start))
    state = (start, value, jnp.array(True), 0)
    return jax.lax.while_loop(lambda s: s[2] & (s[3] < MOST_STEPS), one, state)[0]


def adapted(
    offset: Float[np.ndarray, " n"],
    z: Float[np.ndarray, "n r"],
    y: Float[np.ndarray, " n"],
    weight: Float[np.ndarray, " n"],
    group: Int[np.ndarray, " n"],
    total: Callable[[Any], Any],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The quadratic model of each group's rows about its most probable δ, at one w.

    Args:
        offset: Fw.
        z: Z.
        y: the targets.
        weight: what each row counts for.
        group: the number of each row's group.
        total: sums rows of each group.

    Returns:
        S and s, of Fw + Zδ less Fw; the minimum of the model is the mode.
    """

    def model(own):
        logits = offset + np.einsum("nr,nr->n", z, own[group])
        value = total(weight * (np.logaddexp(0.0, logits) - y * logits))
        return value + 0.5 * (own**2).sum(1), expit(logits)

    own = np.zeros((len(total(weight)), z.shape[1]))
    value, one = model(own)
    for _ in range(MOST_STEPS):
        share = weight * one * (1.0 - one)
        curved = total((z * share[:, None])[:, :, None] * z[:, None, :]) + np.eye(z.shape[1])
        step = np.linalg.solve(curved, (total(z * (weight * (y - one))[:, None]) - own)[:, :, None])
        part = np.ones(len(own))
        for _ in SHORTER:
            moved = own + part[:, None] * step[:, :, 0]
            found, _ = model(moved)
            worse = ~(found <= value)
            if not worse.any():
                break
            part[worse] /= 2
        moved[worse], found[worse] = own[worse], value[worse]
        lowered = value - found
        own, (value, one) = moved, model(moved)
        if (lowered <= DONE * (1.0 + np.abs(value))).all():
            break
    share = weight * one * (1.0 - one)
    return share, share * np.einsum("nr,nr->n", z, own[group]) + weight * (y - one)


NODES, SHARES = np.polynomial.hermite_e.hermegauss(40)


def probability(
    mean: Float[np.ndarray, " n"], variance: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """The probability of a 1 whose logit is normal, by Gauss–Hermite quadrature.

    Args:
        mean: of the logit.
        variance: of the logit.

    Returns:
        The expected value of its sigmoid.
    """
    deviation, total = np.sqrt(variance), np.zeros(len(mean))
    for node, share in zip(NODES, SHARES / SHARES.sum(), strict=True):
        total += share * expit(mean + node * deviation)
    return total
