"""What an implicit gradient does not see: that θ moves the odds of where a noisy solver lands.

On a loss with several optima a stochastic inner solver lands in optimum k with probability pₖ(θ).
With Lₖ(θ) = L(φₖ*(θ), query) the outer loss expected of it, and its gradient, are

    J(θ) = Σ pₖ Lₖ,        dJ/dθ = Σ pₖ dLₖ/dθ + Σ (dpₖ/dθ) Lₖ.

Averaged over runs, the implicit gradient (Rajeswaran et al. 2019, eq. 7) is the first sum. The
second is taken here from finite differences under common random numbers, and dJ/dθ both from
those and from unrolling the noisy steps.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PRNGKeyArray

from pullback.algorithms import imaml, maml
from pullback.core.errors import NumericalError
from pullback.core.problem import InnerProblem, Proximal
from pullback.linear import CG
from pullback.study.parts import Result, Tick, handed_over, keys_of, mean_interval
from pullback.study.wells import Batch, NoisyDescent, loss, optima, polish
from pullback.tasks import Task

RANGE = (-3.0, 4.0)
"""Where optima are looked for; runs that end elsewhere are an error."""

SUPPORT, QUERY = Batch(curvature=10.0, tilt=0.3), Batch(square=1.0, target=1.5)


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        support: what the inner loss is made of.
        query: what the outer loss is made of.
        strength: λ.
        theta: θ of the main measurement.
        steps: noisy steps of the main measurement.
        learning_rate: first step size of the noisy descent.
        decay: steps after which it is halved.
        noise: standard deviation of a gradient's noise.
        runs: noisy descents at every setting.
        difference: h of the central differences (J(θ + h) − J(θ − h)) / 2h.
        thetas: θ of the curves against θ.
        many_steps: numbers of steps of the curves against steps.
    """

    support: Batch = SUPPORT
    query: Batch = QUERY
    strength: float = 1.0
    theta: float = 0.55
    steps: int = 20
    learning_rate: float = 0.05
    decay: float = 20.0
    noise: float = 6.0
    runs: int = 20_000
    difference: float = 0.02
    thetas: tuple[float, ...] = tuple(np.linspace(0.0, 1.0, 21).round(3).tolist())
    many_steps: tuple[int, ...] = (5, 10, 20, 40, 80)

    @property
    def programs(self) -> int:
        """How many settings are run."""
        return len({self.steps, *self.many_steps}) + len(self.thetas)


FULL = Settings()
QUICK = Settings(runs=4000, thetas=(0.2, 0.55, 0.9), many_steps=(5, 20))


class Runs(NamedTuple):
    """Many noisy descents from one θ; arrays of shape (runs,).

    Args:
        polished: the optimum each ended in.
        loss_raw: the outer loss where the noisy steps stopped.
        loss_polished: the outer loss at the optimum.
    """

    polished: Float[Array, " runs"]
    loss_raw: Float[Array, " runs"]
    loss_polished: Float[Array, " runs"]


def measure(settings: Settings, seed: int, tick: Tick) -> Result:
    """Gradients of the expected outer loss, with the odds of landing and without.

    Args:
        settings: what is measured.
        seed: of the noise.
        tick: told how many settings are done.

    Returns:
        ``main`` at one θ, with every optimum; ``by_theta``, without the θ ``left_out`` because an
        optimum is born or dies there; ``by_steps``.

    Raises:
        NumericalError: if a run did not end in an optimum, which would void the shares.
    """
    with jax.enable_x64(True):
        return _measure(settings, seed, tick)


def inner_problem(settings: Settings, theta: float | Array) -> InnerProblem:
    """The inner problem at θ: the wells, and the pull toward θ."""
    return Proximal(loss, settings.strength).problem(jnp.asarray(theta, float), settings.support)


def near_fold(settings: Settings, theta: float) -> bool:
    """Whether an optimum is born or dies within the finite difference around θ.

    There (H + Λ) is singular, φ*(θ) has no derivative, and no gradient has a truth to be held to.
    """
    h = settings.difference
    counts = {
        len(optima(inner_problem(settings, t), *RANGE)) for t in (theta - h, theta, theta + h)
    }
    return len(counts) > 1


def _measure(settings: Settings, seed: int, tick: Tick) -> Result:
    keys = jax.random.split(keys_of(seed, 3), settings.runs)
    numbers = sorted({settings.steps, *settings.many_steps})
    programs = {steps: _Programs(settings, steps) for steps in numbers}
    by_steps, done = {}, 0
    for steps in numbers:
        by_steps[steps] = programs[steps].at(settings.theta, keys)
        done += 1
        tick(done)
    by_theta = []
    for theta in settings.thetas:
        if not near_fold(settings, theta):
            by_theta.append(programs[settings.steps].at(theta, keys))
        done += 1
        tick(done)
    return {
        "settings": dataclasses.asdict(settings)
        | {"support": settings.support._asdict(), "query": settings.query._asdict()},
        "main": by_steps[settings.steps],
        "by_theta": by_theta,
        "left_out": [theta for theta in settings.thetas if near_fold(settings, theta)],
        "by_steps": [by_steps[steps] for steps in settings.many_steps],
    }


class _Programs:
    """The compiled programs for one number of noisy steps, run at any θ."""

    def __init__(self, settings: Settings, steps: int):
        self.settings, self.steps = settings, steps
        solver = NoisyDescent(steps, settings.learning_rate, settings.decay, settings.noise)
        task = Task(settings.support, settings.query)
        unrolling = maml(loss, solver=solver, strength=settings.strength)

        def descend(theta: Float[Array, ""], key: PRNGKeyArray) -> Runs:
            problem = inner_problem(settings, theta)
            raw = solver.solve(problem, theta, key).phi
            polished = polish(problem, raw, settings.learning_rate)
            return Runs(polished, loss(raw, settings.query), loss(polished, settings.query))

        def implicit(theta: Float[Array, ""], phi: Float[Array, ""], key: PRNGKeyArray) -> Array:
            algorithm = imaml(
                loss,
                strength=settings.strength,
                solver=handed_over(phi),
                linear_solver=CG(1, rtol=0.0),
                certify=None,
            )
            return algorithm.meta_gradient(theta, task, key)[1]

        def unrolled(theta: Float[Array, ""], key: PRNGKeyArray) -> Array:
            return unrolling.meta_gradient(theta, task, key)[1]

        self.descend = jax.jit(jax.vmap(descend, in_axes=(None, 0)))
        self.implicit = jax.jit(jax.vmap(implicit, in_axes=(None, 0, None)))
        self.unrolled = jax.jit(jax.vmap(unrolled, in_axes=(None, 0)))

    def at(self, theta: float, keys: Key[Array, " runs"]) -> Result:
        """All that is measured at one θ."""
        h = self.settings.difference
        here, above, below = (
            jax.tree.map(np.asarray, self.descend(jnp.asarray(t), keys))
            for t in (theta, theta + h, theta - h)
        )
        there = optima(inner_problem(self.settings, theta), *RANGE)
        # Runs are sorted into wells by their nearest optimum, and every one must be at it.
        wells = _sort(here.polished, there, 1e-8)
        # At θ ± h the optima have moved by less than h.
        sides = [_sort(runs.polished, there, h) for runs in (above, below)]
        at_optima = np.asarray(self.implicit(jnp.asarray(theta), jnp.asarray(there), keys[0]))
        losses = np.asarray(loss(jnp.asarray(there), self.settings.query))
        unrolled = np.asarray(self.unrolled(jnp.asarray(theta), keys))
        implicit = at_optima[wells]
        true = (above.loss_polished - below.loss_polished) / (2 * h)
        true_raw = (above.loss_raw - below.loss_raw) / (2 * h)
        odds = (losses[sides[0]] - losses[sides[1]]) / (2 * h)
        return {
            "theta": theta,
            "steps": self.steps,
            "optima": [
                self._optimum(k, wells, sides, there, losses, at_optima) for k in range(len(there))
            ],
            "expected_loss": mean_interval(here.loss_polished),
            "implicit": mean_interval(implicit),
            "difference": mean_interval(true),
            "difference_raw": mean_interval(true_raw),
            "unrolled": mean_interval(unrolled),
            "gap": mean_interval(true - implicit),
            "odds": mean_interval(odds),
            "largest_unrolled": float(np.max(np.abs(unrolled))),
        }

    def _optimum(
        self,
        k: int,
        wells: np.ndarray,
        sides: list[np.ndarray],
        there: np.ndarray,
        losses: np.ndarray,
        gradients: np.ndarray,
    ) -> dict[str, Any]:
        h = self.settings.difference
        moved = ((sides[0] == k).astype(float) - (sides[1] == k)) / (2 * h)
        return {
            "phi": float(there[k]),
            "outer_loss": float(losses[k]),
            "implicit": float(gradients[k]),
            "share": mean_interval((wells == k).astype(float)),
            "slope_of_share": mean_interval(moved),
        }


def _sort(ends: np.ndarray, there: np.ndarray, tolerance: float) -> np.ndarray:
    distances = np.abs(ends[:, None] - there[None])
    if not np.all(distances.min(1) < tolerance):
        raise NumericalError("A noisy descent did not end in an optimum after polishing")
    return distances.argmin(1)
