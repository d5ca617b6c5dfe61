"""Least-squares tasks, for which every answer of the library has a formula, here in NumPy."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from pullback.core.problem import InnerProblem
from pullback.linear import CG, Dense, Lineax
from pullback.solvers import LBFGS, GradientDescent, Nesterov, Optax
from pullback.tasks import Task

SIZE = 8
CURVATURES = np.geomspace(0.2, 2.0, SIZE)


def loss(params, batch):
    """Half the sum of squares; a sum, so that joined batches add up."""
    x, y = batch
    residual = x @ ravel_pytree(params)[0] - y
    return 0.5 * jnp.sum(residual * residual)


def symmetric(eigenvalues, seed=0):
    """A matrix with the given eigenvalues, in random directions."""
    n = len(eigenvalues)
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    return q * np.asarray(eigenvalues) @ q.T


def nested(vector):
    """A vector as three leaves on two levels, one of them a scalar."""
    return {"a": vector[:3], "b": {"c": vector[3], "w": vector[4:].reshape(2, 2)}}


def flat(params):
    return np.asarray(ravel_pytree(params)[0])


def residual(whole, loss_gradient):
    """The stationarity residual of flat vectors, each leaf of :func:`nested` in its own unit."""
    pull = nested(whole - loss_gradient)
    parts = jax.tree.map(
        lambda r, g, p: np.linalg.norm(r) / max(np.linalg.norm(g), np.linalg.norm(p)),
        *(nested(whole), nested(loss_gradient), pull),
    )
    together = np.linalg.norm(whole) / np.linalg.norm(loss_gradient)
    return max(together, np.sqrt(np.mean(np.square(jax.tree.leaves(parts)))))


def batch(seed, curvatures=CURVATURES, rows=12):
    """Rows and targets whose loss has the given curvatures, in random directions."""
    rng = np.random.default_rng(seed)
    n = len(curvatures)
    left = np.linalg.qr(rng.normal(size=(max(rows, n), n)))[0]
    right = np.linalg.qr(rng.normal(size=(n, n)))[0]
    x = left * np.sqrt(curvatures) @ right.T
    return x, rng.normal(size=len(x))


def task(seed=0):
    return Task(support=batch(10 + seed), query=batch(20 + seed))


def theta(seed=0):
    return nested(np.random.default_rng(30 + seed).normal(size=SIZE))


STRENGTHS = {
    "none": None,
    "scalar": 0.7,
    "per leaf": {"a": 0.5, "b": {"c": 3.0, "w": 1.5}},
    "diagonal": nested(np.geomspace(0.3, 3.0, SIZE)),
    "mixed": {"a": np.asarray([0.3, 1.0, 2.0]), "b": {"c": 3.0, "w": 0.5}},
}
"""Λ in each form; ``none`` is left out where a proximal term is required."""

PROXIMAL = [name for name, strength in STRENGTHS.items() if strength is not None]


def strength_vector(form):
    """The diagonal of Λ as a vector."""
    strength = STRENGTHS[form]
    if strength is None:
        return np.zeros(SIZE)
    if np.ndim(strength) == 0 and not isinstance(strength, dict):
        return np.full(SIZE, strength)
    shaped = nested(np.ones(SIZE))
    return flat(jax.tree.map(lambda s, x: s * x, strength, shaped))


@dataclass(frozen=True)
class Exact:
    """The inner problem of least squares, solved by formula.

    Args:
        support: rows and targets of the inner loss.
        query: rows and targets of the outer loss.
        theta: the starting point as a vector.
        strength: the diagonal of Λ; zeros for no proximal term.
    """

    support: tuple
    query: tuple
    theta: np.ndarray
    strength: np.ndarray

    @property
    def hessian(self):
        return self.support[0].T @ self.support[0]

    @property
    def curved(self):
        return self.hessian + np.diag(self.strength)

    @property
    def phi(self):
        x, y = self.support
        return np.linalg.solve(self.curved, x.T @ y + self.strength * self.theta)

    @property
    def jacobian(self):
        return np.linalg.solve(self.curved, np.diag(self.strength))

    def gradient(self, phi):
        x, y = self.support
        return x.T @ (x @ phi - y) + self.strength * (phi - self.theta)

    def outer_gradient(self, phi):
        x, y = self.query
        return x.T @ (x @ phi - y)

    def outer_value(self, phi):
        x, y = self.query
        return 0.5 * np.sum((x @ phi - y) ** 2)

    def shrinkage(self, steps, rate):
        """(I − η(H + Λ))ᵏ: what k gradient steps leave of the distance to the optimum."""
        return np.linalg.matrix_power(np.eye(len(self.theta)) - rate * self.curved, steps)

    def phi_after(self, steps, rate):
        return self.phi + self.shrinkage(steps, rate) @ (self.theta - self.phi)

    def jacobian_after(self, steps, rate):
        left = self.shrinkage(steps, rate)
        return self.jacobian + left @ (np.eye(len(self.theta)) - self.jacobian)

    @property
    def meta_gradient(self):
        """Λ(H + Λ)⁻¹∇L(φ*, query)."""
        return self.jacobian.T @ self.outer_gradient(self.phi)


def exact(form="scalar", task=None, theta_=None):
    task = globals()["task"]() if task is None else task
    point = flat(theta()) if theta_ is None else flat(theta_)
    return Exact(task.support, task.query, point, strength_vector(form))


def joined(task):
    return tuple(np.concatenate(pair) for pair in zip(task.support, task.query, strict=True))


def solve_exactly(problem: InnerProblem, start, key):
    """A black box: the normal equations, by way of the problem's own gradient."""
    zero, unravel = ravel_pytree(start)
    gradient = lambda v: ravel_pytree(problem.gradient(unravel(v)))[0]  # noqa: E731
    hessian = jax.jacfwd(gradient)(zero)
    return unravel(zero - jnp.linalg.solve(hessian, gradient(zero)))


def _decaying_adam(steps):
    return optax.adam(optax.exponential_decay(0.1, steps // 50, 0.72))


SOLVERS = {
    "lbfgs": LBFGS(40),
    "lbfgs, short memory": LBFGS(120, history=2),
    "nesterov": Nesterov(500),
    "gradient descent": GradientDescent(1500, learning_rate=0.15),
    "momentum": GradientDescent(600, learning_rate=0.1, momentum=0.7),
    "adam": Optax(_decaying_adam(3000), 3000),
    "sgd": Optax(optax.sgd(0.15), 1500),
    "black box": solve_exactly,
}
"""Inner solvers with enough steps to solve these tasks to rounding."""

LINEAR_SOLVERS = {
    "cg": CG(60, rtol=1e-11),
    "cg, plain": CG(60, rtol=1e-11, preconditioned=False),
    "cg, from rhs": CG(60, rtol=1e-11, start="rhs"),
    "cg, plain, from rhs": CG(60, rtol=1e-11, start="rhs", preconditioned=False),
    "dense": Dense(),
    "lineax gmres": Lineax(lx.GMRES(rtol=1e-11, atol=1e-11)),
    "lineax cg": Lineax(lx.CG(rtol=1e-11, atol=1e-11)),
    "lineax bicgstab": Lineax(lx.BiCGStab(rtol=1e-11, atol=1e-11)),
}
"""Linear solvers set to solve to rounding."""
