"""The parts of the side-by-side benchmark that can be tested without its peers."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from benchmarks.peers import install, layout, parts, products, tables
from benchmarks.peers.client import Client, Failed
from benchmarks.peers.problem import Problem, Setting, relative_error
from benchmarks.peers.turns import Found, ratios
from pullback.models import Conv4, cross_entropy

MODEL = Conv4(ways=3, width=8)


@pytest.fixture(scope="module")
def weights(tiny):
    params = MODEL.init(jax.random.key(0))
    noise = iter(jax.random.split(jax.random.key(1), 14))
    return layout.flat(
        jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(noise), x.shape), params)
    )


@pytest.fixture(scope="module")
def images(tiny):
    return np.asarray(jax.random.uniform(jax.random.key(2), (3, 28, 28, 1)))


@pytest.mark.parametrize(
    ("there", "back"),
    [
        (layout.to_torch, layout.from_torch),
        (layout.to_convolution, layout.from_convolution),
        (layout.nested, layout.flat),
    ],
)
@pytest.mark.parametrize("stacked", [False, True])
def test_layouts_go_there_and_back(weights, there, back, stacked):
    if stacked:
        weights = {name: np.stack([array, 2 * array]) for name, array in weights.items()}
    found = back(there(weights))
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array)


def test_the_layout_of_pytorch_means_the_same_network(weights, images):
    """PyTorch's definition of its own layout, in NumPy: channels first, padded as XLA's SAME."""
    moved, x = layout.to_torch(weights), np.moveaxis(images, -1, 1).astype(np.float64)
    for i in range(layout.LAYERS):
        x = convolve(x, moved[f"conv{i}/weight"])
        grouped = x.reshape(len(x), 8, -1)
        mean, variance = grouped.mean(-1, keepdims=True), grouped.var(-1, keepdims=True)
        x = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
        scale, bias = moved[f"conv{i}/scale"], moved[f"conv{i}/bias"]
        x = x * scale[:, None, None] + bias[:, None, None]
        x = x / (1 + np.exp(-x))
    features = x.reshape(len(x), -1)
    logits = 4.0 * (features @ moved["linear/weight"].T + moved["linear/bias"])
    expected = MODEL.apply(layout.nested(weights), jnp.asarray(images))
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def convolve(x, weight):
    """A 3×3 convolution with stride 2: Float[n, c, h, w] with Float[filters, c, 3, 3]."""
    side = x.shape[-1]
    pad = (1, 1) if side % 2 else (0, 1)
    x = np.pad(x, ((0, 0), (0, 0), pad, pad))
    out = range((side + 1) // 2)
    return np.stack(
        [
            np.stack(
                [
                    np.einsum("nchw,fchw->nf", x[..., 2 * i : 2 * i + 3, 2 * j : 2 * j + 3], weight)
                    for j in out
                ],
                -1,
            )
            for i in out
        ],
        -2,
    )


def test_the_network_with_jax_convolutions_is_pullbacks(weights, images):
    from benchmarks.peers import jax_net

    moved = layout.nested(layout.to_convolution(weights))
    expected = MODEL.apply(layout.nested(weights), images)
    np.testing.assert_allclose(jax_net.logits(moved, images), expected, rtol=1e-3, atol=1e-4)


def test_products_are_those_of_the_compiled_programs(weights, images):
    """Against the products that XLA is asked for, but for the few numbers of the normalisation."""
    plain = Conv4(ways=3, width=8, normalisation="none")
    loss, labels = cross_entropy(plain.apply), np.arange(3)
    batch, params = (images, labels), layout.nested(weights)
    gradient = jax.grad(lambda p: loss(p, batch))
    assert asked_for(gradient, params) == products_of(products.gradient(3, 8, 3))
    _, product = jax.linearize(gradient, params)
    assert asked_for(product, params) == products_of(products.hessian(3, 8, 3))


def asked_for(function, argument):
    """Operations of all products in a function, by their sizes in any order."""
    found = []
    for eqn in equations(jax.make_jaxpr(function)(argument).jaxpr):
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            depth = eqn.invars[0].aval.shape[contracted[0]]
            found.append(sorted((*eqn.outvars[0].aval.shape, depth)))
    return sorted(found)


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for inner in jaxprs_in_params(eqn.params):
            yield from equations(inner)


def products_of(counter):
    return sorted(sorted((p.m, p.k, p.n)) for p in counter.elements())


def test_operations_of_a_program_are_told_apart_by_who_wrote_them(weights, images):
    loss, labels = cross_entropy(MODEL.apply), np.arange(3)
    gradient = jax.jit(jax.grad(lambda p, b: loss(p, b)))
    text = gradient.lower(layout.nested(weights), (images, labels)).compile().as_text()
    found = parts.groups(text)
    named = set(found.values())
    assert {parts.PRODUCTS, "normalisation", "activation"} <= named
    dots = [name for name, group in found.items() if group == parts.PRODUCTS]
    assert len(dots) >= products.gradient(3, 8, 3).total()


def test_a_problem_is_read_as_it_was_written(weights, images, tmp_path):
    labels = np.arange(3)[None]
    Problem(weights, images[None], labels, images[None], labels).save(tmp_path / "problem.npz")
    found = Problem.load(tmp_path / "problem.npz")
    assert found.tasks == 1
    np.testing.assert_array_equal(found.theta["conv1/weight"], weights["conv1/weight"])
    np.testing.assert_array_equal(found.task(0)[2], images)


def test_relative_errors_are_task_by_task():
    exact = {"a": np.asarray([[3.0, 0.0], [1.0, 0.0]]), "b": np.asarray([[4.0], [0.0]])}
    found = {"a": exact["a"], "b": exact["b"] + [[0.5], [2.0]]}
    np.testing.assert_allclose(relative_error(found, exact), [0.1, 2.0])


def test_ratios_are_turn_by_turn():
    slow = Found(None, seconds=[2.0, 20.0, 4.0])
    quick = Found(None, seconds=[1.0, 10.0, 1.0])
    assert ratios(slow, quick)[1] == 2.0


def test_a_worker_that_cannot_start_is_an_error_in_one_line():
    worker = Client("no_such_implementation")
    with pytest.raises(Failed, match=r"ModuleNotFoundError.*no_such_implementation") as caught:
        worker.ask("time")
    assert "\n" not in str(caught.value)
    worker.close()


def test_a_worker_that_hangs_is_given_up():
    worker = Client("no_such_implementation", longest=0.01)
    with pytest.raises(Failed, match=r"no answer to 'time' within"):
        worker.ask("time")
    assert worker.process.returncode is not None


def test_tables_go_between_their_marks():
    document = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    found = tables.insert(document, "new")
    assert "new" in found
    assert "old" not in found
    assert found.startswith("before\n") and found.endswith("\nafter\n")
    with pytest.raises(ValueError, match="no <!-- tables -->"):
        tables.insert("nothing here", "new")


def test_settings_are_named_in_the_tables():
    descent = Setting(inner_steps=32, linear_steps=7, learning_rate=0.01, momentum=0.8)
    assert tables.describe(descent) == "32 steps of 0.01, momentum 0.8; CG 7"


def test_the_telling_line_of_pip_is_found():
    output = """
      error: subprocess-exited-with-error

      × Getting requirements to build wheel did not run successfully.
          error in thing setup command: 'install_requires' must be a string
      note: This error originates from a subprocess, and is likely not a problem with pip.
    """
    expected = "error in thing setup command: 'install_requires' must be a string"
    assert install.reason(output) == expected


def test_pins_are_exact():
    assert install.pins()
    assert all("==" in requirement for requirement in install.pins().values())


def test_the_tables_and_what_they_are_made_of_are_written(tmp_path, monkeypatch):
    from benchmarks.peers import __main__ as program

    def part(given):
        assert given.arguments.repeats == 9
        return "### A table", {"rows": [1.5]}

    monkeypatch.setitem(program.PARTS, "ceiling", part)
    monkeypatch.setattr("sys.argv", ["peers", "--parts", "ceiling", "--out", str(tmp_path / "b")])
    program.main()
    assert "### A table" in (tmp_path / "b" / "benchmarks.md").read_text()
    written = json.loads((tmp_path / "b" / "benchmarks.json").read_text())
    assert written["ceiling"] == {"rows": [1.5]}
