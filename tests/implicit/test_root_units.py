"""Mixed units, mixed sizes and mixed precisions: nothing hides behind anything else's norm."""

import functools

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from pullback import implicit
from pullback.core.results import Verdict
from pullback.linear import CG, Dense

pytestmark = pytest.mark.usefixtures("tiny")

BIG = [1e2, 1e4, 1e6]


def by_leaf(x, p):
    return {"b": x["b"] - p["b"], "c": x["c"] ** 3 - p["c"]}


def by_row(x, p):
    return jnp.stack([x[0] - p[0], x[1] ** 3 - p[1]])


@pytest.mark.parametrize("big", BIG)
@pytest.mark.parametrize(("c", "passes"), [(1.0, False), (2.1, False), (2.0, True)])
def test_a_large_unknown_does_not_hide_a_small_one(big, c, passes):
    b, c, eight = jnp.float32(big), jnp.float32(c), jnp.float32(8.0)
    cases = [
        (by_leaf, {"b": b, "c": c}, {"b": b, "c": eight}, {"b": b, "c": jnp.float32(1.0)}),
        (by_row, jnp.stack([b, c]), jnp.stack([b, eight]), jnp.ones(2)),
    ]
    for condition, x, p, cotangent in cases:

        @jax.jit
        def judged(x, p, cotangent, condition=condition):
            found = implicit.certify(condition, x, p)
            return found.code, implicit.root_vjp(condition, x, p, cotangent=cotangent)

        code, (gradient,) = judged(x, p, cotangent)
        assert code == (Verdict.OK if passes else Verdict.INNER_NOT_CONVERGED)
        last = gradient["c"] if isinstance(gradient, dict) else gradient[1]
        np.testing.assert_allclose(last, 1 / 12 if passes else np.nan, rtol=1e-5)


def test_the_same_holds_of_a_fixed_point():
    step = lambda x, p: {"b": p["b"], "c": x["c"] - (x["c"] ** 3 - p["c"]) / 100}  # noqa: E731
    solve = implicit.fixed_point(step)(lambda init, p: {"b": p["b"], "c": jnp.float32(1.0)})
    p = {"b": jnp.float32(1e4), "c": jnp.float32(8.0)}
    assert np.isnan(jax.grad(lambda p: solve(None, p)["c"])(p)["c"])


UNIT = 1e4


def ridge(w, x, y, strength):
    return x.T @ (x @ w - y) + strength * w


def logistic(w, x, y, strength):
    return x.T @ (jax.nn.sigmoid(x @ w) - y) + strength * w


@pytest.mark.parametrize("condition", [ridge, logistic])
def test_a_column_in_another_unit_is_judged_by_its_own_size(condition, rng):
    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(20, 3)) * [UNIT, 1.0, 1.0])
        y = jnp.asarray((rng.normal(size=20) > 0).astype(float))
        w = jnp.zeros(3)

        @jax.jit
        def newton(w):
            slope = jax.jacobian(condition)(w, x, y, 0.1)
            return w - jnp.linalg.solve(slope, condition(w, x, y, 0.1))

        certify = jax.jit(lambda w: implicit.certify(condition, w, x, y, 0.1).code)
        for _ in range(20):
            w = newton(w)
        assert certify(w) == Verdict.OK
        for number in range(3):
            off = w.at[number].multiply(1.5)
            assert certify(off) == Verdict.INNER_NOT_CONVERGED, number


def test_what_a_solver_leaves_where_the_solution_is_zero_does_not_count():
    condition = lambda x, p: jnp.stack([x[0] - p, 0.1 * x[1]])  # noqa: E731
    x = jnp.asarray([3.0, 1e-9])
    assert implicit.certify(condition, x, jnp.float32(3.0)).code == Verdict.OK


def test_a_small_equation_of_a_linear_system_is_judged_by_its_own_size():
    matrix = jnp.diag(jnp.asarray([1e4, 1.0]))
    few = CG(1, rtol=1e-6)
    cotangent = jnp.asarray([1e4, 1e-1])
    condition = lambda x, b: matrix @ x - b  # noqa: E731
    x = jnp.asarray([1.0, 1.0])
    found = implicit.certify(
        condition, x, matrix @ x, cotangent=cotangent, linear_solver=few, symmetric=True
    )
    assert found.code == Verdict.SOLVE_NOT_CONVERGED


def kkt(x, a, b):
    """Of two unknowns the second equation does not know ``a``."""
    return 2 * x[0] - a, x[1] ** 2 - b


def test_an_equation_need_not_depend_on_the_argument_that_is_differentiated_by():
    solve = implicit.root(kkt)(lambda init, a, b: (a / 2, jnp.sqrt(b)))
    for mode in (jax.jacrev, jax.jacfwd):
        by_a, by_b = jax.jit(mode(lambda a, b: solve(None, a, b), (0, 1)))(1.0, 1.0), None
        by_a, by_b = zip(*by_a, strict=True)
        np.testing.assert_allclose(by_a, [0.5, 0.0])
        np.testing.assert_allclose(by_b, [0.0, 0.5])
    second = jax.jit(jax.grad(jax.grad(lambda b: solve(None, 1.0, b)[1])))(4.0)
    np.testing.assert_allclose(second, -1 / 32, rtol=1e-5)


def test_the_multipliers_of_a_quadratic_programme_have_gradients_in_both_modes():
    # min ½‖x‖² − qᵀx where 1ᵀx = t: x = q + ν, ν = (t − 1ᵀq) / n.
    def stationary(both, q, t):
        x, nu = both
        return x - q - nu, jnp.sum(x) - t

    def solve(init, q, t):
        nu = (t - jnp.sum(q)) / q.size
        return q + nu, nu

    q, solve = jnp.asarray([1.0, 2.0, 4.0]), implicit.root(stationary)(solve)
    for mode in (jax.jacrev, jax.jacfwd):
        by_q, by_t = jax.jit(mode(lambda q, t: solve(None, q, t)[0], (0, 1)))(q, 1.0)
        np.testing.assert_allclose(by_q, np.eye(3) - 1 / 3, atol=1e-6)
        np.testing.assert_allclose(by_t, np.full(3, 1 / 3), rtol=1e-6)


@pytest.mark.parametrize("count", [2, 300])
@pytest.mark.parametrize("dtypes", ["bfloat16", "float16", "float32 float64", "float64 bfloat16"])
def test_any_precision_and_a_mixture_of_them_will_do(dtypes, count):
    first, second = (dtypes.split() * 2)[:2]
    condition = lambda x, p: {"a": 2 * x["a"] - p["a"], "b": 4 * x["b"] - p["b"]}  # noqa: E731
    with jax.enable_x64(True):
        p = {"a": jnp.ones(count, first), "b": jnp.full(count, 3, second)}
        x = {"a": p["a"] / 2, "b": p["b"] / 4}
        (found,) = implicit.root_vjp(condition, x, p, cotangent=trees_of_ones(x))
        assert found["a"].dtype == first and found["b"].dtype == second
        np.testing.assert_allclose(found["a"].astype(float), 0.5, rtol=1e-2)
        np.testing.assert_allclose(found["b"].astype(float), 0.25, rtol=1e-2)


def trees_of_ones(tree):
    return jax.tree.map(jnp.ones_like, tree)


@pytest.mark.parametrize("linear_solver", [None, lx.Cholesky(), lx.CG(1e-6, 1e-6), CG(), Dense()])
def test_promotion_may_be_strict_and_any_symmetric_solver_given(linear_solver):
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        condition = lambda x, p: jnp.asarray(2.0, x.dtype) * x - p  # noqa: E731
        p = jnp.ones(2)
        found = implicit.root_vjp(
            condition,
            p / jnp.full_like(p, 2.0),
            p,
            cotangent=jnp.ones(2),
            linear_solver=linear_solver,
            symmetric=True,
        )
        np.testing.assert_allclose(found[0], 0.5, rtol=1e-5)


@jax.tree_util.register_pytree_node_class
class Box:
    """A node that takes nothing but arrays, as those of some libraries do."""

    def __init__(self, content):
        if not hasattr(content, "dtype"):
            raise TypeError(f"a {type(content).__name__} in a box")
        self.content = content

    def tree_flatten(self):
        return (self.content,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_nodes_that_check_their_leaves_may_be_solution_argument_and_aux():
    condition = lambda x, p, n: Box(2 * x.content - p.content)  # noqa: E731

    @implicit.root(condition, has_aux=True)
    def solve(init, p, n):
        return Box(p.content / 2), (Box(p.content), Box(n.content), "note")

    def outer(p):
        x, (aux, count, note) = solve(None, Box(p), Box(jnp.arange(2)))
        assert note == "note" and count.content.dtype == jnp.int32
        return jnp.sum(x.content) + 0 * jax.lax.stop_gradient(jnp.sum(aux.content))

    np.testing.assert_allclose(jax.grad(outer)(jnp.ones(2)), 0.5)
    np.testing.assert_allclose(jax.jvp(outer, (jnp.ones(2),), (jnp.ones(2),))[1], 1.0)


def test_a_keyword_of_a_wrapped_condition_is_bound_to_its_place():
    def named(x, a, scale):
        return scale * x - a

    @functools.wraps(named)
    def condition(*args):
        return named(*args)

    solve = implicit.root(condition)(lambda init, a, scale: a / scale)
    gradient = jax.grad(lambda s: solve(None, jnp.float32(3.0), scale=s))(2.0)
    np.testing.assert_allclose(gradient, -0.75, rtol=1e-6)


def test_a_given_solution_has_gradients_and_directional_derivatives():
    condition = lambda x, a, n, b: a * x - n * b  # noqa: E731
    a, b = 2.0, jnp.asarray([1.0, 3.0])
    x = 3 * b / a
    by_a, by_n, by_b = implicit.root_vjp(condition, x, a, 3, b, cotangent=jnp.ones(2))
    np.testing.assert_allclose(by_a, -jnp.sum(x) / a)
    np.testing.assert_allclose(by_b, [1.5, 1.5])
    assert by_n is None
    moved = implicit.root_jvp(condition, x, a, 3, b, tangents=(1.0, None, jnp.ones(2)))
    np.testing.assert_allclose(moved, -x / a + 1.5)
    assert np.isnan(implicit.root_jvp(condition, 2 * x, a, 3, b, tangents=(1.0, None, b))).all()
