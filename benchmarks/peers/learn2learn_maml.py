"""MAML with learn2learn: a clone of the module that adapts, differentiably."""

import learn2learn
import torch
import torch.nn.functional as F

from benchmarks.peers import torch_net


def prepare(problem, setting):
    weights, tasks = torch_net.given(problem)
    network = torch_net.Network(weights)
    maml = learn2learn.algorithms.MAML(network, lr=setting.learning_rate, first_order=False)

    def one(task):
        support_x, support_y, query_x, query_y = task
        learner = maml.clone()
        for _ in range(setting.inner_steps):
            learner.adapt(F.cross_entropy(learner(support_x), support_y))
        outer = F.cross_entropy(learner(query_x), query_y)
        return torch.autograd.grad(outer, list(network.parameters()))

    def run():
        gradients = zip(*(one(task) for task in tasks), strict=True)
        return [torch.stack(parts) for parts in gradients]

    return run, lambda found: torch_net.read(dict(zip(network.names, found, strict=True)))
