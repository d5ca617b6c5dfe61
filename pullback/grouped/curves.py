"""A curve of the user's own whose parameters differ between groups: nonlinear mixed effects.

The rows of group g are modelled as

    y = f(x, t(φ_g)) + ε,    φ_g = D_g β + Lδ_g,    δ_g ~ N(0, I),    ε ~ N(0, v),

where t takes an unbounded φ to the parameters' own ranges, D_g holds the group's covariates and L
is a factor of the covariance between groups. It is iMAML's inner problem with few parameters: θ is
D_g β, the pull ½‖δ_g‖² has its Λ in L. L, v and β maximise the marginal likelihood of all rows,

    −log p(y) = Σ_g ℓ_g(δ_g*) + ½‖δ_g*‖² + ½log|H_g| + ½log|K|,    H_g = I + LᵀA_gL,

by Laplace's approximation (Tierney & Kadane 1986) with the expected curvature A_g = Σ I(f)∂f∂fᵀ in
the place of ℓ_g″, as Lindstrom & Bates (1990) have it. K is the same curvature by β once every δ is
integrated out, whose determinant makes it their restricted likelihood. Both are exact for a curve
that is linear in φ. The mode δ_g* moves with β, L and v by the implicit function theorem
(Rajeswaran et al. 2019; Blondel et al. 2022): :func:`pullback.implicit.root`.

Rows of all groups lie in one array, with the number of the group beside each; sums over a group are
segment sums, so that groups of unequal sizes cost what their rows cost.
"""

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.stats
from jaxtyping import Array, Float, Int

from pullback.core.errors import InputError, NumericalError, unknown_name
from pullback.grouped.basis import Rows
from pullback.grouped.mixed import Adapted, rounded_up

Parameters = Mapping[str, Any]

PULLED = 1e-2
"""The prior precision of β in units of the parameters, so that what no row tells stays put."""

TYPICAL_SPREAD = np.log(0.3)
"""The prior mean of a spread's logarithm, lest that of a few groups collapse."""

PRECISIONS = {"coefficients": PULLED, "spread": 1.5**-2, "mixing": 1.0, "noise": 0.01}
"""Prior precisions of the hyperparameters."""

MOST_STEPS = 500
"""The most Gauss–Newton steps to a mode."""

CLOSE = 1e-9
"""A mode's last step, in standard deviations of its own posterior."""

NOISES = ("additive", "proportional", "combined")

STARTS = 64
"""Further starts that the least squares of all rows are tried from, the best three of them."""

ALIKE = 1.02
"""Least squares up to so many times the best are as good."""

POINTS = 256
"""Points of the posterior of φ that a prediction is averaged over."""

_BOUNDED = re.compile(
    r"\s*(?:(?P<low>[-+.\deE]+)\s*<)?\s*(?P<name>[^\W\d]\w*)\s*"
    r"(?:(?P<sign>[<>])\s*(?P<bound>[-+.\deE]+))?\s*"
)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a curve by its name, and its bounds.

    Args:
        name: that of the curve's argument.
        low: the value that it is above.
        high: the value that it is below.
    """

    name: str
    low: float = -np.inf
    high: float = np.inf

    @classmethod
    def of(cls, text: Any) -> "Parameter":
        """Read ``"a"``, ``"ka>0"``, ``"a<5"`` or ``"0<f<1"``.

        Raises:
            InputError: for anything else.
        """
        found = _BOUNDED.fullmatch(text) if isinstance(text, str) else None
        try:
            if found is None or (found["low"] and found["sign"] == ">"):
                raise ValueError
            low = float(found["low"]) if found["low"] else -np.inf
            bound = float(found["bound"]) if found["bound"] else np.inf
        except ValueError:
            raise InputError(
                f"A parameter is {text!r}",
                allowed="a name, with bounds or without: 'a', 'ka>0', 'a<5', '0<f<1'",
            ) from None
        low, high = (bound, np.inf) if found["sign"] == ">" else (low, bound)
        if not low < high:
            raise InputError(f"No number is between the bounds of the parameter {text!r}")
        return cls(found["name"], low, high)

    @property
    def free(self) -> bool:
        """Whether it has no bounds."""
        return bool(np.isinf(self.low) and np.isinf(self.high))

    @property
    def default(self) -> float:
        """Where it starts unless told, 1 from a single bound, in the middle of two, or at 0."""
        if self.free:
            return 0.0
        if np.isinf(self.high):
            return self.low + 1.0
        return self.high - 1.0 if np.isinf(self.low) else 0.5 * (self.low + self.high)

    def value(self, phi: Any, xp: Any = np) -> Any:
        """The parameter at an unbounded φ."""
        if self.free:
            return phi
        if np.isinf(self.high):
            return self.low + xp.exp(phi)
        if np.isinf(self.low):
            return self.high - xp.exp(phi)
        return self.low + (self.high - self.low) / (1.0 + xp.exp(-phi))

    def phi(self, value: float) -> float:
        """The unbounded φ of a value.

        Raises:
            InputError: if the value is not between the bounds.
        """
        if not self.low < value < self.high:
            raise InputError(
                f"The parameter {self.name!r} starts at {value!r}",
                allowed=f"numbers between {self.low:g} and {self.high:g}",
            )
        if self.free:
            return float(value)
        if np.isinf(self.high):
            return float(np.log(value - self.low))
        if np.isinf(self.low):
            return float(np.log(self.high - value))
        return float(np.log((value - self.low) / (self.high - value)))


class Row(Mapping[str, Any]):
    """One row of a table, as a curve is given it.

    Args:
        values: by the names of the columns.
        read: is told which of them are looked at.
    """

    def __init__(self, values: Mapping[str, Any], read: set[str] | None = None):
        self._values = values
        self._read = set() if read is None else read

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise unknown_name("column", str(name), self._values)
        self._read.add(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(frozen=True)
class Curve:
    """A curve, its parameters, and how they and the rows vary.

    Args:
        function: ``function(row, **parameters)``, the expected target of one row.
        parameters: with their bounds.
        columns: of the table, in the order of the inputs.
        varying: for each parameter, whether it differs between groups.
        noise: ``"additive"``, ``"proportional"`` or ``"combined"``.
        correlated: whether the parameters of a group are.
    """

    function: Callable[..., Any]
    parameters: tuple[Parameter, ...]
    columns: tuple[str, ...]
    varying: tuple[bool, ...]
    noise: str = "additive"
    correlated: bool = False

    def __call__(self, inputs: Float[Array, " columns"], phi: Float[Array, " p"]) -> Any:
        """The expected target of one row at an unbounded φ."""
        row = Row(dict(zip(self.columns, inputs, strict=True)))
        values = {p.name: p.value(u, jnp) for p, u in zip(self.parameters, phi, strict=True)}
        return self.function(row, **values)

    def init(self, coefficients: Float[np.ndarray, " b"]) -> Parameters:
        """Hyperparameters to start from.

        Args:
            coefficients: β.

        Returns:
            β and the logarithms of the spread and of the noise.
        """
        width = sum(self.varying)
        params = {"coefficients": coefficients, "spread": np.full(width, TYPICAL_SPREAD)}
        if self.correlated:
            params["mixing"] = np.zeros(width * (width - 1) // 2)
        starts = {"additive": [0.5], "proportional": [0.2], "combined": [0.4, 0.1]}
        params["noise"] = np.log(starts[self.noise])
        return params

    def factor(self, params: Parameters, xp: Any = jnp) -> Any:
        """L, one row for each parameter and a column for each that varies."""
        width = sum(self.varying)
        place = np.flatnonzero(self.varying)
        rows = xp.eye(width)
        if self.correlated and width > 1:
            # Rows of length 1: the spread stays that of the parameter itself.
            below = np.tril_indices(width, -1)
            flat = np.zeros((len(below[0]), width, width))
            flat[np.arange(len(below[0])), below[0], below[1]] = 1.0
            rows = rows + xp.tensordot(params["mixing"], flat, 1)
            rows = rows / xp.sqrt((rows**2).sum(1, keepdims=True))
        chosen = np.zeros((len(self.parameters), width))
        chosen[place, np.arange(width)] = 1.0
        return chosen @ (xp.exp(params["spread"])[:, None] * rows)

    def variance(self, params: Parameters, value: Any, residual: Any, xp: Any = jnp) -> Any:
        """v at a curve's value, and its derivative by the value."""
        size = xp.exp(2.0 * params["noise"])
        level = 1e-12 * residual**2
        slope = 0.0 * value
        if self.noise != "proportional":
            level = level + size[0] * residual**2
        if self.noise == "additive":
            return level + slope, slope
        return level + size[-1] * value**2, 2.0 * size[-1] * value

    def penalty(
        self, params: Parameters, start: Float[np.ndarray, " b"]
    ) -> tuple[float, Parameters]:
        """The negative logarithm of the hyperparameters' prior, up to a constant.

        Args:
            params: the hyperparameters.
            start: β at the start.

        Returns:
            Its value, next to flat but for the spread, and its gradient.
        """
        centres = {"spread": TYPICAL_SPREAD, "coefficients": start, "noise": 0.0, "mixing": 0.0}
        gradient = {
            name: PRECISIONS[name] * (value - centres[name]) for name, value in params.items()
        }
        total = sum(
            0.5 * float(np.sum(gradient[name] ** 2)) / PRECISIONS[name] for name in gradient
        )
        return total, gradient


class Table(NamedTuple):
    """Rows of all groups; inside ``jit`` arrays of JAX.

    Args:
        rows: the inputs in the units of the columns, and the targets in their own.
        design: D of each group, from β to the parameters.
        unit: of each parameter, on the unbounded scale.
        residual: the size of what a curve for all groups leaves, in units of y.
    """

    rows: Rows
    design: Float[np.ndarray, "groups p b"]
    unit: Float[np.ndarray, " p"]
    residual: Float[np.ndarray, ""]


class _Terms(NamedTuple):
    """What the rows of each group come to.

    Args:
        loss: ℓ_g + ½‖δ_g‖².
        slope: its gradient by δ_g.
        curved: A_g.
        whole: H_g.
    """

    loss: Float[Array, " groups"]
    slope: Float[Array, "groups r"]
    curved: Float[Array, "groups p p"]
    whole: Float[Array, "groups r r"]


def _terms(curve: Curve, params: Parameters, table: Table, delta: Any) -> _Terms:
    rows, design, unit, residual = table
    factor = curve.factor(params)
    phi = design @ params["coefficients"] + delta @ factor.T

    def of_row(inputs, phi):
        at = lambda phi: jnp.asarray(curve(inputs, unit * phi), float)  # noqa: E731
        return at(phi), jax.jacfwd(at)(phi)

    value, jacobian = jax.vmap(of_row)(rows.inputs, phi[rows.group])
    variance, steeper = curve.variance(params, value, residual)
    left = rows.y - value
    loss = 0.5 * (left**2 / variance + jnp.log(variance))
    by_value = -left / variance + 0.5 * steeper / variance * (1.0 - left**2 / variance)
    information = 1.0 / variance + 0.5 * (steeper / variance) ** 2
    total = functools.partial(jax.ops.segment_sum, segment_ids=rows.group, num_segments=len(design))
    slope = total((rows.weight * by_value)[:, None] * jacobian)
    weighted = (rows.weight * information)[:, None] * jacobian
    curved = total(weighted[:, :, None] * jacobian[:, None, :])
    return _Terms(
        total(rows.weight * loss) + 0.5 * jnp.sum(delta**2, 1),
        slope @ factor + delta,
        curved,
        factor.T @ curved @ factor + jnp.eye(delta.shape[1]),
    )


class _Search(NamedTuple):
    """Where the search for the modes has come to.

    Args:
        delta: the best that was seen.
        terms: there.
        trial: to be looked at next.
        damping: of the next step.
        left: how far a mode is, in standard deviations of its own posterior.
        looks: how often the rows were looked at.
    """

    delta: Float[Array, "groups r"]
    terms: _Terms
    trial: Float[Array, "groups r"]
    damping: Float[Array, " groups"]
    left: Float[Array, " groups"]
    looks: Int[Array, ""]


def _search(curve: Curve, params: Parameters, table: Table) -> _Search:
    """Gauss–Newton steps to the mode of each group, damped where one would climb."""

    def going(search):
        return (search.looks <= MOST_STEPS) & jnp.any(search.left > CLOSE)

    def step(search):
        delta, terms, trial, damping, left, looks = search
        there = _terms(curve, params, table, trial)
        finite = jnp.isfinite(there.slope).all(1) & jnp.isfinite(there.whole).all((1, 2))
        # Close to the mode a loss falls by less than its own rounding.
        better = there.loss <= terms.loss + 1e-12 * (1.0 + jnp.abs(terms.loss))
        better &= finite & (left > CLOSE)

        def pick(new, old):
            return jnp.where(better.reshape(better.shape + (1,) * (new.ndim - 1)), new, old)

        terms, delta = _Terms(*map(pick, there, terms)), pick(trial, delta)
        damping = jnp.where(better, jnp.where(damping < 1e-4, 0.0, 0.1 * damping), damping)
        damping = jnp.where(better, damping, 10.0 * damping + 1e-3)
        move = _solve(terms.whole, terms.slope)
        left = jnp.sqrt(jnp.abs(jnp.sum(move * terms.slope, 1)))
        # A group that is not finite at its start has no way to go: NaN ends its search.
        left = jnp.where(jnp.isfinite(terms.loss), left, jnp.nan)
        diagonal = jnp.diagonal(terms.whole, axis1=1, axis2=2) * damping[:, None]
        damped = terms.whole + diagonal[:, :, None] * jnp.eye(delta.shape[1])
        return _Search(delta, terms, delta - _solve(damped, terms.slope), damping, left, looks + 1)

    groups, p, r = len(table.design), len(curve.parameters), sum(curve.varying)
    start = jnp.zeros((groups, r))
    worst = jnp.full(groups, jnp.inf)
    unknown = _Terms(
        worst,
        jnp.zeros((groups, r)),
        jnp.zeros((groups, p, p)),
        jnp.broadcast_to(jnp.eye(r), (groups, r, r)),
    )
    begun = _Search(start, unknown, start, jnp.zeros(groups), worst, jnp.asarray(0))
    return jax.lax.while_loop(going, step, begun)


def _solve(matrices: Any, vectors: Any) -> Any:
    return jnp.linalg.solve(matrices, vectors[..., None])[..., 0]


def evidence(
    curve: Curve, params: Parameters, table: Table, delta: Float[Array, "groups r"]
) -> Float[Array, ""]:
    """The negative log marginal likelihood by Laplace's approximation, up to a constant.

    Args:
        curve: the curve.
        params: its hyperparameters.
        table: the rows.
        delta: the modes, as :func:`modes` gives them.

    Returns:
        Its value, with every δ and β integrated out.
    """
    return _evidence(curve, params, _terms(curve, params, table, delta), table.design)[0]


def _evidence(curve: Curve, params: Parameters, terms: _Terms, design: Any) -> tuple[Any, Any]:
    """Its value, and K."""
    factor = curve.factor(params)
    lower = jnp.linalg.cholesky(terms.whole)
    solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True)
    along = jax.vmap(solve)(lower, factor.T @ terms.curved)
    inner = terms.curved - jnp.swapaxes(along, 1, 2) @ along
    k = jnp.einsum("gpb,gpq,gqc->bc", design, inner, design) + PULLED * jnp.eye(design.shape[2])
    logs = jnp.sum(jnp.log(jnp.diagonal(lower, axis1=1, axis2=2)))
    logs += jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(k))))
    return jnp.sum(terms.loss) + logs, k


def modes(
    curve: Curve, params: Parameters, table: Table
) -> tuple[Float[Array, "groups r"], Float[Array, " groups"]]:
    """δ* of each group.

    Args:
        curve: the curve.
        params: its hyperparameters.
        table: the rows.

    Returns:
        The modes, and how far each still is, in standard deviations of its own posterior; NaN
        where the curve is not finite at δ = 0.
    """
    found = _found(curve, params, table)
    return found.delta, found.left


_found = jax.jit(_search, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def slope_of_evidence(
    curve: Curve, params: Parameters, table: Table, delta: Float[Array, "groups r"]
) -> tuple[Float[Array, ""], Parameters]:
    """The evidence with its gradient, the modes moving along.

    With g the slope of a group's loss, δ* moves by −(∂g/∂δ)⁻¹ ∂g/∂η for a hyperparameter η. It is
    what :func:`pullback.implicit.root` does, block by block: a block is as small as a group has
    parameters, so that its matrix is at hand. All derivatives are forward ones, since there are few
    hyperparameters; a curve may so hold loops of which JAX has no reverse mode.

    Args:
        curve: the curve.
        params: its hyperparameters.
        table: the rows.
        delta: the modes.

    Returns:
        The value of :func:`evidence`, and its total derivative.
    """
    flat, restore = jax.flatten_util.ravel_pytree(params)
    count, r = len(flat), delta.shape[1]

    def slope(flat, delta):
        return _terms(curve, restore(flat), table, delta).slope

    def value(flat, delta):
        return evidence(curve, restore(flat), table, delta)

    def slope_along(moved, apart):
        apart = jnp.broadcast_to(apart, delta.shape)
        return jax.jvp(slope, (flat, delta), (moved, apart))[1]

    one = jnp.eye(count + r)
    changes = jax.vmap(slope_along, out_axes=-1)(one[:, :count], one[:, count:])
    along = -jnp.linalg.solve(changes[..., count:], changes[..., :count])
    total = jax.vmap(
        lambda moved, apart: jax.jvp(value, (flat, delta), (moved, apart)),
        in_axes=(0, -1),
        out_axes=(None, 0),
    )
    found, gradient = total(jnp.eye(count), along)
    return found, restore(gradient)


@dataclass(frozen=True)
class Fitted:
    """A fitted curve.

    Args:
        curve: the curve.
        params: its hyperparameters.
        covariance: of β.
        unit: as in :class:`Table`.
        residual: as in :class:`Table`.
        converged: whether L-BFGS ended before its last step.
        steps: that it took.
    """

    curve: Curve
    params: Parameters
    covariance: Float[np.ndarray, "b b"]
    unit: Float[np.ndarray, " p"]
    residual: Float[np.ndarray, ""]
    converged: bool = True
    steps: int = 0

    @property
    def noise(self) -> dict[str, float]:
        """Standard deviations by kind, additive in units of y and proportional in shares."""
        sizes = np.exp(self.params["noise"])
        found = {}
        if self.curve.noise != "proportional":
            found["additive"] = float(sizes[0] * self.residual)
        if self.curve.noise != "additive":
            found["proportional"] = float(sizes[-1])
        return found

    def adapt(
        self, rows: Rows, design: Float[np.ndarray, "groups p b"]
    ) -> tuple[Adapted, Float[np.ndarray, " groups"]]:
        """Each group's own δ, from its rows.

        Args:
            rows: of the groups, numbered from 0.
            design: D of each group.

        Returns:
            Its posterior, and how far each mode is from being one.
        """
        groups, r = len(design), sum(self.curve.varying)
        if not (len(rows.y) and r):
            nothing = np.zeros((groups, r))
            eye = np.broadcast_to(np.eye(r), (groups, r, r))
            return Adapted(nothing, eye, np.zeros((groups, r, design.shape[2]))), np.zeros(groups)
        with jax.enable_x64(True):
            table = _padded(Table(rows, design, self.unit, self.residual))
            found = jax.tree.map(np.asarray, _found(self.curve, self.params, table))
        inverse = np.linalg.inv(found.terms.whole[:groups])
        factor = self.curve.factor(self.params, np)
        across = inverse @ factor.T @ found.terms.curved[:groups] @ design
        return Adapted(found.delta[:groups], inverse, across), found.left[:groups]

    def phi(
        self, design: Float[np.ndarray, "n p b"], heads: Adapted, group: Int[np.ndarray, " n"]
    ) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "n p p"]]:
        """The posterior of φ, on the unbounded scale.

        Args:
            design: D of each row.
            heads: of the groups.
            group: the number of each row's group among them.

        Returns:
            Its mean and its covariance for each row.
        """
        factor = self.curve.factor(self.params, np)
        mean = design @ self.params["coefficients"] + heads.mean[group] @ factor.T
        toward = design - factor @ heads.across[group]
        covariance = factor @ heads.covariance[group] @ factor.T
        covariance = covariance + toward @ self.covariance @ np.swapaxes(toward, 1, 2)
        unit = self.unit
        return unit * mean, unit[:, None] * covariance * unit

    def predict(
        self,
        inputs: Float[np.ndarray, "n columns"],
        design: Float[np.ndarray, "n p b"],
        heads: Adapted,
        group: Int[np.ndarray, " n"],
    ) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """The mean and the variance of new targets, the curve averaged over what φ may be.

        Args:
            inputs: in units of the columns.
            design: D of each row.
            heads: of the groups.
            group: the number of each row's group among them.

        Returns:
            Both for each row; the noise is part of the variance.
        """
        if not len(inputs):
            return np.zeros(0), np.zeros(0)
        phi, covariance = self.phi(design, heads, group)
        values, vectors = np.linalg.eigh(covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
        size = rounded_up(len(inputs))
        with jax.enable_x64(True):
            filled = [_filled(a, size) for a in (inputs, phi, root)]
            points = _points(len(self.curve.parameters))
            mean, variance = _averaged(self.curve, self.params, self.residual, points, *filled)
        return np.asarray(mean)[: len(inputs)], np.asarray(variance)[: len(inputs)]


@functools.partial(jax.jit, static_argnums=0)
def _averaged(curve, params, residual, points, inputs, phi, root) -> tuple[Any, Any]:
    """The mean and the variance of targets over points of a normal posterior."""
    at = jax.vmap(lambda x, phi: jnp.asarray(curve(x, phi), float))
    centre = at(inputs, phi)

    def one(sums, point):
        value = at(inputs, phi + root @ point)
        moved = value - centre
        noise = curve.variance(params, value, residual)[0]
        return (sums[0] + moved, sums[1] + moved**2, sums[2] + noise), None

    zero = jnp.zeros_like(centre)
    sums, _ = jax.lax.scan(one, (zero, zero, zero), points)
    first, second, noise = (total / len(points) for total in sums)
    return centre + first, jnp.maximum(second - first**2, 0.0) + noise


@functools.cache
def _points(width: int) -> Float[np.ndarray, "points width"]:
    """Points of a standard normal variable, whose mean and covariance are exactly its own.

    So the average is exact for curves that are linear or quadratic in φ.
    """
    sobol = scipy.stats.qmc.Sobol(width, scramble=True, rng=0)
    half = scipy.stats.norm.ppf(sobol.random(POINTS // 2))
    points = np.concatenate([half, -half])
    lower = np.linalg.cholesky(points.T @ points / len(points))
    return scipy.linalg.solve_triangular(lower, points.T, lower=True).T


def fit(
    curve: Curve,
    rows: Rows,
    design: Float[np.ndarray, "groups p b"],
    start: Float[np.ndarray, " p"],
    *,
    seed: int = 0,
    steps: int = 200,
) -> Fitted:
    """Maximise the marginal likelihood by L-BFGS, from the least squares of all rows together.

    Args:
        curve: the curve.
        rows: of all groups.
        design: D of each group; its first columns are those of the parameters themselves.
        start: φ to begin from, on the unbounded scale.
        seed: of further starts of the least squares.
        steps: the most iterations.

    Returns:
        The fitted curve.

    Raises:
        NumericalError: if no step has a finite evidence.
    """
    with jax.enable_x64(True):
        phi, residual, unit = _least_squares(curve, rows, start, seed)
        first = np.zeros(design.shape[2])
        first[: len(phi)] = phi / unit
        table = _padded(Table(rows, design, unit, residual))
        begun = curve.init(first)
        flat, restore = jax.flatten_util.ravel_pytree(begun)
        least = np.inf

        def objective(flat):
            nonlocal least
            params = restore(jnp.asarray(flat))
            delta, _ = modes(curve, params, table)
            value, slope = slope_of_evidence(curve, params, table, delta)
            value, slope = float(value), np.asarray(jax.flatten_util.ravel_pytree(slope)[0])
            penalty, pull = curve.penalty(jax.tree.map(np.asarray, params), first)
            value, slope = value + penalty, slope + jax.flatten_util.ravel_pytree(pull)[0]
            if np.isfinite(value) and np.isfinite(slope).all():
                least = min(least, value)
                return value, np.asarray(slope)
            return 1e10, np.zeros_like(slope)

        found = scipy.optimize.minimize(
            objective,
            np.asarray(flat),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps, "maxcor": 20},
        )
        if not np.isfinite(least):
            raise NumericalError(
                "The evidence of the curve is not finite at its start: does the curve divide by "
                "zero or overflow for some parameters? Give other starts"
            )
        params = jax.tree.map(np.asarray, restore(jnp.asarray(found.x)))
        terms = _found(curve, params, table).terms
        k = np.asarray(_evidence(curve, params, terms, table.design)[1])
    factor = scipy.linalg.cho_factor(k)
    covariance = scipy.linalg.cho_solve(factor, np.eye(len(k)))
    return Fitted(curve, params, covariance, unit, residual, bool(found.success), int(found.nit))


def _least_squares(
    curve: Curve, rows: Rows, start: Float[np.ndarray, " p"], seed: int
) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, ""], Float[np.ndarray, " p"]]:
    """φ of one curve for all rows, what it leaves, and the units of the parameters.

    Of several that leave as much, as where two parameters may change places, it is the one next to
    the start.
    """
    size, n = rounded_up(len(rows.y)), len(rows.y)
    inputs, root = _filled(rows.inputs, size), np.sqrt(rows.weight)
    deviation = np.std(rows.y) or np.abs(rows.y).max() or 1.0

    def look(phi):
        value, jacobian = _over_rows(curve, inputs, jnp.asarray(phi))
        return (
            root * (np.asarray(value)[:n] - rows.y) / deviation,
            root[:, None] * np.asarray(jacobian)[:n] / deviation,
        )

    def steepness_at(phi: Any) -> Any:
        # Where a step ends beside the finite numbers the search goes on without that row.
        return np.nan_to_num(look(phi)[1], posinf=0.0, neginf=0.0)

    rng = np.random.default_rng(seed)
    free = np.array([p.free for p in curve.parameters])
    # A parameter without bounds may be of the size of y, of that of 1, or between.
    sizes = np.maximum(np.abs(start), deviation ** rng.uniform(size=(STARTS, 1)))
    reach = np.where(free, sizes, 2.0)
    others = start + reach * rng.normal(size=reach.shape)
    ends: list[tuple[float, np.ndarray]] = []
    with np.errstate(over="ignore", invalid="ignore"):
        costs = np.array([float(np.sum(look(phi)[0] ** 2)) for phi in others])
        usable = np.flatnonzero(np.isfinite(costs))
        chosen = usable[np.argsort(costs[usable])[:3]]
        for phi in (start, *others[chosen]):
            if not all(np.isfinite(part).all() for part in look(phi)):
                continue
            found = scipy.optimize.least_squares(
                lambda phi: look(phi)[0], phi, cast(Any, steepness_at), x_scale="jac", max_nfev=200
            )
            ends.append((found.cost, found.x))
    if not ends:
        raise _not_finite(curve, rows, *look(start))
    least = min(cost for cost, _ in ends)
    alike = [phi for cost, phi in ends if cost <= ALIKE * least]
    best = min(alike, key=lambda phi: np.sum(((phi - start) / np.where(free, deviation, 1.0)) ** 2))
    _, jacobian = look(best)
    total = rows.weight.sum()
    freedom = max(total - len(start), 1.0)
    residual = deviation * max(float(np.sqrt(2.0 * least / freedom)), 1e-6)
    steepness = deviation * np.sqrt((jacobian**2).sum(0) / total)
    unit = np.array([
        residual / steep if p.free and steep > 0 else 1.0
        for p, steep in zip(curve.parameters, steepness, strict=True)
    ])  # fmt: skip
    return best, np.array(residual), unit


def _not_finite(curve: Curve, rows: Rows, values: Any, jacobian: Any) -> NumericalError:
    """The error for a curve that no fit can begin with."""
    sound = np.isfinite(jacobian) & np.isfinite(values)[:, None]
    bad = ~sound.all(1)
    # A curve that is finite itself may still have a derivative that is not.
    what = "The curve" if not np.isfinite(values).all() else "The derivative of the curve"
    at = ""
    if bad.any():
        pairs = zip(curve.columns, rows.inputs[bad][0], strict=True)
        at = ", the first with " + ", ".join(f"{name}={value:g}" for name, value in pairs)
    return NumericalError(
        f"{what} is not finite for {int(bad.sum())} of {len(values)} rows{at}, nor at "
        f"{STARTS} starts nearby: give another start, bound the parameters, or keep the curve from "
        "dividing by zero"
    )


@functools.partial(jax.jit, static_argnums=0)
def _over_rows(curve: Curve, inputs: Any, phi: Any) -> tuple[Any, Any]:
    at = lambda x, phi: jnp.asarray(curve(x, phi), float)  # noqa: E731
    over = lambda f: jax.vmap(f, (0, None))  # noqa: E731
    return over(at)(inputs, phi), over(jax.jacfwd(at, 1))(inputs, phi)


def _padded(table: Table) -> Table:
    """Rows of no weight up to a round number, and groups without rows."""
    size = rounded_up(len(table.rows.y))
    rows = Rows(*[_filled(a, size) for a in table.rows])
    rows.weight[len(table.rows.y) :] = 0.0
    groups = rounded_up(len(table.design))
    design = np.zeros((groups, *table.design.shape[1:]))
    design[: len(table.design)] = table.design
    return table._replace(rows=rows, design=design)


def _filled(array: np.ndarray, size: int) -> np.ndarray:
    """An array with its first line repeated at the end: a curve is defined there."""
    more = np.broadcast_to(array[:1], (size - len(array), *array.shape[1:]))
    return np.concatenate([array, more])
