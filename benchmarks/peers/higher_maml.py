"""MAML with ``higher``: a module made functional, its optimiser made differentiable."""

import higher
import torch
import torch.nn.functional as F

from benchmarks.peers import torch_net


def prepare(problem, setting):
    weights, tasks = torch_net.given(problem)
    network = torch_net.Network(weights)
    optimizer = torch.optim.SGD(network.parameters(), setting.learning_rate)

    def one(task):
        support_x, support_y, query_x, query_y = task
        with higher.innerloop_ctx(network, optimizer) as (functional, descent):
            for _ in range(setting.inner_steps):
                descent.step(F.cross_entropy(functional(support_x), support_y))
            outer = F.cross_entropy(functional(query_x), query_y)
            return torch.autograd.grad(outer, list(functional.parameters(time=0)))

    def run():
        gradients = zip(*(one(task) for task in tasks), strict=True)
        return [torch.stack(parts) for parts in gradients]

    return run, lambda found: torch_net.read(dict(zip(network.names, found, strict=True)))
