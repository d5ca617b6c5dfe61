"""The same products in PyTorch, each by itself in the fastest of its forms.

For the question whether another library's products would lift the ceiling.
"""

import itertools
import time

import torch

from benchmarks.peers import products

OPERATIONS, REPEATS = 4e7, 5


def fastest(product):
    """Operands, as they lie best, and a place for the result."""
    times = max(4, int(OPERATIONS / product.operations))
    best = None
    for first, second, result in itertools.product((False, True), repeat=3):
        a, b = torch.randn(product.m, product.k), torch.randn(product.k, product.n)
        a = a.T.contiguous().T if first else a
        b = b.T.contiguous().T if second else b
        pair = (b.T, a.T) if result else (a, b)
        out = torch.mm(*pair)
        for _ in range(REPEATS):
            began = time.perf_counter()
            for _ in range(times):
                torch.mm(*pair, out=out)
            seconds = (time.perf_counter() - began) / times
            if best is None or seconds < best[0]:
                best = seconds, (*pair, out)
    return best[1]


def prepare(problem, setting):
    counts = products.counts(products.stages_of(problem, setting))
    work = [(count, *fastest(product)) for product, count in counts.items()]

    def run():
        for _ in range(problem.tasks):
            for count, a, b, out in work:
                for _ in range(count):
                    torch.mm(a, b, out=out)

    return run, None
