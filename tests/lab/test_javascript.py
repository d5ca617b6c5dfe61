"""Functions of JAX as JavaScript, run in Chromium: the same numbers as JAX's own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.lab import landscapes
from pullback.lab.javascript import to_javascript
from pullback.lab.rooms.arrows import mathematics as arrows
from pullback.lab.rooms.inexact import mathematics as inexact
from pullback.lab.rooms.pull import mathematics as pull
from pullback.lab.rooms.sine import mathematics as sine

CLOSE = 1e-5
CALLED = """([text, calls]) => {
  const program = (0, eval)(text)
  const plain = x => typeof x === "number" ? x : Array.from(x ?? [])
  return calls.map(inputs => {
    const recorded = []
    const found = program(inputs, (...values) => recorded.push(values.map(plain)))
    const outputs = Object.entries(found).map(([name, x]) => [name, plain(x)])
    return [Object.fromEntries(outputs), recorded]
  })
}"""


@pytest.fixture(scope="module")
def page(browser):
    opened = browser.new_page()
    yield opened
    opened.close()


@pytest.fixture
def in_browser(page):
    """``in_browser(function, *calls)`` runs it for each list of arguments; arrays, recordings."""

    def run(function, *calls):
        program = to_javascript(function, *calls[0])
        inputs = [[_plain(leaf) for leaf in jax.tree.leaves(arguments)] for arguments in calls]
        made = []
        for outputs, recorded in page.evaluate(CALLED, [program.text, inputs]):
            arrays = [
                np.asarray(outputs[name], float).reshape(shape)
                for name, shape in zip(program.outputs, program.shapes, strict=True)
            ]
            made.append((arrays, recorded))
        return made

    return run


def _plain(leaf):
    leaf = np.asarray(leaf)
    return (
        (leaf.astype(int) if leaf.dtype == bool else leaf).ravel().tolist()
        if leaf.ndim
        else (leaf.item())
    )


def assert_same(found, wanted, close=CLOSE):
    wanted = [np.asarray(leaf, float) for leaf in jax.tree.leaves(wanted)]
    assert len(found) == len(wanted)
    for got, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=close, atol=close)


rng = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def whole(*shape):
    return jnp.asarray(rng.integers(-5, 5, size=shape), jnp.int32)


def spd(m):
    return m @ m.T + jnp.eye(len(m))


A, B, M, V, W = normal(2, 3), normal(2, 3), normal(3, 3), normal(3), normal(9)
ONE, FOUR = jnp.int32(1), jnp.int32(4)

CASES = {
    "arithmetic": (lambda a, b: (a + b, a - b, a * b, a / b, -a, abs(a), a**3, a**-2), A, B),
    "axes of length one repeat": (lambda v: v[:, None] * v[None, :] + v[None, :1], W),
    "functions": (
        lambda a: (
            [f(a) for f in (jnp.sin, jnp.cos, jnp.tanh, jnp.exp, jnp.expm1, jnp.sign, jnp.cbrt)],
            [f(abs(a)) for f in (jnp.log, jnp.log1p, jnp.sqrt, jax.lax.rsqrt)],
            [f(a) for f in (jnp.floor, jnp.ceil, jax.nn.sigmoid, jax.nn.softplus, jax.nn.silu)],
            jnp.round(a * 2) / 2,
            jnp.round(jnp.array([0.5, 1.5, 2.5, -0.5, -1.5])),
            jnp.arctan2(a, a + 1),
            jnp.clip(a, -0.5, 0.5),
        ),
        A,
    ),
    "whole numbers": (
        lambda a, b: (a * b, a // 3, a % 3, a & b, a | b, a ^ b, ~a, a << 2, a * 2147483647),
        whole(9),
        whole(9),
    ),
    "comparisons": (
        lambda a, b: (a < b, (a <= b) & (a > 0), ~(a < b), jnp.where(a < b, a, b), jnp.any(a > 1)),
        A,
        B,
    ),
    "not a number": (
        lambda v: (
            jnp.max(v / 0 * 0),
            jnp.maximum(v / 0, 1.0),
            jnp.nanmax(v),
            jnp.isfinite(v / 0),
            jnp.argmax(jnp.where(v > 0, jnp.nan, v)),
            jnp.sort(jnp.where(v > 0, jnp.nan, v)),
        ),
        W,
    ),
    "reductions": (
        lambda a: (
            [f(a) for f in (jnp.sum, jnp.max, jnp.mean, jnp.std, jnp.argmax)],
            [f(a, 0) for f in (jnp.sum, jnp.prod, jnp.argmin, jnp.cumprod)],
            [f(a, 1) for f in (jnp.sum, jnp.min, jnp.argmin, jnp.cumsum)],
            jax.lax.cumsum(a, 0, reverse=True),
        ),
        A,
    ),
    "moves": (
        lambda a, v: (
            (a.T, a.reshape(3, 2), a[:, 1], a[1], a[::-1], jnp.pad(a, 1), jnp.tile(v, 4)),
            (jnp.concatenate([a, 2 * a], 1), jnp.stack([v, v]), jnp.broadcast_to(v, (4, 3))),
            (jnp.split(v, 3), jnp.concatenate([v, jnp.zeros(7)]), v[:0].sum(), v[None]),
        ),
        A,
        V,
    ),
    "products": (
        lambda a, m, v: (
            a @ m,
            m @ v,
            v @ v,
            jax.vmap(jnp.dot)(jnp.stack([m, m.T]), jnp.stack([m, m])),
        ),
        A,
        M,
        V,
    ),
    "decompositions": (
        lambda m, v: (
            (jnp.linalg.solve(m, v), jnp.linalg.inv(m), jnp.linalg.det(m)),
            (jnp.linalg.cholesky(spd(m)), jnp.linalg.cholesky(-spd(m))),
            jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(spd(m)), v),
            jax.scipy.linalg.solve_triangular(m, v, lower=True),
            jax.scipy.linalg.solve_triangular(m, v, trans=1, unit_diagonal=True),
            jax.vmap(jnp.linalg.solve)(jnp.stack([m, m.T]), jnp.stack([v, v])),
        ),
        M,
        V,
    ),
    "eigenvalues": (
        lambda m: (lambda w, q: (w, abs(q), (q * w) @ q.T))(*jnp.linalg.eigh(m + m.T)),
        M,
    ),
    "places": (
        lambda v, k: (
            (v[k], v.at[k].set(1.0), v.at[k].add(2.0), v[-1]),
            jax.lax.dynamic_slice(v, (k,), (3,)),
            jax.lax.dynamic_update_slice(v, v[:2], (k,)),
            (v[jnp.array([0, 2, 2])], v.at[jnp.array([1, 2, 2])].add(1.0)),
        ),
        W,
        FOUR,
    ),
    "places from the end": (lambda v, k: (v[k], v.at[k].set(1.0)), W, jnp.int32(-2)),
    "places beyond the end": (
        lambda v, k: (v[k], v.at[k].set(1.0), jax.lax.dynamic_slice(v, (k,), (3,))),
        W,
        jnp.int32(20),
    ),
    "places in a matrix": (
        lambda a, k: (
            (a[k], a[:, k], a[k, k], a.at[k].set(0.0), a.at[:, k].add(1.0)),
            jax.vmap(lambda row, j: row[j])(a, jnp.stack([k, 0 * k])),
            jax.vmap(lambda row, j: row.at[j].set(9.0))(a, jnp.stack([k, 0 * k])),
        ),
        A,
        ONE,
    ),
    "order": (lambda v, a: (jnp.argsort(v), jnp.sort(a, 0), jnp.median(v)), W, A),
    "scans": (
        lambda v: (
            jax.lax.scan(lambda c, x: (c / 2 + x, c), 0.0, v),
            jax.lax.scan(lambda c, x: (c / 2 + x, jnp.stack([c, x])), v[0], v, reverse=True),
            jax.lax.fori_loop(0, 5, lambda k, x: x * 0.9 + k, v),
        ),
        W,
    ),
    "loops": (
        lambda v: (
            jax.lax.while_loop(lambda c: c[0] < 5, lambda c: (c[0] + 1, c[1] * v), (0, v)),
            jax.vmap(lambda x: jax.lax.while_loop(lambda c: c < 9, lambda c: 1.5 * c + 1, x))(
                abs(v)
            ),
        ),
        W,
    ),
    "branches": (
        lambda v, k: (
            jax.lax.cond(k > 0, lambda: v, lambda: -v),
            jax.lax.switch(k, [lambda x: x, lambda x: 2 * x, lambda x: 3 * x], v),
            jax.lax.switch(k + 7, [lambda x: x, lambda x: 2 * x], v),
            jax.vmap(lambda x: jax.lax.cond(x > 0, lambda y: y, lambda y: y * y, x))(v),
        ),
        W,
        ONE,
    ),
    "derivatives": (
        lambda v: (
            jax.grad(lambda x: jnp.sum(jnp.tanh(x) ** 2))(v),
            jax.hessian(lambda x: jnp.prod(jnp.sin(x)))(v[:3]),
            jax.grad(lambda x: jax.nn.logsumexp(x) - jax.nn.log_softmax(x)[2])(v),
        ),
        W,
    ),
    "random numbers of a known key": (lambda v: jax.random.normal(jax.random.key(1), (9,)) * v, W),
    "types": (
        lambda a: (a.astype(int), (a > 0).astype(float), (2 * a).astype(int).astype(bool)),
        A,
    ),
    "numbers": (
        lambda x, k: (x * 2, k + 1, x > 0, x.astype(int), jnp.full(20, x), jnp.arange(4) * k, 3.0),
        jnp.float32(-1.5),
        ONE,
    ),
}


@pytest.mark.parametrize("function_and_arguments", CASES.values(), ids=CASES)
def test_a_function_gives_the_numbers_of_jax(function_and_arguments, in_browser):
    function, *arguments = function_and_arguments
    [(found, _)] = in_browser(function, arguments)
    with jax.numpy_dtype_promotion("standard"):
        assert_same(found, jax.jit(function)(*arguments), 1e-6)


def test_double_precision_stays(in_browser):
    with jax.enable_x64(True):
        v = jnp.linspace(0.1, 2.0, 7)
        [(found, _)] = in_browser(lambda v: jnp.exp(v) / 3 - v**2, [v])
        assert_same(found, jnp.exp(v) / 3 - v**2, 1e-14)


def test_what_has_no_translation_is_refused():
    with pytest.raises(
        InputError, match=r"erf_inv has no translation to JavaScript\. Allowed: abs"
    ):
        to_javascript(lambda x: jax.lax.erf_inv(x), jnp.zeros(3))
    with pytest.raises(InputError, match="An array of type complex"):
        to_javascript(lambda x: x * 1j, jnp.zeros(3))


def test_inputs_and_outputs_have_the_names_of_their_places():
    program = to_javascript(lambda x, y: {"sum": x["a"] + y, "pair": (y, y)}, {"a": 1.0}, 2.0)
    assert program.inputs == ("0.a", "1")
    assert program.outputs == ("pair.0", "pair.1", "sum")


# ------------------------------------------------------------ the mathematics of the rooms

STRENGTHS = (0.01, 0.5, 100.0)
PLACES = ((-0.1, -1.2), (3.0, -3.0), (0.0, 0.0))


@pytest.mark.parametrize("solver", pull.SOLVERS)
def test_the_pull_in_the_browser_is_that_of_the_library(solver, in_browser):
    def solve(theta, strength, task):
        return pull._solve(solver, theta, strength, task, jnp.asarray(0))

    calls = [
        (jnp.asarray(theta), jnp.asarray([strength, strength]), landscapes.tasks(kind)[0])
        for kind in landscapes.KINDS
        for strength in STRENGTHS
        for theta in PLACES
    ]
    for arguments, (found, recorded) in zip(calls, in_browser(solve, *calls), strict=True):
        theta, strength, task = arguments
        wanted = pull.solve_task(solver, np.asarray(theta), np.asarray(strength), task)
        # The first step of L-BFGS is a short look, and divides by a difference of two gradients.
        close = 1e-3 if solver == "lbfgs" else CLOSE
        assert_same(found, wanted.stopped.phi, close)
        path = np.asarray([values[-1] for values in recorded])
        np.testing.assert_allclose(path, wanted.path[:-1], rtol=close, atol=close)


def test_the_derivatives_in_the_browser_are_those_of_the_library(in_browser):
    def shown(*arguments):
        stopped, solved, jacobian, info = pull._differentiate(*arguments)
        return stopped, solved, jacobian, info.inner_residual, info.code

    # The room works out φ* and what belongs to it in double precision.
    with jax.enable_x64(True):
        calls = [
            (jnp.asarray(phi), jnp.asarray(theta), jnp.asarray([strength, strength]), task)
            for task in (landscapes.tasks(kind)[1] for kind in landscapes.KINDS)
            for strength in STRENGTHS
            for theta, phi in itertools.pairwise(PLACES)
        ]
        for arguments, (found, _) in zip(calls, in_browser(shown, *calls), strict=True):
            assert_same(found, shown(*arguments))


@pytest.mark.parametrize("steps", [1, 32])
def test_the_arrows_in_the_browser_are_those_of_the_library(steps, in_browser):
    def shown(thetas, strength, tasks):
        return arrows._meta_gradients(steps, thetas, strength, tasks)

    calls = [
        (jnp.tile(jnp.asarray(theta), (4, 1)), jnp.asarray(strength), arrows.stacked_tasks(kind))
        for kind in landscapes.KINDS
        for strength in STRENGTHS
        for theta in PLACES
    ]
    for arguments, (found, _) in zip(calls, in_browser(shown, *calls), strict=True):
        # At some of these places H + Λ is nearly singular, which enlarges what was rounded.
        gradients, *others = shown(*arguments)
        assert_same(found[:1], gradients, CLOSE if jnp.max(abs(gradients)) < 3 else 1e-4)
        assert_same(found[1:], others)


def test_inexact_gradients_in_the_browser_are_those_of_the_library(in_browser):
    def shown(strength, task):
        path, gradient, residuals, eigenvalues = inexact._reference(strength, task)
        errors, lengths, info = inexact._estimates(4, strength, task, path, gradient)
        return path, gradient, residuals, eigenvalues, errors, lengths, info.code

    calls = [(jnp.float32(strength), inexact.task()) for strength in (0.1, 1.0, 10.0)]
    for arguments, (found, _) in zip(calls, in_browser(shown, *calls), strict=True):
        assert_same(found, shown(*arguments), 1e-4)


def test_a_fit_to_a_sine_in_the_browser_is_that_of_the_library(in_browser):
    points = sine.pad_points(np.array([[1.0, 2.0], [2.0, 1.0], [-1.0, 0.5]]))
    x = jnp.asarray(sine.grid(41))[:, None]

    def shown(theta, strength):
        return sine._fit(sine.RECIPES["imaml"], 8, theta, points, strength, x)[:4]

    calls = [(sine.untrained(), jnp.float32(strength)) for strength in (0.1, 2.0)]
    for arguments, (found, _) in zip(calls, in_browser(shown, *calls), strict=True):
        assert_same(found, shown(*arguments), 1e-4)
