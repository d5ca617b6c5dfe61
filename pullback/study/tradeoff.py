"""Accuracy of the meta-gradient against computation, where the exact one is known.

Every meta-gradient is compared with the implicit gradient of the solved proximal problem
(Rajeswaran et al. 2019, Definition 3 and Figure 2a). iMAML stops the inner descent after some
steps and CG after others; MAML differentiates through the same descent; FOMAML leaves the
Jacobian out. All is done in float64, so that errors can be followed down to rounding.
"""

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pullback.algorithms import fomaml, imaml, maml
from pullback.core.problem import Proximal
from pullback.implicit.certificate import Certify
from pullback.linear import CG
from pullback.solvers import GradientDescent
from pullback.study import quadratic
from pullback.study.parts import Result, Tick, handed_over, keys_of, spread
from pullback.tasks import Task

GRADIENT, PRODUCT = 1, 2
"""What a gradient and a Hessian-vector product count as, in gradients."""

RULE = (
    "a gradient counts 1, a Hessian-vector product 2; T inner steps and k CG steps make "
    "T + 2 + 2k for iMAML (with the query gradient, and the one the products are linearised at), "
    "3T + 1 for MAML (each step is gone through again with a product), T + 1 for FOMAML"
)


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        size: parameters of the regression.
        rows: examples of the support and of the query set.
        spread: ratio of the features' largest variance to the smallest.
        tasks: tasks over which medians and quartiles are taken.
        strength: λ; the condition number of H + Λ is (1 + λ) / λ.
        inner_steps: steps of gradient descent of size 1 / (1 + λ).
        linear_steps: CG steps of the curves against inner steps.
        solve_steps: CG steps of the curves against CG steps; they include ``linear_steps``.
        unconverged: which of ``inner_steps`` stands for an inner problem half solved.
    """

    size: int = 50
    rows: int = 25
    spread: float = 100.0
    tasks: int = 20
    strength: float = 0.05
    inner_steps: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    linear_steps: tuple[int, ...] = (2, 5, 10, 20)
    solve_steps: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 30)
    unconverged: int = 32

    @property
    def programs(self) -> int:
        """How many programs are compiled and run."""
        return 2 + len(self.solve_steps) + len(self.inner_steps)

    @property
    def learning_rate(self) -> float:
        """The inner step: the inverse of the largest curvature of the proximal problem."""
        return 1.0 / (1.0 + self.strength)


FULL = Settings()
QUICK = Settings(
    size=20,
    rows=10,
    tasks=8,
    inner_steps=(1, 4, 16, 64),
    linear_steps=(2, 10),
    solve_steps=(2, 10),
    unconverged=16,
)


def measure(settings: Settings, seed: int, tick: Tick) -> Result:
    """Errors of every algorithm against inner steps, CG steps and computation.

    Args:
        settings: what is measured.
        seed: of the tasks and of θ.
        tick: told how many programs are done.

    Returns:
        ``curves`` against inner steps and cost; ``solve`` against CG steps, with the
        certificate's estimate.
    """
    with jax.enable_x64(True):
        return _measure(settings, seed, tick)


def cost(algorithm: str, inner_steps: int, linear_steps: int = 0) -> int:
    """The computation behind one meta-gradient, in gradients; see :data:`RULE`."""
    inner = GRADIENT * inner_steps + GRADIENT
    if algorithm == "imaml":
        return inner + GRADIENT + PRODUCT * linear_steps
    return inner + (PRODUCT * inner_steps if algorithm == "maml" else 0)


def descend(
    task: Task, theta: Float[Array, " n"], settings: Settings, steps: Int[Array, ""]
) -> Float[Array, " n"]:
    """φ after a number of steps of gradient descent that may be traced, unlike that of
    :class:`~pullback.solvers.GradientDescent`: one program serves every number.
    """
    problem = Proximal(quadratic.loss, settings.strength).problem(theta, task.support)

    def step(_: Int[Array, ""], phi: Float[Array, " n"]) -> Float[Array, " n"]:
        return phi - settings.learning_rate * problem.gradient(phi)

    return jax.lax.fori_loop(0, steps, step, theta)


def _measure(settings: Settings, seed: int, tick: Tick) -> Result:
    draws = jax.random.split(keys_of(seed, 1), settings.tasks + 1)
    theta = jax.random.normal(draws[0], (settings.size,))
    done = 0

    def finished(found: Array | tuple[Array, ...]) -> tuple[np.ndarray, ...]:
        nonlocal done
        done += 1
        tick(done)
        return jax.tree.map(np.asarray, found)

    @jax.jit
    def prepare(keys):
        def one(key):
            task = quadratic.sample(key, settings.size, settings.rows, settings.spread)
            exact = quadratic.solve(task, theta, settings.strength)
            steps = jnp.asarray(settings.inner_steps)
            phis = jax.vmap(lambda n: descend(task, theta, settings, n))(steps)
            # The exact solution comes last: the inner problem solved to rounding.
            return task, exact, jnp.concatenate([phis, exact.phi[None]])

        return jax.vmap(one)(keys)

    tasks, exact, phis = prepare(draws[1:])
    finished(())

    def on_each_phi(make):
        """A meta-gradient from every φ of every task: arrays of shape (tasks, φs)."""

        def one(task, exact, phi):
            algorithm = make(handed_over(phi))
            _, gradient, info = algorithm.meta_gradient(theta, task, draws[0])
            error = jnp.linalg.norm(gradient - exact.gradient)
            sizes = jnp.stack([jnp.linalg.norm(exact.gradient), jnp.linalg.norm(gradient)])
            estimate = info.inner_error + info.linear_error
            return error / sizes[0], error / sizes[1], estimate

        each = jax.vmap(jax.vmap(one, in_axes=(None, None, 0)))
        return finished(jax.jit(each)(tasks, exact, phis))

    by_solve = {
        k: on_each_phi(
            lambda solver, k=k: imaml(
                quadratic.loss,
                strength=settings.strength,
                solver=solver,
                linear_solver=CG(k, rtol=0.0),
                # The loss is quadratic, and a correction right however long it is.
                certify=Certify(reach=1e6),
            )
        )
        for k in settings.solve_steps
    }
    first_order, _, _ = on_each_phi(
        lambda solver: fomaml(quadratic.loss, solver=solver, strength=settings.strength)
    )

    def through_steps(steps):
        algorithm = maml(
            quadratic.loss,
            solver=GradientDescent(steps, settings.learning_rate),
            strength=settings.strength,
        )

        def one(task, exact):
            _, gradient, _ = algorithm.meta_gradient(theta, task, draws[0])
            error = jnp.linalg.norm(gradient - exact.gradient)
            return error / jnp.linalg.norm(exact.gradient)

        return finished(jax.jit(jax.vmap(one))(tasks, exact))

    unrolled = np.stack([through_steps(steps) for steps in settings.inner_steps], axis=1)

    curves = [
        _curve(settings, "imaml", by_solve[k][0][:, :-1], linear_steps=k)
        for k in settings.linear_steps
    ]
    curves.append(_curve(settings, "maml", unrolled))
    curves.append(_curve(settings, "fomaml", first_order[:, :-1]))
    places = {
        "converged": len(settings.inner_steps),
        "unconverged": settings.inner_steps.index(settings.unconverged),
    }
    return {
        "settings": dataclasses.asdict(settings),
        "condition_number": (1.0 + settings.strength) / settings.strength,
        "rule": RULE,
        "curves": curves,
        "solve": [_solve(settings, name, place, by_solve) for name, place in places.items()],
    }


def _curve(settings: Settings, name: str, errors: np.ndarray, **more: int) -> Result:
    costs = [cost(name, steps, **more) for steps in settings.inner_steps]
    return {
        "algorithm": name,
        **more,
        "inner_steps": list(settings.inner_steps),
        "cost": costs,
        "error": spread(errors, axis=0),
    }


def _solve(settings: Settings, name: str, place: int, by_solve: dict[int, tuple]) -> Result:
    errors = np.stack([by_solve[k][1][:, place] for k in settings.solve_steps])
    estimates = np.stack([by_solve[k][2][:, place] for k in settings.solve_steps])
    return {
        "at": name,
        "inner_steps": settings.unconverged if name == "unconverged" else None,
        "linear_steps": list(settings.solve_steps),
        # As the certificate has it: a share of the gradient computed, not of the exact one.
        "error": spread(errors),
        "estimate": spread(estimates),
    }
