"""Calls of the library that cannot be meant, and what their message must say."""

import closed_forms as cf
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import optax

import pullback as pb
from pullback.algorithms import ALGORITHMS, fomaml, imaml, maml, reptile
from pullback.linear import CG, Lineax
from pullback.models import MLP, Conv4, Linear, functional
from pullback.solvers import LBFGS, SOLVERS, GradientDescent, Nesterov, Optax
from pullback.tasks import Sinusoid

KEY = jax.random.key(0)
NET = MLP(1, 1, hidden=(3,))
WEIGHTS = jax.tree.map(np.asarray, NET.init(KEY))
X, Y = np.ones((4, 1), np.float32), np.zeros((4, 1), np.float32)
LABELS = np.asarray([0, 1, 2, 1], np.int32)
CLASSIFIER = Linear(1, 3)
LOGITS = {"weight": np.zeros((1, 3), np.float32), "bias": np.zeros(3, np.float32)}


def adapt(strength=1.0, theta=None, solver=None, maker=imaml):
    theta = cf.theta() if theta is None else theta
    return maker(cf.loss, strength=strength, solver=solver).adapt(theta, cf.batch(0), KEY)


def black_box(result):
    """Refused for what it returns, whatever the algorithm."""
    return lambda: adapt(solver=lambda problem, theta, key: result(theta))


def run_train(algorithm=None, params=None, tasks=None, **options):
    given = {"steps": 1, "key": KEY, **options}
    params = cf.theta() if params is None else params
    return pb.train(
        fomaml(cf.loss) if algorithm is None else algorithm,
        params,
        Sinusoid() if tasks is None else tasks,
        **given,
    )


def run_evaluate(algorithm=None, theta=None, tasks=None, **options):
    given = {"metric": cf.loss, "key": KEY, **options}
    return pb.evaluate(
        fomaml(cf.loss) if algorithm is None else algorithm,
        cf.theta() if theta is None else theta,
        Sinusoid() if tasks is None else tasks,
        **given,
    )


def returning(result, maker=fomaml):
    """A meta-gradient of a loss that returns this."""
    loss = lambda params, batch: result(params["a"])  # noqa: E731
    return lambda: maker(loss).meta_gradient(cf.theta(), cf.task(), KEY)


def meta(theta=None, task=None, key=KEY, maker=fomaml):
    given = cf.theta() if theta is None else theta, cf.task() if task is None else task, key
    return lambda: maker(cf.loss).meta_gradient(*given)


def cast(theta, kind):
    return jax.tree.map(lambda x: np.asarray(x, kind), theta)


def half(theta):
    return cast(theta, np.float16)


def wrong_shape(theta):
    return {**theta, "a": theta["a"][:2]}


def squares(x=X, y=Y):
    return lambda: pb.models.mean_squared_error(NET.apply)(WEIGHTS, (x, y))


def entropy(y, x=X, loss=pb.models.cross_entropy):
    return lambda: loss(CLASSIFIER.apply)(LOGITS, (x, y))


def accuracy(y):
    return entropy(y, loss=pb.models.accuracy)


def learn(loss=cf.loss, **options):
    return pb.learned_imaml(loss, **{"strength": 1.0, **options})


def trained_elsewhere():
    other = pb.maml(pb.models.mean_squared_error(NET.apply))
    wide = MLP(1, 1, hidden=(4,)).init(KEY)
    optimizer = optax.sgd(0.1)
    state = pb.TrainState(jnp.zeros((), jnp.int32), wide, optimizer.init(wide))
    return pb.train(other, None, Sinusoid(), steps=1, key=KEY, state=state, optimizer=optimizer)


def other_optimizer():
    optimizer = optax.sgd(0.1)
    state = pb.TrainState(jnp.zeros((), jnp.int32), cf.theta(), optimizer.init(cf.theta()))
    return run_train(state=state, optimizer=optax.adam(0.1))


def untaken():
    """A black box that must never be asked."""
    raise AssertionError("the solver was run")


class Loss:
    def __call__(self, params, batch):
        return 0.0


class NotTasks(eqx.Module):
    def sample(self, key):
        return cf.batch(0), cf.batch(1)


class Plain:
    """Has a ``sample``, but is no pytree."""

    def sample(self, key):
        return cf.task()


class Worded(eqx.Module):
    names: list

    def sample(self, key):
        return cf.task()


class NeedsKey(eqx.Module):
    weight: jax.Array

    def __call__(self, x, *, key):
        return self.weight * x


def dropout():
    return eqx.nn.Sequential([eqx.nn.Linear(1, 1, key=KEY), eqx.nn.Dropout(0.5)])


def batch_norm():
    return eqx.nn.make_with_state(eqx.nn.BatchNorm)(1, axis_name="batch", mode="batch")


SUMMED = lambda params, batch: jnp.sum(params["a"])  # noqa: E731

CALLS = {
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
    "black box, another type": (black_box(half), ["float16", "float"]),
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
    "list from a black box": (black_box(lambda t: [1, 2]), ["structure", "that of θ"]),
    # Λ, and other numbers that are none
    "strength as text": (lambda: imaml(cf.loss, strength="2"), ["'2'", "positive finite numbers"]),
    "complex strength": (lambda: imaml(cf.loss, strength=1j), ["1j", "positive"]),
    "boolean strength": (lambda: imaml(cf.loss, strength=True), ["True", "positive"]),
    "damping as text": (
        lambda: imaml(cf.loss, strength=1.0, damping="0"),
        ["damping='0'", "from 0"],
    ),
    "certify as a number": (lambda: imaml(cf.loss, strength=1.0, certify=True), ["Certify(...)"]),
    "certify as a class": (
        lambda: imaml(cf.loss, strength=1.0, certify=pb.Certify),
        ["certify is", "Certify(...)"],
    ),
    "raise_strength as a number": (
        lambda: imaml(cf.loss, strength=1.0, raise_strength=2.0),
        ["raise_strength is 2.0", "AdaptiveStrength(...)"],
    ),
    "tolerance as text": (lambda: pb.Certify(tolerance="1"), ["tolerance='1'", "above 0"]),
    "share above 1": (lambda: pb.Certify(share=2), ["share=2", "at most 1"]),
    "margin as text": (lambda: pb.AdaptiveStrength(margin="1"), ["margin='1'", "margin < 1"]),
    "gd rate as text": (lambda: GradientDescent(learning_rate="1"), ["learning_rate='1'", "> 0"]),
    "gd momentum as text": (lambda: GradientDescent(momentum="1"), ["momentum='1'", "< 1"]),
    "adam rate": (lambda: Optax.adam(3, -1.0), ["learning_rate=-1.0", "> 0"]),
    "cg rtol as text": (lambda: CG(rtol="1"), ["rtol='1'", "rtol < 1"]),
    "cg balance": (lambda: CG(balance="1"), ["balance='1'", "from 0"]),
    "lbfgs rtol": (lambda: LBFGS(rtol="1"), ["rtol='1'", "or None"]),
    "newton radius": (lambda: pb.solvers.NewtonCG(radius=0), ["radius=0", "> 0"]),
    # Losses
    "number as a loss": (lambda: imaml(3, strength=1.0), ["loss is 3", "loss(params, batch)"]),
    "number as maml's loss": (lambda: maml(3), ["loss is 3", "callable"]),
    "number as a learned loss": (lambda: learn(3), ["loss is 3", "callable"]),
    "class as a loss": (lambda: fomaml(Loss), ["class Loss", "Loss(...)"]),
    "loss of one argument": (lambda: reptile(lambda p: 0.0), ["(p)", "params, batch"]),
    "loss with a key": (
        lambda: fomaml(lambda params, batch, key: 0.0),
        ["(params, batch, key)", "part of the batch", "docs/models.md"],
    ),
    "outer loss": (lambda: learn(outer_loss=3), ["outer_loss is 3", "callable"]),
    "learned loss without hyper": (
        lambda: learn(hyper=1.0, outer_loss=cf.loss),
        ["(params, batch)", "params, batch, hyper"],
    ),
    "loss of a proximal": (lambda: pb.Proximal(None, 1.0), ["loss is None", "callable"]),
    "vector loss": (returning(lambda a: a), ["returns float", "[3]", "one number", "mean"]),
    "vector loss of maml": (returning(lambda a: a, maml), ["[3]", "one number"]),
    "vector loss of reptile": (returning(lambda a: a, reptile), ["[3]", "one number"]),
    "loss with aux": (
        returning(lambda a: (jnp.sum(a), a)),
        ["returns (float", "without_aux(loss)"],
    ),
    "loss as a dictionary": (returning(lambda a: {"loss": jnp.sum(a)}), ["'loss'", "one number"]),
    "integer loss": (returning(lambda a: jnp.sum(a > 0)), ["returns int", "one number"]),
    "complex loss": (returning(lambda a: jnp.sum(a) * 1j), ["returns complex", "float32"]),
    "boolean loss": (returning(lambda a: jnp.all(a > 0)), ["returns bool", "float32"]),
    "half loss": (
        returning(lambda a: jnp.sum(a).astype(jnp.bfloat16)),
        ["bfloat16", "astype(jnp.float32)"],
    ),
    "loss of nothing": (returning(lambda a: None), ["returns None", "one number"]),
    "loss that fails": (returning(lambda a: a["w"]), ["fails on parameters", "'a': float"]),
    "no pair": (
        lambda: pb.models.without_aux(SUMMED)(cf.theta(), None),
        ["without_aux", "(value, aux)"],
    ),
    # θ, tasks, keys
    "integer parameters": (meta(cast(cf.theta(), int)), ["['a']", "int", "floating-point"]),
    "complex parameters": (meta(cast(cf.theta(), complex)), ["complex", "floating-point"]),
    "half parameters": (meta(half(cf.theta())), ["float16", "float32 and float64", "models.md"]),
    "bfloat16 parameters": (
        meta(cast(cf.theta(), jnp.bfloat16)),
        ["bfloat16", "float32 and float64"],
    ),
    "half parameters at the start": (
        lambda: imaml(cf.loss, strength=1.0).init(half(cf.theta())),
        ["float16", "float32 and float64"],
    ),
    "half parameters of a learned strength": (lambda: learn().init(half(cf.theta())), ["float16"]),
    "python numbers as parameters": (meta({"a": 1.0}), ["['a']", "float"]),
    "no numbers": (meta({"a": np.zeros(0)}), ["no arrays"]),
    "parameters of another model": (
        lambda: pb.fomaml(pb.models.mean_squared_error(NET.apply)).adapt(LOGITS, (X, Y), KEY),
        ["structure", "MLP", "layer0"],
    ),
    "parameters of another width": (
        lambda: NET.apply(MLP(1, 1, hidden=(4,)).init(KEY), X),
        ["[4]", "[3]", "['bias']"],
    ),
    "plain parameters for a learned strength": (
        lambda: learn().adapt(cf.theta(), cf.batch(0), KEY),
        ["θ is a dict", "Learned"],
    ),
    "tuple as a task": (meta(task=(cf.batch(0), cf.batch(1))), ["float64[12, 8]", "Task(support"]),
    "task in place of θ": (
        lambda: fomaml(cf.loss).meta_gradient(cf.task(), cf.theta(), KEY),
        ["The task is {'a'", "(theta, task, key)"],
    ),
    "task in place of its support": (
        lambda: fomaml(cf.loss).adapt(cf.theta(), cf.task(), KEY),
        ["whole Task", "task.support"],
    ),
    "support in place of θ": (
        lambda: fomaml(cf.loss).adapt(cf.batch(0), cf.theta(), KEY),
        ["fails on parameters", "order"],
    ),
    "key in place of the support": (
        lambda: fomaml(cf.loss).adapt(cf.theta(), KEY, cf.batch(0)),
        ["adapt(key=(float64", "one random key"],
    ),
    "text as a support": (
        lambda: fomaml(cf.loss).adapt(cf.theta(), "support", KEY),
        ["'support'", "fails on"],
    ),
    "more examples than targets": (
        lambda: fomaml(cf.loss).adapt(cf.theta(), (cf.batch(0)[0], np.ones(5)), KEY),
        ["float64[5]", "as many as"],
    ),
    "query of other features": (
        meta(task=pb.Task(cf.batch(0), (np.ones((4, 3)), np.ones(4)))),
        ["float64[4, 3]", "fails on"],
    ),
    "query of other features, after a slow solver": (
        lambda: imaml(cf.loss, strength=1.0, solver=lambda p, t, k: untaken()).meta_gradient(
            cf.theta(), pb.Task(cf.batch(0), (np.ones((4, 3)), np.ones(4))), KEY
        ),
        ["float64[4, 3]"],
    ),
    "sets that reptile cannot join": (
        lambda: reptile(SUMMED).meta_gradient(
            cf.theta(), pb.Task(np.ones((4, 3)), np.ones((4, 2))), KEY
        ),
        ["[4, 3]", "[4, 2]", "fit='support'"],
    ),
    "number as a key": (meta(key=0), ["key=0", "jax.random.key(0)"]),
    "array of a number as a key": (meta(key=jnp.asarray(0)), ["key=int32[]", "one random key"]),
    "batch of keys": (meta(key=jax.random.split(KEY, 3)), ["[3]", "Give one of them"]),
    "batch of raw keys": (
        meta(key=np.zeros((3, 2), np.uint32)),
        ["uint32[3, 2]", "one random key"],
    ),
    "no key": (meta(key=None), ["key=None", "one random key"]),
    "solve without a key": (
        lambda: pb.solve(
            pb.Proximal(cf.loss, 1.0), cf.theta(), cf.batch(0), solver=LBFGS(), key=None
        ),
        ["solve(key=None"],
    ),
    "solve of a loss": (
        lambda: pb.solve(cf.loss, cf.theta(), cf.batch(0), solver=LBFGS(), key=KEY),
        ["pullback.Proximal"],
    ),
    "two-argument solver": (
        lambda: imaml(cf.loss, strength=1.0, solver=lambda problem, theta: theta),
        ["(problem, theta)", "problem, theta, key"],
    ),
    # Labels and targets
    "flat targets": (squares(y=np.zeros(4)), ["float32[4, 1]", "float64[4]", "y.reshape((4, 1))"]),
    "one target for all": (squares(y=np.zeros((1, 1))), ["[4, 1]", "[1, 1]", "broadcast"]),
    "column labels": (entropy(LABELS[:, None]), ["int32[4, 1]", "y.reshape((4,))"]),
    "labels below 0": (entropy(LABELS - 1), ["label -1", "1 of 4", "0..2"]),
    "labels above the classes": (entropy(LABELS + 7), ["label 7", "3 classes", "0..2"]),
    "float labels": (entropy(LABELS * 1.0), ["float64[4]", "astype(jnp.int32)"]),
    "one-hot labels": (entropy(np.eye(3)[LABELS]), ["float64[4, 3]", "argmax"]),
    "too few labels": (entropy(LABELS[:3]), ["int32[3]", "[examples]"]),
    "column labels of an accuracy": (accuracy(LABELS[:, None]), ["accuracy", "int32[4, 1]"]),
    "labels of an accuracy": (accuracy(LABELS + 1), ["label 3", "0..2"]),
    "labels in adapt": (
        lambda: fomaml(pb.models.cross_entropy(CLASSIFIER.apply)).adapt(
            LOGITS, (X, LABELS - 1), KEY
        ),
        ["label -1", "0..2"],
    ),
    "batch of four": (
        lambda: pb.models.mean_squared_error(NET.apply)(WEIGHTS, (X, Y, Y, Y)),
        ["a pair (x, y), or (x, y, weights)"],
    ),
    "weights of a batch": (
        lambda: pb.models.mean_squared_error(NET.apply)(WEIGHTS, (X, Y, Y)),
        ["one weight for each target"],
    ),
    "model as apply": (lambda: pb.models.cross_entropy(NET), ["apply is MLP", "callable"]),
    # More of models
    "no width": (lambda: MLP(hidden=(0,)), ["hidden=0", "from 1"]),
    "one width": (lambda: MLP(hidden=40), ["hidden=...) is 40", "(40, 40)"]),
    "fractional width": (lambda: MLP(hidden=(4.0,)), ["hidden=4.0", "whole"]),
    "no outputs": (lambda: MLP(outputs=0), ["outputs=0", "from 1"]),
    "no inputs": (lambda: Linear(0, 1), ["inputs=0", "from 1"]),
    "no classes": (lambda: Conv4(0), ["ways=0", "from 1"]),
    "no groups": (lambda: Conv4(5, groups=0), ["groups=0", "from 1"]),
    "three sides": (lambda: Conv4(5, size=(1, 2, 3)), ["(1, 2, 3)", "(height, width)"]),
    "scale of logits": (lambda: Conv4(5, logit_scale=np.nan), ["logit_scale=nan", "> 0"]),
    "examples of other features": (
        lambda: NET.apply(WEIGHTS, np.ones((4, 2))),
        ["[4, 2]", "[examples, 1]"],
    ),
    "number as an example": (lambda: NET.apply(WEIGHTS, 1.0), ["1.0", "[examples, 1]"]),
    "flat images": (
        lambda: Conv4(5, width=8).apply(
            jax.eval_shape(Conv4(5, width=8).init, KEY), np.ones((4, 784))
        ),
        ["[4, 784]", "[examples, 28, 28, 1]"],
    ),
    "class as a module": (lambda: functional(eqx.nn.Linear), ["class", "callable"]),
    "dropout": (lambda: functional(dropout()), ["keys=True", "inference_mode"]),
    "module with a key": (lambda: functional(NeedsKey(jnp.ones(1))), ["NeedsKey", "keys=True"]),
    "batch norm": (lambda: functional(batch_norm()[0]), ["state=state", "GroupNorm"]),
    "state that is none": (
        lambda: functional(batch_norm()[0], state={}),
        ["state=dict", "make_with_state"],
    ),
    "dropout without its keys": (
        lambda: (lambda params, apply: apply(params, X))(*functional(dropout(), keys=True)),
        ["float32[4, 1]", "(examples, keys)"],
    ),
    # More of loops
    "loss as an algorithm": (lambda: run_train(cf.loss), ["The algorithm is", "pullback.imaml"]),
    "number as train's key": (lambda: run_train(key=0), ["train(key=0)", "jax.random.key(0)"]),
    "train's batch of keys": (lambda: run_train(key=jax.random.split(KEY)), ["[2]", "one"]),
    "train's integer key": (lambda: run_train(key=jnp.asarray(0)), ["int32[]", "one random key"]),
    "list as tasks": (lambda: run_train(tasks=[1, 2]), ["a list", "sample(key) -> Task"]),
    "class as tasks": (lambda: run_train(tasks=Sinusoid), ["class Sinusoid", "Sinusoid(...)"]),
    "tasks of a plain class": (lambda: run_train(tasks=Plain()), ["Plain", "equinox.Module"]),
    "tasks with a list of words": (
        lambda: run_train(tasks=Worded(["a", "b"])),
        ["Worded", "a str", "static=True"],
    ),
    "family as tasks": (lambda: run_train(tasks=pb.TaskFamily(Sinusoid())), ["family.train"]),
    "tasks that are pairs": (lambda: run_train(tasks=NotTasks()), ["float64", "pullback.Task"]),
    "number as an optimiser": (lambda: run_train(optimizer=3), ["is 3", "optax.adam(1e-3)"]),
    "function as an optimiser": (lambda: run_train(optimizer=optax.adam), ["adam", "optax.adam("]),
    "boolean steps": (lambda: run_train(steps=True), ["steps=True", "from 1"]),
    "fractional steps": (lambda: run_train(steps=1.5), ["steps=1.5", "from 1"]),
    "no block ends": (lambda: run_train(block_ends=0), ["block_ends=0", "from 1"]),
    "negative block seconds": (lambda: run_train(block_seconds=-1), ["block_seconds=-1", "from 0"]),
    "boolean devices": (lambda: run_train(devices=True), ["True", "Allowed: 1"]),
    "bad policy": (lambda: run_train(on_bad_verdict="wran"), ["Did you mean 'warn'"]),
    "parameters as a state": (lambda: run_train(state=cf.theta()), ["state=...)", "result.state"]),
    "state of another model": (trained_elsewhere, ["[4]", "[3]", "MLP"]),
    "state of another optimiser": (other_optimizer, ["optimiser's state", "structure"]),
    "integer parameters in training": (
        lambda: run_train(params=cast(cf.theta(), int)),
        ["int", "floating-point"],
    ),
    "vector loss in training": (
        lambda: run_train(fomaml(lambda p, b: p["a"])),
        ["[3]", "one number"],
    ),
    "loss as an evaluated algorithm": (lambda: run_evaluate(cf.loss), ["The algorithm is"]),
    "number as evaluate's key": (lambda: run_evaluate(key=0), ["evaluate(key=0)"]),
    "list as evaluated tasks": (lambda: run_evaluate(tasks=[1, 2]), ["a list", "sample(key)"]),
    "number as a metric": (lambda: run_evaluate(metric=3), ["metric is 3", "callable"]),
    "vector metric": (
        lambda: run_evaluate(
            fomaml(lambda p, b: jnp.sum(p["a"])), metric=lambda p, b: p["a"], devices=1
        ),
        ["metric returns", "[3]"],
    ),
    "integer θ": (lambda: run_evaluate(theta=cast(cf.theta(), int)), ["int", "floating-point"]),
    "fractional count": (lambda: run_evaluate(count=1.5), ["count=1.5", "from 1"]),
    "no block": (lambda: run_evaluate(block=0), ["block=0", "from 1"]),
    "rate of the optimiser": (lambda: pb.default_optimizer(10, 0.0), ["learning_rate=0.0", "> 0"]),
    "steps of the optimiser": (lambda: pb.default_optimizer(0), ["steps=0", "from 1"]),
}


def starting(name, params):
    line = ALGORITHMS[name]
    algorithm = line.make(cf.loss, **({"strength": 1.0} if line.proximal else {}))
    return lambda: algorithm.init(params)


for _name in ALGORITHMS:
    CALLS |= {
        f"integers for {_name}": (
            starting(_name, {"w": np.ones(2), "n": np.arange(3)}),
            ["['n']", "int64", "floating", "partition"],
        ),
        f"function for {_name}": (
            starting(_name, {"w": np.ones(2), "f": jnp.tanh}),
            ["['f']", "floating"],
        ),
        f"python number for {_name}": (starting(_name, {"w": 1.0}), ["['w']", "float"]),
        f"nothing for {_name}": (starting(_name, {}), ["no arrays"]),
    }
