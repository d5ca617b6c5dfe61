"""Memory of one meta-gradient against the number of inner steps (Rajeswaran et al. 2019, Table 1).

What is measured is the temporary memory that XLA plans for the compiled meta-gradient,
``compiled.memory_analysis().temp_size_in_bytes``: all buffers alive at once but for arguments and
results. It is a property of the program, the same on every run, and nothing has to be run for it.
"""

import dataclasses
from dataclasses import dataclass

import jax

from pullback.algorithms import MetaAlgorithm, fomaml, imaml, maml
from pullback.linear import CG
from pullback.models import MLP, mean_squared_error
from pullback.solvers import GradientDescent
from pullback.study.parts import Result, Tick, keys_of
from pullback.tasks import Sinusoid

MEASURE = "temporary memory planned by XLA: compiled.memory_analysis().temp_size_in_bytes"


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Args:
        hidden: widths of the network's hidden layers.
        shots: support points of a sinusoid task.
        queries: query points.
        strength: λ.
        linear_steps: CG steps of iMAML.
        inner_steps: numbers of inner steps.
    """

    hidden: tuple[int, ...] = (40, 40)
    shots: int = 10
    queries: int = 10
    strength: float = 2.0
    linear_steps: int = 10
    inner_steps: tuple[int, ...] = (1, 4, 16, 64, 256)

    @property
    def programs(self) -> int:
        """How many programs are compiled."""
        return 4 * len(self.inner_steps)


FULL = Settings()
QUICK = Settings(hidden=(20,), inner_steps=(1, 64))


def measure(settings: Settings, seed: int, tick: Tick) -> Result:
    """The temporary memory of each algorithm's meta-gradient, in bytes.

    Args:
        settings: what is measured.
        seed: of the task, on which the memory does not depend.
        tick: told how many programs are done.

    Returns:
        One curve an algorithm, and the size of the parameters to compare with.
    """
    model = MLP(1, 1, hidden=settings.hidden)
    loss = mean_squared_error(model.apply)
    init, draw = jax.random.split(keys_of(seed, 2))
    theta = model.init(init)
    task = Sinusoid(settings.shots, settings.queries).sample(draw)

    def algorithm(name: str, steps: int) -> MetaAlgorithm:
        strength, checkpoint = settings.strength, name == "maml, checkpointed"
        solver = GradientDescent(steps, 0.01, checkpoint=checkpoint)
        if name == "imaml":
            linear = CG(settings.linear_steps, rtol=0.0)
            return imaml(loss, strength=strength, solver=solver, linear_solver=linear)
        make = fomaml if name == "fomaml" else maml
        return make(loss, strength=strength, solver=solver)

    curves, done = [], 0
    for name in ("imaml", "maml", "maml, checkpointed", "fomaml"):
        sizes = []
        for steps in settings.inner_steps:
            function = jax.jit(algorithm(name, steps).meta_gradient)
            compiled = function.lower(theta, task, draw).compile()
            sizes.append(temporary_bytes(compiled))
            done += 1
            tick(done)
        curves.append(
            {"algorithm": name, "inner_steps": list(settings.inner_steps), "bytes": sizes}
        )
    parameters = sum(leaf.nbytes for leaf in jax.tree.leaves(theta))
    return {
        "settings": dataclasses.asdict(settings),
        "measure": MEASURE,
        "parameter_bytes": parameters,
        "curves": curves,
    }


def temporary_bytes(compiled: jax.stages.Compiled) -> int | None:
    """The temporary memory a compiled program needs; None where the backend does not say."""
    analysis = compiled.memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes)
