"""What a run is made of: every setting of one, checked, written out and read back as TOML."""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pullback import algorithms, linear, models, solvers, tasks
from pullback.core import results
from pullback.core.errors import InputError
from pullback.meta import parallel
from pullback.runs.fields import (
    FLAG,
    FOLDER,
    FROM_ZERO,
    POSITIVE,
    SHARE,
    WHOLE_SHARE,
    WIDTHS,
    Kind,
    number,
    one_of,
    read,
    setting,
    text,
    whole,
)
from pullback.tasks.distortion import STRONGEST
from pullback.tasks.splits import WAYS_TO_SPLIT

DISTORTION = number(f"numbers from 0 to {STRONGEST}", lambda x: 0 <= x <= STRONGEST)
FITS = ("all", "support")
STRATEGY = Kind(", ".join(parallel.STRATEGIES), lambda name: parallel.check_strategy(text(name)))
LEARN_STRENGTH = ("none", *algorithms.FORMS)
Given = Mapping[str, Mapping[str, Any]]
"""Settings by section and name, as a TOML file has them; those left out take their defaults."""


@dataclass(frozen=True)
class DataConfig:
    """Where tasks come from. A setting that the data set has no use for is None.

    Args:
        dataset: a name in ``DATASETS``.
        data_dir: folder of local files; empty for the data set's own source.
        ways: classes in a task.
        shots: support examples per class; support points for the sinusoid.
        queries: query examples per class; query points for the sinusoid.
        rotations: whether meta-training counts a class turned by quarters as four classes.
        mirrors: whether meta-training counts a class's mirror image as a class of its own.
        distortion: how strongly meta-training distorts each image; 0 for not at all.
        kindred: share of meta-training tasks whose classes are all of one alphabet.
        split_by: how classes are dealt: alphabet, character or official.
        split_seed: seed of the deal.
        validation_classes: classes for validation.
        test_classes: classes for test.
    """

    dataset: str = setting(one_of("data set", tasks.DATASETS))
    data_dir: str | None = setting(FOLDER)
    ways: int | None = setting(whole(2))
    shots: int = setting(whole(1))
    queries: int = setting(whole(1))
    rotations: bool | None = setting(FLAG)
    mirrors: bool | None = setting(FLAG)
    distortion: float | None = setting(DISTORTION)
    kindred: float | None = setting(WHOLE_SHARE)
    split_by: str | None = setting(one_of("way to split", WAYS_TO_SPLIT))
    split_seed: int | None = setting(whole(0))
    validation_classes: int | None = setting(whole(1))
    test_classes: int | None = setting(whole(1))


@dataclass(frozen=True)
class ModelConfig:
    """The network. A setting that the network has no use for is None.

    Args:
        width: channels of each layer of the convolutional network.
        normalisation: a name in ``NORMALISATIONS``.
        groups: groups of channels that ``"group"`` normalises by.
        activation: a name in ``ACTIVATIONS``.
        logit_scale: factor on the logits.
        hidden: widths of the hidden layers of the sinusoid's network.
    """

    width: int | None = setting(whole(1))
    normalisation: str | None = setting(one_of("normalisation", models.NORMALISATIONS))
    groups: int | None = setting(whole(1))
    activation: str = setting(one_of("activation", models.ACTIVATIONS))
    logit_scale: float | None = setting(POSITIVE)
    hidden: tuple[int, ...] | None = setting(WIDTHS)


@dataclass(frozen=True)
class AlgorithmConfig:
    """The meta-learning algorithm. A setting that it has no use for is None.

    Args:
        name: a name in ``ALGORITHMS``.
        strength: λ of the proximal term; 0 for no such term.
        solver: a name in ``SOLVERS``.
        inner_steps: steps of the inner solver.
        inner_learning_rate: step size of an inner solver that has one to set.
        inner_momentum: momentum of such a solver.
        linear_solver: a name in ``LINEAR_SOLVERS``.
        linear_steps: the most Hessian-vector products of a linear solve.
        linear_rtol: relative residual at which a linear solve ends.
        damping: δ added to the matrix of the linear solve.
        strength_margin: Λ is raised, task by task, until the smallest curvature seen is at least
            this share of it; 0 for never.
        fit: what Reptile fits in meta-training: all, or the support set.
        learn_strength: the form in which Λ is learned, from ``strength`` on: a name in ``FORMS``,
            or none.
        strength_learning_rate: of the Adam that learns log Λ, at the start of its cosine decay.
    """

    name: str = setting(one_of("algorithm", algorithms.ALGORITHMS))
    strength: float = setting(FROM_ZERO)
    solver: str = setting(one_of("solver", solvers.SOLVERS))
    inner_steps: int = setting(whole(1))
    inner_learning_rate: float | None = setting(POSITIVE)
    inner_momentum: float | None = setting(SHARE)
    linear_solver: str | None = setting(one_of("linear solver", linear.LINEAR_SOLVERS))
    linear_steps: int | None = setting(whole(1))
    linear_rtol: float | None = setting(SHARE)
    damping: float | None = setting(FROM_ZERO)
    strength_margin: float | None = setting(SHARE)
    fit: str | None = setting(one_of("fit", FITS))
    learn_strength: str | None = setting(one_of("form of Λ", LEARN_STRENGTH))
    strength_learning_rate: float | None = setting(POSITIVE)


@dataclass(frozen=True)
class TrainingConfig:
    """The meta-training loop.

    Args:
        steps: meta-steps.
        tasks_per_step: tasks that one meta-gradient averages.
        learning_rate: of the outer Adam, at the start of its cosine decay.
        clip_norm: the meta-gradient's norm above which it is scaled down to it.
        seed: of the initialisation, the episodes and the solvers.
        validate_every: meta-steps between two validations.
        validation_tasks: tasks of a validation.
        on_bad_verdict: what to do about a task whose meta-gradient is not to be trusted: a name
            in ``results.POLICIES``.
        strategy: a name in ``STRATEGIES``.
    """

    steps: int = setting(whole(1))
    tasks_per_step: int = setting(whole(1))
    learning_rate: float = setting(POSITIVE)
    clip_norm: float = setting(POSITIVE)
    seed: int = setting(whole(0))
    validate_every: int = setting(whole(1))
    validation_tasks: int = setting(whole(2))
    on_bad_verdict: str = setting(one_of("policy", results.POLICIES))
    strategy: str = setting(STRATEGY)


SECTIONS: dict[str, type] = {
    "data": DataConfig,
    "model": ModelConfig,
    "algorithm": AlgorithmConfig,
    "training": TrainingConfig,
}

HOME = {f.name: section for section, kind in SECTIONS.items() for f in fields(kind)}
"""The section of each setting; no name occurs in two."""


@dataclass(frozen=True)
class RunConfig:
    """Every setting of a run, none of them left to a default."""

    data: DataConfig
    model: ModelConfig
    algorithm: AlgorithmConfig
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


def defaults(
    dataset: str, algorithm: str, solver: str | None, learn_strength: str | None = None
) -> dict[str, Any]:
    """The default of each setting that a run has a use for: the one table of them.

    Args:
        dataset: a name in ``DATASETS``.
        algorithm: a name in ``ALGORITHMS``.
        solver: a name in ``SOLVERS``; the algorithm's own if None.
        learn_strength: a name in ``FORMS``; nothing is learned if None or ``"none"``.

    Returns:
        The defaults by name.
    """
    images = tasks.DATASETS[dataset].kind == "classification"
    line = algorithms.ALGORITHMS[algorithm]
    solver = solver or ("lbfgs" if line.implicit else "gradient-descent")
    strength = 5.0 if images else 2.0
    table: dict[str, Any] = {
        "dataset": dataset,
        "shots": 1 if images else 10,
        "queries": 15,
        "activation": "silu",
        "name": algorithm,
        "strength": strength if line.proximal else 0.0,
        "solver": solver,
        "inner_steps": {"imaml": 16 if images else 48, "reptile": 10}.get(algorithm, 5),
        "steps": 1000,
        "tasks_per_step": 8,
        "learning_rate": 2e-3,
        "clip_norm": 3.0,
        "seed": 0,
        "validate_every": 100,
        "validation_tasks": 200,
        "on_bad_verdict": "warn",
        "strategy": "auto",
    }
    if images:
        table |= {
            "ways": 5,
            "rotations": dataset == "omniglot",
            "mirrors": False,
            "distortion": 0.0,
            "kindred": 0.0,
            "split_by": "alphabet",
            "split_seed": 0,
            "validation_classes": 100,
            "test_classes": 100,
            "width": 64,
            "normalisation": "group",
            "groups": 8,
            "logit_scale": 4.0,
        }
    else:
        table |= {"hidden": [40, 40]}
    if dataset == "omniglot":
        table |= {"data_dir": ""}
    if solver in ("gradient-descent", "adam"):
        table |= {"inner_learning_rate": 0.1 if images else 0.002}
        table |= {"inner_momentum": 0.9 if solver == "adam" else 0.0}
    if line.implicit:
        table |= {"linear_solver": "cg", "linear_steps": 10, "linear_rtol": 0.1}
        table |= {"damping": 0.0, "strength_margin": 0.0}
    if algorithm == "reptile":
        table |= {"fit": "all"}
    if line.learned is not None:
        table |= {"learn_strength": "none"}
        if learn_strength not in (None, "none"):
            table |= {"strength_learning_rate": 1e-2}
    return table


def resolve(given: Given) -> RunConfig:
    """Complete the settings given with the defaults of their data set and algorithm.

    Args:
        given: settings by section and name.

    Returns:
        The whole configuration.

    Raises:
        InputError: for an unknown section or setting, with the nearest that exists; for a value
            of the wrong type or out of range; and for a setting that this data set, algorithm or
            solver has no use for.
    """
    values = _read_all(given)
    dataset = values.get("dataset", "glyphs")
    algorithm = values.get("name", "imaml")
    table = defaults(dataset, algorithm, values.get("solver"), values.get("learn_strength"))
    for name, value in values.items():
        if name not in table:
            raise _no_use(name, value, dataset, algorithm, table["solver"])
    whole = {name: _read(name, value) for name, value in table.items()} | values
    if whole["strength"] == 0 and algorithms.ALGORITHMS[algorithm].proximal:
        raise InputError(
            f"strength in [algorithm] is 0, and {algorithm} needs a proximal term",
            allowed=POSITIVE.allowed,
        )
    sections = {
        section: kind(**{f.name: whole.get(f.name) for f in fields(kind)})
        for section, kind in SECTIONS.items()
    }
    return RunConfig(**sections)


def _read_all(given: Given) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for section, settings in given.items():
        if section not in SECTIONS:
            raise _unknown(f"Unknown section [{section}]", section, SECTIONS)
        if not isinstance(settings, Mapping):
            raise InputError(f"{section} is {settings!r}", allowed=f"a section [{section}]")
        names = [f.name for f in fields(SECTIONS[section])]
        for name, value in settings.items():
            if name not in names:
                raise _unknown(f"Unknown setting {name!r} in [{section}]", name, names)
            values[name] = _read(name, value)
    return values


def _read(name: str, value: Any) -> Any:
    section = HOME[name]
    kind: Kind = SECTIONS[section].__dataclass_fields__[name].metadata["kind"]
    return read(kind, f"{name} in [{section}]", value)


def _unknown(problem: str, given: str, names: Any) -> InputError:
    near = difflib.get_close_matches(given, list(names), n=1, cutoff=0.5)
    elsewhere = HOME.get(given)
    hint = f"Did you mean {near[0]!r}?" if near else None
    if elsewhere and not near:
        hint = f"It belongs into [{elsewhere}]"
    return InputError(problem, allowed=", ".join(names), remedy=hint)


def _no_use(name: str, value: Any, dataset: str, algorithm: str, solver: str) -> InputError:
    owner = {
        "data": f"the data set {dataset!r}",
        "model": f"the model of the data set {dataset!r}",
        "algorithm": f"the algorithm {algorithm!r}",
    }[HOME[name]]
    if name in ("inner_learning_rate", "inner_momentum"):
        owner = f"the solver {solver!r}"
    if name == "strength_learning_rate" and algorithms.ALGORITHMS[algorithm].learned is not None:
        owner = "a run that learns no strength"
    return InputError(
        f"{name} is {value!r}, but {owner} has no such setting", remedy=f"Leave {name} out"
    )


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
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise InputError(f"The configuration {str(path)!r} cannot be read: {why}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"The configuration {str(path)!r} is no TOML: {error}") from None


def from_toml(path: Path | str) -> RunConfig:
    """The configuration in a TOML file, completed with defaults.

    Raises:
        InputError: as :func:`read_toml` and :func:`resolve` do.
    """
    return resolve(read_toml(path))


def merge(*layers: Given) -> dict[str, dict[str, Any]]:
    """Settings of several sources, the later ones over the earlier."""
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        for section, settings in layer.items():
            if isinstance(settings, Mapping):
                merged.setdefault(section, {}).update(settings)
            else:
                merged[section] = settings
    return merged


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
    text = f"λ = {given.strength:g}"
    if given.learn_strength in (None, "none"):
        return text
    return f"{text} at first, learned ({given.learn_strength})"
