"""iMAML in plain PyTorch, in the way of the authors' code; written afresh from the paper.

A module whose weights are set and read as one flat vector, a Python loop over tasks, an SGD
optimiser with the proximal term in the loss, and Hessian-vector products by double backward: each
evaluates the loss and its gradient anew (Rajeswaran et al. 2019, Algorithms 1 and 2). With the
option ``keep`` the graph of the gradient is built once for all products instead.
"""

import torch
import torch.nn.functional as F

from benchmarks.peers import torch_net


def prepare(problem, setting):
    weights, tasks = torch_net.given(problem)
    network = torch_net.Network(weights)
    parameters = list(network.parameters())
    start = torch_net.flatten(weights.values())
    method = maml if setting.algorithm == "maml" else imaml

    def run():
        gradients = []
        for task in tasks:
            set_flat(parameters, start)
            gradients.append(method(network, parameters, start, task, setting))
        return torch.stack(gradients)

    def read(stacked):
        parts = [torch_net.split(row, weights) for row in stacked]
        return torch_net.read({n: torch.stack([p[n] for p in parts]) for n in weights})

    return run, read


def imaml(network, parameters, start, task, setting):
    """The meta-gradient of one task."""
    support_x, support_y, query_x, query_y = task
    optimizer = torch.optim.SGD(parameters, setting.learning_rate, momentum=setting.momentum)
    for _ in range(setting.inner_steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(support_x), support_y)
        offset = torch_net.flatten(parameters) - start
        (loss + 0.5 * setting.strength * offset.dot(offset)).backward()
        optimizer.step()
    outer = F.cross_entropy(network(query_x), query_y)
    rhs = torch_net.flatten(torch.autograd.grad(outer, parameters))
    kept = first_gradient(network, parameters, task) if setting.options.get("keep") else None

    def product(vector):
        """(I + H/λ)·vector."""
        gradient = first_gradient(network, parameters, task) if kept is None else kept
        retain = kept is not None
        curved = torch.autograd.grad(gradient.dot(vector), parameters, retain_graph=retain)
        return vector + torch_net.flatten(curved) / setting.strength

    return conjugate_gradients(product, rhs, setting.linear_steps)


def first_gradient(network, parameters, task):
    """The gradient of the support loss, ready to be differentiated again."""
    loss = F.cross_entropy(network(task[0]), task[1])
    return torch_net.flatten(torch.autograd.grad(loss, parameters, create_graph=True))


def conjugate_gradients(product, rhs, steps):
    """Plain conjugate gradients from zero, a fixed number of steps."""
    x, residual, direction = torch.zeros_like(rhs), rhs.clone(), rhs.clone()
    square = residual.dot(residual)
    for _ in range(steps):
        curved = product(direction)
        share = square / direction.dot(curved)
        x = x + share * direction
        residual = residual - share * curved
        new = residual.dot(residual)
        direction = residual + (new / square) * direction
        square = new
    return x


def maml(network, parameters, start, task, setting):
    """MAML's meta-gradient: plain steps, unrolled by autograd."""
    support_x, support_y, query_x, query_y = task
    theta = {n: p.detach().requires_grad_() for n, p in zip(network.names, parameters, strict=True)}
    phi = theta
    for _ in range(setting.inner_steps):
        loss = torch_net.loss(phi, support_x, support_y)
        steps = torch.autograd.grad(loss, list(phi.values()), create_graph=True)
        pairs = zip(phi.items(), steps, strict=True)
        phi = {n: p - setting.learning_rate * g for (n, p), g in pairs}
    outer = torch_net.loss(phi, query_x, query_y)
    return torch_net.flatten(torch.autograd.grad(outer, list(theta.values())))


def set_flat(parameters, vector):
    """Write one flat vector into a module's parameters."""
    with torch.no_grad():
        pieces = vector.split([p.numel() for p in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))
            parameter.grad = None
