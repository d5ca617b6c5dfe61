"""The convex problem of a linear head: its minimum, and the inverse of its curvature.

With the pull Λ toward (W₀, c₀) the head of a separable loss minimises

    Σₙ aₙ ℓ(fₙ, yₙ) + ½‖W − W₀‖²_Λ + ½‖c − c₀‖²_Λ,   f = s(FW + 1cᵀ),

over F, the features of the support set (n × d). Its curvature is A = Λ + BᵀPB with B = s[F, 1] for
each output and P the blocks aₙ∇²ℓ(fₙ). All of it goes through one matrix R with

    RRᵀ = K = s²(F Λ_W⁻¹ Fᵀ + 11ᵀ Λ_c⁻¹)      (one for all outputs, or one for each)

which is either BΛ^(−½) itself (the *primal* form, d + 1 columns) or a Cholesky factor of K (the
*dual* form, n columns), whichever is smaller. Every head on the way is W = W₀ + sΛ_W⁻¹FᵀX with X of
the size of the outputs, hence f = f₀ + Re with ½‖e‖² for the pull, and Newton's method for

    min over e of  Σₙ aₙ ℓ(f₀ + Re) + ½‖e‖²

solves with M = I + RᵀPR: by a Cholesky factor up to :data:`DENSE` unknowns, by CG beyond. By the
identity of Woodbury the same M gives A⁻¹.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pullback.core import memory
from pullback.core.errors import InputError
from pullback.models.head import Head
from pullback.models.losses import MeanLoss

NEWTON_STEPS = 30
"""The most Newton steps; five or so are taken on a network's features."""

HALVINGS = 10
"""The shortest Newton step that is tried is ½ to this power of the whole one."""

DENSE = 100
"""Up to so many unknowns a Newton system is factored, beyond it is solved by CG."""

FORMS = ("auto", "dual", "primal")
"""Forms of the root R of K."""


class HeadProblem(eqx.Module):
    """The problem of one task's head on given features.

    Args:
        loss: ℓ.
        scale: s.
        features: F.
        targets: yₙ.
        shares: aₙ, what each example counts for.
        start: the head that is pulled toward.
        strength: Λ of its weight and its bias: a scalar, or shaped like it.
        form: of R, in :data:`FORMS`.
    """

    loss: MeanLoss = eqx.field(static=True)
    scale: float = eqx.field(static=True)
    features: Float[Array, "n d"]
    targets: Any
    shares: Float[Array, " n"]
    start: Head
    strength: Head
    form: str = eqx.field(static=True, default="auto")

    def outputs(self, head: Head) -> Float[Array, "n c"]:
        """f = s(FW + 1cᵀ)."""
        plain = self.features @ head.weight
        return self.scale * (plain if head.bias is None else plain + head.bias[None])

    def slopes(self, outputs: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """G, the loss's gradient by the outputs."""
        return self._weighted(self.loss.slopes(outputs, self.targets))

    def gradient(self, slopes: Float[Array, "n c"]) -> Head:
        """The loss's gradient by the head, BᵀG."""
        bias = None if self.start.bias is None else self.scale * jnp.sum(slopes, 0)
        return Head(self.scale * (self.features.T @ slopes), bias)

    def value(self, outputs: Float[Array, "n c"]) -> Float[Array, ""]:
        """The loss."""
        return jnp.sum(self._weighted(self.loss.each(outputs, self.targets)))

    def pull(self, head: Head) -> Float[Array, ""]:
        """½‖W − W₀‖²_Λ + ½‖c − c₀‖²_Λ."""
        terms = jax.tree.map(
            lambda x, y, s: 0.5 * jnp.sum(s * (x - y) ** 2), head, self.start, self._spread()
        )
        return jax.tree.reduce(jnp.add, terms)

    def solve(self) -> Head:
        """The head at the minimum."""
        size, outputs = self.features.shape[0], self.start.weight.shape[1]
        if not size:
            return self.start
        start = self.outputs(self.start)
        self.loss.check_convex(start, self.targets)
        root = self.root()
        eps = jnp.finfo(start.dtype).eps

        def objective(e):
            return self.value(start + _times(root, e)) + 0.5 * jnp.sum(e * e)

        def newton(e):
            f = start + _times(root, e)
            gradient = _transposed(root, self.slopes(f)) + e
            curved = Curvature(root, self.curvatures(f))
            move = curved.solve(gradient)
            # The minimum is no lower than this, as far as the loss is quadratic.
            return move, jnp.vdot(move, gradient)

        def step(carry):
            count, e, _ = carry
            move, gain = newton(e)
            shares = 0.5 ** jnp.arange(HALVINGS + 1, dtype=e.dtype)
            values = jax.vmap(lambda share: objective(e - share * move))(shares)
            values = jnp.where(jnp.isnan(values), jnp.inf, values)
            # Near the solution values differ by rounding only.
            near = gain < jnp.sqrt(eps) * (jnp.abs(values[0]) + eps)
            share = jnp.where(near, 1.0, shares[jnp.argmin(values)])
            e = e - share * move
            # Newton's method squares the error: from here it is rounding.
            size = jnp.where(share == 1.0, jnp.linalg.norm(move), jnp.inf)
            return count + 1, e, size > 0.3 * jnp.sqrt(eps) * jnp.linalg.norm(e)

        e = jnp.zeros((root.shape[2], outputs), start.dtype)
        if self.loss.quadratic:
            move, _ = newton(e)
            e = -move
        else:
            begin = (0, e, jnp.asarray(True))
            _, e, _ = jax.lax.while_loop(lambda c: (c[0] < NEWTON_STEPS) & c[2], step, begin)
        return self._head(root, e)

    def _head(self, root: Float[Array, "k n r"], e: Float[Array, "r c"]) -> Head:
        """The head whose outputs are f₀ + Re."""
        # At the minimum it is (W₀, c₀) − Λ⁻¹BᵀG as well, but where outputs are large G is what
        # rounding leaves of them.
        if not self._is_primal():
            solve = functools.partial(jax.scipy.linalg.solve_triangular, trans=1, lower=True)
            x = solve(root[0], e) if len(root) == 1 else jax.vmap(solve, (0, 1), 1)(root, e)
            e = _transposed(self._scaled(), x)
        moved = Head(e[: self.features.shape[1]], None if self.start.bias is None else e[-1])
        return jax.tree.map(lambda w, x, s: w + x / jnp.sqrt(s), self.start, moved, self._spread())

    def root(self) -> Float[Array, "k n r"]:
        """R, one for all outputs or one for each."""
        scaled = self._scaled()
        if self._is_primal():
            return scaled
        outputs, n, _ = scaled.shape
        self._check_memory(outputs * n * n * scaled.dtype.itemsize)
        kernel = jnp.einsum("knd,kmd->knm", scaled, scaled)
        eps, tiny = jnp.finfo(kernel.dtype).eps, jnp.finfo(kernel.dtype).tiny
        jitter = jnp.maximum(10 * eps * jnp.trace(kernel, axis1=1, axis2=2) / n, tiny**0.5)
        return cholesky(kernel + jitter[:, None, None] * jnp.eye(n, dtype=kernel.dtype))

    def _is_primal(self) -> bool:
        n, d = self.features.shape
        columns = d if self.start.bias is None else d + 1
        return self.form == "primal" or (self.form == "auto" and columns <= n)

    def _scaled(self) -> Float[Array, "k n columns"]:
        """BΛ^(−½)."""
        weight, bias = self.strength
        n, d = self.features.shape
        diagonal = jnp.ndim(weight) == 2 or (bias is not None and jnp.ndim(bias) == 1)
        outputs = self.start.weight.shape[1] if diagonal else 1
        dtype = self.features.dtype
        by_weight = jnp.broadcast_to(jnp.asarray(weight, dtype), (d, outputs))
        scaled = self.scale * self.features[None] / jnp.sqrt(by_weight).T[:, None, :]
        if bias is None:
            return scaled
        by_bias = jnp.broadcast_to(jnp.asarray(bias, dtype), (outputs,))
        ones = jnp.broadcast_to(self.scale / jnp.sqrt(by_bias)[:, None, None], (outputs, n, 1))
        return jnp.concatenate([scaled, ones], 2)

    def _check_memory(self, needed: int) -> None:
        free = memory.available_bytes()
        if free is not None and 2 * needed > free:
            n, d = self.features.shape
            raise InputError(
                f"The dual form of the head's solve takes kernels of {n}² numbers, "
                f"{memory.bytes_text(2 * needed)} of memory; {memory.bytes_text(free)} are free",
                remedy=f"Take Projected(form='primal'), for {d} features in place of {n} "
                "examples, or fewer support examples",
            )

    def curvatures(self, outputs: Float[Array, "n c"]) -> Float[Array, "n c c"]:
        """P, the blocks aₙ∇²ℓ(fₙ)."""
        return self._weighted(self.loss.curvatures(outputs, self.targets))

    def curved(self, head: Head) -> "CurvedHead":
        """The curvature A of the whole problem at a head."""
        blocks = self.curvatures(self.outputs(head))
        small = Curvature(self.root(), blocks) if len(blocks) else None
        return CurvedHead(self, blocks, small)

    def _spread(self) -> Head:
        return jax.tree.map(
            lambda s, x: jnp.broadcast_to(jnp.asarray(s, x.dtype), x.shape),
            self.strength,
            self.start,
        )

    def _weighted(self, each: Array) -> Array:
        shares = self.shares.reshape(-1, *[1] * (each.ndim - 1))
        return shares * each


class Curvature(eqx.Module):
    """M = I + RᵀPR, factored where it is small.

    Args:
        root: R.
        blocks: P.
        factor: the lower Cholesky factor of M; None where M is large.
    """

    root: Float[Array, "k n r"]
    blocks: Float[Array, "n c c"]
    factor: Float[Array, "rc rc"] | None

    def __init__(self, root: Float[Array, "k n r"], blocks: Float[Array, "n c c"]):
        self.root, self.blocks, self.factor = root, blocks, None
        _, n, r = root.shape
        c = blocks.shape[1]
        if r * c <= DENSE:
            whole = jnp.broadcast_to(root, (c, n, r))
            half = jnp.einsum("nab,bnq->nabq", blocks, whole)
            matrix = jnp.einsum("anp,nabq->paqb", whole, half).reshape(r * c, r * c)
            self.factor = cholesky(matrix + jnp.eye(r * c, dtype=root.dtype))

    def solve(self, vector: Float[Array, "r c"]) -> Float[Array, "r c"]:
        """``M⁻¹ · vector``."""
        if self.factor is not None:
            flat = jax.scipy.linalg.cho_solve((self.factor, True), vector.reshape(-1))
            return flat.reshape(vector.shape)
        tolerance = 10 * float(jnp.finfo(vector.dtype).eps)

        def product(x):
            curved = jnp.einsum("nab,nb->na", self.blocks, _times(self.root, x))
            return x + _transposed(self.root, curved)

        return jax.scipy.sparse.linalg.cg(product, vector, tol=tolerance, maxiter=500)[0]


class CurvedHead(eqx.Module):
    """A = Λ + BᵀPB, the curvature of the head's problem, and its inverse.

    Args:
        problem: the head's problem.
        blocks: P.
        small: M.
    """

    problem: HeadProblem
    blocks: Float[Array, "n c c"]
    small: Curvature | None

    def product(self, head: Head) -> Head:
        """``A · head``, with Λ."""
        curved = jnp.einsum("nab,nb->na", self.blocks, self.problem.outputs(head))
        pulled = jax.tree.map(lambda s, x: s * x, self.problem._spread(), head)
        return jax.tree.map(jnp.add, self.problem.gradient(curved), pulled)

    def inverse(self, head: Head) -> Head:
        """``A⁻¹ · head``, by the identity of Woodbury."""
        first = self._woodbury(head)
        if self.small is None:
            return first
        # The identity takes the difference of two large vectors; a second pass restores what
        # rounding took.
        left = jax.tree.map(jnp.subtract, head, self.product(first))
        return jax.tree.map(jnp.add, first, self._woodbury(left))

    def _woodbury(self, head: Head) -> Head:
        strength = self.problem._spread()
        by_pull = jax.tree.map(lambda x, s: x / s, head, strength)
        if self.small is None:
            return by_pull
        root = self.small.root
        moved = jnp.einsum("nab,nb->na", self.blocks, self.problem.outputs(by_pull))
        seen = _times(root, self.small.solve(_transposed(root, moved)))
        slopes = moved - jnp.einsum("nab,nb->na", self.blocks, seen)
        back = self.problem.gradient(slopes)
        return jax.tree.map(lambda x, g, s: x - g / s, by_pull, back, strength)


def cholesky(matrix: Float[Array, "*batch n n"]) -> Float[Array, "*batch n n"]:
    """The lower Cholesky factor of a matrix that is positive semidefinite but for rounding.

    Rounding moves the eigenvalues by some ε·trace. Where that makes one negative, as of examples
    whose features are nearly the same, so much is added to the diagonal as rounding may have taken:
    10·ε·trace, and n times that where it does not suffice (Higham 2002, theorem 10.7).

    Args:
        matrix: one, or a batch of them.

    Returns:
        The factor; NaN if the matrix holds one.
    """
    size, eps = matrix.shape[-1], jnp.finfo(matrix.dtype).eps
    rounding = eps * jnp.trace(matrix, axis1=-2, axis2=-1)[..., None, None]

    def factor(share: float) -> Float[Array, "*batch n n"]:
        return jnp.linalg.cholesky(matrix + share * rounding * jnp.eye(size, dtype=matrix.dtype))

    found = jnp.linalg.cholesky(matrix)
    for share in (10.0, 10.0 * size):
        found = jax.lax.cond(
            jnp.isfinite(found).all(), lambda known: known, lambda _, s=share: factor(s), found
        )
    return found


def _times(root: Float[Array, "k n r"], e: Float[Array, "r c"]) -> Float[Array, "n c"]:
    """``R · e`` for each output."""
    return root[0] @ e if len(root) == 1 else jnp.einsum("cnr,rc->nc", root, e)


def _transposed(root: Float[Array, "k n r"], x: Float[Array, "n c"]) -> Float[Array, "r c"]:
    """``Rᵀ · x`` for each output."""
    return root[0].T @ x if len(root) == 1 else jnp.einsum("cnr,nc->rc", root, x)
