"""A task's parameters as a distribution: Laplace's approximation at φ*, by the same H + Λ.

If the loss is the mean negative log-likelihood of N examples, the inner problem's objective is the
negative log posterior of φ, divided by N, under the prior φ ~ N(θ, (NΛ)⁻¹). About its minimum

    φ | D_support ≈ N(φ*, (H + Λ)⁻¹ / N),
    log p(D_support | θ, Λ) ≈ −N·(L(φ*) + ½‖φ* − θ‖²_Λ) + ½ log|Λ| − ½ log|H + Λ|

(Tierney & Kadane 1986; MacKay 1992). H + Λ is the operator of the meta-gradient: one linear solve
with it gives dφ*/dθ, its inverse is the covariance, its determinant the evidence.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from pullback.core import trees
from pullback.core.display import VerdictRecord
from pullback.core.errors import InputError, check_counts, check_positive, unknown_name
from pullback.core.problem import InnerProblem, apply_strength, spread_strength
from pullback.core.results import UNKNOWN, Verdict
from pullback.core.trees import Params
from pullback.implicit.proximal import ATTACHED, attach_derivative, linearise
from pullback.linear.base import Operator
from pullback.linear.dense import matrix
from pullback.models.head import LinearHead
from pullback.models.losses import separable
from pullback.solvers.projected import split_strength

METHODS = ("auto", "dense", "head", "lanczos")

SMALL = 512
"""Up to so many parameters ``method="auto"`` takes the whole matrix."""

LIMIT = 4096
"""The most parameters of a whole matrix."""

SOLVED = 0.05
"""Above this residual of its solves a gradient of log|H + Λ| is NaN."""


class Evidence(VerdictRecord):
    """The marginal likelihood of a support set, and how far to trust it.

    Args:
        log_evidence: log p(D_support | θ, Λ); with the head alone, given the body.
        log_determinant: log|H + Λ|, of the parameters that are uncertain.
        error: the standard error of ``log_determinant``; 0 where it is exact.
        residual: the stationarity residual of φ, as a meta-gradient's.
        smallest_curvature: the smallest eigenvalue of H + Λ, or an upper bound of it.
        code: the number of a :class:`~pullback.core.results.Verdict`.
    """

    log_evidence: Float[Array, ""]
    log_determinant: Float[Array, ""]
    error: Float[Array, ""]
    residual: Float[Array, ""]
    smallest_curvature: Float[Array, ""]
    code: Int[Array, ""]

    def _message(self, verdict: Verdict, fields: Mapping[str, Any]) -> str:
        if verdict is Verdict.SOLVE_NOT_CONVERGED:
            return "Lanczos' method stopped early, so that gradients are NaN: use more steps of it"
        return super()._message(verdict, fields)


class Prediction(NamedTuple):
    """What a function of φ is, and how uncertain.

    Args:
        mean: its value at φ*.
        variance: of each number in it, from its slope there.
    """

    mean: Float[Array, "..."]
    variance: Float[Array, "..."]


class Laplace(eqx.Module):
    """A normal distribution about a task's adapted parameters, as ``pb.posterior`` returns it.

    Args:
        problem: the inner problem.
        phi: φ*.
        evidence: of the support set, with the verdict.
        examples: N.
        factor: the Cholesky factor of H + Λ; None where it is known by its products alone.
        apply: where the head is, if it alone is uncertain.
        steps: of Lanczos' method.
    """

    problem: InnerProblem
    phi: Params
    evidence: Evidence
    examples: Float[Array, ""]
    factor: Float[Array, "m m"] | None
    apply: LinearHead | None = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def sample(self, key: PRNGKeyArray, count: int) -> Params:
        """Draw parameters.

        Args:
            key: of the draw.
            count: how many.

        Returns:
            Parameters with a leading axis of ``count``; NaN where H + Λ is not positive definite.

        Raises:
            InputError: if ``count`` is no positive whole number.
        """
        check_counts("sample", count=count)
        free, join = _free(self.phi, self.apply)
        flat, restore = trees.ravel(free)
        noise = jax.random.normal(key, (count, flat.size), flat.dtype)
        if self.factor is not None:
            solve = functools.partial(jax.scipy.linalg.solve_triangular, lower=True, trans=1)
            moved = solve(self.factor, noise.T).T
        else:
            product = _flat_product(self.problem, self.phi, self.apply)
            moved = jax.lax.map(
                lambda z: _lanczos(product, z, self.steps).times(lambda v: 1.0 / jnp.sqrt(v)), noise
            )
        drawn = flat + moved / jnp.sqrt(self.examples).astype(flat.dtype)
        return jax.vmap(lambda one: join(restore(one)))(drawn)

    def predict(self, function: Callable[[Params], Float[Array, "..."]]) -> Prediction:
        """The value of a function of the parameters, and its variance by its slope at φ*.

        Args:
            function: ``function(params) -> array``, such as a network's outputs for some inputs.

        Returns:
            Its value and the variance of each number in it, by the linearised model (Immer et
            al. 2021). The noise of an observation is not part of it.
        """
        free, join = _free(self.phi, self.apply)
        flat, restore = trees.ravel(free)

        def of_flat(flat):
            return function(join(restore(flat)))

        mean, pull = jax.vjp(of_flat, flat)
        basis = jnp.eye(mean.size, dtype=mean.dtype).reshape(mean.size, *mean.shape)
        if self.factor is not None:
            rows = jax.lax.map(lambda cotangent: pull(cotangent)[0], basis)
            half = jax.scipy.linalg.solve_triangular(self.factor, rows.T, lower=True)
            squares = jnp.sum(half**2, 0)
        else:
            product = _flat_product(self.problem, self.phi, self.apply)

            def one(cotangent):
                found = _lanczos(product, pull(cotangent)[0], self.steps)
                return found.quadratic(lambda values: 1.0 / values)

            squares = jax.lax.map(one, basis)
        return Prediction(mean, (squares / self.examples).reshape(mean.shape))


def posterior(
    problem: InnerProblem,
    phi: Params,
    *,
    examples: Any,
    method: str = "auto",
    key: PRNGKeyArray | None = None,
    steps: int = 64,
    probes: int = 8,
) -> Laplace:
    """The distribution of one task's parameters about their adapted values.

    Args:
        problem: the inner problem, whose loss is a mean negative log-likelihood.
        phi: its solution, by any solver.
        examples: N, how many examples the loss is the mean of; 1 for a sum, with Λ the prior's
            precision itself.
        method: ``"dense"`` has the whole matrix, one Hessian-vector product for each parameter;
            ``"head"`` that of the linear head, all else fixed; ``"lanczos"`` products alone.
            ``"auto"`` is the first up to 512 parameters, then the second where the loss has a
            linear head, then the third.
        key: of Lanczos' probes.
        steps: of Lanczos' method, a product each.
        probes: for log|H + Λ| by Lanczos' method (Ubaru, Chen & Saad 2017).

    Returns:
        The distribution. Derivatives of ``evidence.log_evidence`` and ``log_determinant`` by θ, Λ
        and the support set see φ* move, and are NaN where φ is not stationary to 0.1 or a solve
        failed.

    Raises:
        InputError: if there is no proximal term, no such method, no head, no key, or too large a
            matrix; if a setting is out of range.
    """
    if problem.strength is None:
        raise InputError(
            "The problem has no proximal term, so that there is no prior",
            remedy="Give Proximal a strength",
        )
    if not isinstance(examples, Tracer):
        check_positive("posterior", examples=examples)
    check_counts("posterior", steps=steps, probes=probes)
    apply = _uncertain(problem, phi, method)
    point = linearise(problem, jax.lax.stop_gradient(phi))
    residual = jax.lax.stop_gradient(point.residual())
    phi = attach_derivative(problem, jax.lax.stop_gradient(phi), residual)
    free, _ = _free(phi, apply)
    size = trees.ravel(free)[0].size
    if method == "lanczos" or (method == "auto" and apply is None and size > SMALL):
        if key is None:
            raise InputError(
                f"Lanczos' method draws probes for {size} parameters, and there is no key",
                remedy="posterior(..., key=jax.random.key(0))",
            )
        factor = None
        logs, error, smallest, failed = _stochastic(
            problem, phi, apply, key, min(steps, size), probes
        )
    else:
        if size > LIMIT:
            raise InputError(
                f"method={method!r} has a matrix of {size} parameters",
                allowed=f"up to {LIMIT}",
                remedy='Use method="lanczos"',
            )
        whole = matrix(_product(problem, phi, apply), free)
        whole = 0.5 * (whole + whole.T)
        factor = jnp.linalg.cholesky(whole)
        logs = 2.0 * jnp.sum(jnp.log(jnp.diag(factor)))
        smallest = jnp.linalg.eigvalsh(jax.lax.stop_gradient(whole))[0]
        error, failed = jnp.zeros_like(logs), jnp.asarray(False)
    examples = jnp.asarray(examples, logs.dtype)
    offset = trees.subtract(free, _free(problem.theta, apply)[0])
    strength = _free_strength(problem, apply)
    spread = spread_strength(strength, offset)
    prior = [
        jnp.sum(jnp.broadcast_to(jnp.log(jnp.asarray(s, x.dtype)), x.shape))
        for s, x in zip(jax.tree.leaves(spread), jax.tree.leaves(offset), strict=True)
    ]
    pull = trees.dot(offset, apply_strength(strength, offset))
    objective = problem.loss(phi, problem.support) + 0.5 * pull
    evidence = -examples * objective + 0.5 * (sum(prior) - logs)
    code = jnp.where(failed, Verdict.SOLVE_NOT_CONVERGED, Verdict.OK)
    code = jnp.where(residual > ATTACHED, Verdict.INNER_NOT_CONVERGED, code)
    code = jnp.where(smallest > 0, code, Verdict.NEGATIVE_CURVATURE)
    finite = jnp.isfinite(objective) & jnp.isfinite(smallest)
    code = jnp.where(finite, code, Verdict.NOT_FINITE)
    found = Evidence(evidence, logs, error, residual, smallest, code)
    return Laplace(problem, phi, found, examples, factor, apply, min(steps, size))


def _uncertain(problem: InnerProblem, phi: Params, method: str) -> LinearHead | None:
    """The head, if it alone is uncertain."""
    if method not in METHODS:
        raise unknown_name("method", str(method), METHODS)
    parts = separable(problem.loss)
    if method == "head" and parts is None:
        raise InputError(
            'method="head" for a loss that knows of no linear head',
            remedy="Make it of a model that does (docs/projected.md), or use another method",
        )
    small = trees.ravel(phi)[0].size <= SMALL
    if method == "head" or (method == "auto" and parts is not None and not small):
        assert parts is not None
        return parts[1]
    return None


def _free(phi: Params, apply: LinearHead | None) -> tuple[Params, Callable[[Params], Params]]:
    """The parameters that are uncertain, and the way back to all of them."""
    if apply is None:
        return phi, lambda free: free
    body, head = apply.split(phi)
    return head, lambda head: apply.join(body, head)


def _free_strength(problem: InnerProblem, apply: LinearHead | None) -> Any:
    if apply is None:
        return problem.strength
    head = apply.split(problem.theta)[1]
    return split_strength(apply, problem.strength, head)[1]


def _flat_product(
    problem: InnerProblem, phi: Params, apply: LinearHead | None
) -> Callable[[Float[Array, " n"]], Float[Array, " n"]]:
    product = _product(problem, phi, apply)
    _, restore = trees.ravel(_free(phi, apply)[0])
    return lambda u: trees.ravel(product(restore(u)))[0]


def _product(problem: InnerProblem, phi: Params, apply: LinearHead | None) -> Operator:
    """u ↦ (H + Λ)·u on the parameters that are uncertain."""
    free, join = _free(phi, apply)
    strength = _free_strength(problem, apply)
    slope = jax.grad(lambda free: problem.loss(join(free), problem.support))
    _, curved = jax.linearize(slope, free)
    return lambda u: trees.add(curved(u), apply_strength(strength, u))


class _Krylov(NamedTuple):
    """A in the space of v, Av, A²v, ...

    Args:
        basis: orthonormal rows, the first along v; zero rows once the space is exhausted.
        values: of A there.
        vectors: of A there, as columns.
        length: ‖v‖.
        left: the norm of what the last product has outside of the space.
    """

    basis: Float[Array, "k n"]
    values: Float[Array, " k"]
    vectors: Float[Array, "k k"]
    length: Float[Array, ""]
    left: Float[Array, ""]

    @property
    def _used(self) -> Bool[Array, " k"]:
        # Where the space is exhausted the matrix has zeros that v has no part of.
        return jnp.abs(self.vectors[0]) > 10 * jnp.finfo(self.values.dtype).eps

    def _shares(self, function: Callable[[Array], Array]) -> Float[Array, " k"]:
        used = self._used
        return jnp.where(used, self.vectors[0] * function(jnp.where(used, self.values, 1.0)), 0.0)

    def times(self, function: Callable[[Array], Array]) -> Float[Array, " n"]:
        """f(A)·v."""
        return self.length * (self.vectors @ self._shares(function)) @ self.basis

    def quadratic(self, function: Callable[[Array], Array]) -> Float[Array, ""]:
        """vᵀf(A)v, by Gauss quadrature."""
        return self.length**2 * jnp.sum(self.vectors[0] * self._shares(function))

    def residual(self) -> Float[Array, ""]:
        """‖Au − v‖ / ‖v‖ of u = ``times(1/x)``."""
        last = self.vectors[-1] @ self._shares(lambda values: 1.0 / values)
        return self.left * jnp.abs(last)

    def smallest(self) -> Float[Array, ""]:
        """The smallest value that v has a part of."""
        return jnp.min(jnp.where(self._used, self.values, jnp.inf))


def _lanczos(
    product: Callable[[Float[Array, " n"]], Float[Array, " n"]],
    start: Float[Array, " n"],
    steps: int,
) -> _Krylov:
    """Lanczos' method, every vector held orthogonal to all before it.

    Args:
        product: A, symmetric.
        start: v.
        steps: products with A.

    Returns:
        A in the space that they span.
    """
    length = jnp.linalg.norm(start)
    tiny = 30 * jnp.finfo(start.dtype).eps

    def step(carry, number):
        basis, vector = carry
        basis = basis.at[number].set(vector)
        image = product(vector)
        along = vector @ image
        left = image
        for _ in range(2):
            left = left - basis.T @ (basis @ left)
        size = jnp.linalg.norm(left)
        size = jnp.where(size > tiny * jnp.linalg.norm(image), size, 0.0)
        after = jnp.where(size > 0, left / jnp.where(size > 0, size, 1.0), 0.0)
        return (basis, after), (along, size)

    first = start / jnp.where(length > 0, length, 1.0)
    basis = jnp.zeros((steps, start.size), start.dtype)
    (basis, _), (along, sizes) = jax.lax.scan(step, (basis, first), jnp.arange(steps))
    off = sizes[:-1]
    values, vectors = jnp.linalg.eigh(jnp.diag(along) + jnp.diag(off, 1) + jnp.diag(off, -1))
    return _Krylov(basis, values, vectors, length, sizes[-1])


def _stochastic(
    problem: InnerProblem,
    phi: Params,
    apply: LinearHead | None,
    key: PRNGKeyArray,
    steps: int,
    probes: int,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""], Bool[Array, ""]]:
    """log|H + Λ|, its standard error, the smallest value seen, and whether a solve failed.

    The trace of log(H + Λ) by random signs z: zᵀ log(A) z by quadrature, and its derivative
    tr(A⁻¹ dA) by (A⁻¹z)ᵀ dA z, both of the same space.
    """
    free, _ = _free(phi, apply)
    flat, _ = trees.ravel(free)
    frozen = _flat_product(*jax.lax.stop_gradient((problem, phi)), apply)
    signs = jax.random.rademacher(key, (probes, flat.size), flat.dtype)

    def one(z):
        found = _lanczos(frozen, z, steps)
        solved = found.times(lambda values: 1.0 / values)
        return found.quadratic(jnp.log), found.smallest(), found.residual(), solved

    each, smallest, residuals, solved = jax.lax.map(one, signs)
    product = _flat_product(problem, phi, apply)
    slopes = jax.lax.map(lambda pair: pair[0] @ product(pair[1]), (solved, signs))
    change = jnp.mean(slopes) - jax.lax.stop_gradient(jnp.mean(slopes))
    failed = jnp.max(residuals) > SOLVED
    error = jnp.std(each, ddof=1) / probes**0.5 if probes > 1 else jnp.full_like(each[0], UNKNOWN)
    return jnp.mean(each) + _derivative_if(~failed, change), error, jnp.min(smallest), failed


@jax.custom_jvp
def _derivative_if(sound: Bool[Array, ""], x: Float[Array, ""]) -> Float[Array, ""]:
    """x, whose derivative is NaN unless it is sound."""
    return x


@_derivative_if.defjvp
def _(primals, tangents):
    sound, x = primals
    # A factor, since the transpose of a where would be zero.
    return x, tangents[1] * jnp.where(sound, 1.0, jnp.nan).astype(x.dtype)
