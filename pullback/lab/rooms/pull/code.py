"""The pull: what the visitor has set, and the same in Python."""

from typing import NamedTuple

from pullback.lab.code import pair
from pullback.lab.rooms.pull import mathematics

START = (-0.1, -1.2)
BOTH = -1
HELPERS = "from pullback.lab.rooms.pull.mathematics import largest_curvature, make_solver\n"
CURVATURE = "largest_curvature(theta, strength, task)"


class Settings(NamedTuple):
    """What the visitor has set: ``whose`` task's surfaces are shown, or those of both."""

    kind: str
    solver: str
    theta: tuple[float, float]
    strength: tuple[float, float]
    surfaces: tuple[str, ...]
    whose: int = BOTH


START_SETTINGS = Settings("quadratic", "gradient-descent", START, (10**-0.3, 10**-0.3), ("loss",))


def code(settings: Settings) -> str:
    """What the room computes for these settings, in Python."""
    steps = mathematics.STEPS[settings.solver]
    helpers, solver = {
        "lbfgs": ("", f"pb.solvers.LBFGS({steps})"),
        "newton-cg": ("", f"pb.solvers.NewtonCG({steps})"),
    }.get(settings.solver, (HELPERS, f'make_solver("{settings.solver}", {CURVATURE})'))
    return f"""
import jax, jax.numpy as jnp
import pullback as pb
from pullback.lab.landscapes import loss, tasks
{helpers}
theta, strength = jnp.array({pair(settings.theta)}), jnp.array({pair(settings.strength)})
key = jax.random.key(0)

@jax.jit
def solve(task):
    solver = {solver}
    algorithm = pb.imaml(loss, strength=strength, solver=solver,
                         linear_solver=pb.linear.CG(10, rtol=0.0))
    phi, report = algorithm.adapt(theta, task.support, key)
    stopped = phi, *algorithm.meta_gradient(theta, task, key)

    problem = pb.Proximal(loss, strength).problem(theta, task.support)
    optimum = pb.solvers.run(pb.solvers.NewtonCG(30), problem, phi, key).phi
    jacobian = pb.implicit.jacobian(pb.implicit.linearise(problem, optimum))
    outer, slope = jax.value_and_grad(loss)(optimum, task.query)
    return stopped, (optimum, jacobian, outer, jacobian.T @ slope)

for task in tasks("{settings.kind}"):
    print(*solve(task))
""".strip()
