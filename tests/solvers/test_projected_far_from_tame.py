"""The projected solver where Λ is no model of the curvature, in single precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.problem import Proximal
from pullback.models import MLP, mean_squared_error
from pullback.solvers import LBFGS, Projected, run
from pullback.tasks import Sinusoid

STRENGTHS = (0.01, 1.0, 5.0)
MODEL = MLP(hidden=(20, 20), activation="relu")
LOSS = mean_squared_error(MODEL.apply)


@pytest.fixture(scope="module")
def objectives():
    """Each solver's objective: of strengths × sizes of θ × tasks."""
    tasks = jax.vmap(Sinusoid().sample)(jax.random.split(jax.random.key(3), 6))
    start = MODEL.init(jax.random.key(1))
    thetas = jax.tree.map(lambda leaf: jnp.stack([leaf, 3.0 * leaf]), start)

    def solved(solver):
        def one(strength, theta, support):
            problem = Proximal(LOSS, strength).problem(theta, support)
            phi = theta if solver is None else run(solver, problem, theta, jax.random.key(0)).phi
            return problem.value_and_gradient(phi)[0]

        over_tasks = jax.vmap(one, (None, None, 0))
        over_thetas = jax.vmap(over_tasks, (None, 0, None))
        every = jax.jit(jax.vmap(over_thetas, (0, None, None)))
        return np.asarray(every(jnp.asarray(STRENGTHS), thetas, tasks.support))

    return {
        "theta": solved(None),
        "projected": solved(Projected(16)),
        "counted": solved(Projected(8, rtol=None)),
        "L-BFGS": solved(LBFGS(16)),
    }


@pytest.mark.parametrize("name", ["projected", "counted"])
def test_the_objective_is_finite_and_lower_than_where_it_began(objectives, name):
    assert np.all(np.isfinite(objectives[name]))
    assert np.all(objectives[name] <= objectives["theta"])


def test_it_gets_at_least_as_far_as_lbfgs(objectives):
    ours, theirs = (np.mean(objectives[name], -1) for name in ("projected", "L-BFGS"))
    assert np.all(ours <= 1.02 * theirs)


def test_a_trial_beyond_the_domain_of_the_loss_is_left_for_a_shorter_one():
    def loss(params, batch):
        return jnp.sum(batch / params) + jnp.sum(jnp.sqrt(1.0 - params))

    theta = {"a": jnp.full(3, 0.2), "b": jnp.full(2, 0.3)}
    problem = Proximal(
        lambda params, batch: loss(params["a"], batch) + loss(params["b"], batch), 0.1
    ).problem(theta, jnp.ones(()))
    # Λ⁻¹∇L is a hundred times as long as the way to the edge, where the loss is NaN.
    found = run(LBFGS(30, scale="strength"), problem, theta, jax.random.key(0)).phi
    value, gradient = problem.value_and_gradient(found)
    start, _ = problem.value_and_gradient(theta)
    assert np.isfinite(value)
    assert value < start
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))
