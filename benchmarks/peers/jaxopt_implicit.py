"""iMAML with JAXopt's implicit differentiation: ``custom_root`` and ``solve_cg``."""

import jax
from jaxopt import implicit_diff, linear_solve

from benchmarks.peers import jax_net


def prepare(problem, setting):
    def one_task(theta, loss, task):
        support, query = task[:2], task[2:]
        objective = jax_net.proximal(loss, setting.strength)
        slope = jax.grad(objective)

        def linear(matvec, b):
            # No tolerance: all steps are made, as in the other implementations.
            return linear_solve.solve_cg(matvec, b, maxiter=setting.linear_steps, tol=0.0)

        @implicit_diff.custom_root(slope, solve=linear)
        def solve(start, theta, support):
            def step(_, point):
                phi, velocity = point
                gradient = slope(phi, theta, support)
                velocity = jax.tree.map(lambda v, g: setting.momentum * v + g, velocity, gradient)
                rate = setting.learning_rate
                return jax.tree.map(lambda p, v: p - rate * v, phi, velocity), velocity

            still = jax.tree.map(lambda p: 0.0 * p, theta)
            return jax.lax.fori_loop(0, setting.inner_steps, step, (start, still))[0]

        def outer(theta):
            return loss(solve(jax.lax.stop_gradient(theta), theta, support), query)

        return jax.grad(outer)(theta)

    return jax_net.prepare(one_task, problem, setting)
