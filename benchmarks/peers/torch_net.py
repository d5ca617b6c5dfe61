"""Pullback's Conv4 in PyTorch: the same arithmetic with PyTorch's own convolutions."""

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.peers import layout
from benchmarks.peers.problem import EPSILON, GROUPS, LOGIT_SCALE


def logits(weights, x):
    """The network as a function of its weights by name, and of images Float[n, 1, 28, 28]."""
    for i in range(layout.LAYERS):
        x = _convolve(x, weights[f"conv{i}/weight"])
        scale, bias = weights[f"conv{i}/scale"], weights[f"conv{i}/bias"]
        x = F.silu(F.group_norm(x, GROUPS, scale, bias, EPSILON))
    return LOGIT_SCALE * F.linear(x.flatten(1), weights["linear/weight"], weights["linear/bias"])


def loss(weights, x, y):
    """The mean cross-entropy."""
    return F.cross_entropy(logits(weights, x), y)


def _convolve(x, weight):
    # XLA's SAME, which pullback keeps to: an even side has its one line of zeros at the end.
    if x.shape[-1] % 2:
        return F.conv2d(x, weight, stride=2, padding=1)
    return F.conv2d(F.pad(x, (0, 1, 0, 1)), weight, stride=2)


class Network(nn.Module):
    """The same as a module, for what works on modules."""

    def __init__(self, weights):
        super().__init__()
        self.names = list(weights)
        self.weights = nn.ParameterList([nn.Parameter(w.clone()) for w in weights.values()])

    def forward(self, x):
        return logits(dict(zip(self.names, self.weights, strict=True)), x)


def given(problem):
    """The weights by name, and of every task support and query images and labels."""
    weights = {n: torch.from_numpy(a) for n, a in layout.to_torch(problem.theta).items()}

    def images(x):
        return torch.from_numpy(x).permute(0, 3, 1, 2).contiguous()

    tasks = []
    for i in range(problem.tasks):
        support_x, support_y, query_x, query_y = problem.task(i)
        labels = torch.from_numpy(support_y).long(), torch.from_numpy(query_y).long()
        tasks.append((images(support_x), labels[0], images(query_x), labels[1]))
    return weights, tasks


def read(stacked):
    """Gradients by name, stacked by task, in pullback's layout."""
    return layout.from_torch({n: t.detach().numpy() for n, t in stacked.items()})


def split(flat, weights):
    """A flat vector as tensors by name, in the order of ``weights``."""
    parts = flat.split([w.numel() for w in weights.values()])
    return {n: p.view_as(w) for p, (n, w) in zip(parts, weights.items(), strict=True)}


def flatten(tensors):
    """Tensors one after the other, as one vector."""
    return torch.cat([t.reshape(-1) for t in tensors])
