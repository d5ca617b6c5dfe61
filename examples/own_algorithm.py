"""An algorithm of one's own: three pure functions on a single task.

    python examples/own_algorithm.py

Here the mean of two meta-gradients: that of first-order MAML, ∇L(φ, query), and that of Reptile,
θ − φ. Averaging over tasks, the outer optimiser, devices and scores are the library's.
"""

import jax

import pullback as pb
from pullback.algorithms.base import adapt_with, info_without_solve, init_params
from pullback.core import trees


def halfway(loss, *, solver=None):
    solver = pb.solvers.GradientDescent(steps=5, learning_rate=0.002) if solver is None else solver
    inner = pb.Proximal(loss, None)

    def adapt(theta, support, key):
        return adapt_with(inner.problem(theta, support), solver, key)

    def meta_gradient(theta, task, key):
        phi, report = adapt(theta, task.support, key)
        value, outer = jax.value_and_grad(loss)(phi, task.query)
        gradient = trees.scale(0.5, trees.add(outer, trees.subtract(theta, phi)))
        return value, gradient, info_without_solve(report, value, gradient)

    return pb.MetaAlgorithm(init_params, adapt, meta_gradient)


def main():
    model = pb.models.MLP(inputs=1, outputs=1, hidden=(40, 40))
    loss = pb.models.mean_squared_error(model.apply)
    params = model.init(jax.random.key(0))
    tasks = pb.tasks.Sinusoid(shots=10, queries=10)
    algorithms = {
        "halfway": halfway(loss),
        "imaml": pb.imaml(loss, strength=2.0, solver=pb.solvers.LBFGS(steps=16)),
    }
    for name, algorithm in algorithms.items():
        # The same keys: both see the same tasks, in training and after it.
        trained = pb.train(algorithm, params, tasks, steps=300, key=jax.random.key(1))
        scored = pb.evaluate(
            algorithm, trained.theta, tasks, metric=loss, key=jax.random.key(2), count=200
        )
        print(f"mean squared error of {name}: {scored.mean:.2f} ± {scored.interval:.2f}")


if __name__ == "__main__":
    main()
