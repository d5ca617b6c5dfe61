"""What a run is made of: every setting of one, written once, checked, and read back as TOML.

To add a setting, add its field to the section it belongs to, and use it. The option of ``train``
and ``compare``, the check, the default and the row of ``docs/settings.md`` come from the field.
Nothing here imports JAX before a configuration is resolved: ``--help`` must be quick.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pullback.core.errors import InputError
from pullback.core.registry import AlgorithmEntry, Entry
from pullback.registries import (
    ACTIVATIONS,
    ALGORITHMS,
    CHANNELS,
    DATASETS,
    INNER_LOOPS,
    LINEAR_SOLVERS,
    MODELS,
    NORMALISATIONS,
    POLICIES,
    REPTILE_FITS,
    SOLVERS,
    SPLITS,
    STRATEGIES,
    STRENGTH_FORMS,
    STRONGEST_DISTORTION,
    check_strategy,
)
from pullback.runs.fields import (
    FLAG,
    FOLDER,
    FROM_ZERO,
    NAMES,
    PLACE,
    POSITIVE,
    SEED,
    SHARE,
    WHOLE_SHARE,
    WIDTHS,
    Applies,
    Default,
    Kind,
    Setting,
    number,
    one_of,
    read,
    setting,
    settings_of,
    text,
    whole,
)

Given = Mapping[str, Mapping[str, Any]]
"""Settings by section and name, as a TOML file has them; those left out take their defaults."""


@dataclass(frozen=True)
class Parts:
    """The entries that a run is put together from; what settings it has follows from them.

    Args:
        dataset: the data set.
        algorithm: the meta-learning algorithm.
        model: the network.
        solver: the inner solver.
        learn_strength: the form in which Λ is learned, or ``"none"``.
        pretrain: steps of supervised pretraining.
    """

    dataset: Entry
    algorithm: AlgorithmEntry
    model: Entry
    solver: Entry
    learn_strength: str
    pretrain: int

    @cached_property
    def from_classes(self) -> bool:
        """Whether the data set gives examples sorted into classes."""
        return gives_classes(self.dataset)


def gives_classes(dataset: Entry) -> bool:
    """Whether a data set gives examples sorted into classes, rather than tasks.

    Raises:
        InputError: if its code does not say what it gives.
    """
    from pullback.tasks import gives_classes

    return gives_classes(dataset)


def _algorithm_takes(parameter: str, words: str) -> Applies:
    return Applies(
        f"algorithms {words}",
        lambda parts: parts.algorithm.takes(parameter),
        lambda parts: f"the algorithm {parts.algorithm.name!r}",
    )


def _solver_takes(parameter: str, words: str) -> Applies:
    return Applies(
        f"solvers {words}",
        lambda parts: parts.algorithm.takes("solver") and parts.solver.takes(parameter),
        lambda parts: f"the solver {parts.solver.name!r}",
    )


def _model_takes(parameter: str) -> Applies:
    return Applies(
        f"models with a parameter {parameter}",
        lambda parts: parts.model.takes(parameter),
        lambda parts: f"the model {parts.model.name!r}",
    )


def _dataset_takes(parameter: str) -> Applies:
    return Applies(
        f"data sets with a parameter {parameter}",
        lambda parts: parts.dataset.takes(parameter),
        _dataset_of,
    )


def _dataset_of(parts: Parts) -> str:
    return f"the data set {parts.dataset.name!r}"


FROM_CLASSES = Applies("data sets of classes", lambda parts: parts.from_classes, _dataset_of)
HAS_WAYS = Applies(
    "data sets of classes, or with a parameter ways",
    lambda parts: parts.from_classes or parts.dataset.takes("ways"),
    _dataset_of,
)
IMPLICIT = _algorithm_takes("linear_solver", "that solve a linear system")
LEARNABLE = Applies(
    "algorithms that can learn Λ",
    lambda parts: bool(parts.algorithm.learned),
    lambda parts: f"the algorithm {parts.algorithm.name!r}",
)
LEARNED = Applies(
    "runs with --learn-strength",
    lambda parts: bool(parts.algorithm.learned) and parts.learn_strength != "none",
    lambda parts: (
        "a run that learns no strength"
        if parts.algorithm.learned
        else f"the algorithm {parts.algorithm.name!r}"
    ),
)

PRETRAINED = Applies(
    "runs with --pretrain", lambda parts: parts.pretrain > 0, lambda parts: "a run without it"
)


def _by_data(classes: Any, tasks: Any) -> Default:
    """A default for data sets of classes, and another one for data sets of tasks."""
    return Default(
        f"{classes}; {tasks} where the data set gives tasks, as sinusoid does",
        lambda parts: classes if parts.from_classes else tasks,
    )


DISTORTION = number(
    f"numbers from 0 to {STRONGEST_DISTORTION}", lambda x: 0 <= x <= STRONGEST_DISTORTION
)


def _strength(parts: Parts) -> float:
    if not parts.algorithm.proximal:
        return 0.0
    return 5.0 if parts.from_classes else 2.0


def _inner_steps(parts: Parts) -> int:
    if not parts.algorithm.implicit:
        return 5
    return 16 if parts.from_classes else 48


@dataclass(frozen=True)
class DataConfig:
    """Where tasks come from. A setting that the data set has no use for is None."""

    dataset: str = setting(
        one_of("data set", DATASETS), "glyphs", f"Data set: {', '.join(DATASETS)}."
    )
    data_dir: str | None = setting(
        PLACE,
        "",
        "Folder with the data's own files, such as images_background.zip of Omniglot, which are "
        "downloaded without it; of folder the one that holds a folder for each class, of vectors "
        "the .npz file.",
        applies=_dataset_takes("data_dir"),
        resumable=True,
    )
    image_size: int | None = setting(
        whole(1),
        28,
        "Side of the square that own pictures are fitted into, padded in the colour of their "
        "border.",
        applies=_dataset_takes("image_size"),
    )
    channels: str | None = setting(
        one_of("kind of channels", CHANNELS),
        "auto",
        "Own pictures in grey, in colour, or auto: in grey if all of them are.",
        applies=_dataset_takes("channels"),
    )
    standardise: bool | None = setting(
        FLAG,
        False,
        "Give each number of an example the mean 0 and the deviation 1 over the training classes; "
        "not of images.",
        applies=FROM_CLASSES,
    )
    ways: int | None = setting(whole(2), 5, "Classes in a task.", applies=HAS_WAYS)
    shots: int | None = setting(
        whole(1),
        _by_data(1, 10),
        "Support examples per class; where there are no classes, support points.",
        applies=Applies(
            "data sets of classes, or with a parameter shots",
            lambda parts: parts.from_classes or parts.dataset.takes("shots"),
            _dataset_of,
        ),
    )
    queries: int | None = setting(
        whole(1),
        15,
        "Query examples per class to judge the result by.",
        applies=Applies(
            "data sets of classes, or with a parameter queries",
            lambda parts: parts.from_classes or parts.dataset.takes("queries"),
            _dataset_of,
        ),
    )
    rotations: bool | None = setting(
        FLAG,
        False,
        "In meta-training, count a class turned by 90°, 180° and 270° as classes of their own.",
        applies=FROM_CLASSES,
    )
    reflections: bool | None = setting(
        FLAG,
        False,
        "In meta-training, count the mirror image of a class as a class of its own.",
        applies=FROM_CLASSES,
        former="mirrors",
    )
    distortion: float | None = setting(
        DISTORTION,
        0.0,
        "In meta-training, turn, stretch, shear and shift each image at random: 1 for up to 15° "
        "and 2 pixels of 28, up to 2, 0 for none.",
        applies=FROM_CLASSES,
    )
    same_alphabet: float | None = setting(
        WHOLE_SHARE,
        0.0,
        "Share of meta-training tasks whose classes are all of one alphabet: harder ones.",
        applies=FROM_CLASSES,
        former="kindred",
    )
    split_by: str | None = setting(
        one_of("way to split", SPLITS),
        "alphabet",
        "How classes are dealt to training, validation and test: alphabet (no alphabet in two "
        "of them), character, or official.",
        applies=FROM_CLASSES,
    )
    split_seed: int | None = setting(
        SEED, 0, "Seed of that deal, drawn once for a run.", applies=FROM_CLASSES
    )
    validation_classes: int | None = setting(
        whole(0),
        100,
        "Classes to choose the best checkpoint by; 0 for a fifth of all, and at least as many as "
        "ways.",
        applies=FROM_CLASSES,
    )
    test_classes: int | None = setting(
        whole(0),
        100,
        "Classes kept for the final score; 0 as for validation.",
        applies=FROM_CLASSES,
    )


@dataclass(frozen=True)
class ModelConfig:
    """The network. A setting that the network has no use for is None."""

    model: str = setting(
        one_of("model", MODELS), _by_data("conv4", "mlp"), f"Network: {', '.join(MODELS)}."
    )
    width: int | None = setting(
        whole(1), 64, "Channels of the convolutional network.", applies=_model_takes("width")
    )
    normalisation: str | None = setting(
        one_of("normalisation", NORMALISATIONS),
        "group",
        "group (each example by itself), batch (transductive: query examples see each other) "
        "or none.",
        applies=_model_takes("normalisation"),
    )
    groups: int | None = setting(
        whole(1),
        8,
        "Groups of channels that each example is normalised by; 1 for all channels together.",
        applies=_model_takes("groups"),
    )
    activation: str | None = setting(
        one_of("activation", ACTIVATIONS),
        "silu",
        f"Activation: {', '.join(ACTIVATIONS)}.",
        applies=_model_takes("activation"),
    )
    logit_scale: float | None = setting(
        POSITIVE, 4.0, "Factor on the logits.", applies=_model_takes("logit_scale")
    )
    hidden: tuple[int, ...] | None = setting(
        WIDTHS,
        [40, 40],
        "Widths of the hidden layers of a fully connected network.",
        applies=_model_takes("hidden"),
    )


@dataclass(frozen=True)
class AlgorithmConfig:
    """The meta-learning algorithm. A setting that it has no use for is None."""

    name: str = setting(
        one_of("algorithm", ALGORITHMS),
        "imaml",
        f"Meta-learning algorithm: {', '.join(ALGORITHMS)}.",
        flag="algorithm",
    )
    strength: float | None = setting(
        FROM_ZERO,
        Default("imaml 5, or 2 where the data set gives tasks; others 0", _strength),
        "λ, how strongly a task's parameters are pulled back to the initialisation; 0 for no "
        "pull, which iMAML does not allow.",
        applies=_algorithm_takes("strength", "with a proximal term"),
    )
    learn_strength: str | None = setting(
        one_of("form of Λ", ("none", *STRENGTH_FORMS)),
        "none",
        "Learn λ beside the initialisation, from --strength on (imaml): none, scalar, leaf (one "
        "for each array of parameters) or diagonal (one for each parameter).",
        applies=LEARNABLE,
    )
    strength_learning_rate: float | None = setting(
        POSITIVE,
        1e-2,
        "Of the Adam that learns the logarithm of λ; falls to zero as --learning-rate does.",
        applies=LEARNED,
    )
    solver: str | None = setting(
        one_of("solver", SOLVERS),
        Default(
            "imaml projected; others gradient-descent",
            lambda parts: "projected" if parts.algorithm.implicit else "gradient-descent",
        ),
        f"Inner solver: {', '.join(SOLVERS)}.",
        applies=_algorithm_takes("solver", "with an inner solver"),
    )
    inner_steps: int | None = setting(
        whole(1),
        Default("imaml 16, or 48 where the data set gives tasks; others 5", _inner_steps),
        "Steps of the inner solver.",
        applies=_solver_takes("steps", "with a number of steps"),
    )
    inner_learning_rate: float | None = setting(
        POSITIVE,
        _by_data(0.1, 0.002),
        "Step size of gradient-descent and adam.",
        applies=_solver_takes("learning_rate", "with a step size"),
    )
    inner_momentum: float | None = setting(
        SHARE,
        0.0,
        "Momentum of gradient-descent and adam.",
        applies=_solver_takes("momentum", "with momentum"),
    )
    linear_solver: str | None = setting(
        one_of("linear solver", LINEAR_SOLVERS),
        "cg",
        f"Solver of the meta-gradient's linear system (imaml): {', '.join(LINEAR_SOLVERS)}.",
        applies=IMPLICIT,
    )
    linear_steps: int | None = setting(
        whole(1),
        10,
        "The most Hessian-vector products in a linear solve (imaml).",
        applies=IMPLICIT,
    )
    linear_rtol: float | None = setting(
        SHARE,
        0.1,
        "Relative residual at which a linear solve may end early (imaml).",
        applies=IMPLICIT,
    )
    damping: float | None = setting(
        FROM_ZERO,
        0.0,
        "δ added to the linear solve, a known bias (imaml).",
        applies=_algorithm_takes("damping", "with damping"),
    )
    strength_margin: float | None = setting(
        SHARE,
        0.0,
        "Raise Λ for a task until the smallest curvature is this share of it; 0 never (imaml).",
        applies=_algorithm_takes("raise_strength", "that can raise Λ"),
    )
    fit: str | None = setting(
        one_of("fit", REPTILE_FITS),
        "all",
        "What Reptile fits in meta-training: all (support and query) or support.",
        applies=_algorithm_takes("fit", "with a parameter fit"),
    )


@dataclass(frozen=True)
class PretrainingConfig:
    """Supervised pretraining of the body. A setting that the run has no use for is None."""

    pretrain: int | None = setting(
        whole(0),
        0,
        "Steps in which the body is trained as that of a classifier over all training classes "
        "before meta-training; 0 for none.",
        applies=FROM_CLASSES,
    )
    pretrain_batch: int | None = setting(
        whole(1),
        128,
        "Examples in a step of pretraining.",
        applies=PRETRAINED,
    )
    pretrain_learning_rate: float | None = setting(
        POSITIVE,
        3e-3,
        "Of pretraining's AdamW; falls to zero over the pretraining along a cosine.",
        applies=PRETRAINED,
    )
    pretrain_views: bool | None = setting(
        FLAG,
        True,
        "In pretraining, count images turned by 90°, 180° and 270°, and their mirror images, as "
        "classes of their own; turned ones where they are square.",
        applies=PRETRAINED,
    )
    pretrain_distortion: float | None = setting(
        DISTORTION, 0.0, "As --distortion, in pretraining.", applies=PRETRAINED
    )


@dataclass(frozen=True)
class TrainingConfig:
    """The meta-training loop."""

    steps: int = setting(
        whole(0), 1000, "Meta-steps in all; 0 to end with the pretraining (--pretrain)."
    )
    start: str = setting(
        FOLDER,
        "",
        "A run, or a trained initialisation by name or folder, to start from: its parameters, "
        "with a head of zeros.",
    )
    tasks_per_step: int = setting(whole(1), 8, "Tasks that a meta-gradient averages.")
    learning_rate: float = setting(
        POSITIVE, 2e-3, "Of the outer Adam; falls to zero over the run along a cosine."
    )
    clip_norm: float = setting(
        POSITIVE, 3.0, "Scale a meta-gradient down to this norm where it is larger."
    )
    seed: int = setting(SEED, 0, "Seed of the initialisation, the episodes and the solvers.")
    validate_every: int = setting(whole(1), 100, "Meta-steps between validations.")
    validation_tasks: int = setting(whole(2), 200, "Tasks of a validation.")
    on_bad_verdict: str = setting(
        one_of("policy", POLICIES),
        "warn",
        "What to do about a task whose meta-gradient is not to be trusted: warn, skip (leave it "
        "out of the average) or raise (stop).",
    )
    strategy: str = setting(
        Kind(", ".join(STRATEGIES), lambda name: check_strategy(text(name))),
        "auto",
        "How a device runs its tasks: auto, map (one after the other), vmap (all at once), "
        "chunked:N (N at once) or measure (the fastest of these, timed at the start).",
    )


@dataclass(frozen=True)
class CompareConfig:
    """What a comparison compares, and how long. Not part of a run."""

    algorithms: tuple[str, ...] = setting(
        NAMES, tuple(ALGORITHMS), "Names of algorithms with commas between them."
    )
    inner: str = setting(
        one_of("kind of inner loop", INNER_LOOPS),
        "customary",
        "customary: each with the inner loop it is known for (iMAML a proximal problem solved by "
        "L-BFGS, the others 5 or 10 plain gradient steps). same: all with the same proximal "
        "problem and the same solver.",
    )
    seconds_each: float | None = setting(
        POSITIVE,
        None,
        "Instead of --steps: train each for about this long, by its pace in a warm-up.",
    )
    tasks: int = setting(whole(2), 600, "Test tasks for each.")
    baseline: bool = setting(
        FLAG, True, "Also test the first one's initialisation as it was before meta-learning."
    )


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "algorithm": AlgorithmConfig,
    "pretraining": PretrainingConfig,
    "training": TrainingConfig,
}

SETTINGS: dict[str, dict[str, Setting]] = {
    section: settings_of(kind) for section, kind in SECTIONS.items()
}
"""Every setting of a run, by section and name."""

MAY_DIFFER = {
    f"{section}.{name}"
    for section, settings in SETTINGS.items()
    for name, described in settings.items()
    if described.resumable
}
"""Settings that change no number, and so may differ between hosts and when a run goes on."""

SECTION_OF = {name: section for section, settings in SETTINGS.items() for name in settings}
"""The section of each setting; no name occurs in two."""

ADDED = ("model", "pretrain", "start", "standardise")
"""Settings that runs of earlier versions do not name."""

FORMER = {
    described.former: name
    for settings in SETTINGS.values()
    for name, described in settings.items()
    if described.former
}
"""Today's name of each setting that had another one."""


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run, none of them left to a default."""

    data: DataConfig
    model: ModelConfig
    algorithm: AlgorithmConfig
    pretraining: PretrainingConfig
    training: TrainingConfig

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The settings by section and name, without those the run has no use for."""
        return {
            section: {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in settings.items()
                if value is not None
            }
            for section, settings in asdict(self).items()
        }

    def to_toml(self) -> str:
        """The settings as a TOML document that :func:`from_toml` reads back."""
        import tomli_w

        return tomli_w.dumps(self.to_dict())


def find_parts(values: Mapping[str, Any]) -> Parts:
    """The entries that a run is put together from.

    Args:
        values: settings by name; those left out take their defaults.

    Returns:
        The entries.

    Raises:
        InputError: for a name that no registry knows.
    """

    def chosen(name: str, made_of: Any = None) -> Any:
        described = SETTINGS[SECTION_OF[name]][name]
        return values[name] if name in values else _default(name, described, made_of)

    dataset = DATASETS.find(chosen("dataset"))
    algorithm = ALGORITHMS.find(chosen("name"))
    # Of what is chosen here, later choices depend on earlier ones.
    settings = (values.get("learn_strength", "none"), values.get("pretrain", 0))
    known = Parts(dataset, algorithm, _NONE, _NONE, *settings)
    model = MODELS.find(chosen("model", known))
    solver = SOLVERS.find(chosen("solver", known))
    return Parts(dataset, algorithm, model, solver, *settings)


_NONE = Entry("", "not chosen yet", "builtins:object")


def _default(name: str, described: Setting, parts: Parts | None) -> Any:
    """A setting's default; that of an entry goes before the schema's."""
    if parts is not None:
        for entry in (parts.dataset, parts.algorithm, parts.model, parts.solver):
            if name in entry.defaults:
                return entry.defaults[name]
    if isinstance(described.default, Default):
        return described.default.of(parts)
    return described.default


def defaults(parts: Parts) -> dict[str, Any]:
    """The default of each setting that a run has a use for.

    Args:
        parts: what the run is put together from.

    Returns:
        The defaults by name.
    """
    named = {
        "dataset": parts.dataset.name,
        "model": parts.model.name,
        "name": parts.algorithm.name,
        "solver": parts.solver.name,
        "learn_strength": parts.learn_strength,
        "pretrain": parts.pretrain,
    }
    return {
        name: named[name] if name in named else _default(name, described, parts)
        for settings in SETTINGS.values()
        for name, described in settings.items()
        if described.applies.to(parts)
    }


def resolve(given: Given) -> RunConfig:
    """Complete the settings given with the defaults of their data set, model and algorithm.

    Args:
        given: settings by section and name.

    Returns:
        The whole configuration.

    Raises:
        InputError: for an unknown section or setting, with the nearest that exists; for a value
            of the wrong type or out of range; and for a setting that this data set, model,
            algorithm or solver has no use for.
    """
    values = read_all(given)
    parts = find_parts(values)
    table = defaults(parts)
    for name, value in values.items():
        if name not in table:
            owner = SETTINGS[SECTION_OF[name]][name].applies.owner(parts)
            raise InputError(
                f"{name} is {value!r}, but {owner} has no such setting", remedy=f"Leave {name} out"
            )
    whole = {name: _read(name, value) for name, value in table.items()} | values
    if parts.algorithm.proximal and not whole["strength"]:
        raise InputError(
            f"strength in [algorithm] is 0, and {parts.algorithm.name} needs a proximal term",
            allowed=POSITIVE.allowed,
        )
    if not whole["steps"] and not parts.pretrain:
        raise InputError(
            "steps in [training] is 0, and there is no pretraining either",
            allowed="1 or more; 0 with --pretrain",
        )
    if parts.pretrain and whole["start"]:
        raise InputError(
            "Both --pretrain and --start were given",
            allowed="one of them: what a run starts from was pretrained before",
        )
    sections = {
        section: kind(**{name: whole.get(name) for name in SETTINGS[section]})
        for section, kind in SECTIONS.items()
    }
    return RunConfig(**sections)


def read_all(given: Given) -> dict[str, Any]:
    """The settings given, checked one by one, by name.

    Args:
        given: settings by section and name.

    Returns:
        Their values; those left out are not in it.

    Raises:
        InputError: for an unknown section or setting, and for a value of the wrong type or range.
    """
    values: dict[str, Any] = {}
    for section, settings in given.items():
        if section not in SECTIONS:
            raise _unknown(f"Unknown section [{section}]", section, SECTIONS)
        if not isinstance(settings, Mapping):
            raise InputError(f"{section} is {settings!r}", allowed=f"a section [{section}]")
        for name, value in _by_todays_name(settings).items():
            if name not in SETTINGS[section]:
                message = f"Unknown setting {name!r} in [{section}]"
                raise _unknown(message, name, SETTINGS[section])
            values[name] = _read(name, value)
    return values


def _read(name: str, value: Any) -> Any:
    section = SECTION_OF[name]
    return read(SETTINGS[section][name].kind, f"{name} in [{section}]", value)


def _unknown(problem: str, given: str, names: Any) -> InputError:
    near = difflib.get_close_matches(given, list(names), n=1, cutoff=0.5)
    elsewhere = SECTION_OF.get(given)
    hint = f"Did you mean {near[0]!r}?" if near else None
    if elsewhere and not near:
        hint = f"It belongs into [{elsewhere}]"
    return InputError(problem, allowed=", ".join(names), remedy=hint)


def resolve_comparison(*layers: Mapping[str, Any]) -> CompareConfig:
    """The settings of a comparison from several sources, the later ones over the earlier.

    Args:
        layers: values by name; one that is None counts as left out.

    Returns:
        The settings.

    Raises:
        InputError: for an unknown name, or a value that is not allowed.
    """
    known = settings_of(CompareConfig)
    chosen = {name: described.default for name, described in known.items()}
    for layer in layers:
        if not isinstance(layer, Mapping):
            raise InputError(f"compare is {layer!r}", allowed="a section [compare]")
        for name, value in layer.items():
            if name not in known:
                raise _unknown(f"Unknown setting {name!r} in [compare]", name, known)
            if value is not None:
                chosen[name] = read(known[name].kind, f"{name} in [compare]", value)
    return CompareConfig(**chosen)


def read_toml(path: Path | str) -> Given:
    """The settings in a TOML file, still unchecked.

    Args:
        path: the file.

    Returns:
        Settings by section and name.

    Raises:
        InputError: if the file is missing, cannot be read or is no TOML.
    """
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"The configuration {str(path)!r} cannot be read: {why}") from None
    except RecursionError:
        raise InputError(f"The configuration {str(path)!r} is nested too deeply") from None
    # Besides its own errors, tomllib passes on those of Python's numbers.
    except ValueError as error:
        raise InputError(f"The configuration {str(path)!r} is no TOML: {error}") from None


def from_toml(path: Path | str) -> RunConfig:
    """The configuration that a run wrote, in which no setting is left to a default.

    Raises:
        InputError: as :func:`read_toml` and :func:`resolve` do, and if a setting is missing, as
            in a file that was cut short.
    """
    given = read_toml(path)
    config = resolve(given)
    written = merge(given)
    missing = [
        f"{name} in [{section}]"
        for section, settings in config.to_dict().items()
        for name in settings
        if name not in written.get(section, {}) and name not in ADDED
    ]
    if missing:
        raise InputError(
            f"{len(missing)} settings are missing, the first is {missing[0]}",
            allowed="the file as pullback train wrote it, with every setting of the run",
            remedy="Perhaps it was cut short; put a whole copy in its place",
        )
    return config


def merge(*layers: Given) -> dict[str, dict[str, Any]]:
    """Settings of several sources, the later ones over the earlier."""
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, settings in layer.items():
            if isinstance(settings, Mapping):
                merged.setdefault(section, {}).update(_by_todays_name(settings))
            else:
                merged[section] = settings
    return merged


def of_use(recipe: Given, over: Given) -> dict[str, dict[str, Any]]:
    """The settings of a recipe that a run still has a use for under others.

    Args:
        recipe: the recipe's, by section and name.
        over: those that go before them.

    Returns:
        Those of the recipe, but for what another data set, model, algorithm or stage lacks.

    Raises:
        InputError: as :func:`read_all` does.
    """
    known = defaults(find_parts(read_all(merge(recipe, over))))
    kept = {
        section: {name: value for name, value in settings.items() if name in known}
        for section, settings in merge(recipe).items()
    }
    # A setting may have been of use only beside one that was left out.
    return kept if kept == recipe else of_use(kept, over)


def _by_todays_name(settings: Mapping[str, Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for written, value in settings.items():
        name = FORMER.get(written, written)
        if name in named:
            raise InputError(f"{name} was given twice, once by its former name")
        named[name] = value
    return named


def diff(a: RunConfig, b: RunConfig) -> list[tuple[str, Any, Any]]:
    """The settings in which two configurations differ.

    Returns:
        For each, ``("section.name", value in a, value in b)``.
    """
    left, right = asdict(a), asdict(b)
    return [
        (f"{section}.{name}", left[section][name], right[section][name])
        for section in SECTIONS
        for name in left[section]
        if left[section][name] != right[section][name]
    ]


def describe_strength(config: RunConfig) -> str:
    """The λ of a configuration in words, and whether it is only where a learned one starts."""
    given = config.algorithm
    if not given.strength:
        return "no proximal term"
    text = f"λ = {given.strength:g}"
    if given.learn_strength in (None, "none"):
        return text
    return f"{text} at first, learned ({given.learn_strength})"
