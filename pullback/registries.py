"""Everything that can be asked for by name: a line each, and no import of what it names.

To add an algorithm, a solver, a model, a data set or a room of the lab, write its file and add its
line here (CONTRIBUTING.md has a skeleton of each). An installed package adds its own by an entry
point of the registry's group, without a line here.
"""

import re

from pullback.core.errors import InputError, unknown_name
from pullback.core.registry import AlgorithmEntry, Entry, Registry

ALGORITHMS = Registry(
    "algorithm",
    "pullback.algorithms",
    AlgorithmEntry(
        "imaml",
        "implicit gradient of a converged proximal problem (Rajeswaran et al. 2019)",
        "pullback.algorithms.imaml:imaml",
        learned="pullback.algorithms.learned:learned_imaml",
    ),
    AlgorithmEntry(
        "maml",
        "differentiates through the inner steps (Finn et al. 2017)",
        "pullback.algorithms.maml:maml",
    ),
    AlgorithmEntry(
        "fomaml",
        "MAML without its second-order term (Finn et al. 2017)",
        "pullback.algorithms.fomaml:fomaml",
    ),
    AlgorithmEntry(
        "reptile",
        "moves θ toward each task's φ (Nichol et al. 2018)",
        "pullback.algorithms.reptile:reptile",
        {"inner_steps": 10},
    ),
)
"""``make(loss, *, solver=..., strength=..., ...) -> MetaAlgorithm``. A setting applies to an
algorithm that has a parameter of its name."""

SOLVERS = Registry(
    "solver",
    "pullback.solvers",
    Entry(
        "lbfgs",
        "L-BFGS without a line search; tunes itself, and preconditions the linear solve",
        "pullback.solvers.lbfgs:LBFGS",
    ),
    Entry(
        "projected",
        "solves a linear head exactly, and the rest by L-BFGS; plain L-BFGS without such a head",
        "pullback.solvers.projected:Projected.where_separable",
    ),
    Entry(
        "nesterov",
        "accelerated gradients with restarts; tunes itself; little memory; MAML can use it",
        "pullback.solvers.nesterov:Nesterov",
    ),
    Entry(
        "gradient-descent",
        "fixed steps of --inner-learning-rate with --inner-momentum; MAML can use it",
        "pullback.solvers.gradient_descent:GradientDescent",
    ),
    Entry(
        "adam",
        "Optax's Adam with --inner-learning-rate; MAML can use it",
        "pullback.solvers.optax_solver:Optax.adam",
        {"inner_momentum": 0.9},
    ),
    Entry(
        "newton-cg",
        "Newton steps by CG in a trust region, the paper's Hessian-free variant; tunes itself",
        "pullback.solvers.newton_cg:NewtonCG",
    ),
    Entry(
        "scipy",
        "SciPy's L-BFGS-B on the host, with at most --inner-steps iterations; tunes itself",
        "pullback.solvers.scipy_solver:Scipy.lbfgsb",
    ),
)
"""``make(*, steps, learning_rate, momentum) -> InnerSolver``, each with those it takes."""

LINEAR_SOLVERS = Registry(
    "linear solver",
    "pullback.linear_solvers",
    Entry(
        "cg",
        "conjugate gradients, preconditioned by the inner L-BFGS's own pairs",
        "pullback.linear.cg:CG",
    ),
    Entry(
        "minres",
        "smallest residual, for matrices that need not be definite; no preconditioner",
        "pullback.linear.minres:MINRES",
    ),
    Entry(
        "gmres",
        "Lineax's GMRES, in whole cycles of at most 20 products",
        "pullback.linear.gmres:GMRES",
    ),
    Entry(
        "bicgstab",
        "Lineax's BiCGStab, two products a step",
        "pullback.linear.bicgstab:BiCGStab",
    ),
    Entry(
        "neumann",
        "a Neumann series with a scale it measures itself; slow",
        "pullback.linear.neumann:Neumann",
    ),
    Entry(
        "nystrom",
        "CG preconditioned by a random sketch, which takes half of --linear-steps",
        "pullback.linear.nystrom:Nystrom.with_products",
    ),
    Entry(
        "dense",
        "the whole matrix, for small networks; --linear-steps does not matter",
        "pullback.linear.dense:Dense",
    ),
)
"""``make(*, steps, rtol) -> LinearSolver``, each with those it takes."""

MODELS = Registry(
    "model",
    "pullback.models",
    Entry(
        "conv4",
        "four 3×3 convolutions and a linear layer, for images (Vinyals et al. 2016)",
        "pullback.models.conv4:Conv4.for_shape",
    ),
    Entry(
        "mlp",
        "fully connected layers; images and other arrays are flattened",
        "pullback.models.mlp:MLP.for_shape",
    ),
    Entry(
        "linear",
        "one linear layer; images and other arrays are flattened",
        "pullback.models.linear:Linear.for_shape",
    ),
)
"""``make(shape, outputs, *, width=..., ...) -> model`` for examples of a shape, where the model
has ``init(key) -> params`` and ``apply(params, x) -> outputs``."""

DATASETS = Registry(
    "data set",
    "pullback.datasets",
    Entry(
        "sinusoid",
        "sine waves of random amplitude and phase; nothing to load",
        "pullback.tasks.sinusoid:Sinusoid",
    ),
    Entry(
        "glyphs",
        "characters of many scripts drawn from Matplotlib's fonts; no download",
        "pullback.tasks.glyphs:load_glyphs",
    ),
    Entry(
        "omniglot",
        "handwritten characters of 50 alphabets, from local files or downloaded",
        "pullback.tasks.omniglot:load_omniglot",
        {"rotations": True},
    ),
    Entry(
        "folder",
        "own pictures, one folder for each class; --data-dir names their folder",
        "pullback.tasks.folder:load_folder",
        {"validation_classes": 0, "test_classes": 0},
    ),
    Entry(
        "vectors",
        "own feature vectors; --data-dir names a .npz file of x and y",
        "pullback.tasks.vectors:load_vectors",
        {
            "model": "mlp",
            "hidden": [512],
            "standardise": True,
            "validation_classes": 0,
            "test_classes": 0,
        },
    ),
)
"""``make(*, data_dir=..., ways=..., shots=..., queries=...)``, each with those it takes, gives
tasks (``sample(key)``) or examples sorted into classes (:class:`pullback.tasks.ClassSet`)."""

ACTIVATIONS = Registry(
    "activation",
    "pullback.activations",
    Entry("silu", "smooth", "jax.nn:silu"),
    Entry("softplus", "smooth, nearly ReLU", "pullback.models.activations:sharp_softplus"),
    Entry("tanh", "smooth", "jax.numpy:tanh"),
    Entry("gelu", "smooth", "jax.nn:gelu"),
    Entry("relu", "not smooth: no inner optimum to converge to", "jax.nn:relu"),
)
"""Functions of a number, applied to each of an array's."""

ROOMS = Registry(
    "room",
    "pullback.lab",
    Entry("pull", "the pull: two tasks, one θ", "pullback.lab.rooms.pull.view:ROOM"),
    Entry("arrows", "the updates of four algorithms", "pullback.lab.rooms.arrows.view:ROOM"),
    Entry("inexact", "errors and their estimates", "pullback.lab.rooms.inexact.view:ROOM"),
    Entry("optimum", "an inner loss with several minima", "pullback.lab.rooms.optimum.view:ROOM"),
    Entry("sine", "sine waves from a few points", "pullback.lab.rooms.sine.view:ROOM"),
    Entry("game", "a game of one-shot classification", "pullback.lab.rooms.game.view:ROOM"),
    Entry("runs", "training runs side by side", "pullback.lab.rooms.runs.view:ROOM"),
)
"""The rooms of the lab, in their order on the page."""

BY_ATTRIBUTE = (ALGORITHMS, SOLVERS, LINEAR_SOLVERS, MODELS, DATASETS)
"""The registries whose entries are also ``pullback.NAME``, by the names they have in Python."""

NORMALISATIONS = {
    "group": "each example by its own groups of channels: no example sees another",
    "batch": "transductive: by the statistics of the batch at hand, query examples included",
    "none": "no normalisation",
}
"""Normalisations by name, and what they let one example know of another."""

SPLITS = {
    "alphabet": "whole alphabets: no alphabet is in two parts",
    "character": "single classes, in exact numbers",
    "official": "the data set's own evaluation part for test",
}
"""How classes are dealt to training, validation and test."""

CHANNELS = {
    "auto": "grey if all pictures are, else colour",
    "grey": "one channel",
    "colour": "red, green and blue",
}
"""The channels that own pictures are read with."""

STRATEGIES = {
    "auto": "map on a CPU, vmap on an accelerator",
    "map": "one task after the other on each device; least memory",
    "vmap": "all tasks of a device at once",
    "chunked:N": "N tasks of a device at once, one such chunk after the other",
    "measure": "the fastest of these, timed once at the start where that is cheap",
}
"""Ways to run the tasks that share a device."""

CHUNKED = re.compile(r"chunked:([1-9]\d{0,5})")

POLICIES = {
    "warn": "count it, and use its meta-gradient all the same",
    "skip": "leave the task out of the step's average",
    "raise": "stop before the step",
}
"""What training does about a task with a bad verdict. What is not finite stops it always."""

STRENGTH_FORMS = {
    "scalar": "one λ for all parameters",
    "leaf": "one for each array of parameters",
    "diagonal": "one for each parameter",
}
"""The forms in which Λ can be learned."""

REPTILE_FITS = {
    "all": "the support and query sets joined, as in the paper",
    "support": "the support set alone",
}
"""What Reptile fits in meta-training."""

INNER_LOOPS = {
    "customary": "each with the inner loop it is known for",
    "same": "all with the same proximal problem and the same solver",
}
"""What inner loops a comparison gives its algorithms."""

STRONGEST_DISTORTION = 2
"""The highest strength of distortion turns images by up to 30°, which leaves a 6 a 6."""


def check_strategy(name: str) -> str:
    """The same name, if it is one of :data:`STRATEGIES`, with a number for its N.

    Raises:
        InputError: for an unknown name, with the nearest one.
    """
    if name == "chunked:N" or (name not in STRATEGIES and not CHUNKED.fullmatch(name)):
        if name.startswith("chunked"):
            raise InputError(
                f"The strategy is {name!r}",
                allowed="chunked:N with a whole number N from 1, as in chunked:4",
            )
        raise unknown_name("strategy", name, STRATEGIES)
    return name
