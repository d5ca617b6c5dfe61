"""A strength that grows until H + Λ is positive definite where the inner solver stops."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from pullback import implicit
from pullback.core import trees
from pullback.core.errors import check_counts, check_number
from pullback.core.problem import InnerProblem, divide_by_strength
from pullback.linear import CG
from pullback.solvers import BlackBox, InnerSolver, run
from pullback.solvers.base import Solution


class AdaptiveStrength(eqx.Module):
    """Multiply Λ, task by task, until H + Λ has a stated margin at the adapted parameters.

    After each inner solve the smallest Ritz value of H + Λ is looked up by a few steps of CG. If
    it is below ``margin`` times the smallest entry of Λ, then Λ is multiplied by what would put
    it there, and half as much again since a Ritz value is only an upper bound, and the task is
    solved once more from θ. The rule sees the support set alone and is the same in training and
    after it, so that a task is adapted to as it was trained for; the factor is reported. The
    meta-gradient takes the factor as a constant: it is exact except where a change of θ changes
    the number of tries or the factor itself.

    Args:
        margin: the share of Λ's smallest entry that the smallest curvature must keep, below 1.
        tries: the most times Λ is raised; after that the verdict says what is left.
        looks: Hessian-vector products for each look at the curvature.

    Raises:
        InputError: if a setting is out of range.
    """

    margin: float = eqx.field(static=True)
    tries: int = eqx.field(static=True)
    looks: int = eqx.field(static=True)

    def __init__(self, margin: float = 0.1, tries: int = 3, looks: int = 5):
        check_number("AdaptiveStrength", "0 ≤ margin < 1", lambda x: 0 <= x < 1, margin=margin)
        check_counts("AdaptiveStrength", tries=tries, looks=looks)
        self.margin, self.tries, self.looks = margin, tries, looks

    def solve(
        self, solver: InnerSolver | BlackBox, problem: InnerProblem, key: PRNGKeyArray
    ) -> tuple[InnerProblem, Solution, Float[Array, ""]]:
        """Solve one inner problem, with more of Λ as long as the curvature asks for it.

        Args:
            solver: the inner solver.
            problem: the inner problem, with a proximal term.
            key: for the solver; every try gets the same.

        Returns:
            The problem with the Λ it was solved with last, its solution, and the factor between
            that Λ and the one given.
        """
        base = problem.smallest_strength()

        def attempt(factor):
            strength = jax.tree.map(lambda leaf: factor * leaf, problem.strength)
            raised = InnerProblem(problem.loss, problem.support, problem.theta, strength)
            solution = run(solver, raised, raised.theta, key)
            return raised, solution, self._smallest_curvature(raised, solution)

        def unsafe(carry):
            tries, factor, (_, _, smallest) = carry
            return (tries < self.tries) & (smallest < self.margin * factor * base)

        def again(carry):
            tries, factor, (_, _, smallest) = carry
            # H's own curvature is what Λ does not account for; c·λ + h ≥ margin·c·λ solved for c.
            own = smallest / base - factor
            wanted = factor + 1.5 * (-own / (1.0 - self.margin) - factor)
            return tries + 1, wanted, attempt(wanted)

        one = jnp.ones_like(base)
        first = (jnp.asarray(0), one, attempt(one))
        _, factor, (raised, solution, _) = jax.lax.while_loop(unsafe, again, first)
        return raised, solution, factor

    def _smallest_curvature(self, problem: InnerProblem, solution: Solution) -> Float[Array, ""]:
        point = implicit.linearise(problem, solution.phi)
        look = CG(self.looks, rtol=0.0)
        near = solution.inverse or (lambda v: divide_by_strength(problem.strength, v))
        found = look.solve(point.operator(), point.loss_gradient, near)
        # Without a gradient there is nothing to look along, and nothing to be raised for.
        flat = trees.norm(point.loss_gradient) == 0
        return jnp.where(flat, jnp.inf, found.smallest_curvature)
