"""The head eliminated: an inner solver over the body alone (variable projection).

The inner problem of a separable loss is minimised over its head exactly, for every body b:

    R(b) = min over the head of  L(b, head) + ½‖head − head₀‖²_Λ

(Golub & Pereyra 1973; for softmax Newman et al. 2021). What is left, min R(b) + ½‖b − b₀‖²_Λ, is a
proximal problem again, with the same φ*, and without the head's large curvatures: there Λ alone is
a good model of the Hessian, and a few gradients do. By the envelope theorem R's gradient is that of
L by the body at the head that belongs to it.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from pullback.core.checks import check_type
from pullback.core.errors import InputError, check_counts
from pullback.core.problem import InnerProblem, Strength, is_scalar
from pullback.core.trees import Params
from pullback.models.head import Head, LinearHead
from pullback.models.losses import MeanLoss, example_shares, separable, split_batch
from pullback.solvers.base import InnerSolver, Solution
from pullback.solvers.head import FORMS, HeadProblem
from pullback.solvers.lbfgs import LBFGS


class Projected(eqx.Module):
    """L-BFGS over the body, the head solved exactly at every point.

    For a loss that is convex in a linear head, as those of :mod:`pullback.models` over
    ``Conv4``, ``MLP``, ``Linear`` and every :class:`pullback.models.LinearHead` are.

    Args:
        steps: the most gradients of R.
        rtol: stop earlier, once ‖∇R(b) + Λ(b − b₀)‖ ≤ rtol·‖∇R(b)‖; None uses every step. While
            gradients halve the step that follows is made too, whose gradient the meta-gradient
            takes anyway.
        history: secant pairs kept.
        form: of the head's solve: ``"dual"`` in as many unknowns as examples times outputs,
            ``"primal"`` in as many as the head has, ``"auto"`` for the smaller.
        otherwise: solves problems of other losses; None for an error.

    Raises:
        InputError: if a setting is out of range; from a solve, if the loss is not separable,
            there is no proximal term, or the head's system does not fit into memory.
    """

    differentiable: ClassVar[bool] = False
    steps: int = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)
    history: int = eqx.field(static=True)
    form: str = eqx.field(static=True)
    otherwise: InnerSolver | None

    def __init__(
        self,
        steps: int = 16,
        rtol: float | None = 0.05,
        history: int = 4,
        form: str = "auto",
        otherwise: InnerSolver | None = None,
    ):
        check_counts("Projected", steps=steps, history=history)
        if form not in FORMS:
            raise InputError(f"Projected(form={form!r})", allowed=", ".join(map(repr, FORMS)))
        if otherwise is not None:
            check_type("otherwise", otherwise, InnerSolver, "an inner solver, or None")
        self.steps, self.rtol, self.history = steps, rtol, history
        self.form, self.otherwise = form, otherwise
        self._over_body()

    @classmethod
    def where_separable(cls, steps: int = 16) -> "Projected":
        """This solver, and L-BFGS with as many steps for a loss without a linear head."""
        return cls(steps, otherwise=LBFGS(steps))

    def _over_body(self) -> LBFGS:
        return LBFGS(self.steps, self.history, self.rtol, scale="strength")

    def solve(self, problem: InnerProblem, theta: Params, key: PRNGKeyArray) -> Solution:
        """Minimise ``problem``, starting from the body of ``theta``."""
        parts = separable(problem.loss)
        if (parts is None or problem.strength is None) and self.otherwise is not None:
            return self.otherwise.solve(problem, theta, key)
        if parts is None:
            raise InputError(
                "Projected was given a loss that is not known to be convex in a linear head",
                allowed="cross_entropy, mean_squared_error and the like over a LinearHead",
                remedy="Say where the head is: pullback.models.LinearHead(features, head=...), "
                "docs/projected.md; or take another solver, such as LBFGS()",
            )
        if problem.strength is None:
            raise InputError("Projected needs a proximal strength Λ", allowed="positive numbers")
        loss, apply = parts
        start, head = apply.split(problem.theta)
        of_body, of_head = split_strength(apply, problem.strength, head)
        reduced = Reduced(loss, apply, self.form)
        support = (problem.support, head, of_head)
        body, _ = apply.split(theta)
        if not jax.tree.leaves(body):
            return Solution(apply.join(body, reduced.head_problem(body, support).solve()))
        over_body = InnerProblem(reduced, support, start, of_body)
        found = self._over_body().solve(over_body, body, key)
        head = reduced.head_problem(found.phi, support).solve()
        return Solution(apply.join(found.phi, head), None, found.start_value)


class Reduced(eqx.Module):
    """R as a loss of the body: ``loss(body, (support, head₀, Λ of the head)) -> scalar``.

    It has a first derivative only, by the envelope theorem.
    """

    loss: MeanLoss = eqx.field(static=True)
    apply: LinearHead = eqx.field(static=True)
    form: str = eqx.field(static=True)

    def __call__(self, body: Params, support: tuple[PyTree[Any], Head, Head]) -> Float[Array, ""]:
        """The least objective that a head reaches on this body."""
        problem = self.head_problem(body, support)
        head = jax.lax.stop_gradient(jax.lax.stop_gradient(problem).solve())
        return problem.value(problem.outputs(head)) + problem.pull(head)

    def head_problem(self, body: Params, support: tuple[PyTree[Any], Head, Head]) -> HeadProblem:
        """The problem of the head on a body."""
        batch, head, strength = support
        features = self.apply.features(body, split_batch("The loss", batch)[0])
        return pose(self.loss, self.apply, features, batch, head, strength, self.form)


def pose(
    loss: MeanLoss,
    apply: LinearHead,
    features: Float[Array, "n d"],
    batch: PyTree[Any],
    head: Head,
    strength: Head,
    form: str = "auto",
) -> HeadProblem:
    """The problem of a head on the features of a support set.

    Args:
        loss: the separable loss.
        apply: its linear head.
        features: of the examples in ``batch``.
        batch: the support set.
        head: what is pulled toward.
        strength: Λ of the head.
        form: of the solve.

    Returns:
        The head's problem.
    """
    _, targets, weights = split_batch("The loss", batch)
    shares = example_shares(weights, len(features), features)
    return HeadProblem(loss, apply.scale, features, targets, shares, head, strength, form)


def split_strength(apply: LinearHead, strength: Strength, head: Head) -> tuple[Strength, Head]:
    """Λ of the body and Λ of the head, each a scalar where Λ is one."""
    if not is_scalar(strength):
        return apply.split(strength)
    return strength, Head(strength, None if head.bias is None else strength)
