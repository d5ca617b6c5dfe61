"""The head eliminated: equal to the whole problem's dense solution, for every loss and Λ."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import pullback as pb
from pullback import implicit
from pullback.core.errors import InputError
from pullback.core.problem import InnerProblem, Proximal
from pullback.core.results import Verdict
from pullback.linear import CG, MINRES, Dense
from pullback.models import (
    MLP,
    Linear,
    LinearHead,
    MeanLoss,
    binary_cross_entropy,
    cross_entropy,
    mean_squared_error,
    poisson_loss,
)
from pullback.solvers import LBFGS, NewtonCG, Projected, run
from pullback.solvers import head as heads
from pullback.tasks import Task

LOSSES = {
    "softmax": (cross_entropy, 3),
    "logistic": (binary_cross_entropy, 2),
    "squared": (mean_squared_error, 2),
    "poisson": (poisson_loss, 1),
}
EXACT = Projected(80, rtol=1e-13)
SOLVE = CG(200, rtol=1e-13)

pytestmark = pytest.mark.usefixtures("tiny", "x64")


def batch(kind, outputs, seed, count):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 2))
    shape = (count, outputs)
    if kind == "softmax":
        return x, rng.integers(0, outputs, count)
    if kind == "logistic":
        return x, rng.integers(0, 2, shape).astype(float)
    if kind == "poisson":
        return x, rng.poisson(2.0, shape).astype(float)
    return x, rng.normal(size=shape)


def network(outputs):
    model = MLP(2, outputs, (4, 3), "tanh")
    params = jax.jit(model.init)(jax.random.key(0))
    noise = np.random.default_rng(1).normal(size=100)
    return model, jax.tree.map(lambda x: x + 0.2 * noise[: x.size].reshape(x.shape), params)


def strength_of(form, theta):
    if form == "scalar":
        return 1.3
    if form == "leaf":
        return jax.tree.map(lambda x: 0.8 + x.size % 3, theta)
    return jax.tree.map(lambda x: np.random.default_rng(x.size).uniform(0.5, 3.0, x.shape), theta)


def flat(tree):
    return np.asarray(ravel_pytree(tree)[0])


def apart(a, b):
    return np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b))


def hidden(loss):
    """The same loss, of which nothing is known."""
    return lambda params, batch: loss(params, batch)


GRID = [
    (kind, form, (3, 9)[(i + j) % 2])
    for i, kind in enumerate(LOSSES)
    for j, form in enumerate(("scalar", "leaf", "diagonal"))
]
"""Every loss with every form of Λ, and either with few and with many examples."""


@pytest.mark.parametrize(("kind", "form", "count"), GRID)
def test_phi_is_stationary_and_the_gradient_is_that_of_the_dense_solution(kind, form, count):
    make, outputs = LOSSES[kind]
    model, theta = network(outputs)
    loss = make(model.apply)
    support = batch(kind, outputs, 3, count)
    query = batch(kind, outputs, 4, 6)
    strength = strength_of(form, theta)

    @jax.jit
    def both(theta):
        problem = Proximal(loss, strength).problem(theta, support)
        phi = run(EXACT, problem, theta, jax.random.key(0)).phi
        cotangent = jax.grad(loss)(phi, query)
        point = implicit.linearise(problem, phi, eliminate_head=True)
        plain = implicit.linearise(Proximal(hidden(loss), strength).problem(theta, support), phi)
        ours, solve = implicit.vjp(point, cotangent, SOLVE)
        theirs, dense = implicit.vjp(plain, cotangent, Dense())
        return (
            plain.residual(),
            (ours, point.loss_gradient, solve.value),
            (theirs, plain.loss_gradient, dense.value),
        )

    residual, ours, theirs = both(theta)
    assert residual < 1e-10
    assert apart(ours[0], theirs[0]) < 1e-9
    assert apart(ours[1], theirs[1]) < 1e-12
    assert apart(ours[2], theirs[2]) < 1e-9


@pytest.mark.parametrize(
    ("solver", "linear"),
    [(LBFGS(6), SOLVE), (LBFGS(6), Dense()), (NewtonCG(2), MINRES(200, rtol=1e-12))],
    ids=["lbfgs-cg", "lbfgs-dense", "newton-cg-minres"],
)
def test_the_elimination_is_exact_at_any_point_of_any_inner_solver(solver, linear):
    model, theta = network(3)
    loss = cross_entropy(model.apply)
    support = batch("softmax", 3, 3, 5)
    task = Task(support, batch("softmax", 3, 4, 6))

    def gradient(loss, linear):
        settings = {"solver": solver, "linear_solver": linear, "damping": 0.1}
        algorithm = pb.imaml(loss, strength=1.0, certify=None, **settings)
        return jax.jit(algorithm.meta_gradient)(theta, task, jax.random.key(0))

    value, ours, info = gradient(loss, linear)
    plain_value, theirs, plain = gradient(hidden(loss), Dense())
    np.testing.assert_allclose(value, plain_value, rtol=1e-12)
    np.testing.assert_allclose(info.inner_residual, plain.inner_residual, rtol=1e-9)
    assert apart(ours, theirs) < 1e-9


@pytest.mark.parametrize("form", ["scalar", "diagonal"])
def test_every_form_of_the_heads_solve_finds_the_same_head(form, monkeypatch):
    model, theta = network(3)
    support = batch("softmax", 3, 3, 7)
    problem = Proximal(cross_entropy(model.apply), strength_of(form, theta)).problem(theta, support)

    def solved(**options):
        @jax.jit
        def both(theta):
            found = run(Projected(3, rtol=None, **options), problem, theta, jax.random.key(0))
            point = implicit.linearise(problem, found.phi, eliminate_head=True)
            return found.phi, implicit.vjp(point, theta, SOLVE)[0]

        return both(theta)

    wanted = solved(form="dual")
    assert apart(solved(form="primal"), wanted) < 1e-10
    monkeypatch.setattr(heads, "DENSE", 0)
    assert apart(solved(form="dual"), wanted) < 1e-10
    assert apart(solved(form="primal"), wanted) < 1e-10


def test_weights_stand_for_repeated_and_for_missing_examples():
    model, theta = network(3)
    loss = cross_entropy(model.apply)
    x, y = batch("softmax", 3, 3, 4)
    query = batch("softmax", 3, 4, 6)
    twice = (np.concatenate([x, x[:1]]), np.concatenate([y, y[:1]]))
    padded = (
        np.concatenate([x, np.full((2, 2), 9.0)]),
        np.concatenate([y, np.array([0, 1])]),
        np.array([2.0, 1.0, 1.0, 1.0, 0.0, 0.0]),
    )
    algorithm = pb.imaml(loss, strength=1.0, solver=EXACT, linear_solver=SOLVE, certify=None)

    def gradient(support):
        return jax.jit(algorithm.meta_gradient)(theta, Task(support, query), jax.random.key(0))

    value, wanted, _ = gradient(twice)
    ours_value, ours, info = gradient(padded)
    assert info.code == Verdict.OK
    np.testing.assert_allclose(ours_value, value, rtol=1e-10)
    assert apart(ours, wanted) < 1e-9


@pytest.mark.parametrize(
    "solver", [Projected(), LBFGS(), NewtonCG()], ids=lambda s: type(s).__name__
)
def test_without_a_support_example_phi_is_theta_and_all_is_well(solver):
    model, theta = network(3)
    loss = cross_entropy(model.apply)
    query = batch("softmax", 3, 4, 6)
    nothing = (np.zeros((0, 2)), np.zeros(0, int))
    algorithm = pb.imaml(loss, strength=1.0, solver=solver)

    @jax.jit
    def both(theta, key):
        adapted = algorithm.adapt(theta, nothing, key)
        found, info = algorithm.meta_gradient(theta, Task(nothing, query), key)[1:]
        return adapted, found, info, jax.grad(loss)(theta, query)

    (phi, report), found, info, wanted = both(theta, jax.random.key(0))
    assert apart(phi, theta) < 1e-15
    assert info.code == report.code == Verdict.OK
    assert apart(found, wanted) < 1e-12


def test_a_class_that_the_support_set_lacks_is_no_matter():
    model, theta = network(3)
    loss = cross_entropy(model.apply)
    x, _ = batch("softmax", 3, 3, 4)
    problem = Proximal(loss, 1.0).problem(theta, (x, jnp.array([0, 0, 2, 2])))

    @jax.jit
    def residual(theta):
        phi = run(EXACT, problem, theta, jax.random.key(0)).phi
        return implicit.linearise(problem, phi).residual()

    assert residual(theta) < 1e-10


def test_a_model_that_is_all_head_is_solved_in_closed_form():
    model = Linear(2, 2)
    theta = jax.tree.map(lambda x: x + 0.3, model.init(jax.random.key(0)))
    loss = mean_squared_error(model.apply)
    support = batch("squared", 2, 3, 5)
    query = batch("squared", 2, 4, 5)
    settings = {"strength": 0.7, "solver": Projected()}
    algorithm = pb.imaml(loss, **settings)
    ours = jax.jit(algorithm.meta_gradient)(theta, Task(support, query), jax.random.key(0))
    x = np.column_stack([support[0], np.ones(5)])
    start = np.vstack([theta["weight"], theta["bias"]])
    # The mean over five examples and two outputs.
    curved = x.T @ x / 5
    phi = np.linalg.solve(curved + 0.7 * np.eye(3), x.T @ support[1] / 5 + 0.7 * start)
    of_query = np.column_stack([query[0], np.ones(5)])
    slope = of_query.T @ (of_query @ phi - query[1]) / 5
    wanted = 0.7 * np.linalg.solve(curved + 0.7 * np.eye(3), slope)
    np.testing.assert_allclose(ours[1]["weight"], wanted[:2], rtol=1e-10)
    np.testing.assert_allclose(ours[1]["bias"], wanted[2], rtol=1e-10)
    assert ours[2].code == Verdict.OK


@pytest.mark.parametrize(("target", "negative"), [(-9.0, True), (9.0, False)])
def test_negative_curvature_of_the_body_is_seen(target, negative):
    # The features cos(body)·x curve downward at their top; the loss's slope decides which way.
    apply = LinearHead(lambda p, x: jnp.cos(p["body"]) * x, "head")
    theta = {"body": np.zeros(1), "head": {"weight": np.full((1, 1), 2.0)}}
    loss = mean_squared_error(apply)

    @jax.jit
    def both(theta, support):
        problem = InnerProblem(loss, support, theta, 0.5)
        point = implicit.linearise(problem, theta, eliminate_head=True)
        plain = implicit.linearise(InnerProblem(hidden(loss), support, theta, 0.5), theta)
        vector, unravel = ravel_pytree(theta)
        whole = jax.vmap(lambda e: plain.operator()(unravel(e)))(jnp.eye(vector.size))
        return whole, implicit.vjp(point, theta | {"body": jnp.ones(1)}, CG())[1]

    whole, solve = both(theta, (np.ones((3, 1)), np.full((3, 1), target)))
    rows = np.concatenate([whole["body"], whole["head"]["weight"][:, :, 0]], 1)
    assert (np.linalg.eigvalsh(rows)[0] < 0) == negative
    assert (solve.code == Verdict.NEGATIVE_CURVATURE) == negative


def test_tasks_side_by_side_do_as_one_after_the_other():
    model, theta = network(3)
    settings = {"solver": Projected(), "certify": None}
    algorithm = pb.imaml(cross_entropy(model.apply), strength=1.0, **settings)
    tasks = [Task(batch("softmax", 3, i, 4), batch("softmax", 3, 9 + i, 5)) for i in range(3)]
    step = lambda task: algorithm.meta_gradient(theta, task, jax.random.key(0))[:2]  # noqa: E731
    alone = jax.jit(step)
    stacked = jax.tree.map(lambda *x: np.stack(x), *tasks)
    together = jax.jit(jax.vmap(step))(stacked)
    mapped = jax.jit(lambda tasks: jax.lax.map(step, tasks))(stacked)
    apart_ = jax.tree.map(lambda *x: np.stack(x), *[alone(task) for task in tasks])
    assert apart(together, apart_) < 1e-10
    assert apart(mapped, apart_) < 1e-10


MODULES = {
    "layers": lambda key: eqx.nn.MLP(2, 3, 4, 1, key=key),
    "no bias": lambda key: eqx.nn.MLP(2, 3, 4, 1, use_final_bias=False, key=key),
    "dropout": lambda key: eqx.nn.Sequential(
        [
            eqx.nn.Linear(2, 4, key=key),
            eqx.nn.Lambda(jnp.tanh),
            eqx.nn.Dropout(0.5),
            eqx.nn.Linear(4, 3, key=jax.random.fold_in(key, 1)),
        ]
    ),
}


@pytest.mark.parametrize("name", MODULES)
def test_an_equinox_module_says_where_its_last_layer_is(name):
    module, keys = MODULES[name](jax.random.key(0)), name == "dropout"
    params, whole = pb.models.functional(module, keys=keys)
    _, apply = pb.models.functional(module, keys=keys, head=lambda module: module.layers[-1])
    assert isinstance(apply, LinearHead)

    def sample(number, count):
        x, y = batch("softmax", 3, number, count)
        return ((x, jax.random.split(jax.random.key(number), count)) if keys else x), y

    task = Task(sample(3, 5), sample(4, 6))
    x = task.support[0]
    np.testing.assert_allclose(apply(params, x), whole(params, x), rtol=1e-12)

    def gradient(loss, solver, linear):
        settings = {"solver": solver, "linear_solver": linear, "certify": None}
        algorithm = pb.imaml(loss, strength=2.0, **settings)
        return jax.jit(algorithm.meta_gradient)(params, task, jax.random.key(0))[1]

    ours = gradient(cross_entropy(apply), EXACT, SOLVE)
    theirs = gradient(cross_entropy(whole), LBFGS(150), Dense())
    assert apart(ours, theirs) < 1e-7


def test_a_head_deep_in_the_parameters_is_found_by_a_function():
    layer = {"kernel": jnp.asarray([[1.0, 2.0]]), "bias": jnp.asarray([0.0, -1.0])}
    params = {"Dense_0": {"kernel": jnp.ones((2, 1))}, "Dense_1": layer}
    apply = LinearHead(
        lambda body, x: x @ body["Dense_0"]["kernel"],
        lambda params: (params["Dense_1"]["kernel"], params["Dense_1"]["bias"]),
    )
    np.testing.assert_allclose(apply(params, jnp.asarray([[1.0, 2.0]])), [[3.0, 5.0]])
    body, head = apply.split(params)
    assert jax.tree.leaves(body["Dense_1"]) == []
    assert jax.tree.structure(apply.join(body, head)) == jax.tree.structure(params)


def ends_in_tanh(key):
    return eqx.nn.MLP(2, 3, 4, 1, final_activation=jnp.tanh, key=key)


@pytest.mark.parametrize(
    ("make", "head", "message"),
    [
        (ends_in_tanh, lambda m: m.layers[-1], "no linear head on these features"),
        (MODULES["layers"], lambda m: m.layers[0], "no linear head|features"),
        (MODULES["layers"], lambda m: m.layers[0].weight, r"head\(MLP\) is float64\[4, 2\]"),
        (MODULES["layers"], lambda m: m.tail, "head fails on MLP.*tail"),
    ],
)
def test_a_module_that_ends_otherwise_is_refused(make, head, message):
    with pytest.raises(InputError, match=message):
        params, apply = pb.models.functional(make(jax.random.key(0)), head=head)
        apply(params, jnp.ones((5, 2)))


def bent(params, x):
    return jnp.tanh(x @ params["head"]["weight"])


PARAMS = {"body": jnp.ones(2), "head": {"weight": jnp.ones((2, 3))}}
X = np.ones((4, 2), np.float32)


@pytest.mark.parametrize(
    ("apply", "message"),
    [
        (LinearHead(lambda p, x: x, "tail"), r"no head at 'tail'.*\['body'\]"),
        (LinearHead(lambda p, x: x, lambda p: p["body"][0]), "no head at"),
        (LinearHead(lambda p, x: x @ p["head"]["weight"], "head"), "does not read the head"),
        (LinearHead(lambda p, x: x[:, :1], "head"), "transposed"),
        (LinearHead(lambda p, x: x, "head", whole=bent), "no linear head"),
    ],
)
def test_a_head_that_is_none_is_named(apply, message):
    with pytest.raises(InputError, match=message):
        apply(PARAMS, X)


def test_other_mistakes_are_named():
    concave = MeanLoss(
        LinearHead(lambda p, x: x, "head"), lambda f, y: -(f[:, 0] ** 2), convex=True
    )
    problem = InnerProblem(concave, (X, np.zeros(4, int)), PARAMS, 1.0)
    with pytest.raises(InputError, match="called convex"):
        run(Projected(), problem, PARAMS, jax.random.key(0))
    plain = InnerProblem(lambda p, b: jnp.sum(p["body"] ** 2), (), PARAMS, 1.0)
    with pytest.raises(InputError, match="LinearHead"):
        run(Projected(), plain, PARAMS, jax.random.key(0))
    run(Projected.where_separable(3), plain, PARAMS, jax.random.key(0))
    separable = cross_entropy(LinearHead(lambda p, x: x, "head"))
    unpulled = InnerProblem(separable, (X, np.zeros(4, int)), PARAMS)
    with pytest.raises(InputError, match="Λ"):
        run(Projected(), unpulled, PARAMS, jax.random.key(0))
    with pytest.raises(InputError, match="form"):
        Projected(form="wide")
    with pytest.raises(InputError, match="steps"):
        Projected(0)
    with pytest.raises(InputError, match="one weight for each"):
        separable(PARAMS, (X, np.zeros(4, int), np.ones(3)))
    with pytest.raises(InputError, match="scale"):
        LBFGS(scale="none")


def test_too_large_a_kernel_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr("pullback.core.memory.available_bytes", lambda: 1000)
    model, theta = network(3)
    support = batch("softmax", 3, 3, 12)
    problem = Proximal(cross_entropy(model.apply), 1.0).problem(theta, support)
    with pytest.raises(InputError, match="primal"):
        run(Projected(form="dual"), problem, theta, jax.random.key(0))
    run(Projected(form="primal"), problem, theta, jax.random.key(0))
