"""The GEMM ceiling: a meta-step's matrix products and nothing else, in one JAX program.

Each product is first timed in eight forms: either operand transposed or not, and the result or its
transpose. The program then does every product as often as the meta-step does, each in its fastest
form. It is a bound on what any program with these products can reach here, not a program that
could exist: what one product makes is not what the next one takes.
"""

import functools
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import products
from pullback.meta import parallel

FORMS = tuple(itertools.product((False, True), repeat=3))
"""First operand transposed, second operand transposed, the transposed result."""
OPERATIONS, REPEATS = 4e7, 5


def multiply(form, a, b):
    """a·b or its transpose, from operands that lie transposed or not."""
    first, second, result = form
    a_side, b_side = (0 if first else 1), (1 if second else 0)
    if result:
        return jax.lax.dot_general(b, a, (((b_side,), (a_side,)), ((), ())))
    return jax.lax.dot_general(a, b, (((a_side,), (b_side,)), ((), ())))


def operands(product, form, generator):
    """Random ones, as the form wants them to lie, and a place for the result."""
    a = generator.standard_normal((product.m, product.k), np.float32)
    b = generator.standard_normal((product.k, product.n), np.float32)
    out = np.zeros((product.n, product.m) if form[2] else (product.m, product.n), np.float32)
    a, b = (a.T if form[0] else a), (b.T if form[1] else b)
    return np.ascontiguousarray(a), np.ascontiguousarray(b), out


def repeat(forms, times):
    """Do a list of products over and over, on operands that no one can foresee."""

    def body(_, held):
        # Every result passes through a barrier with its operands, and out of the loop: no product
        # can be left out, shared or done once for all.
        return tuple(
            jax.lax.optimization_barrier((a, b, multiply(form, a, b)))
            for form, (a, b, _) in zip(forms, held, strict=True)
        )

    return functools.partial(jax.lax.fori_loop, 0, times, body)


def fastest(product):
    """The form in which a product takes least time, and the seconds."""
    times = max(4, int(OPERATIONS / product.operations))
    # All forms in one program, for it takes longer to compile one than to run it.
    forms = [functools.partial(_timed, product, form, times) for form in FORMS]
    held = [operands(product, form, np.random.default_rng(0)) for form in FORMS]
    held = jax.device_put(held)
    program = jax.jit(functools.partial(jax.lax.switch, branches=forms))
    program = program.lower(0, operand=held).compile()
    best = (np.inf, FORMS[0])
    for _ in range(REPEATS + 1):
        for index, form in enumerate(FORMS):
            began = time.perf_counter()
            jax.block_until_ready(program(index, operand=held))
            best = min(best, ((time.perf_counter() - began) / times, form))
    return best


def _timed(product, form, times, held):
    _, _, out = repeat((form,), times)((held[FORMS.index(form)],))[0]
    return out[0, 0]


def prepare(problem, setting):
    stages = products.stages_of(problem, setting)
    found = {product: fastest(product) for product in products.counts(stages)}
    mesh = parallel.task_mesh(problem.tasks)
    # All tasks of a device in one loop, so that the operands are laid out once.
    share = problem.tasks // mesh.size
    forms = [tuple(found[p][1] for p in stage.products.elements()) for stage in stages]

    def on_device(given, item):
        for stage, some, held in zip(stages, forms, given, strict=True):
            made = repeat(some, share * stage.times)(held)
            item = item + sum(out[0, 0] for _, _, out in made)
        return item, item

    @jax.jit
    def step(given, items):
        return parallel.over_tasks(on_device, given, items, "map", mesh)

    generator = np.random.default_rng(1)
    # Twice the same product has operands of its own each time, or XLA would do it once.
    given = [
        tuple(operands(p, found[p][1], generator) for p in stage.products.elements())
        for stage in stages
    ]
    given = parallel.replicate(given, mesh)
    items = parallel.replicate(jnp.zeros(mesh.size), mesh)
    program = step.lower(given, items).compile()

    def run():
        return jax.block_until_ready(program(given, items))

    run.details = details(problem, stages, found)
    return run, None


def details(problem, stages, found):
    """Each product with its count, its fastest form and its speed; the operations in all."""
    rows = [
        {
            "product": str(product),
            "count": count,
            "form": "".join(n for n, on in zip("ABC", found[product][1], strict=True) if on),
            "seconds": found[product][0],
            "operations": product.operations,
        }
        for product, count in products.counts(stages).items()
    ]
    return {"operations": problem.tasks * products.operations(stages), "products": rows}


def special(run):
    return run.details
