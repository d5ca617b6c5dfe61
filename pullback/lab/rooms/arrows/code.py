"""Four arrows: what the visitor has set, and the same in Python."""

from typing import NamedTuple

from pullback.lab.code import decimal, pair

START = (2.1, -1.6)


class Settings(NamedTuple):
    """What the visitor has set, and how many meta-steps were taken since."""

    kind: str
    steps: int
    strength: float
    start: tuple[float, float]
    meta_steps: int = 0


START_SETTINGS = Settings("valley", 5, 1.0, START)


def code(settings: Settings) -> str:
    """What the room computes for these settings, in Python."""
    return f"""
import itertools, jax, jax.numpy as jnp
import pullback as pb
from pullback.lab.landscapes import loss, tasks

start, meta_steps = jnp.array({pair(settings.start)}), {settings.meta_steps}
strength, three = {decimal(settings.strength)}, tasks("{settings.kind}", 3)
plain = pb.solvers.GradientDescent({settings.steps}, 1 / 8)
pulled = pb.solvers.GradientDescent({settings.steps}, 1 / (8 + strength))
exact = pb.linear.CG(20, rtol=1e-6)
algorithms = {{
    "iMAML": pb.imaml(loss, strength=strength, solver=pulled, linear_solver=exact),
    "MAML": pb.maml(loss, solver=plain),
    "FOMAML": pb.fomaml(loss, solver=plain),
    "Reptile": pb.reptile(loss, solver=plain, fit="support"),
}}

def mean_over_tasks(algorithm):
    def at(theta):
        each = [algorithm.meta_gradient(theta, task, jax.random.key(0)) for task in three]
        return sum(value for value, *_ in each) / 3, sum(slope for _, slope, _ in each) / 3
    return jax.jit(at)

thetas, arrows = {{}}, {{}}
for name, algorithm in algorithms.items():
    outer, theta = mean_over_tasks(algorithm), start
    arrows[name] = -outer(start)[1]
    for step in range(meta_steps):
        if jnp.abs(theta).max() <= 3:  # the figure ends there
            theta = theta - 0.3 * outer(theta)[1]
    thetas[name], (value, gradient) = theta, outer(theta)
    length = jnp.linalg.norm(gradient)
    print(f"{{name}}: θ {{theta}}, query loss {{value:.3f}}, length {{length:.3f}}")

for one, other in itertools.combinations(algorithms, 2):
    a, b = (arrows[name] / jnp.linalg.norm(arrows[name]) for name in (one, other))
    print(f"{{one}} and {{other}}: {{jnp.degrees(jnp.arccos((a @ b).clip(-1, 1))):.0f}}°")
""".strip()
