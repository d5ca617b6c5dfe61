"""The options that commands share. Nothing here may import JAX: ``--help`` must be quick."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

_DATA, _MODEL, _ALGORITHM = "Data", "Model", "Algorithm"
_TRAINING, _OUTPUT = "Training", "Output"
_SCALE = "Devices and hosts"


def _option(flag: str, text: str, panel: str, default: str | None = None, **more: Any) -> Any:
    shown = {"show_default": default} if default else {"show_default": False}
    return typer.Option(flag, help=text, rich_help_panel=panel, **shown, **more)


Dataset = Annotated[
    str | None,
    _option("--dataset", "Data set: sinusoid, glyphs or omniglot.", _DATA, "glyphs"),
]
DataDir = Annotated[
    str | None,
    _option(
        "--data-dir",
        "Folder with the data's own files, such as images_background.zip of Omniglot. "
        "Without it they are downloaded.",
        _DATA,
    ),
]
Ways = Annotated[int | None, _option("--ways", "Classes in a task.", _DATA, "5")]
Shots = Annotated[
    int | None,
    _option(
        "--shots",
        "Support examples per class; for the sinusoid, support points.",
        _DATA,
        "1; sinusoid 10",
    ),
]
Queries = Annotated[
    int | None,
    _option("--queries", "Query examples per class to judge the result by.", _DATA, "15"),
]
Rotations = Annotated[
    bool | None,
    _option(
        "--rotations/--no-rotations",
        "In meta-training, count a class turned by 90°, 180° and 270° as classes of their own.",
        _DATA,
        "only for omniglot",
    ),
]
Mirrors = Annotated[
    bool | None,
    _option(
        "--mirrors/--no-mirrors",
        "In meta-training, count the mirror image of a class as a class of its own.",
        _DATA,
        "no",
    ),
]
Distortion = Annotated[
    float | None,
    _option(
        "--distortion",
        "In meta-training, turn, stretch, shear and shift each image at random: 1 for up to 15° "
        "and 2 pixels of 28, up to 2, 0 for none.",
        _DATA,
        "0",
    ),
]
Kindred = Annotated[
    float | None,
    _option(
        "--kindred",
        "Share of meta-training tasks whose classes are all of one alphabet: harder ones.",
        _DATA,
        "0",
    ),
]
SplitBy = Annotated[
    str | None,
    _option(
        "--split-by",
        "How classes are dealt to training, validation and test: alphabet (no alphabet in two "
        "of them), character, or official.",
        _DATA,
        "alphabet",
    ),
]
SplitSeed = Annotated[
    int | None, _option("--split-seed", "Seed of that deal, drawn once for a run.", _DATA, "0")
]
ValidationClasses = Annotated[
    int | None,
    _option("--validation-classes", "Classes to choose the best checkpoint by.", _DATA, "100"),
]
TestClasses = Annotated[
    int | None, _option("--test-classes", "Classes kept for the final score.", _DATA, "100")
]
Width = Annotated[
    int | None, _option("--width", "Channels of the convolutional network.", _MODEL, "64")
]
Normalisation = Annotated[
    str | None,
    _option(
        "--normalisation",
        "group (each example by itself), batch (transductive: query examples see each other) "
        "or none.",
        _MODEL,
        "group",
    ),
]
Groups = Annotated[
    int | None,
    _option(
        "--groups",
        "Groups of channels that each example is normalised by; 1 for all channels together.",
        _MODEL,
        "8",
    ),
]
Activation = Annotated[
    str | None,
    _option("--activation", "silu, softplus, tanh, gelu or relu.", _MODEL, "silu"),
]
LogitScale = Annotated[
    float | None, _option("--logit-scale", "Factor on the logits.", _MODEL, "4.0")
]
Hidden = Annotated[
    str | None,
    _option("--hidden", "Widths of the sinusoid network's hidden layers.", _MODEL, "40,40"),
]
Algorithm = Annotated[
    str | None,
    _option("--algorithm", "imaml, maml, fomaml or reptile.", _ALGORITHM, "imaml"),
]
Strength = Annotated[
    float | None,
    _option(
        "--strength",
        "λ, how strongly a task's parameters are pulled back to the initialisation; 0 for no "
        "pull, which iMAML does not allow.",
        _ALGORITHM,
        "imaml 5, sinusoid 2; others 0",
    ),
]
LearnStrength = Annotated[
    str | None,
    _option(
        "--learn-strength",
        "Learn λ beside the initialisation, from --strength on (imaml): none, scalar, leaf (one "
        "for each array of parameters) or diagonal (one for each parameter).",
        _ALGORITHM,
        "none",
    ),
]
StrengthLearningRate = Annotated[
    float | None,
    _option(
        "--strength-learning-rate",
        "Of the Adam that learns the logarithm of λ; falls to zero as --learning-rate does.",
        _ALGORITHM,
        "0.01",
    ),
]
Solver = Annotated[
    str | None,
    _option(
        "--solver",
        "Inner solver: lbfgs, nesterov, gradient-descent, adam, newton-cg or scipy.",
        _ALGORITHM,
        "imaml lbfgs; others gradient-descent",
    ),
]
InnerSteps = Annotated[
    int | None,
    _option(
        "--inner-steps",
        "Steps of the inner solver.",
        _ALGORITHM,
        "imaml 16, on the sinusoid 48; maml 5, fomaml 5, reptile 10",
    ),
]
InnerLearningRate = Annotated[
    float | None,
    _option(
        "--inner-learning-rate",
        "Step size of gradient-descent and adam.",
        _ALGORITHM,
        "images 0.1, sinusoid 0.002",
    ),
]
InnerMomentum = Annotated[
    float | None,
    _option(
        "--inner-momentum",
        "Momentum of gradient-descent and adam.",
        _ALGORITHM,
        "0; adam 0.9",
    ),
]
LinearSolver = Annotated[
    str | None,
    _option(
        "--linear-solver",
        "Solver of the meta-gradient's linear system (imaml): cg, minres, gmres, bicgstab, "
        "neumann, nystrom or dense.",
        _ALGORITHM,
        "cg",
    ),
]
LinearSteps = Annotated[
    int | None,
    _option(
        "--linear-steps",
        "The most Hessian-vector products in a linear solve (imaml).",
        _ALGORITHM,
        "10",
    ),
]
LinearRtol = Annotated[
    float | None,
    _option(
        "--linear-rtol",
        "Relative residual at which a linear solve may end early (imaml).",
        _ALGORITHM,
        "0.1",
    ),
]
Damping = Annotated[
    float | None,
    _option("--damping", "δ added to the linear solve, a known bias (imaml).", _ALGORITHM, "0"),
]
StrengthMargin = Annotated[
    float | None,
    _option(
        "--strength-margin",
        "Raise Λ for a task until the smallest curvature is this share of it; 0 never (imaml).",
        _ALGORITHM,
        "0",
    ),
]
Fit = Annotated[
    str | None,
    _option(
        "--fit",
        "What Reptile fits in meta-training: all (support and query) or support.",
        _ALGORITHM,
        "all",
    ),
]
Steps = Annotated[int | None, _option("--steps", "Meta-steps in all.", _TRAINING, "1000")]
TasksPerStep = Annotated[
    int | None,
    _option("--tasks-per-step", "Tasks that a meta-gradient averages.", _TRAINING, "8"),
]
LearningRate = Annotated[
    float | None,
    _option(
        "--learning-rate",
        "Of the outer Adam; falls to zero over the run along a cosine.",
        _TRAINING,
        "0.002",
    ),
]
ClipNorm = Annotated[
    float | None,
    _option(
        "--clip-norm",
        "Scale a meta-gradient down to this norm where it is larger.",
        _TRAINING,
        "3",
    ),
]
Seed = Annotated[
    int | None,
    _option("--seed", "Seed of the initialisation, the episodes and the solvers.", _TRAINING, "0"),
]
ValidateEvery = Annotated[
    int | None,
    _option("--validate-every", "Meta-steps between validations.", _TRAINING, "100"),
]
ValidationTasks = Annotated[
    int | None, _option("--validation-tasks", "Tasks of a validation.", _TRAINING, "200")
]
OnBadVerdict = Annotated[
    str | None,
    _option(
        "--on-bad-verdict",
        "What to do about a task whose meta-gradient is not to be trusted: warn, skip (leave it "
        "out of the average) or raise (stop).",
        _TRAINING,
        "warn",
    ),
]
Strategy = Annotated[
    str | None,
    _option(
        "--strategy",
        "How a device runs its tasks: auto, map (one after the other), vmap (all at once), "
        "chunked:N (N at once) or measure (the fastest of these, timed at the start).",
        _TRAINING,
        "auto",
    ),
]
Devices = Annotated[
    int | None,
    _option(
        "--devices",
        "Devices to share the tasks of a step, in each process; on a CPU they are made.",
        _SCALE,
        "as many as fit; on a CPU one for each core",
    ),
]
Hosts = Annotated[
    bool,
    _option(
        "--hosts",
        "Train together with the other processes of this SLURM, Kubernetes or MPI job.",
        _SCALE,
    ),
]
Coordinator = Annotated[
    str | None,
    _option(
        "--coordinator",
        "Without such a job: HOST:PORT of process 0, the same in every process.",
        _SCALE,
    ),
]
ProcessId = Annotated[
    int | None, _option("--process-id", "With it: the number of this process, from 0.", _SCALE)
]
Processes = Annotated[
    int | None, _option("--processes", "With it: how many processes there are.", _SCALE)
]
Patience = Annotated[
    int | None,
    _option("--patience", "Seconds to wait for the others at the start.", _SCALE, "120"),
]
Config = Annotated[
    Path | None,
    _option(
        "--config",
        "TOML file of settings, such as the config.toml of a run; options given here go before it.",
        _TRAINING,
    ),
]
Quiet = Annotated[
    bool,
    _option("--quiet", "No progress; only the result, warnings and errors.", _OUTPUT),
]
Json = Annotated[
    bool,
    _option("--json", "Print the result as one JSON document, and nothing else.", _OUTPUT),
]
RunFolder = Annotated[
    Path, typer.Argument(help="Folder of a run, as train wrote it.", show_default=False)
]
DrawSeed = Annotated[
    int,
    typer.Option("--seed", help="The same seed draws the same tasks.", rich_help_panel="Tasks"),
]


def given_settings(options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The settings among a command's options that were really given, by section and name.

    Args:
        options: a command's arguments by name; ``algorithm`` and the settings of a
            configuration are taken, all others passed over.

    Returns:
        As in a TOML file.

    Raises:
        InputError: if ``hidden`` is no list of numbers.
    """
    from pullback.core.errors import InputError
    from pullback.runs.config import HOME

    renamed = {"name": options.get("algorithm")} | {
        name: value for name, value in options.items() if name != "name"
    }
    given: dict[str, dict[str, Any]] = {}
    for name, value in renamed.items():
        if name not in HOME or value is None:
            continue
        if name == "hidden":
            try:
                value = [int(part) for part in value.split(",")]
            except ValueError:
                raise InputError(
                    f"hidden is {value!r}", allowed="whole numbers with commas, as in 40,40"
                ) from None
        given.setdefault(HOME[name], {})[name] = value
    return given
