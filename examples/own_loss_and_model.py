"""A loss and a model of one's own: any pytree of parameters, any ``loss(params, batch)``.

    python examples/own_loss_and_model.py

The network is Equinox's; beside its weights the parameters hold a scale of its outputs. The loss is
pseudo-Huber: quadratic near zero, linear far from it. Each meta-gradient of iMAML comes with a
certificate: its relative error, estimated for the inner solver and for the linear solve, and a
verdict. ``algorithm.meta_gradient(theta, task, key)`` gives them for one task.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import pullback as pb

network = eqx.nn.MLP(1, 1, width_size=40, depth=2, activation=jax.nn.silu, key=jax.random.key(0))
weights, apply = pb.models.functional(network)
params = {"weights": weights, "log_scale": jnp.zeros(())}


def predict(params, x):
    return jnp.exp(params["log_scale"]) * apply(params["weights"], x)


def loss(params, batch):
    x, y = batch
    return jnp.mean(jnp.sqrt(1.0 + (predict(params, x) - y) ** 2) - 1.0)


def main():
    tasks = pb.tasks.Sinusoid(shots=10, queries=10)
    algorithm = pb.imaml(loss, strength=2.0, solver=pb.solvers.LBFGS(steps=24))
    trained = pb.train(algorithm, params, tasks, steps=200, key=jax.random.key(1))
    for name, theta in (("before", params), ("after", trained.theta)):
        scored = pb.evaluate(algorithm, theta, tasks, metric=loss, key=jax.random.key(2), count=200)
        print(f"query loss {name} meta-training: {scored.mean:.3f} ± {scored.interval:.3f}")

    last = {name: numbers[-50:] for name, numbers in trained.history.items()}
    print("of the meta-gradients of the last 50 steps:")
    for part, name in (("inner solver", "inner_error"), ("linear solve", "linear_error")):
        print(f"median estimated error from the {part}: {np.median(last[name]):.2%}")
    print(f"tasks with the verdict ok: {1 - last['flagged'].mean() / 8:.0%}")


if __name__ == "__main__":
    main()
