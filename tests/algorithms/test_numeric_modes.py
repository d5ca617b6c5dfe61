"""JAX's own checks of a program can be switched on: of NaN, of ranks and of types."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.algorithms import ALGORITHMS, fomaml, imaml, learned_imaml
from pullback.core.results import UNKNOWN
from pullback.implicit.certificate import Certify
from pullback.linear import CG, GMRES, MINRES, Dense, Neumann
from pullback.models import MLP, Conv4, Linear, cross_entropy, mean_squared_error
from pullback.solvers import GradientDescent
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")

X = np.linspace(-1.0, 1.0, 6, dtype=np.float32)[:, None]
LABELS = np.arange(6, dtype=np.int32) % 3
MODEL = MLP(1, 1, hidden=(3,))
LOSS = mean_squared_error(MODEL.apply)
TASK = Task((X, np.sin(X)), (X, np.cos(X)))
KEY = jax.random.key(0)


def make(name, loss):
    line = ALGORITHMS[name]
    return line.make(loss, **({"strength": 1.0} if line.proximal else {}))


@pytest.fixture(scope="module")
def images():
    x = np.random.default_rng(0).uniform(size=(6, 8, 8, 1)).astype(np.float32)
    return Task((x, LABELS), (x, LABELS))


WITHOUT_NAN = {
    "fomaml": fomaml(LOSS),
    "imaml without certificate": imaml(LOSS, strength=1.0, solver=GradientDescent(), certify=None),
    "imaml with some certificates": imaml(LOSS, strength=1.0, certify=Certify(share=0.5)),
    "imaml with a solver that sees no curvature": imaml(
        LOSS, strength=1.0, certify=None, linear_solver=GMRES(steps=5, rtol=0.1)
    ),
}


@pytest.mark.parametrize("name", WITHOUT_NAN)
def test_nothing_unknown_is_nan(name):
    with jax.debug_nans(True):
        _, _, info = jax.jit(WITHOUT_NAN[name].meta_gradient)(MODEL.init(KEY), TASK, KEY)
    assert not any(np.isnan(leaf).any() for leaf in jax.tree.leaves(info))


@pytest.mark.parametrize("name", ["fomaml", "imaml without certificate"])
def test_nothing_unknown_is_nan_outside_jit(name):
    with jax.debug_nans(True):
        WITHOUT_NAN[name].meta_gradient(MODEL.init(KEY), TASK, KEY)


def test_what_is_not_computed_is_the_bound_that_says_nothing():
    _, _, info = jax.jit(fomaml(LOSS).meta_gradient)(MODEL.init(KEY), TASK, KEY)
    unknown = (info.linear_residual, info.inner_error, info.linear_error, info.smallest_curvature)
    assert {float(number) for number in unknown} == {UNKNOWN}
    assert float(info.largest_curvature) == -UNKNOWN
    assert "linear_residual     unknown" in str(info)


STRICT = {
    "ranks": lambda: jax.numpy_rank_promotion("raise"),
    "types": lambda: jax.numpy_dtype_promotion("strict"),
}


@pytest.fixture(params=STRICT.values(), ids=STRICT)
def strict(request):
    with request.param():
        yield


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_meta_gradient_promotes_nothing(name, strict):
    algorithm = make(name, LOSS)
    jax.eval_shape(algorithm.meta_gradient, MODEL.init(KEY), TASK, KEY)
    jax.eval_shape(algorithm.adapt, MODEL.init(KEY), TASK.support, KEY)


@pytest.mark.parametrize("form", ["scalar", "leaf", "diagonal"])
def test_a_learned_strength_promotes_nothing(form, strict):
    algorithm = learned_imaml(LOSS, strength=1.0, form=form)
    jax.eval_shape(algorithm.meta_gradient, algorithm.init(MODEL.init(KEY)), TASK, KEY)


@pytest.mark.parametrize("normalisation", ["group", "batch", "none"])
def test_images_promote_nothing(normalisation, images, strict):
    model = Conv4(3, 2, normalisation, groups=1, size=8)
    params = jax.eval_shape(model.init, KEY)
    jax.eval_shape(jax.grad(cross_entropy(model.apply)), params, images.support)


def test_labels_promote_nothing(strict):
    model, task = Linear(1, 3), Task((X, LABELS), (X, LABELS))
    algorithm = make("imaml", cross_entropy(model.apply))
    jax.eval_shape(algorithm.meta_gradient, model.init(KEY), task, KEY)


@pytest.mark.parametrize("solver", [CG(3), MINRES(3), Dense(), Neumann(3), GMRES(3)])
def test_linear_solvers_promote_nothing(solver, strict):
    algorithm = imaml(LOSS, strength=1.0, linear_solver=solver)
    jax.eval_shape(algorithm.meta_gradient, MODEL.init(KEY), TASK, KEY)


def test_parameters_of_both_precisions():
    with jax.enable_x64(True):
        params = MODEL.init(KEY)
        params["layer0"] = jax.tree.map(jnp.float32, params["layer0"])
        for name in ("imaml", "reptile"):
            _, gradient, _ = jax.eval_shape(make(name, LOSS).meta_gradient, params, TASK, KEY)
            for found, leaf in zip(*map(jax.tree.leaves, (gradient, params)), strict=True):
                assert found.dtype == leaf.dtype
