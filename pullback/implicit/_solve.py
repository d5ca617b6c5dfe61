"""Linear systems of the implicit function theorem: any matrix, and how well it was solved."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from pullback.core import trees
from pullback.core.errors import InputError, check_number, check_positive
from pullback.core.trees import Params
from pullback.linear import LinearSolver, Operator
from pullback.linear.base import damped
from pullback.linear.dense import matrix
from pullback.linear.lineax_solver import by_lineax

DENSE_LIMIT = 256
"""The most unknowns for which the default linear solver forms the whole matrix."""

Vector = Float[Array, " n"]

Method = Callable[[Operator, Vector], Vector]
"""Solves A·u = v; what it returns where it fails is judged by its residual."""


@dataclass(frozen=True)
class Settings:
    """How derivatives are solved for and judged; the arguments of :func:`root`."""

    linear_solver: LinearSolver | lx.AbstractLinearSolver | None
    symmetric: bool
    damping: float
    tolerance: float
    atol: float
    on_failure: str = "nan"

    def __post_init__(self):
        check_positive("root", tolerance=self.tolerance)
        check_number(
            "root",
            "finite numbers from 0",
            lambda x: 0 <= x < float("inf"),
            damping=self.damping,
            atol=self.atol,
        )
        if self.on_failure not in ("nan", "raise"):
            raise InputError(f"root(on_failure={self.on_failure!r})", allowed="'nan', 'raise'")
        solver = self.linear_solver
        ours = isinstance(solver, LinearSolver) and not isinstance(solver, type)
        if not (solver is None or ours or isinstance(solver, lx.AbstractLinearSolver)):
            raise InputError(
                f"{solver!r} is no linear solver",
                allowed="None, an instance of a solver of pullback.linear or of Lineax",
            )
        if (ours or isinstance(solver, lx.CG)) and not self.symmetric:
            raise InputError(
                f"{type(solver).__name__} solves symmetric systems only",
                remedy="Say symmetric=True if ∂F/∂x is symmetric, or give a solver for any "
                "matrix, for instance lineax.GMRES, or None",
            )

    def attainable(self, precision: float) -> float:
        """The tolerance, but no finer than ten relative rounding errors."""
        return max(self.tolerance, 10 * precision)


def flat_operator(operator: Operator, like: Params, damping: float) -> Operator:
    """``u ↦ A·u + δu`` on the vectors of :func:`pullback.core.trees.ravel_wide`."""
    _, unravel = trees.ravel_wide(like)
    product = damped(operator, damping)
    return lambda u: trees.ravel_wide(product(unravel(u)))[0]


def answer_or_nan(
    operator: Operator,
    rhs: Vector,
    *,
    passed: Bool[Array, ""],
    settings: Settings,
    precision: float,
    transposed: bool,
) -> Vector:
    """The solution of a linear system; NaN if it is none or if F(x) is not zero."""
    value, residual = solve_system(operator, rhs, settings, precision)
    sound = passed & (residual <= settings.attainable(precision))
    silent = jnp.all(rhs == 0) if transposed else jnp.asarray(False)
    if settings.on_failure == "raise":
        value = eqx.error_if(value, ~(sound | silent), complaint())
    value = jnp.where(sound, value, jnp.nan)
    # A cotangent of zero asks for nothing, whereas a tangent whose push-forward is zero still
    # moves along the null space of a singular ∂ₓF.
    return jnp.where(silent, 0.0, value)


def solve_system(
    operator: Operator, rhs: Vector, settings: Settings, precision: float
) -> tuple[Vector, Float[Array, ""]]:
    """u with A·u = v, and how much of the system it leaves; NaN where A was found singular.

    Args:
        operator: A, any matrix.
        rhs: v.
        settings: how to solve.
        precision: the relative rounding error of A's products.

    Returns:
        u, and the larger of ‖A·u − v‖ / ‖v‖ and the largest share of its terms that a single
        equation leaves.
    """
    unit, length = trees.normalise(rhs)
    # A right-hand side of zero would be solved by zero even where A is singular.
    unit = jnp.where(length == 0, trees.normalise(jnp.ones_like(unit))[0], unit)
    value = _method(settings, unit, precision)(operator, unit)
    remainder = operator(value) - unit
    terms = row_sizes(operator, typical_sizes(value)) + jnp.abs(unit)
    residual = jnp.maximum(trees.norm(remainder), jnp.max(row_shares(remainder, terms)))
    return length * value, residual


PROBES = 4
"""How often a row is looked at, lest its terms happen to cancel."""

LEAST = 1e-5
"""An unknown is taken to be at least this share of the largest one of its leaf: what a solver
leaves where the solution is zero does not count."""


def typical_sizes(x: PyTree[Any]) -> PyTree[Any]:
    """How large each unknown is, and is taken to be where it is next to nothing."""

    def leaf(x):
        size = jnp.abs(x)
        return jnp.maximum(size, LEAST * jnp.max(size, initial=0.0))

    return jax.tree.map(leaf, x)


def row_sizes(linear: Callable[[Any], Params], sizes: PyTree[Any]) -> Params:
    """How large the terms of each row of a linear map are, by probes of random signs and sizes.

    Args:
        linear: the map.
        sizes: of the numbers that it is applied to.

    Returns:
        The greatest absolute value of each number of the image in :data:`PROBES` probes.
    """
    leaves, structure = jax.tree.flatten(sizes)

    def probe(key):
        keys = jax.random.split(key, len(leaves))
        pairs = zip(keys, leaves, strict=True)
        signed = [_shaken(k, x) for k, x in pairs]
        return jax.tree.map(jnp.abs, linear(structure.unflatten(signed)))

    looks = jax.lax.map(probe, jax.random.split(jax.random.key(0), PROBES))
    return jax.tree.map(lambda x: jnp.max(x, axis=0), looks)


def _shaken(key: PRNGKeyArray, sizes: Float[Array, "..."]) -> Float[Array, "..."]:
    """The sizes, each times a number between ½ and 1 and with a sign, both random."""
    draws = jax.random.uniform(key, sizes.shape, jnp.float32, -1.0, 1.0)
    return (0.5 * (draws + jnp.sign(draws))).astype(sizes.dtype) * sizes


def row_shares(vector: Params, terms: Params) -> Params:
    """``|vector| / terms`` number by number, zero where both are zero."""
    return jax.tree.map(lambda x, t: trees.safe_divide(jnp.abs(x), t), vector, terms)


def _method(settings: Settings, like: Vector, precision: float) -> Method:
    solver = settings.linear_solver
    if solver is None and like.size <= DENSE_LIMIT:
        return _dense
    if solver is None:
        rtol = precision**0.6
        return _by_rows(lx.GMRES(rtol=rtol, atol=rtol, restart=64, stagnation_iters=64))
    if isinstance(solver, lx.AbstractLinearSolver):
        lineax, symmetric = solver, settings.symmetric
        return lambda operator, rhs: by_lineax(lineax, operator, rhs, symmetric=symmetric).value
    return lambda operator, rhs: solver.solve(operator, rhs, lambda v: v).value


def _by_rows(solver: lx.AbstractLinearSolver) -> Method:
    """Each equation in the unit of its terms, so that the residual's norm counts them alike."""

    def solve(operator: Operator, rhs: Vector) -> Vector:
        sizes = row_sizes(operator, jnp.ones_like(rhs))
        inverse = 1.0 / jnp.where(sizes == 0, 1.0, sizes)
        scaled = lambda u: inverse * operator(u)  # noqa: E731
        unit, length = trees.normalise(inverse * rhs)
        return length * by_lineax(solver, scaled, unit, symmetric=False).value

    return solve


def _dense(operator: Operator, rhs: Vector) -> Vector:
    """By singular values, which tell a singular matrix from a regular one."""
    whole = matrix(operator, rhs)
    # Unknowns or equations in very different units do not make a matrix singular.
    rows = _inverse_peaks(whole, axis=1)
    whole = whole * rows[:, None]
    across = _inverse_peaks(whole, axis=0)
    left, values, right = jnp.linalg.svd(whole * across[None, :])
    regular = values[-1] > rhs.size * jnp.finfo(rhs.dtype).eps * values[0]
    solution = across * (right.T @ ((left.T @ (rows * rhs)) / values))
    return jnp.where(regular, solution, jnp.nan)


def _inverse_peaks(matrix: Float[Array, "n n"], axis: int) -> Float[Array, " n"]:
    peaks = jnp.max(jnp.abs(matrix), axis=axis)
    return 1.0 / jnp.where(peaks == 0, 1.0, peaks)


def complaint() -> str:
    """What to say of a derivative that failed."""
    return (
        "An implicit derivative failed: F(x) is not zero at the solution, which the inner solver "
        "has to mend, or the linear solve with ∂F/∂x did not succeed, because it is singular or "
        "the linear solver gave up. pullback.implicit.certify tells which."
    )
