"""The code in the document on implicit differentiation runs as it stands there."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("tiny")
DOCUMENT = Path(__file__).parents[2] / "docs" / "implicit.md"


def test_the_examples_run_and_print_the_derivatives_of_the_formulas(capsys):
    ridge, lasso, given = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    names = {}
    exec(compile(ridge, "implicit.md", "exec"), names)
    jax, jnp, x, y = (names[name] for name in ("jax", "jnp", "x", "y"))
    formula = lambda l2: jnp.sum(jnp.linalg.solve(x.T @ x + l2 * jnp.eye(2), x.T @ y) ** 2)  # noqa: E731
    printed = float(capsys.readouterr().out.split()[0])
    assert abs(printed - float(jax.grad(formula)(0.1))) < 1e-4
    exec(compile(lasso, "implicit.md", "exec"), {})
    shown = capsys.readouterr().out.strip().strip("[]").split()
    assert [round(float(number), 4) for number in shown] == [-1.0, 0.0, 1.0]
    exec(compile(given, "implicit.md", "exec"), {})
    gradient, moved = re.findall(r"0\.3535\d*", capsys.readouterr().out)
    assert float(gradient) == pytest.approx(0.5**1.5) == float(moved)
