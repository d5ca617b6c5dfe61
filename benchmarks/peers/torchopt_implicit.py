"""iMAML with TorchOpt's implicit gradient: ``custom_root`` and its conjugate gradients."""

import torch
import torchopt
from torchopt.diff.implicit import custom_root

from benchmarks.peers import torch_net


def prepare(problem, setting):
    weights, tasks = torch_net.given(problem)
    names = list(weights)
    start = tuple(w.requires_grad_() for w in weights.values())
    solver = adapt(names, setting)

    def run():
        gradients = []
        for support_x, support_y, query_x, query_y in tasks:
            phi = solver(tuple(t.detach() for t in start), start, support_x, support_y)
            outer = torch_net.loss(dict(zip(names, phi, strict=True)), query_x, query_y)
            gradients.append(torch.autograd.grad(outer, start))
        return [torch.stack(parts) for parts in zip(*gradients, strict=True)]

    return run, lambda found: torch_net.read(dict(zip(names, found, strict=True)))


def adapt(names, setting):
    """The inner solver, with TorchOpt's derivative of its result by θ."""

    def objective(phi, theta, x, y):
        pull = sum(((p - t) ** 2).sum() for p, t in zip(phi, theta, strict=True))
        loss = torch_net.loss(dict(zip(names, phi, strict=True)), x, y)
        return loss + 0.5 * setting.strength * pull

    # ``rtol`` zero: all steps are made, as in the other implementations.
    linear = torchopt.linear_solve.solve_cg(maxiter=setting.linear_steps, rtol=0.0, atol=0.0)

    @custom_root(torch.func.grad(objective, argnums=0), argnums=1, solve=linear)
    def solve(phi, theta, x, y):
        # Its updates are made in place.
        phi = tuple(p.detach().clone().requires_grad_() for p in phi)
        theta = tuple(t.detach() for t in theta)
        optimizer = torchopt.sgd(lr=setting.learning_rate, momentum=setting.momentum)
        state = optimizer.init(phi)
        for _ in range(setting.inner_steps):
            with torch.enable_grad():
                gradient = torch.autograd.grad(objective(phi, theta, x, y), phi)
            updates, state = optimizer.update(gradient, state, inplace=True)
            phi = torchopt.apply_updates(phi, updates, inplace=True)
        return tuple(p.detach() for p in phi)

    return solve
