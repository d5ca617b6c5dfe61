"""Reptile: moves θ toward φ."""

import jax
import jax.numpy as jnp

from pullback.algorithms.base import MetaAlgorithm, adapt_with, info_without_solve, init_params
from pullback.core import trees
from pullback.core.checks import check_value, describe
from pullback.core.errors import InputError
from pullback.core.problem import Loss, Proximal, Strength
from pullback.solvers import BlackBox, GradientDescent, InnerSolver
from pullback.solvers.base import check_solver


def reptile(
    loss: Loss,
    *,
    solver: InnerSolver | BlackBox | None = None,
    strength: Strength | None = None,
    fit: str = "all",
) -> MetaAlgorithm:
    """Reptile (Nichol, Achiam & Schulman 2018, Algorithm 1): the meta-gradient is ``θ − φ``.

    Args:
        loss: ``loss(params, batch) -> scalar``.
        solver: any inner solver or black box; ten plain gradient steps of 0.1 if None.
        strength: Λ of a proximal term, or None for none, as in the paper.
        fit: what φ is fitted to in meta-training: ``"all"``, the support and query sets joined
            along their first axis as in the paper, which has no query set; or ``"support"``. New
            tasks are always adapted to on their support set.

    Returns:
        The algorithm. θ is the parameters. ``value`` is the loss on the query set at φ, which
        for ``fit="all"`` is a training loss.

    Raises:
        InputError: if the solver is not one, ``fit`` is unknown, or Λ is out of range.
    """
    solver = GradientDescent(steps=10) if solver is None else solver
    check_solver(solver)
    if fit not in ("all", "support"):
        raise InputError(f"reptile(fit={fit!r})", allowed="'all', 'support'")
    inner = Proximal(loss, strength)

    def adapt(theta, support, key):
        return adapt_with(inner.problem(theta, support), solver, key)

    def meta_gradient(theta, task, key):
        check_value(loss, theta, task.query)
        batch = _join(task.support, task.query) if fit == "all" else task.support
        phi, report = adapt(theta, batch, key)
        value = loss(phi, task.query)
        gradient = trees.subtract(theta, phi)
        return value, gradient, info_without_solve(report, value, gradient)

    return MetaAlgorithm(init_params, adapt, meta_gradient)


def _join(support, query):
    shapes = [jax.tree.map(lambda leaf: jnp.shape(leaf)[1:], batch) for batch in (support, query)]
    axes = all(jnp.ndim(leaf) for leaf in jax.tree.leaves((support, query)))
    if not axes or shapes[0] != shapes[1]:
        raise InputError(
            f"Reptile joins the support and query sets, which are {describe(support)} and "
            f"{describe(query)}",
            allowed="arrays that differ in their first axis only",
            remedy="Say fit='support' to fit the support set alone",
        )
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), support, query)
