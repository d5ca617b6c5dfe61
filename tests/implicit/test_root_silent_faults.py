"""What goes wrong shows: NaN or an error, never a zero or a number that looks right."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from pullback import implicit
from pullback.core.errors import InputError, NumericalError
from pullback.core.results import Verdict
from pullback.linear import CG, Dense

pytestmark = pytest.mark.usefixtures("x64")

A = np.asarray([[2.0, 1.0], [-1.0, 3.0]])
SPD = np.asarray([[2.0, 0.5], [0.5, 1.0]])
B = np.asarray([1.0, -2.0])
SINGULAR = np.asarray([[0.1, 0.3], [0.2, 0.6]])
MODES = [jax.jacrev, jax.jacfwd]


def condition(x, a, b):
    return a @ x - b


def solver(optimality=condition, wrong=0.0, **given):
    @implicit.root(optimality, **given)
    def solve(init, a, b):
        return jnp.linalg.lstsq(a, b)[0] + wrong

    return solve


def all_nan(tree):
    return all(bool(jnp.all(jnp.isnan(leaf))) for leaf in jax.tree.leaves(tree))


def code(*args, **given):
    return int(implicit.certify(*args, **given).code)


@pytest.mark.parametrize("mode", MODES)
def test_a_singular_jacobian_gives_nan_even_where_the_system_has_solutions(mode):
    b = SINGULAR @ B
    assert all_nan(mode(solver(), 2)(None, SINGULAR, b))
    # Along the range of the matrix there are solutions, and one of them looks like a derivative.
    _, along = jax.jvp(lambda b: solver()(None, SINGULAR, b), (b,), (SINGULAR[:, 0],))
    assert all_nan(along)
    x = jnp.linalg.lstsq(SINGULAR, b)[0]
    assert code(condition, x, SINGULAR, b, cotangent=SINGULAR[0]) == Verdict.SOLVE_FAILED


@pytest.mark.parametrize("linear_solver", [None, lx.GMRES(rtol=1e-8, atol=1e-8)])
def test_a_right_hand_side_of_zero_does_not_hide_a_singular_jacobian(linear_solver):
    @implicit.root(lambda x, t: t * x**2, linear_solver=linear_solver)
    def solve(init, t):
        return jnp.zeros(2)

    assert all_nan(jax.jacfwd(solve, 1)(None, 1.0))
    assert all_nan(jax.jacrev(solve, 1)(None, 1.0))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("wrong", [0.1, jnp.nan, jnp.inf])
def test_a_solver_that_did_not_arrive_gives_nan(mode, wrong):
    assert all_nan(mode(solver(wrong=wrong), 2)(None, A, B))
    x = jnp.linalg.solve(A, B) + wrong
    wanted = Verdict.INNER_NOT_CONVERGED if wrong == 0.1 else Verdict.NOT_FINITE
    assert code(condition, x, A, B) == wanted


def test_how_far_from_a_solution_is_allowed_is_a_setting():
    assert not all_nan(jax.jacrev(solver(wrong=1e-5), 2)(None, A, B))
    assert all_nan(jax.jacrev(solver(wrong=1e-5, tolerance=1e-8), 2)(None, A, B))
    assert not all_nan(jax.jacrev(solver(wrong=1e-5, tolerance=1e-8, atol=1e-3), 2)(None, A, B))


def test_the_verdict_does_not_depend_on_the_units_of_the_condition():
    for unit in (1e-12, 1e12):
        scaled = lambda x, a, b, unit=unit: unit * (a @ x - b)  # noqa: E731
        assert all_nan(jax.jacrev(solver(scaled, wrong=0.1), 2)(None, A, B))
        np.testing.assert_allclose(jax.jacrev(solver(scaled), 2)(None, A, B), jnp.linalg.inv(A))


def test_unknowns_in_very_different_units_are_not_taken_for_a_singular_matrix():
    a = A @ np.diag([1e9, 1e-9])
    solve = implicit.root(condition)(lambda init, a, b: jnp.linalg.solve(a, b))
    np.testing.assert_allclose(jax.jacfwd(solve, 2)(None, a, B), np.linalg.inv(a), rtol=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_a_linear_solver_that_stops_early_gives_nan(mode):
    few = CG(1, rtol=1e-12)
    assert all_nan(mode(solver(linear_solver=few, symmetric=True), 2)(None, SPD, B))
    x = jnp.linalg.solve(SPD, B)
    given = {"linear_solver": few, "symmetric": True}
    assert code(condition, x, SPD, B, **given) == Verdict.SOLVE_NOT_CONVERGED


@pytest.mark.parametrize("linear_solver", [CG(30, rtol=1e-10), Dense()], ids=["cg", "dense"])
@pytest.mark.parametrize("mode", MODES)
def test_a_matrix_said_to_be_symmetric_that_is_not_gives_nan(mode, linear_solver):
    assert all_nan(mode(solver(linear_solver=linear_solver, symmetric=True), 2)(None, A, B))


@pytest.mark.parametrize("linear_solver", [None, lx.GMRES(rtol=1e-8, atol=1e-8)])
def test_a_cotangent_of_zero_gives_zero_and_not_nan(linear_solver):
    solve = solver(linear_solver=linear_solver)
    _, pull = jax.vjp(lambda a, b: solve(None, a, b), A, B)
    for leaf in pull(jnp.zeros(2)):
        np.testing.assert_array_equal(leaf, 0.0)


def test_only_the_failing_members_of_a_batch_are_nan():
    matrices = jnp.stack([A, SINGULAR, 2 * A])
    b = jnp.stack([B, SINGULAR @ B, B])
    gradient = jax.jit(jax.vmap(jax.jacrev(lambda a, b: solver()(None, a, b), 1)))
    got = gradient(matrices, b)
    assert all_nan(got[1])
    np.testing.assert_allclose(got[0], jnp.linalg.inv(A))
    np.testing.assert_allclose(got[2], jnp.linalg.inv(2 * A))


def test_a_failure_can_be_an_error_outside_and_inside_jit():
    with pytest.raises(NumericalError, match="is not zero at the solution"):
        jax.jacrev(solver(wrong=0.1, on_failure="raise"), 2)(None, A, B)
    strict = eqx.filter_jit(jax.jacrev(solver(on_failure="raise"), 2))
    np.testing.assert_allclose(strict(None, A, B), jnp.linalg.inv(A))
    with pytest.raises(eqx.EquinoxRuntimeError, match="implicit derivative failed"):
        jax.block_until_ready(strict(None, SINGULAR, SINGULAR @ B))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("mode", MODES)
def test_values_that_the_condition_closes_over_are_differentiated(transform, mode):
    def outer(b, shift):
        @implicit.root(lambda x: A @ x - b * shift)
        def solve(init):
            return jnp.linalg.solve(A, b * shift)

        return solve(None)

    got = transform(mode(outer))(B, 2.0)
    np.testing.assert_allclose(got, 2 * jnp.linalg.inv(A), rtol=1e-12)
    batched = jax.vmap(mode(outer), (None, 0))(B, jnp.asarray([1.0, 2.0]))
    np.testing.assert_allclose(batched[1], got, rtol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_jitted_or_looped_solution_is_differentiated_all_the_same(mode):
    inner = jax.jit(functools.partial(solver(), None))
    looped = lambda b: jax.lax.scan(lambda c, _: (inner(A, c), None), b, length=2)[0]  # noqa: E731
    inverse = jnp.linalg.inv(A)
    np.testing.assert_allclose(mode(inner, 1)(A, B), inverse, rtol=1e-12)
    np.testing.assert_allclose(mode(looped)(B), inverse @ inverse, rtol=1e-12)


def test_the_start_has_a_gradient_of_zero_even_where_the_solver_returns_it():
    solve = implicit.root(condition)(lambda init, a, b: init)
    start = jnp.linalg.solve(A, B)
    by_start, by_b = jax.jacrev(solve, (0, 2))(start, A, B)
    np.testing.assert_array_equal(by_start, 0.0)
    np.testing.assert_allclose(by_b, jnp.linalg.inv(A))


def test_an_argument_that_the_solver_ignores_still_counts():
    stored = jnp.linalg.solve(A, B)
    solve = implicit.root(condition)(lambda init, a, b: stored)
    np.testing.assert_allclose(jax.jacrev(solve, 2)(None, A, B), jnp.linalg.inv(A))


def test_a_keyword_that_the_condition_names_is_differentiated():
    @implicit.root(lambda x, b, scale=1.0: scale * (A @ x) - b)
    def solve(init, b, scale=1.0, steps=3.0):
        return jnp.linalg.solve(scale * A, b)

    got = jax.grad(lambda s: jnp.sum(solve(None, B, scale=s)))(2.0)
    np.testing.assert_allclose(got, -jnp.sum(jnp.linalg.solve(A, B)) / 4, rtol=1e-12)
    with pytest.raises(InputError, match="steps"):
        jax.grad(lambda s: jnp.sum(solve(None, B, steps=s)))(2.0)
    np.testing.assert_allclose(
        jax.jacrev(lambda b: solve(None, b, steps=jnp.ones(())))(B), jnp.linalg.inv(A)
    )


def test_the_derivative_of_aux_is_nan_unless_it_is_stopped_or_unused():
    @implicit.root(condition, has_aux=True)
    def solve(init, a, b):
        x = jnp.linalg.solve(a, b)
        return x, jnp.sum(x**2)

    def outer(b, stop):
        x, aux = solve(None, A, b)
        return jnp.sum(x) + (jax.lax.stop_gradient(aux) if stop else aux)

    wanted = jnp.sum(jnp.linalg.inv(A), 0)
    assert all_nan(jax.grad(outer)(B, False))
    assert all_nan(jax.jacfwd(outer)(B, False))
    np.testing.assert_allclose(jax.grad(outer)(B, True), wanted)
    multiplied = lambda b: jnp.dot(jnp.asarray([1.0, 1.0, 0.0]), jnp.append(*solve(None, A, b)))  # noqa: E731
    np.testing.assert_allclose(jax.grad(multiplied)(B), wanted)


def returning(value, optimality=condition, init=None, **given):
    def call():
        return implicit.root(optimality, **given)(lambda init, a, b: value)(init, A, B)

    return call


WRONG = {
    "whole numbers": (returning(jnp.zeros(2, int)), "int"),
    "complex solution": (returning(jnp.zeros(2) * 1j), "complex"),
    "complex argument": (lambda: solver()(None, A * 1j, B), "complex|Complex"),
    "nothing": (returning(None), "no numbers"),
    "text": (returning("x"), "str"),
    "shape of the condition": (returning(jnp.zeros(2), lambda x, a, b: x[:1]), r"\[1\].*\[2\]"),
    "broadcast condition": (returning(jnp.zeros(2), lambda x, a, b: x[:, None] - b), r"\[2, 2\]"),
    "tree of the condition": (
        returning({"p": jnp.zeros(2)}, lambda x, a, b: x["p"]),
        "structure",
    ),
    "leaf of the condition": (
        returning({"p": jnp.zeros(2)}, lambda x, a, b: {"p": x["p"][0]}),
        r"\['p'\].*\[\].*\[2\]",
    ),
    "complex condition": (returning(jnp.zeros(2), lambda x, a, b: x * 1j), "complex"),
    "shape of the start": (returning(jnp.zeros(2), init=jnp.zeros(3)), r"\[2\].*\[3\]"),
    "dtype of the start": (
        returning(np.zeros(2, np.float32), init=np.zeros(2)),
        "float32.*float64",
    ),
    "unannounced aux": (returning((jnp.zeros(2), 1.0), init=jnp.zeros(2)), "has_aux=True"),
    "announced aux": (returning(jnp.zeros(2), has_aux=True), "pair"),
    "linear solver": (returning(B, linear_solver="cg"), "no linear solver"),
    "linear solver's class": (returning(B, linear_solver=CG), "no linear solver"),
    "symmetric solver": (returning(B, linear_solver=CG()), "symmetric=True"),
    "damping": (returning(B, damping=-1.0), "damping"),
    "tolerance": (returning(B, tolerance=0.0), "tolerance"),
    "on_failure": (returning(B, on_failure="zero"), "'nan', 'raise'"),
    "mapping": (
        lambda: implicit.fixed_point(lambda x, b: x[:1])(lambda init, b: b)(None, B),
        r"\[1\].*\[2\]",
    ),
    "cotangent": (
        lambda: implicit.certify(condition, B, A, B, cotangent=jnp.ones(3)),
        "shape of the cotangent",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused_at_the_first_call(name):
    call, words = WRONG[name]
    with pytest.raises(InputError, match=words):
        call()


def test_a_condition_with_other_arguments_than_the_solver_is_refused():
    with pytest.raises(TypeError, match="argument"):
        returning(B, lambda x, a: x)()
