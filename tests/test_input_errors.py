"""What cannot be used is refused before any compute, with what was given and what is allowed."""

import closed_forms as cf
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax
import pytest

from pullback.algorithms import ALGORITHMS, fomaml, imaml, maml, reptile
from pullback.core.errors import InputError, PullbackError
from pullback.linear import CG, Lineax
from pullback.meta import parallel
from pullback.meta.evaluation import evaluate
from pullback.meta.training import train
from pullback.models import MLP, Conv4, functional
from pullback.solvers import LBFGS, SOLVERS, GradientDescent, Nesterov, Optax
from pullback.tasks import Sinusoid

pytestmark = pytest.mark.usefixtures("tiny")

KEY = jax.random.key(0)
MAKERS = {"imaml": imaml, "maml": maml, "fomaml": fomaml, "reptile": reptile}


def adapt(strength=1.0, theta=None, solver=None, maker=imaml):
    theta = cf.theta() if theta is None else theta
    return maker(cf.loss, strength=strength, solver=solver).adapt(theta, cf.batch(0), KEY)


def black_box(result):
    """Refused for what it returns, whatever the algorithm."""
    return lambda: adapt(solver=lambda problem, theta, key: result(theta))


def run_train(**options):
    given = {"steps": 1, "key": KEY, **options}
    return train(fomaml(cf.loss), cf.theta(), Sinusoid(), **given)


def run_evaluate(**options):
    given = {"metric": cf.loss, "key": KEY, **options}
    return evaluate(fomaml(cf.loss), cf.theta(), Sinusoid(), **given)


def wrong_type(theta):
    return jax.tree.map(lambda x: np.asarray(x, np.float16), theta)


def wrong_shape(theta):
    return {**theta, "a": theta["a"][:2]}


REFUSED = {
    # Λ
    "zero strength": (lambda: imaml(cf.loss, strength=0.0), ["0.0", "positive", "strength=None"]),
    "negative strength": (lambda: imaml(cf.loss, strength=-2), ["-2", "positive finite"]),
    "nan strength": (lambda: imaml(cf.loss, strength=float("nan")), ["nan", "positive finite"]),
    "infinite strength": (lambda: imaml(cf.loss, strength=np.inf), ["inf", "positive finite"]),
    "text as strength": (lambda: imaml(cf.loss, strength="large"), ["'large'", "positive"]),
    "one zero in a leaf": (
        lambda: imaml(cf.loss, strength={"a": 1.0, "b": {"w": np.array([1.0, 0.0])}}),
        ["['b']['w']", "positive"],
    ),
    "negative strength for maml": (lambda: maml(cf.loss, strength=-1.0), ["-1.0", "positive"]),
    "imaml without strength": (lambda: imaml(cf.loss, strength=None), ["Λ", "positive"]),
    "strength of another structure": (
        lambda: adapt({"a": 1.0}),
        ["structure", "'a'", "a scalar, or a pytree"],
    ),
    "strength of another leaf shape": (
        lambda: adapt({"a": np.ones(2), "b": {"c": 1.0, "w": 1.0}}),
        ["['a']", "(2,)", "(3,)", "scalar"],
    ),
    # Solvers
    "class as solver": (lambda: imaml(cf.loss, strength=1.0, solver=LBFGS), ["LBFGS(...)"]),
    "class as solver of maml": (lambda: maml(cf.loss, solver=Nesterov), ["Nesterov(...)"]),
    "solver that is none": (lambda: reptile(cf.loss, solver=3), ["3", "callable"]),
    "class as linear solver": (
        lambda: imaml(cf.loss, strength=1.0, linear_solver=CG),
        ["CG", "instance"],
    ),
    "linear solver that is none": (
        lambda: imaml(cf.loss, strength=1.0, linear_solver="cg"),
        ["'cg'", "instance"],
    ),
    "maml through lbfgs": (
        lambda: maml(cf.loss, solver=LBFGS()),
        ["LBFGS", "GradientDescent, Nesterov, Optax", "imaml"],
    ),
    "maml through a black box": (
        lambda: maml(cf.loss, solver=cf.solve_exactly),
        ["solve_exactly", "GradientDescent", "imaml"],
    ),
    "black box, another structure": (black_box(lambda t: t["a"]), ["structure", "'b'"]),
    "black box, another shape": (black_box(wrong_shape), ["['a']", "[2]", "[3]"]),
    "black box, another type": (black_box(wrong_type), ["float16", "float"]),
    "negative damping": (
        lambda: imaml(cf.loss, strength=1.0, damping=-0.1),
        ["damping=-0.1", "from 0"],
    ),
    "nan damping": (lambda: imaml(cf.loss, strength=1.0, damping=np.nan), ["damping=nan"]),
    "reptile's fit": (lambda: reptile(cf.loss, fit="query"), ["'query'", "'all', 'support'"]),
    # Settings
    "cg steps": (lambda: CG(steps=0), ["CG(steps=0)", "from 1"]),
    "cg fractional steps": (lambda: CG(steps=2.5), ["steps=2.5"]),
    "cg boolean steps": (lambda: CG(steps=True), ["steps=True"]),
    "cg rtol": (lambda: CG(rtol=1.0), ["rtol=1.0", "rtol < 1"]),
    "cg nan rtol": (lambda: CG(rtol=np.nan), ["rtol=nan"]),
    "cg start": (lambda: CG(start="one"), ["'one'", "'zero', 'rhs'"]),
    "lineax solver": (lambda: Lineax(lx.GMRES), ["GMRES", "instance"]),
    "gd steps": (lambda: GradientDescent(0), ["GradientDescent(steps=0)", "from 1"]),
    "gd rate": (lambda: GradientDescent(learning_rate=0.0), ["learning_rate=0.0", "> 0"]),
    "gd nan rate": (lambda: GradientDescent(learning_rate=np.nan), ["learning_rate=nan"]),
    "gd infinite rate": (lambda: GradientDescent(learning_rate=np.inf), ["learning_rate=inf"]),
    "gd momentum": (lambda: GradientDescent(momentum=1.0), ["momentum=1.0", "momentum < 1"]),
    "lbfgs steps": (lambda: LBFGS(-1), ["LBFGS(steps=-1)", "from 1"]),
    "lbfgs history": (lambda: LBFGS(history=0), ["history=0", "from 1"]),
    "nesterov steps": (lambda: Nesterov(1.5), ["Nesterov(steps=1.5)", "whole"]),
    "optax steps": (lambda: Optax(optax.sgd(0.1), 0), ["Optax(steps=0)", "from 1"]),
    "optax optimiser": (lambda: Optax(optax.sgd), ["sgd", "GradientTransformation"]),
    # Loops
    "no training steps": (lambda: run_train(steps=0), ["steps=0", "from 1"]),
    "no tasks": (lambda: run_train(tasks_per_step=0), ["tasks_per_step=0", "from 1"]),
    "training strategy": (lambda: run_train(strategy="vmpa"), ["'vmpa'", "Did you mean 'vmap'"]),
    "training devices": (lambda: run_train(devices=99), ["99", "Allowed: 1"]),
    "no evaluation tasks": (lambda: run_evaluate(count=0), ["count=0", "from 1"]),
    "evaluation strategy": (lambda: run_evaluate(strategy="mop"), ["'mop'", "'map'"]),
    "evaluation devices": (lambda: run_evaluate(devices=99), ["99", "Allowed: 1"]),
    "evaluation on no device": (lambda: run_evaluate(devices=0), ["0", "Allowed: 1"]),
    # Models and names
    "activation": (lambda: MLP(activation="tan"), ["'tan'", "Did you mean 'tanh'?"]),
    "normalisation": (lambda: Conv4(5, normalisation="grop"), ["Did you mean 'group'?"]),
    "groups": (lambda: Conv4(5, width=10, groups=8), ["10", "8", "multiple"]),
    "model without parameters": (lambda: functional(jnp.tanh), ["no floating-point array"]),
    "model that cannot be called": (lambda: functional({"w": 1.0}), ["dict", "callable"]),
    "algorithm by name": (
        lambda: ALGORITHMS.find("imalm"),
        ["'imalm'", "Did you mean 'imaml'?", ", ".join(sorted(ALGORITHMS))],
    ),
    "solver by name": (
        lambda: SOLVERS.find("l-bfgs"),
        ["'l-bfgs'", "Did you mean 'lbfgs'?"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_message_says_what_was_given_and_what_is_allowed(case):
    attempt, parts = REFUSED[case]
    with pytest.raises(InputError) as caught:
        attempt()
    text = str(caught.value)
    assert [part for part in parts if part not in text] == []


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize(
    ("params", "parts"),
    [
        ({"w": np.ones(2), "n": np.arange(3)}, ["['n']", "int64", "floating", "partition"]),
        ({"w": np.ones(2), "f": jnp.tanh}, ["['f']", "floating"]),
        ({"w": 1.0}, ["['w']", "float"]),
        ({}, ["no arrays"]),
    ],
    ids=["integers", "function", "python number", "empty"],
)
def test_parameters_that_gradients_cannot_reach_are_named(name, params, parts):
    line = ALGORITHMS[name]
    algorithm = line.make(cf.loss, **({"strength": 1.0} if line.proximal else {}))
    with pytest.raises(InputError) as caught:
        algorithm.init(params)
    assert [part for part in parts if part not in str(caught.value)] == []


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
