"""The certificate: on quadratics its estimates are exact, and each verdict has its case."""

import dataclasses

import closed_forms as cf
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.algorithms import fomaml, imaml
from pullback.core import results, trees
from pullback.core.errors import InputError, NumericalError
from pullback.core.results import Verdict
from pullback.implicit.certificate import Certify
from pullback.linear import CG, Dense
from pullback.meta.training import train
from pullback.solvers import LBFGS, GradientDescent
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("x64")
EXACTLY = Certify(inverse_steps=2 * cf.SIZE, reach=1e6)
FORMS = pytest.mark.parametrize("form", cf.PROXIMAL)


def forms_after(*steps):
    """Each form of Λ after one number of steps: neither changes what the other does."""
    pairs = list(zip(cf.PROXIMAL, steps, strict=True))
    return pytest.mark.parametrize(("form", "steps"), pairs)


class Forgetful(CG):
    """CG that hands on no directions, so that the certificate has to find its own inverse."""

    def solve(self, operator, rhs, approximate_inverse):
        solution = super().solve(operator, rhs, approximate_inverse)
        return dataclasses.replace(solution, directions=None)


def certified(form, solver, linear, certify: Certify | None = EXACTLY):
    algorithm = imaml(
        cf.loss,
        strength=cf.STRENGTHS[form],
        solver=solver,
        linear_solver=linear,
        certify=certify,
    )
    _, gradient, info = jax.jit(algorithm.meta_gradient)(cf.theta(), cf.task(), jax.random.key(0))
    flat, unravel = jax.flatten_util.ravel_pytree(gradient)
    wrong = unravel(flat - cf.exact(form).meta_gradient)
    return float(trees.mean_share(wrong, gradient)), info


@forms_after(1, 4, 20, 1)
def test_the_error_of_an_unconverged_inner_solution_is_known_exactly(form, steps):
    error, info = certified(form, GradientDescent(steps, learning_rate=0.1), Dense())
    np.testing.assert_allclose(info.inner_error, error, rtol=1e-6)
    assert error > 1e-3
    assert info.linear_error < 1e-9


@forms_after(1, 2, 4, 1)
def test_the_error_of_an_unconverged_solve_is_known_exactly(form, steps):
    error, info = certified(form, cf.solve_exactly, Forgetful(steps, rtol=0.0))
    np.testing.assert_allclose(info.linear_error, error, rtol=1e-6)
    assert error > 1e-3
    assert info.inner_error < 1e-9


@forms_after(1, 2, 4, 1)
def test_beyond_the_directions_of_the_solve_its_error_is_bounded_as_if_only_strength_curved(
    form, steps
):
    error, info = certified(form, cf.solve_exactly, CG(steps, rtol=0.0))
    # ‖Λ(H + Λ)⁻¹w‖ ≤ ‖w‖ under a scalar Λ and H ≥ 0; near enough under the others.
    assert error * 0.9 < info.linear_error < 5 * error
    assert info.inner_error < 1e-9


@FORMS
def test_directions_that_span_the_space_are_an_exact_inverse(form):
    linear = CG(cf.SIZE, rtol=0.0)
    error, info = certified(form, GradientDescent(4, learning_rate=0.1), linear)
    np.testing.assert_allclose(info.inner_error, error, rtol=1e-5)
    assert error > 1e-3


def test_a_correction_longer_than_its_reach_is_no_estimate():
    solver = GradientDescent(1, learning_rate=0.01)
    _, whole = certified("scalar", solver, Dense())
    _, short = certified("scalar", solver, Dense(), Certify(reach=0.02, inverse_steps=16))
    assert np.isfinite(whole.inner_error)
    assert np.isinf(short.inner_error) and short.code == Verdict.INNER_NOT_CONVERGED


def test_the_memory_of_lbfgs_gives_the_error_within_a_factor():
    error, info = certified("scalar", LBFGS(6), Dense())
    assert error / 3 < info.inner_error < 3 * error


def test_every_other_query_example_estimates_the_same_error_within_a_factor():
    solver = GradientDescent(20, learning_rate=0.1)
    error, whole = certified("scalar", solver, Dense())
    thinned = certified("scalar", solver, Dense(), Certify(every=2, inverse_steps=16))[1]
    # The loss is a sum here, and half of the examples stand for all of them.
    assert error / 3 < thinned.inner_error < 3 * error
    assert thinned.inner_error != whole.inner_error


@pytest.mark.parametrize("combine", [jnp.sum, jnp.mean])
def test_copies_of_the_query_set_change_nothing_whether_a_loss_is_a_sum_or_a_mean(combine):
    """By itself it judges by about as many query examples as there are support examples."""

    def loss(params, batch):
        x, y = batch
        return combine(jnp.log(jnp.cosh(jnp.tanh(x @ params["w"]) - y)))

    keys = jax.random.split(jax.random.key(0), 3)
    x, y = jax.random.normal(keys[0], (4, 6)), jax.random.normal(keys[1], (4,))
    theta = {"w": jax.random.normal(keys[2], (6,))}

    def inner_error(copies):
        # Neighbours, so that every so-manieth example is one of each.
        query = (jnp.repeat(x + 0.3, copies, axis=0), jnp.repeat(-y, copies, axis=0))
        solver = GradientDescent(2, learning_rate=0.1)
        algorithm = imaml(loss, strength=1.0, solver=solver, linear_solver=CG(4, rtol=0.0))
        info = jax.jit(algorithm.meta_gradient)(theta, Task((x, y), query), keys[0])[2]
        return float(info.inner_error)

    alone = inner_error(1)
    assert alone > 1e-3
    np.testing.assert_allclose(inner_error(7), alone, rtol=1e-6)


def test_no_certificate_is_no_number_and_no_complaint():
    solver = GradientDescent(60, learning_rate=0.1)
    error, info = certified("scalar", solver, CG(1, 0.05), certify=None)
    assert error > 1e-4
    assert np.isinf(info.inner_error)
    assert np.isinf(info.linear_error)
    assert info.code == Verdict.OK


@pytest.mark.parametrize("certify", [None, Certify(10.0)], ids=["none", "patient"])
def test_where_the_solver_hardly_moved_no_gradient_is_ok(certify):
    _, info = certified("scalar", GradientDescent(1, learning_rate=1e-4), Dense(), certify)
    assert info.inner_residual > 0.99 and info.code == Verdict.INNER_NOT_CONVERGED


def test_a_share_of_the_gradients_is_judged_and_the_others_say_nothing():
    algorithm = imaml(
        cf.loss,
        strength=cf.STRENGTHS["scalar"],
        solver=GradientDescent(60, learning_rate=0.1),
        linear_solver=Dense(),
        certify=Certify(1e-6, share=0.5),
    )

    def judged(key):
        return algorithm.meta_gradient(cf.theta(), cf.task(), key)[2]

    info = jax.jit(lambda keys: jax.lax.map(judged, keys))(jax.random.split(jax.random.key(0), 40))
    known = ~np.isinf(info.inner_error)
    assert 10 < known.sum() < 30
    np.testing.assert_array_equal(known, ~np.isinf(info.linear_error))
    np.testing.assert_array_equal(known, info.code == Verdict.INNER_NOT_CONVERGED)
    np.testing.assert_array_equal(~known, info.code == Verdict.OK)


@pytest.mark.parametrize(
    ("solver", "linear", "wanted"),
    [
        (cf.solve_exactly, Dense(), "ok"),
        (GradientDescent(1, learning_rate=1e-4), Dense(), "inner_not_converged"),
        (cf.solve_exactly, CG(1, rtol=0.0), "solve_not_converged"),
    ],
)
def test_the_verdict_names_the_error_that_is_too_large(solver, linear, wanted):
    info = certified("scalar", solver, linear, Certify(0.05, inverse_steps=16))[1]
    assert results.label(info.code) == wanted
    assert results.message(info.code)


def test_of_two_errors_that_are_too_large_the_larger_is_named():
    solver, linear = GradientDescent(8, learning_rate=0.1), CG(1, rtol=0.0)
    info = certified("scalar", solver, linear, Certify(1e-6, inverse_steps=16))[1]
    worse = "inner" if info.inner_error > info.linear_error else "solve"
    assert results.label(info.code) == f"{worse}_not_converged"


def curved(params, batch):
    """A loss whose curvature the task sets, and a query that pulls at it."""
    curvature, pull = batch
    return 0.5 * jnp.sum(curvature * params**2) + jnp.sum(pull * params)


@pytest.mark.parametrize(
    ("curvature", "wanted"),
    [(2.0, "ok"), (-3.0, "negative_curvature"), (np.nan, "not_finite")],
)
def test_what_is_wrong_with_the_curvature_outranks_any_estimate(curvature, wanted):
    task = Task((jnp.full(3, curvature), jnp.ones(3)), (jnp.ones(3), jnp.ones(3)))
    meta_gradient = imaml(curved, strength=1.0, solver=GradientDescent(12, 0.2)).meta_gradient
    info = jax.jit(meta_gradient)(jnp.ones(3), task, jax.random.key(0))[2]
    assert results.label(info.code) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tolerance": 0.0}, "numbers above 0"),
        ({"tolerance": float("nan")}, "numbers above 0"),
        ({"every": 0}, "whole numbers"),
        ({"inverse_steps": 2.5}, "whole numbers"),
        ({"share": 0.0}, "at most 1"),
        ({"share": 1.5}, "at most 1"),
        ({"reach": -1.0}, "numbers above 0"),
    ],
)
def test_settings_out_of_range_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        Certify(**given)


def test_a_query_batch_that_cannot_be_thinned_is_refused():
    algorithm = imaml(curved, strength=1.0, certify=Certify(every=2))
    task = Task((jnp.ones(3), jnp.ones(3)), (jnp.ones(3), jnp.asarray(1.0)))
    with pytest.raises(InputError, match="common first axis"):
        jax.eval_shape(algorithm.meta_gradient, jnp.ones(3), task, jax.random.key(0))


class Mixed:
    """Tasks of which about one in three has no proximal minimum."""

    def sample(self, key):
        bad = jax.random.bernoulli(key, 0.35)
        curvature = jnp.where(bad, -3.0, 1.0) * jnp.ones(3)
        return Task((curvature, jnp.ones(3)), (jnp.ones(3), jnp.ones(3)))


class Hopeless(Mixed):
    """Tasks none of which has a proximal minimum."""

    def sample(self, key):
        return Task((-3.0 * jnp.ones(3), jnp.ones(3)), (jnp.ones(3), jnp.ones(3)))


def trained(tasks, policy, algorithm=None, **options):
    algorithm = algorithm or imaml(curved, strength=1.0, solver=GradientDescent(60, 0.2))
    return train(
        algorithm,
        jnp.ones(3),
        tasks,
        steps=5,
        key=jax.random.key(1),
        tasks_per_step=4,
        on_bad_verdict=policy,
        **options,
    )


jax.tree_util.register_static(Mixed)
jax.tree_util.register_static(Hopeless)


def test_a_bad_verdict_is_counted_and_its_gradient_used():
    seen = trained(Mixed(), "warn")
    assert 0 < seen.history["flagged"].sum() < 20
    # Gradients of the good tasks alone are bounded; those of the others are not.
    assert (
        seen.history["gradient_norm"].max()
        > trained(Mixed(), "skip").history["gradient_norm"].max()
    )


def test_a_skipped_task_leaves_the_average_of_the_others():
    result = trained(Mixed(), "skip")
    algorithm = imaml(curved, strength=1.0, solver=GradientDescent(60, 0.2))
    good = Task((jnp.ones(3), jnp.ones(3)), (jnp.ones(3), jnp.ones(3)))
    gradient = jax.jit(algorithm.meta_gradient)(jnp.ones(3), good, jax.random.key(0))[1]
    first = result.history["flagged"][0]
    assert 0 < first < 4
    np.testing.assert_allclose(
        result.history["gradient_norm"][0], np.linalg.norm(gradient), rtol=1e-6
    )


def test_a_step_without_a_single_good_task_is_not_taken():
    result = trained(Hopeless(), "skip")
    np.testing.assert_array_equal(result.theta, np.ones(3))
    assert int(result.state.step) == 5
    assert result.history["flagged"].sum() == 20


def test_a_run_may_stop_at_the_first_bad_verdict():
    with pytest.raises(NumericalError, match=r"task \d of 4: the verdict is negative_curvature"):
        trained(Mixed(), "raise")


def test_an_algorithm_without_a_certificate_is_never_skipped():
    algorithm = fomaml(curved, solver=GradientDescent(2, 0.1))
    skipped = trained(Mixed(), "skip", algorithm)
    np.testing.assert_array_equal(skipped.theta, trained(Mixed(), "warn", algorithm).theta)
    assert np.any(skipped.theta != 1.0)


def test_an_unknown_policy_is_told_the_nearest():
    with pytest.raises(InputError, match="skip"):
        trained(Mixed(), "skipp")
