"""The bar of ``train(progress=True)``: on stderr, moving on a terminal, one line elsewhere."""

import re
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import optax
import pytest

from pullback.algorithms import fomaml
from pullback.core.errors import NumericalError
from pullback.meta import multihost
from pullback.meta.training import train
from pullback.solvers import GradientDescent
from pullback.tasks import Task

pytestmark = pytest.mark.usefixtures("tiny")
OPTIMIZER = optax.sgd(0.1)


class Points:
    def sample(self, key):
        point = jax.random.normal(key, (3,))
        return Task(point, point)


jax.tree_util.register_static(Points)


def loss(params, batch):
    return jnp.sum((params - batch) ** 2)


ALGORITHM = fomaml(loss, solver=GradientDescent(2, 0.1))


def run(start=1.0, **options):
    """With a short pause after each block, as if it took that long."""
    return train(
        ALGORITHM,
        jnp.full(3, start),
        Points(),
        steps=12,
        key=jax.random.key(0),
        tasks_per_step=2,
        optimizer=OPTIMIZER,
        block_ends=3,
        on_block=lambda state, block: time.sleep(0.15),
        **options,
    )


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")


def shown(capsys):
    """What was written, without the terminal's control sequences."""
    captured = capsys.readouterr()
    assert captured.out == ""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", captured.err)


def test_without_being_asked_nothing_is_shown(terminal, capsys):
    run()
    assert shown(capsys) == ""


def test_a_terminal_shows_compiling_then_loss_residual_and_time_left(terminal, capsys):
    result = run(progress=True)
    text = shown(capsys)
    before = text.split("training")[0]
    assert "compiling" in before
    assert "loss" not in before
    assert re.search(r"training .* \d/12 .*loss [\d.e-]+  inner residual [\d.e-]+ 0:00:0\d", text)
    last = f"{result.history['loss'][-1]:.4g}"
    assert f"12/12 loss {last}" in text


def test_elsewhere_one_line_stands_at_the_end(capsys):
    result = run(progress=True)
    loss, residual = (result.history[name][-1] for name in ("loss", "inner_residual"))
    text = shown(capsys)
    assert text.count("\n") == 1
    start = f"12/12 meta-steps  loss {loss:.4g}  inner residual {residual:.2g}  in 0:00:0"
    assert text.startswith(start)


def test_a_resumed_run_goes_on_counting(capsys):
    done = run()
    run(progress=True, state=done.state)
    assert shown(capsys) == ""


def test_a_bar_changes_nothing(terminal, capsys):
    assert jnp.array_equal(run(progress=True).theta, run().theta)
    capsys.readouterr()


def test_a_failure_ends_the_bar_and_is_raised(terminal, capsys):
    with pytest.raises(NumericalError):
        run(start=jnp.nan, progress=True)
    assert capsys.readouterr().err.endswith("\x1b[?25h")


def test_process_0_alone_shows_it(terminal, capsys, monkeypatch):
    monkeypatch.setattr(multihost, "is_first", lambda: False)
    run(progress=True)
    assert shown(capsys) == ""


def test_rich_is_imported_for_a_bar_only():
    code = "import sys, pullback; pullback.train; print('rich' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
