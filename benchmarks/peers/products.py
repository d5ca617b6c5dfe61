"""The matrix products of one task's meta-gradient, counted from the network's shapes.

A convolution is a product of its patches, Float[pixels of all images, 9·channels], with its
weights. With R the rows, W the weights and D the derivative by what comes out:

- forward: R·W; backward: Dᵀ·R for the weights and, but for the first layer, D·W for the rows;
- a product with the Hessian has the tangent of each: by the product rule two products for one,
  but one where the images have no tangent.
"""

from collections import Counter
from dataclasses import dataclass

SIDE, PATCH = 28, 9


@dataclass(frozen=True)
class Product:
    """Float[m, k] times Float[k, n].

    Args:
        part: ``"forward"``, ``"weights"`` or ``"rows"``.
    """

    part: str
    m: int
    k: int
    n: int

    @property
    def operations(self):
        return 2 * self.m * self.k * self.n

    def __str__(self):
        return f"{self.part} {self.m}×{self.k}×{self.n}"


def layers(images, width, ways):
    """(rows, numbers a row, filters) of each layer."""
    side, channels, found = SIDE, 1, []
    for _ in range(4):
        side = (side + 1) // 2
        found.append((images * side * side, PATCH * channels, width))
        channels = width
    return [*found, (images, side * side * width, ways)]


def gradient(images, width, ways):
    """The products of one gradient, and how often each occurs."""
    found = Counter()
    for i, (rows, numbers, filters) in enumerate(layers(images, width, ways)):
        found[Product("forward", rows, numbers, filters)] += 1
        found[Product("weights", filters, rows, numbers)] += 1
        if i > 0:
            found[Product("rows", rows, filters, numbers)] += 1
    return found


def hessian(images, width, ways):
    """The products of one product with the Hessian, once the gradient is linearised."""
    found = Counter()
    for i, (rows, numbers, filters) in enumerate(layers(images, width, ways)):
        times = 1 if i == 0 else 2
        found[Product("forward", rows, numbers, filters)] += times
        found[Product("weights", filters, rows, numbers)] += times
        if i > 0:
            found[Product("rows", rows, filters, numbers)] += times
    return found


@dataclass(frozen=True)
class Stage:
    """Products that are done some times over."""

    name: str
    times: int
    products: Counter


def stages(setting, support, query, width, ways):
    """All of one task's meta-gradient: the outer gradient comes from the query images."""
    return (
        Stage("inner gradients", setting.inner_steps, gradient(support, width, ways)),
        Stage("linearisation", 1, gradient(support, width, ways)),
        Stage("outer gradient", 1, gradient(query, width, ways)),
        Stage("products with H", setting.linear_steps, hessian(support, width, ways)),
    )


def stages_of(problem, setting):
    """The same for a problem."""
    features, ways = problem.theta["linear/weight"].shape
    support, query = problem.support_x.shape[1], problem.query_x.shape[1]
    return stages(setting, support, query, features // 4, ways)


def operations(found):
    """Floating-point operations of some stages."""
    return sum(s.times * c * p.operations for s in found for p, c in s.products.items())


def counts(found):
    """How often each product occurs in all."""
    total = Counter()
    for stage in found:
        for product, count in stage.products.items():
            total[product] += stage.times * count
    return total
