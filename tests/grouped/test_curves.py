"""A curve linear in φ is a Gaussian of all rows at once; one that is not, by differences."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback.core.errors import InputError
from pullback.grouped import curves
from pullback.grouped.curves import PULLED, Curve, Fitted, Parameter, Table
from pullback.grouped.mixed import Rows

pytestmark = pytest.mark.usefixtures("tiny")

SIZES = (4, 1, 3, 6)
PARAMETERS = tuple(map(Parameter.of, ("a", "b", "c")))


def line(row, a, b, c):
    return a + b * row["x"] + c * row["x"] ** 2


def absorption(row, ka, cl, v):
    ke = cl / v
    gone = jnp.exp(-ke * row["time"]) - jnp.exp(-ka * row["time"])
    return row["dose"] * ka / v / (ka - ke) * gone


# c is shared; a covariate of each group moves b.
LINE = Curve(line, PARAMETERS, ("x",), (True, True, False), correlated=True)
DESIGN = np.tile(np.eye(3, 4), (len(SIZES), 1, 1))
DESIGN[:, 1, 3] = [0.5, -1.0, 0.3, 1.2]
UNIT = np.array([1.0, 0.5, 2.0])


def table(seed=0, sizes=SIZES):
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(sizes)), sizes)
    rng.shuffle(group)
    rows = Rows(
        rng.normal(size=(len(group), 1)),
        rng.normal(size=len(group)),
        np.ones(len(group)),
        group,
    )
    return Table(rows, DESIGN, UNIT, np.array(0.7))


PARAMS = {
    "coefficients": np.array([0.3, -0.2, 0.4, 0.1]),
    "spread": np.log([0.8, 0.4]),
    "mixing": np.array([0.6]),
    "noise": np.log([0.5]),
}


def dense(rows, design):
    """F, and the covariance of all rows at any one β."""
    jacobian = np.stack([np.ones(len(rows.y)), rows.inputs[:, 0], rows.inputs[:, 0] ** 2], 1) * UNIT
    factor = LINE.factor(PARAMS, np)
    z = jacobian @ factor
    same = rows.group[:, None] == rows.group[None]
    return np.einsum("np,npb->nb", jacobian, design[rows.group]), same * (z @ z.T)


NOISE = (0.5**2 + 1e-12) * 0.7**2


def test_the_evidence_of_a_line_is_the_restricted_likelihood_of_all_rows_at_once():
    given = table()
    f, between = dense(given.rows, DESIGN)
    v = between + NOISE * np.eye(len(f))
    left = given.rows.y - f @ PARAMS["coefficients"]
    k = f.T @ np.linalg.solve(v, f) + PULLED * np.eye(4)
    wanted = 0.5 * (
        left @ np.linalg.solve(v, left) + np.linalg.slogdet(v)[1] + np.linalg.slogdet(k)[1]
    )
    with jax.enable_x64(True):
        delta, away = curves.modes(LINE, PARAMS, given)
        found = curves.evidence(LINE, PARAMS, given, delta)
    assert np.max(np.asarray(away)) < 1e-8
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_predictions_of_a_line_are_those_of_the_joint_gaussian():
    given = table()
    rows = given.rows
    f, between = dense(rows, DESIGN)
    v = between + NOISE * np.eye(len(f))
    covariance = np.linalg.inv(f.T @ np.linalg.solve(v, f) + PULLED * np.eye(4))
    params = PARAMS | {"coefficients": covariance @ f.T @ np.linalg.solve(v, rows.y)}
    model = Fitted(LINE, params, covariance, UNIT, np.array(0.7))
    design = np.concatenate([DESIGN, DESIGN[:1]])
    heads, _ = model.adapt(rows, design)
    new = table(1, (1, 1, 1, 1, 1)).rows
    mean, variance = model.predict(new.inputs, design[new.group], heads, new.group)
    joined = Rows(*[np.concatenate(pair) for pair in zip(rows, new, strict=True)])
    g, whole = dense(joined, design)
    whole = whole + (g / PULLED) @ g.T + NOISE * np.eye(len(g))
    n = len(f)
    toward = np.linalg.solve(whole[:n, :n], whole[:n, n:]).T
    np.testing.assert_allclose(mean, toward @ rows.y, rtol=1e-6, atol=1e-8)
    own = np.diag(whole)[n:] - (toward * whole[n:, :n]).sum(1)
    np.testing.assert_allclose(variance, own, rtol=1e-6)


def patients(count, each, seed=0, noise=0.3):
    rng = np.random.default_rng(seed)
    phi = np.log([1.5, 0.04, 0.5]) + rng.normal(size=(count, 3)) * [0.5, 0.25, 0.15]
    group = np.repeat(np.arange(count), each)
    time = np.tile(np.geomspace(0.3, 24.0, each), count)
    inputs = np.stack([time, np.repeat(rng.uniform(3.5, 5.5, count), each)], 1)
    ka, cl, v = np.exp(phi)[group].T
    y = absorption({"time": time, "dose": inputs[:, 1]}, ka, cl, v)
    y = np.asarray(y) + noise * rng.normal(size=len(group))
    return Rows(inputs, y, np.ones(len(y)), group), phi


PATIENTS = Curve(
    absorption, tuple(map(Parameter.of, ("ka>0", "cl>0", "v>0"))), ("time", "dose"), (True,) * 3
)


def test_the_slope_of_the_evidence_is_that_of_differences():
    curve = replace(PATIENTS, noise="combined", correlated=True, varying=(True, True, False))
    rows, _ = patients(4, 5)
    given = Table(rows, np.tile(np.eye(3), (4, 1, 1)), np.ones(3), np.array(0.5))
    params = curve.init(np.log([1.3, 0.05, 0.45]))
    with jax.enable_x64(True):
        flat, restore = jax.flatten_util.ravel_pytree(params)

        def at(flat):
            delta, _ = curves.modes(curve, restore(flat), given)
            return curves.slope_of_evidence(curve, restore(flat), given, delta)

        slope = jax.flatten_util.ravel_pytree(at(flat)[1])[0]
        steps = 1e-5 * np.eye(len(flat))
        wanted = [(at(flat + e)[0] - at(flat - e)[0]) / 2e-5 for e in steps]
    np.testing.assert_allclose(slope, wanted, rtol=2e-6, atol=1e-6)


@pytest.fixture(scope="module")
def fitted(tiny):
    rows, phi = patients(40, 8)
    design = np.tile(np.eye(3), (40, 1, 1))
    return curves.fit(PATIENTS, rows, design, np.zeros(3)), rows, phi, design


def test_a_fit_finds_what_the_patients_were_drawn_from(fitted):
    model, rows, phi, design = fitted
    assert model.converged
    errors = np.sqrt(np.diag(model.covariance))
    assert (np.abs(model.params["coefficients"] - np.log([1.5, 0.04, 0.5])) < 3 * errors).all()
    assert (errors < [0.12, 0.06, 0.04]).all()
    np.testing.assert_allclose(np.exp(model.params["spread"]), [0.5, 0.25, 0.15], rtol=0.3)
    np.testing.assert_allclose(model.noise["additive"], 0.3, rtol=0.1)
    heads, _ = model.adapt(rows, design)
    found, covariance = model.phi(design, heads, np.arange(40))
    away = (found - phi) / np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert 0.8 < np.mean(np.abs(away) < 1.645) < 0.97


def test_a_group_is_the_same_alone_and_among_groups_of_other_sizes(fitted):
    model, rows, _, _ = fitted
    sizes = [8, 1, 5, 0, 3]
    kept = np.concatenate([8 * g + np.arange(n) for g, n in enumerate(sizes)])
    ragged = Rows(*[a[kept[::-1]] for a in rows])
    together, _ = model.adapt(ragged, np.tile(np.eye(3), (5, 1, 1)))
    for group, size in enumerate(sizes):
        own = Rows(*[a[8 * group : 8 * group + size] for a in rows])
        alone, _ = model.adapt(own._replace(group=np.zeros(size, int)), np.eye(3)[None])
        for one, among in zip(alone, together, strict=True):
            np.testing.assert_allclose(one[0], among[group], rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(together.mean[3], 0)


def test_the_points_of_a_posterior_have_its_mean_and_covariance():
    points = curves._points(3)
    np.testing.assert_allclose(points.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(points.T @ points / len(points), np.eye(3), atol=1e-13)


@pytest.mark.parametrize(
    ("text", "name", "low", "high"),
    [
        ("a", "a", -np.inf, np.inf),
        ("ka>0", "ka", 0, np.inf),
        (" k_e > 1e-3 ", "k_e", 1e-3, np.inf),
        ("t<5", "t", -np.inf, 5),
        ("0<f<1", "f", 0, 1),
        ("-2 < f", "f", -2, np.inf),
    ],
)
def test_a_parameter_is_read_with_its_bounds(text, name, low, high):
    parameter = Parameter.of(text)
    assert parameter == Parameter(name, low, high)
    start = parameter.default
    assert low < start < high
    np.testing.assert_allclose(parameter.value(parameter.phi(start)), start)
    for phi in (-20.0, 20.0):
        assert low <= parameter.value(phi) <= high


@pytest.mark.parametrize("text", ["", "ka>", "0<f>1", "1<f<0", "2", "a b", "f>x", 3])
def test_what_is_no_parameter_is_refused(text):
    with pytest.raises(InputError, match="parameter"):
        Parameter.of(text)
