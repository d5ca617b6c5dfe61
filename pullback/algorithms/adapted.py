"""What an outer loss or a metric may look at beside φ: θ, Λ, η, and the distribution about φ."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from pullback import implicit
from pullback.algorithms.unpulled import Unpulled
from pullback.core.checks import check_function, check_value
from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem, Loss, Strength
from pullback.core.trees import Params
from pullback.implicit.laplace import Laplace
from pullback.linear.base import Operator


class Adapted(eqx.Module):
    """A task's adapted parameters, with the inner problem that they solve.

    Args:
        problem: the inner problem, over the parameters that adapt.
        free: its solution.
        frozen: the parameters that are no part of the problem, since they do not adapt or are not
            pulled, with None for all others; None where all are.
        hyper: η, the inner loss's hyperparameters; None where there are none.
    """

    problem: InnerProblem
    free: Params
    frozen: Params | None = None
    hyper: PyTree[Any] = None

    @property
    def phi(self) -> Params:
        """φ, all the parameters."""
        return self.join(self.free)

    @property
    def theta(self) -> Params:
        """θ, all the parameters; those that are not pulled are φ's."""
        return self.join(self.problem.theta)

    @property
    def strength(self) -> Strength | None:
        """Λ of the parameters that adapt."""
        return self.problem.strength

    def join(self, free: Params) -> Params:
        """All the parameters, from those that adapt."""
        return free if self.frozen is None else eqx.combine(free, self.frozen)

    def operator(self, damping: float = 0.0) -> Operator:
        """The product with H + Λ at φ, over the parameters that adapt.

        Args:
            damping: δ ≥ 0, added to it.

        Returns:
            u ↦ (H + Λ + δI)·u.
        """
        return implicit.linearise(self.problem, self.free).operator(damping)

    def posterior(
        self, *, examples: Any, key: PRNGKeyArray | None = None, **settings: Any
    ) -> Laplace:
        """The distribution about φ of the parameters that adapt; all of them must be pulled.

        Args:
            examples: N, how many examples the inner loss is the mean of.
            key: of Lanczos' probes.
            settings: of :func:`pullback.implicit.posterior`.

        Returns:
            The distribution.

        Raises:
            InputError: as :func:`pullback.implicit.posterior` does, and where λ is 0 for a leaf.
        """
        if isinstance(self.problem.loss, Unpulled):
            raise InputError(
                "Λ is 0 for a leaf, which has no prior, and so no evidence",
                remedy="Give it a λ, however small",
            )
        return implicit.posterior(self.problem, self.free, examples=examples, key=key, **settings)


@dataclass(frozen=True, eq=False)
class OfAdapted:
    """An outer loss or a metric that looks at more than φ.

    Args:
        function: ``function(adapted, batch) -> scalar``, of an :class:`Adapted` and the query set.

    Raises:
        InputError: if it is no function of two arguments.
    """

    function: Callable[[Adapted, PyTree[Any]], Float[Array, ""]]

    def __post_init__(self):
        check_function("OfAdapted", self.function, "adapted, batch")

    def __call__(self, adapted: Adapted, batch: PyTree[Any]) -> Float[Array, ""]:
        """The value."""
        return self.function(adapted, batch)


OuterLoss = Loss | OfAdapted
"""Of φ and a query set, or of an :class:`Adapted` and a query set."""


def check_outer(name: str, outer: Any) -> None:
    """An outer loss must be one.

    Raises:
        InputError: if it is no function of two arguments.
    """
    if not isinstance(outer, OfAdapted):
        check_function(name, outer, "params, batch")


def value_of(
    outer: OuterLoss, adapted: Adapted, batch: PyTree[Any], name: str = "outer_loss"
) -> Float[Array, ""]:
    """An outer loss or a metric at one task's adapted parameters.

    Args:
        outer: the loss or metric.
        adapted: what it looks at.
        batch: the query set.
        name: for messages.

    Returns:
        Its value.

    Raises:
        InputError: if that is not one number.
    """
    seen = adapted if isinstance(outer, OfAdapted) else adapted.phi
    check_value(outer, seen, batch, name)
    return outer(seen, batch)


def of_free(
    outer: OuterLoss, adapted: Adapted, complete: Callable[[Params, Any], Any] | None = None
) -> Loss:
    """An outer loss as a function of the inner problem's parameters; all else is constant.

    Args:
        outer: the outer loss.
        adapted: what it looks at.
        complete: the parameters outside the problem that follow from those in it, given these and
            what they are at the start; None if none does.

    Returns:
        The function.
    """
    if adapted.frozen is None and not isinstance(outer, OfAdapted):
        return outer
    adapted = jax.lax.stop_gradient(adapted)

    def loss(free: Params, batch: PyTree[Any]) -> Float[Array, ""]:
        frozen = adapted.frozen if complete is None else complete(free, adapted.frozen)
        return value_of(outer, dataclasses.replace(adapted, free=free, frozen=frozen), batch)

    return loss


def direct_gradient(
    outer: OuterLoss,
    view: Callable[[PyTree[Any]], Adapted],
    theta: PyTree[Any],
    batch: PyTree[Any],
) -> PyTree[Any]:
    """The gradient of an outer loss by what it sees of θ itself, the adapted parameters held fixed.

    Args:
        outer: the outer loss.
        view: what it looks at, as a function of θ.
        theta: θ.
        batch: the query set.

    Returns:
        A gradient shaped like θ.
    """
    return jax.grad(lambda theta: value_of(outer, view(theta), batch))(theta)
