"""What inner solvers cost on a trained run's tasks: gradients and seconds to a residual.

    python -m benchmarks.inner_solvers RUN [--tasks 8] [--budget 256] [--data-dir DIR]

Cost is counted in gradients of the inner loss; a Hessian-vector product counts as two, and
Newton-CG's linearisation as one. The residual is the relative stationarity residual at the point
that the solver returns, so a solver with a fixed number of steps is run anew with each of a list
of budgets, from θ, and the first budget that reaches a residual is what it needed. Steps of
gradient descent and of momentum have to be tuned: the best of several is shown for each column.
"""

import functools
import math
import time
from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np

from benchmarks.hessians import inner_problems, parser
from pullback import implicit
from pullback.core.problem import InnerProblem
from pullback.solvers import LBFGS, GradientDescent, Nesterov, NewtonCG

RESIDUALS = (5e-2, 1e-2, 1e-3)
BUDGETS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
MOMENTUM = 0.9
NEWTON_STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)


class Counted(InnerProblem):
    """An inner problem that counts how often it multiplies by Λ on its own."""

    tick: Callable[[], None] = eqx.field(static=True, default=lambda: None)

    def _plain(self):
        return InnerProblem(self.loss, self.support, self.theta, self.strength)

    def add_pull(self, gradient, phi):
        return self._plain().add_pull(gradient, phi)

    def value_and_gradient(self, phi):
        return self._plain().value_and_gradient(phi)

    def pull(self, offset):
        jax.debug.callback(self.tick)
        return super().pull(offset)


def runs(budgets):
    """Name, settings, gradients at each budget (None: to be counted) and the solver."""
    for rate in RATES:
        for name, momentum in (("gradient descent", 0.0), ("momentum", MOMENTUM)):
            made = [(b, GradientDescent(b, rate, momentum)) for b in budgets]
            yield name, f"step {rate:g}", made
    yield "Nesterov", "", [(b, Nesterov(b - 2)) for b in budgets]
    for history in (6, 16):
        yield f"L-BFGS, {history} pairs", "", [(b, LBFGS(b, history)) for b in budgets]
    yield "Newton-CG", "", [(None, NewtonCG(steps)) for steps in NEWTON_STEPS]


@functools.partial(jax.jit, static_argnames="proximal")
def run(solver, proximal, theta, support):
    """φ and its relative stationarity residual."""
    problem = proximal.problem(theta, support)
    phi = solver.solve(problem, theta, jax.random.key(0)).phi
    return phi, implicit.stationarity(problem, phi, problem.loss_gradient(phi))


def measure(solver, theta, tasks, proximal, repeats):
    """Residual of each task and the least seconds of several runs of each."""
    residuals, seconds = [], []
    for task in tasks:
        _, residual = run(solver, proximal, theta, task.support)
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            jax.block_until_ready(run(solver, proximal, theta, task.support))
            times.append(time.perf_counter() - start)
        residuals.append(float(residual))
        seconds.append(min(times, default=math.nan))
    return np.asarray(residuals), np.asarray(seconds)


def newton_cost(solver, theta, tasks, proximal):
    """Gradients that Newton-CG spends on each task."""
    seen = []

    @jax.jit
    def run(theta, support):
        tick = functools.partial(seen.append, None)
        problem = Counted(proximal.loss, support, theta, proximal.strength, tick)
        return solver.solve(problem, theta, jax.random.key(0)).phi

    costs = []
    for task in tasks:
        seen.clear()
        jax.block_until_ready(run(theta, task.support))
        jax.effects_barrier()
        # Each outer step pulls once beside its products, linearises once and tries one point.
        products = len(seen) - solver.steps
        costs.append(1 + 2 * solver.steps + 2 * products)
    return np.asarray(costs)


def study(theta, tasks, proximal, budget, repeats, report):
    """For each solver and setting: gradients and seconds to each residual, task by task."""
    found = {}
    for name, setting, made in runs([b for b in BUDGETS if b <= budget]):
        needed = {r: np.full((len(tasks), 2), np.inf) for r in RESIDUALS}
        for gradients, solver in made:
            residuals, seconds = measure(solver, theta, tasks, proximal, repeats)
            costs = (
                newton_cost(solver, theta, tasks, proximal)
                if gradients is None
                else np.full(len(tasks), gradients)
            )
            for r, first in needed.items():
                now = (residuals <= r) & np.isinf(first[:, 0]) & (costs <= budget)
                first[now] = np.stack([costs, seconds], 1)[now]
            report(
                f"{name} {setting} {np.median(costs):g} gradients: "
                f"residual {np.median(residuals):.2e}, at most {np.max(residuals):.2e}"
            )
            done = all(np.all(np.isfinite(first[:, 0])) for first in needed.values())
            if done or np.min(costs) >= budget or not np.all(np.isfinite(residuals)):
                break
        found.setdefault(name, []).append((setting, needed))
    return found


def table(found, budget):
    """One row a solver, of the setting that is best for the column."""
    heads = " | ".join(f"to {r:g}" for r in RESIDUALS)
    lines = [f"| solver | {heads} |", "| --- |" + " --- |" * len(RESIDUALS)]
    for name, settings in found.items():
        cells = [_best(settings, r, budget) for r in RESIDUALS]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _best(settings, residual, budget):
    def cost(line):
        gradients = line[1][residual][:, 0]
        # Ties of the median are those that never get there, and go to more tasks that do.
        return float(np.median(gradients)), float(np.sum(np.isinf(gradients))), gradients.max()

    setting, needed = min(settings, key=cost)
    gradients, seconds = needed[residual].T
    if not np.isfinite(gradients).any():
        return f"not in {budget}"
    middle, most = float(np.median(gradients)), float(gradients.max())
    text = f"{_cell(middle, budget)} ({_cell(most, budget)})"
    if math.isfinite(middle) and np.isfinite(seconds).any():
        text += f", {1e3 * float(np.median(seconds)):.0f} ms"
    return f"{text}, {setting}" if setting else text


def _cell(count, budget):
    return f"{count:g}" if math.isfinite(count) else f"not in {budget}"


def main():
    options = parser(__doc__)
    options.add_argument("--repeats", type=int, default=3, help="timed runs of each; 0 for none")
    arguments = options.parse_args()
    theta, tasks, _, proximal, about = inner_problems(arguments)
    report = functools.partial(print, flush=True)
    found = study(theta, tasks, proximal, arguments.budget, arguments.repeats, report)
    print(f"\n{about}, one task at a time.")
    print("Gradients to a residual, median over tasks (most); where timed, median milliseconds:\n")
    print(table(found, arguments.budget))


if __name__ == "__main__":
    main()
