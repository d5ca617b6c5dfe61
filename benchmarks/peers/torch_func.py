"""iMAML and MAML with ``torch.func``: one task as a function, ``vmap`` over all of them.

Products with the Hessian are pullbacks of the gradient, which is linearised once.
"""

import torch
from torch.func import grad, vjp, vmap

from benchmarks.peers import torch_net


def prepare(problem, setting):
    weights, tasks = torch_net.given(problem)
    batches = tuple(torch.stack(parts) for parts in zip(*tasks, strict=True))
    method = maml if setting.algorithm == "maml" else imaml
    over_tasks = vmap(lambda *task: method(weights, task, setting))
    if setting.algorithm == "maml":
        return lambda: over_tasks(*batches), torch_net.read

    def run():
        with torch.no_grad():
            return over_tasks(*batches)

    return run, torch_net.read


def imaml(theta, task, setting):
    """The meta-gradient of one task."""
    support_x, support_y, query_x, query_y = task
    strength, rate = setting.strength, setting.learning_rate

    def loss_gradient(phi):
        return grad(torch_net.loss)(phi, support_x, support_y)

    phi, velocity = theta, None
    for _ in range(setting.inner_steps):
        step = {n: g + strength * (phi[n] - theta[n]) for n, g in loss_gradient(phi).items()}
        if setting.momentum and velocity is not None:
            step = {n: setting.momentum * velocity[n] + g for n, g in step.items()}
        velocity = step
        phi = {n: phi[n] - rate * step[n] for n in phi}
    rhs = grad(torch_net.loss)(phi, query_x, query_y)
    _, pullback = vjp(loss_gradient, phi)

    def product(vector):
        (curved,) = pullback(vector)
        return {n: vector[n] + curved[n] / strength for n in vector}

    return conjugate_gradients(product, rhs, setting.linear_steps)


def conjugate_gradients(product, rhs, steps):
    """Plain conjugate gradients from zero on vectors by name."""
    x, residual, direction = {n: torch.zeros_like(v) for n, v in rhs.items()}, rhs, rhs
    square = dot(rhs, rhs)
    for _ in range(steps):
        curved = product(direction)
        share = square / dot(direction, curved)
        x = {n: x[n] + share * direction[n] for n in x}
        residual = {n: residual[n] - share * curved[n] for n in x}
        new = dot(residual, residual)
        direction = {n: residual[n] + (new / square) * direction[n] for n in x}
        square = new
    return x


def dot(a, b):
    """The inner product over all names."""
    return sum((a[n] * b[n]).sum() for n in a)


def maml(theta, task, setting):
    """MAML's meta-gradient."""
    support_x, support_y, query_x, query_y = task

    def outer(theta):
        phi = theta
        for _ in range(setting.inner_steps):
            step = grad(torch_net.loss)(phi, support_x, support_y)
            phi = {n: phi[n] - setting.learning_rate * step[n] for n in phi}
        return torch_net.loss(phi, query_x, query_y)

    return grad(outer)(theta)
