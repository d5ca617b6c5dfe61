"""What a data set may give, and what is read off it."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.core.registry import Entry
from pullback.core.scores import Score
from pullback.models.objectives import CLASSIFICATION, REGRESSION, Objective
from pullback.tasks import ClassSet, Task, TaskFamily, gives_classes, load
from pullback.tasks.datasets import DataSummary, summarise_data


class Regression(eqx.Module):
    shots: int = eqx.field(static=True, default=4)

    def sample(self, key):
        batch = (jnp.zeros((self.shots, 2, 3)), jnp.zeros((self.shots, 5)))
        return Task(batch, batch)


class Labels(eqx.Module):
    ways: int = eqx.field(static=True, default=3)

    def sample(self, key):
        batch = (jnp.zeros((self.ways, 2)), jnp.arange(self.ways))
        return Task(batch, batch)


class Unlabelled(eqx.Module):
    def sample(self, key):
        return Task((jnp.zeros((2, 2)), jnp.arange(2)), jnp.zeros(3))


class Dictionary(eqx.Module):
    def sample(self, key):
        return Task({"x": jnp.zeros((2, 2))}, {"x": jnp.zeros((2, 2))})


class Flat(eqx.Module):
    def sample(self, key):
        return Task((jnp.zeros((4, 1)), jnp.zeros(4)), (jnp.zeros((4, 1)), jnp.zeros(4)))


class NoTask:
    def sample(self, key):
        return jnp.zeros(3)


SCORE = Score("likelihood", higher_is_better=True)


def family() -> TaskFamily:
    objective = Objective(REGRESSION.loss, REGRESSION.metric, SCORE)
    return TaskFamily(Dictionary(), objective=objective, inputs=(2,), outputs=1)


def classes() -> ClassSet:
    return ClassSet.of("own", [np.zeros((3, 6)), np.ones((4, 6))], ["a", "b"])


def unannotated():
    return classes()


def wrong() -> TaskFamily:
    return {"train": 1}


def entry(target):
    return Entry(target.__name__, "", f"{__name__}:{target.__name__}")


@pytest.mark.parametrize(
    ("target", "answer"), [(classes, True), (Regression, False), (family, False)]
)
def test_the_code_says_whether_there_are_classes(target, answer):
    assert gives_classes(entry(target)) is answer


@pytest.mark.parametrize("target", [unannotated, Score])
def test_code_that_does_not_say_what_it_gives_is_refused(target):
    with pytest.raises(InputError, match=r"does not say what it gives.*sample"):
        gives_classes(entry(target))


def test_shapes_and_the_objective_are_read_off_a_task():
    given = load(entry(Regression), shots=7, ways=4, data_dir=None)
    assert (given.inputs, given.outputs, given.objective) == ((2, 3), 5, REGRESSION)
    assert given.train.shots == 7
    assert given.part("test") is given.train
    given = load(entry(Labels), ways=4)
    assert (given.inputs, given.outputs, given.objective) == ((2,), 4, CLASSIFICATION)


def test_what_a_family_says_goes_before_what_could_be_read_off():
    given = load(entry(family))
    assert summarise_data(given, None) == DataSummary((2,), 1, SCORE)


def test_a_summary_comes_back_from_json():
    summary = summarise_data(load(entry(classes)), 2)
    assert summary.inputs == (6,) and summary.score == CLASSIFICATION.score
    assert not summary.images
    assert DataSummary.from_dict(summary.to_dict()) == summary
    for broken in ({}, {"inputs": 3}, summary.to_dict() | {"score": {"name": "x"}}):
        with pytest.raises(InputError, match="summary of the data is broken"):
            DataSummary.from_dict(broken)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Unlabelled, "do not tell how many classes"),
        (Dictionary, r"allowed|pair \(x, y\)"),
        (Flat, r"targets .* have shape \[4\].*\[examples, outputs\]"),
        (NoTask, "A sample .* is a"),
        (wrong, "gave a dict"),
    ],
)
def test_what_cannot_be_read_off_is_asked_for(target, message):
    with pytest.raises(InputError, match=message):
        load(entry(target))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:thing", "no module 'no_such_module'"),
        (f"{__name__}:nothing", "has no nothing"),
    ],
)
def test_a_place_without_code_is_named(target, message):
    with pytest.raises(InputError, match=message):
        Entry("x", "", target).load()
