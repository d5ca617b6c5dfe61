"""CG that stops once its own error is small beside that of the inner solution."""

import closed_forms as cf
import jax
import numpy as np
import pytest

from pullback.algorithms import imaml
from pullback.core.errors import InputError
from pullback.linear import CG
from pullback.solvers import GradientDescent

pytestmark = pytest.mark.usefixtures("x64")


def solved(steps, balance, key):
    algorithm = imaml(
        cf.loss,
        strength=cf.STRENGTHS["scalar"],
        solver=GradientDescent(steps, 0.1),
        linear_solver=CG(60, rtol=1e-10, balance=balance),
    )
    return jax.jit(algorithm.meta_gradient)(cf.theta(), cf.task(), key)[2]


@pytest.mark.parametrize("balance", [0.1, 0.5])
def test_a_poor_inner_solution_is_given_no_better_solve(balance, key):
    few, many = solved(3, balance, key), solved(60, balance, key)
    for info in (few, many):
        assert info.linear_residual <= min(balance * info.inner_residual, 0.5)
    assert many.inner_residual < few.inner_residual
    assert few.linear_steps < many.linear_steps < solved(60, 0.0, key).linear_steps


def test_an_inner_solution_worth_nothing_still_has_half_of_its_system_solved(key):
    info = solved(1, 1e6, key)
    assert 0 < info.linear_residual <= 0.5
    assert info.linear_steps >= 1


def test_without_balance_the_solve_goes_on_to_its_tolerance(key):
    assert np.asarray(solved(3, 0.0, key).linear_residual) <= 1e-10


@pytest.mark.parametrize("balance", [-1.0, float("inf"), float("nan")])
def test_a_balance_out_of_range_is_refused(balance):
    with pytest.raises(InputError, match="finite numbers from 0"):
        CG(balance=balance)
