"""iMAML with Optimistix: ``minimise`` by gradient descent, ``ImplicitAdjoint`` with Lineax's CG."""

import jax
import lineax
import optimistix

from benchmarks.peers import jax_net

NEVER = 1e-30
"""A tolerance that no step meets: all steps are made, as in the other implementations."""

SCALE = 1e3
"""Of the objective, and so of its Hessian; the meta-gradient is the same without.

Lineax's CG takes a curvature below 100·n·ε for a singular operator, and returns NaN. With single
precision and this many parameters that is a curvature of 1.3, which a λ of 2 does not rule out.
"""


def prepare(problem, setting):
    # Lineax takes CG without a tolerance that ends after its steps for solved.
    linear = lineax.CG(rtol=0.0, atol=0.0, max_steps=setting.linear_steps, stabilise_every=None)
    solver = optimistix.GradientDescent(setting.learning_rate / SCALE, rtol=NEVER, atol=NEVER)
    # Its first step evaluates the start and moves nowhere.
    steps = setting.inner_steps + 1
    if setting.options.get("solver") == "lbfgs":
        solver = optimistix.LBFGS(rtol=NEVER, atol=NEVER)
    elif setting.momentum:
        raise ValueError("Optimistix's gradient descent has no momentum")

    def one_task(theta, loss, task):
        support, query = task[:2], task[2:]
        objective = jax_net.proximal(loss, setting.strength)

        def outer(theta):
            found = optimistix.minimise(
                lambda phi, given: SCALE * objective(phi, *given),
                solver,
                jax.lax.stop_gradient(theta),
                (theta, support),
                max_steps=steps,
                adjoint=optimistix.ImplicitAdjoint(linear),
                throw=False,
                tags=frozenset({lineax.positive_semidefinite_tag}),
            )
            return loss(found.value, query)

        return jax.grad(outer)(theta)

    return jax_net.prepare(one_task, problem, setting)
