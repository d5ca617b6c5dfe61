"""Linear systems of the implicit function theorem: any matrix, and how well it was solved."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float

from pullback.core import trees
from pullback.core.errors import InputError, check_positive
from pullback.core.trees import Params
from pullback.linear import LinearSolver, Operator
from pullback.linear.dense import matrix
from pullback.linear.lineax_solver import by_lineax

DENSE_LIMIT = 256
"""The most unknowns for which the default linear solver forms the whole matrix."""

Method = Callable[[Operator, Params], Params]
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
        for name, value in (("damping", self.damping), ("atol", self.atol)):
            if not 0 <= value < float("inf"):
                raise InputError(f"root({name}={value!r})", allowed="finite numbers from 0")
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


def answer_or_nan(
    operator: Operator,
    rhs: Params,
    *,
    passed: Bool[Array, ""],
    settings: Settings,
    transposed: bool,
) -> Params:
    """The solution of a linear system; NaN if it is none or if F(x) is not zero."""
    value, residual = solve_system(operator, rhs, settings)
    sound = passed & (residual <= settings.tolerance)
    silent = all_zero(rhs) if transposed else jnp.asarray(False)
    if settings.on_failure == "raise":
        value = eqx.error_if(value, ~(sound | silent), complaint())
    value = trees.scale(jnp.where(sound, 1.0, jnp.nan), value)
    # A cotangent of zero asks for nothing, whereas a tangent whose push-forward is zero still
    # moves along the null space of a singular ∂ₓF.
    return trees.where(silent, trees.zeros_like(value), value)


def solve_system(
    operator: Operator, rhs: Params, settings: Settings
) -> tuple[Params, Float[Array, ""]]:
    """u with A·u = v, and ‖A·u − v‖ / ‖v‖; NaN as the latter where A was found singular."""
    unit, length = trees.normalise(rhs)
    # A right-hand side of zero would be solved by zero even where A is singular.
    probe, _ = trees.normalise(jax.tree.map(jnp.ones_like, rhs))
    unit = trees.where(length == 0, probe, unit)
    value = _method(settings, rhs)(operator, unit)
    residual = magnitude(trees.subtract(operator(value), unit))
    return trees.scale(length, value), residual


def _method(settings: Settings, like: Params) -> Method:
    solver = settings.linear_solver
    if solver is None:
        count = sum(leaf.size for leaf in jax.tree.leaves(like))
        if count <= DENSE_LIMIT:
            return _dense
        precision = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(like))
        rtol = precision**0.6
        solver = lx.GMRES(rtol=rtol, atol=rtol, restart=64, stagnation_iters=64)
    if isinstance(solver, lx.AbstractLinearSolver):
        lineax, symmetric = solver, settings.symmetric
        return lambda operator, rhs: by_lineax(lineax, operator, rhs, symmetric=symmetric).value
    return lambda operator, rhs: solver.solve(operator, rhs, lambda v: v).value


def _dense(operator: Operator, rhs: Params) -> Params:
    """By singular values, which tell a singular matrix from a regular one."""
    flat, unravel = trees.ravel(rhs)
    wide = jnp.promote_types(flat.dtype, jnp.float32)
    whole = matrix(operator, rhs).astype(wide)
    # Unknowns or equations in very different units do not make a matrix singular.
    rows = _inverse_peaks(whole, axis=1)
    whole = whole * rows[:, None]
    across = _inverse_peaks(whole, axis=0)
    left, values, right = jnp.linalg.svd(whole * across[None, :])
    regular = values[-1] > flat.size * jnp.finfo(wide).eps * values[0]
    solution = across * (right.T @ ((left.T @ (rows * flat.astype(wide))) / values))
    return unravel(jnp.where(regular, solution, jnp.nan).astype(flat.dtype))


def _inverse_peaks(matrix: Float[Array, "n n"], axis: int) -> Float[Array, " n"]:
    peaks = jnp.max(jnp.abs(matrix), axis=axis)
    return 1.0 / jnp.where(peaks == 0, 1.0, peaks)


def magnitude(a: Params) -> Float[Array, ""]:
    """‖a‖ without underflow."""
    return trees.normalise(a)[1]


def all_zero(a: Params) -> Bool[Array, ""]:
    """Whether every number in every leaf is zero."""
    return functools.reduce(jnp.logical_and, [jnp.all(leaf == 0) for leaf in jax.tree.leaves(a)])


def complaint() -> str:
    """What to say of a derivative that failed."""
    return (
        "An implicit derivative failed: F(x) is not zero at the solution, which the inner solver "
        "has to mend, or the linear solve with ∂F/∂x did not succeed, because it is singular or "
        "the linear solver gave up. pullback.implicit.certify tells which."
    )
