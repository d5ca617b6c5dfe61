"""Products with H that linear solvers need, on a trained network's own Hessians.

    JAX_ENABLE_X64=1 python -m benchmarks.linear_solvers RUN [--tasks 8] [--data-dir DIR]

For each task L-BFGS solves the inner problem, v is the gradient of the query loss there, and each
solver solves (H + Λ)u = v from its own start. A relative residual of 1e-6 is at the level of
rounding in 32 bits, which is why the table is made in 64.
"""

import functools
import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.hessians import inner_problems, parser
from pullback import implicit
from pullback.core import trees
from pullback.core.results import Verdict
from pullback.linear import CG, GMRES, MINRES, BiCGStab, Neumann, Nystrom
from pullback.solvers import LBFGS

TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-6)
HISTORIES = (6, 12, 16)
RANKS = (10, 20, 50)
INNER, SHORT = (LBFGS(steps, max(HISTORIES)) for steps in (48, 16))
"""What solves the inner problem, and the shorter run whose pairs precondition as well."""


class Products:
    """A·u, counted. A product that was asked for before is looked up, and counted all the same.

    The same solver with a looser tolerance asks for the same products, only fewer of them.
    """

    def __init__(self, product):
        self.product, self.known, self.count = product, {}, 0

    def __call__(self, u):
        self.count += 1
        name = np.asarray(u).tobytes()
        if hash(name) not in self.known:
            with jax.disable_jit(False):
                self.known[hash(name)] = self.product(u)
        return self.known[hash(name)]

    def by(self, solver, rhs, near):
        """Solve step by step in Python, and hold the solver's own count against this one."""
        self.count = 0
        with jax.disable_jit():
            answer = solver.solve(self, rhs, near)
        used = int(answer.steps) + (getattr(solver, "start", "zero") == "rhs")
        assert used == self.count, (solver, used, self.count)
        return answer


def solvers(budget):
    """Name, steps and newest pairs of the L-BFGS that preconditions, and how it is built."""
    yield "CG", None, lambda rtol: CG(budget, rtol)
    yield "CG from v/λ", None, lambda rtol: CG(budget, rtol, start="rhs")
    for inner, history in itertools.product((INNER, SHORT), HISTORIES):
        name = f"CG, {history} secant pairs of {inner.steps} gradients"
        yield name, (inner.steps, history), lambda rtol: CG(budget, rtol)
    for rank in RANKS:
        yield (
            f"CG, Nyström rank {rank}",
            None,
            lambda rtol, rank=rank: Nystrom(rank, budget + rank, rtol),
        )
    yield "MINRES", None, lambda rtol: MINRES(budget, rtol)
    yield "Neumann", None, lambda rtol: Neumann(budget, rtol)
    yield "BiCGStab", None, lambda rtol: BiCGStab(budget, rtol)
    yield "GMRES(20)", None, lambda rtol: GMRES(budget, rtol, 20)


def newest(secants, history):
    """The newest pairs only."""
    born = jnp.where(secants.born > jnp.max(secants.born) - history, secants.born, -1)
    return eqx.tree_at(lambda s: s.born, secants, born)


def study(theta, tasks, loss, proximal, budget, only, report):
    """Products to each tolerance for each solver and task; infinite where it was not reached."""
    _, unravel = trees.ravel(theta)

    @jax.jit
    def solve(theta, support):
        problem = proximal.problem(theta, support)
        solution = INNER.solve(problem, theta, jax.random.key(0))
        residual = implicit.stationarity(problem, solution.phi, problem.loss_gradient(solution.phi))
        short = SHORT.solve(problem, theta, jax.random.key(0))
        inverses = {INNER.steps: solution.inverse, SHORT.steps: short.inverse}
        return trees.ravel(solution.phi)[0], inverses, residual

    @jax.jit
    def product(theta, support, phi, u):
        gradient = proximal.problem(theta, support).gradient
        pushed = jax.jvp(gradient, (unravel(phi),), (unravel(u),))[1]
        return trees.ravel(pushed)[0]

    cotangent = jax.jit(lambda phi, query: trees.ravel(jax.grad(loss)(unravel(phi), query))[0])
    strength = proximal.strength

    def plain(u):
        return u / strength

    # Lineax compiles its operator into the solve, whatever the mode.
    @functools.partial(jax.jit, static_argnames="solver")
    def by_lineax(solver, theta, support, phi, v):
        return solver.solve(functools.partial(product, theta, support, phi), v, plain)

    rows, spectra, residuals, last = {}, [], [], None
    for number, task in enumerate(tasks):
        phi, inverses, residual = solve(theta, task.support)
        residuals.append(float(residual))
        v = cotangent(phi, task.query)
        count = Products(functools.partial(product, theta, task.support, phi))
        found, answers = {}, {}
        for name, pairs, make in solvers(budget):
            if only and name not in only:
                continue
            near = plain if pairs is None else newest(inverses[pairs[0]], pairs[1]).apply
            found[name] = {}
            for rtol in reversed(TOLERANCES):
                solver = make(rtol)
                if isinstance(solver, GMRES | BiCGStab):
                    answer = by_lineax(solver, theta, task.support, phi, v)
                else:
                    answer = count.by(solver, v, near)
                solved = int(answer.code) == Verdict.OK and float(answer.residual) <= rtol
                # CG does not count the product that its start from the right-hand side takes.
                used = int(answer.steps) + (getattr(solver, "start", "zero") == "rhs")
                found[name][rtol] = used if solved else math.inf
                answers[name, rtol] = answer
            report(f"task {number + 1} {name}: {found[name]}")
        exact = answers.get(("CG", TOLERANCES[-1]))
        if last is not None:
            name = "CG from the last task's u"
            found[name] = warm(count, v, last.value, budget)
            report(f"task {number + 1} {name}: {found[name]}")
        last = exact
        if seen := answers.get(("MINRES", TOLERANCES[-1])):
            spectra.append((float(seen.smallest_curvature), float(seen.largest_curvature)))
        for name, line in found.items():
            rows.setdefault(name, []).append(line)
    return rows, spectra, residuals


def warm(count, v, guess, budget):
    """CG from a first guess: the same as CG on what the guess leaves over."""
    size, left = jnp.linalg.norm(v), v - count.product(guess)
    share = float(jnp.linalg.norm(left) / size)
    line = {}
    for rtol in reversed(TOLERANCES):
        inner = min(rtol / share, 0.999)
        answer = count.by(CG(budget, inner), left, lambda u: u)
        reached = float(answer.residual) * share <= rtol
        line[rtol] = 1 + int(answer.steps) if reached else math.inf
    return line | {"share": share}


def table(rows, budget):
    """One row a solver: the median over tasks, and the most."""
    heads = " | ".join(f"to {rtol:g}" for rtol in TOLERANCES)
    lines = [f"| solver | {heads} |", "| --- |" + " --- |" * len(TOLERANCES)]
    for name, tasks in rows.items():
        cells = []
        for rtol in TOLERANCES:
            counts = [line[rtol] for line in tasks]
            middle, most = float(np.median(counts)), max(counts)
            cells.append(_cell(middle, budget) + f" ({_cell(most, budget)})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(count, budget):
    return f"{count:.4g}" if math.isfinite(count) else f"not in {budget}"


def main():
    options = parser(__doc__)
    options.add_argument("--only", nargs="*", default=(), help="solvers by name; all if left out")
    arguments = options.parse_args()
    theta, tasks, loss, proximal, about = inner_problems(arguments)
    report = functools.partial(print, flush=True)
    rows, spectra, residuals = study(
        theta, tasks, loss, proximal, arguments.budget, arguments.only, report
    )
    print(f"\n{about}; inner residual at most {max(residuals):.1e}.")
    if spectra:
        low, high = np.asarray(spectra).T - proximal.strength
        print(
            f"Smallest eigenvalue of H {low.min():.3g} to {low.max():.3g}, largest "
            f"{high.min():.4g} to {high.max():.4g} (Ritz values)."
        )
    shares = [line["share"] for line in rows.get("CG from the last task's u", [])]
    if shares:
        print(f"The last task's u leaves {min(shares):.3g} to {max(shares):.3g} of v over.")
    print("Products with H + Λ, median over tasks (most):\n")
    print(table(rows, arguments.budget))


if __name__ == "__main__":
    main()
