"""Errors that the tables of ``tests/robustness`` do not show."""

import pytest

from pullback.core.errors import InputError, PullbackError
from pullback.meta import parallel
from pullback.solvers import SOLVERS


def test_a_name_like_no_other_gets_the_list_and_no_hint():
    with pytest.raises(InputError) as caught:
        parallel.find_strategy("qqqq")
    assert "auto, chunked:N, map, measure, vmap" in str(caught.value)
    assert "mean" not in str(caught.value)


def test_input_errors_are_caught_as_the_packages_and_as_pythons_own():
    assert issubclass(InputError, PullbackError)
    assert issubclass(InputError, ValueError)


@pytest.mark.parametrize("name", SOLVERS)
def test_every_named_solver_is_built_from_its_settings(name):
    solver = SOLVERS.find(name).make(steps=3, learning_rate=0.1, momentum=0.5)
    assert solver.steps == 3
