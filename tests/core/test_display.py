"""What records print: numbers and advice on the host, shapes inside ``jit``."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pullback import implicit
from pullback.algorithms import Info, Report
from pullback.core import results
from pullback.core.errors import InputError
from pullback.core.results import Verdict
from pullback.implicit import RootCertificate
from pullback.implicit.certificate import Errors
from pullback.linear import CG, LinearSolution
from pullback.meta.evaluation import Evaluation
from pullback.meta.training import Block, TrainResult, TrainState

pytestmark = pytest.mark.usefixtures("tiny")


def info(code=Verdict.OK, residual=0.25, smallest=1.5):
    number = jnp.asarray(residual)
    return Info(
        inner_residual=number,
        linear_residual=number,
        linear_steps=jnp.asarray(7),
        smallest_curvature=jnp.asarray(smallest),
        largest_curvature=number,
        damping=number,
        inner_error=number,
        linear_error=number,
        code=jnp.asarray(int(code)),
        strength_factor=number,
    )


def report(code=Verdict.OK, residual=0.25):
    return Report(jnp.asarray(residual), jnp.asarray(int(code)), jnp.ones(()))


def certificate(code=Verdict.OK, residual=0.25):
    number = jnp.asarray(residual)
    return RootCertificate(number, number, number, jnp.asarray(int(code)))


def solution(code=Verdict.OK, residual=0.25):
    number = jnp.asarray(residual)
    vector = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    return LinearSolution(
        vector, number, vector, jnp.asarray(7), number, number, jnp.asarray(int(code))
    )


def errors(residual=0.25):
    return Errors(jnp.asarray(residual), jnp.asarray(0.5))


WITH_VERDICT = {"info": info, "report": report, "certificate": certificate, "solution": solution}
ALL = WITH_VERDICT | {"errors": errors}
with_verdict = pytest.mark.parametrize("make", WITH_VERDICT.values(), ids=WITH_VERDICT)
every = pytest.mark.parametrize("make", ALL.values(), ids=ALL)


@every
def test_a_record_prints_its_numbers(make):
    record = make()
    title, *lines = str(record).splitlines()
    assert title.split(":")[0] == type(record).__name__
    assert any(line.split()[1:] == ["0.25"] for line in lines)
    assert repr(record) == str(record)


@with_verdict
def test_a_good_verdict_is_named_and_needs_no_advice(make):
    assert make().verdict == "ok"
    assert isinstance(make().verdict, str)
    assert str(make()).splitlines()[0].endswith(": ok")
    assert results.message(Verdict.OK) not in str(make())


@with_verdict
def test_a_failure_is_named_with_what_to_do(make):
    record = make(Verdict.NOT_FINITE, np.nan)
    assert record.verdict == "not_finite"
    assert ": not_finite" in str(record)
    assert " nan" in str(record)
    assert "look for logarithms and divisions" in str(record)


def test_negative_curvature_says_how_much_strength_is_missing():
    assert "raise Λ by at least 0.5" in str(info(Verdict.NEGATIVE_CURVATURE, smallest=-0.5))
    assert "use a larger strength" in str(info(Verdict.NEGATIVE_CURVATURE, smallest=np.nan))


@pytest.mark.parametrize("code", [1, 3, 4, 5])
def test_a_root_certificate_gives_advice_of_its_own(code):
    text = str(certificate(code))
    assert len(text.splitlines()) == 5
    assert "Λ" not in text


@every
def test_inside_jit_shapes_are_printed_and_nothing_is_computed(make):
    seen = []

    @jax.jit
    def traced(record):
        seen.extend([repr(record), str(record), f"{record}"])
        return record

    out = traced(make())
    assert len(set(seen)) == 1
    assert "f32[]" in seen[0]
    assert str(out) == str(make())


@with_verdict
def test_inside_jit_there_is_no_name_of_a_verdict(make):
    with pytest.raises(InputError, match="does not exist inside jit"):
        jax.eval_shape(lambda record: record.verdict, make())


@every
def test_shapes_without_numbers_are_printed_too(make):
    assert "ShapeDtypeStruct(shape=()" in str(jax.eval_shape(make))


@with_verdict
def test_a_batch_prints_ranges_and_counts(make):
    codes = [Verdict.OK, Verdict.NOT_FINITE, Verdict.OK, Verdict.SOLVE_FAILED]
    records = [make(c, r) for c, r in zip(codes, [1.0, np.nan, 2.0, 9.0], strict=True)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *records)
    text = str(stacked)
    assert "of shape (4,): 2 ok, 1 not_finite, 1 solve_failed" in text
    assert "1 to 9, median 2, 1 of 4 not finite" in text
    assert "  not_finite: " in text
    assert "  solve_failed: " in text
    assert stacked.verdict.tolist() == ["ok", "not_finite", "ok", "solve_failed"]


def test_errors_of_a_batch_are_ranges():
    text = str(jax.vmap(errors)(jnp.arange(1.0, 4.0)))
    assert "1 to 3, median 2" in text
    assert "0.5" in text


def test_arrays_are_shown_by_their_size():
    assert "8 numbers in 2 arrays" in str(solution())
    one = CG(7).solve(lambda u: u, jnp.ones(40), lambda v: v)
    assert "40 numbers in 1 array" in str(one)
    assert len(str(one)) < 500


def test_the_records_of_real_computations_print_in_jit_and_under_vmap():
    seen = []

    @jax.jit
    @jax.vmap
    def judged(a):
        found = implicit.certify(lambda x, a: x * x - a, jnp.ones(2), a * jnp.ones(2))
        seen.append(str(found))
        return found

    found = judged(jnp.asarray([1.0, 4.0]))
    assert "f32[]" in seen[0]
    assert "1 ok, 1 inner_not_converged" in str(found)
    assert "F(x) is not zero" in str(found)


def test_a_donated_record_prints_its_shapes():
    record = report()
    record.inner_residual.delete()
    assert "f32[]" in str(record)


METRICS = {
    "loss": np.asarray([4.0, 3.0, 2.0]),
    "inner_residual": np.asarray([0.1, 0.2, 0.3]),
    "gradient_norm": np.asarray([1.0, np.nan, 3.0]),
    "smallest_curvature": np.asarray([1.0, -2.0, np.nan]),
}
CODES = {int(Verdict.OK): 5, int(Verdict.NEGATIVE_CURVATURE): 1}
STATE = TrainState(jnp.asarray(13), {"w": jnp.ones(50)}, ())


def test_a_block_prints_its_steps_and_what_went_wrong():
    text = str(Block(11, 0.5, METRICS, CODES))
    assert text.startswith("Block: steps 11 to 13, 0.5 s\n")
    assert "4 at first, 2 over the last 1" in text
    assert "0.1 to 0.3, median 0.2" in text
    assert "1 of 3 not finite" in text
    assert "5 ok, 1 negative_curvature" in text
    assert "raise Λ by at least 2" in text


def test_a_training_prints_its_course():
    text = str(TrainResult(STATE, METRICS, stopped=True, codes=CODES))
    assert text.startswith("TrainResult: 13 meta-steps, stopped early\n")
    assert "5 ok, 1 negative_curvature" in text
    assert "13 meta-steps, none of them new" in str(TrainResult(STATE))


def test_an_evaluation_prints_its_mean_and_what_went_wrong():
    codes = np.asarray([0, 0, int(Verdict.NOT_FINITE)])
    text = str(Evaluation(np.asarray([0.25, 0.75, np.nan]), np.asarray([0.1, 0.2, 0.3]), codes))
    assert text.startswith("Evaluation: 3 tasks\n")
    assert "2 ok, 1 not_finite" in text
    assert "look for logarithms" in text
    scores = np.asarray([0.25, 0.75])
    assert "0.5 ± 0.49" in str(Evaluation(scores, scores, np.zeros(2, int)))
