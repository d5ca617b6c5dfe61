"""From a configuration to all that it stands for: data, model, algorithm and optimiser."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax

from pullback import algorithms
from pullback.algorithms import MetaAlgorithm, Raise
from pullback.core import registry
from pullback.core.errors import InputError
from pullback.core.problem import Loss
from pullback.core.trees import Params
from pullback.implicit.certificate import Certify
from pullback.linear import LINEAR_SOLVERS
from pullback.meta import evaluation, training
from pullback.meta.evaluation import Evaluation, Metric
from pullback.meta.training import TrainState
from pullback.models import MLP, Conv4, accuracy, cross_entropy, mean_squared_error
from pullback.runs.config import RunConfig
from pullback.solvers import SOLVERS
from pullback.tasks import (
    ClassSplit,
    ImageSet,
    Sinusoid,
    TaskDistribution,
    draw_split,
    episodes,
    find_dataset,
)

PARTS = ("train", "validation", "test")
# What each stream of random numbers is folded in with; any two must differ.
PARAMS, TRAIN, VALIDATE, EVALUATE, WARM_UP = range(5)


@dataclass(frozen=True)
class Experiment:
    """All that a configuration stands for.

    Args:
        config: the settings.
        split: the classes; None where there are none.
        images: the whole image set; None where tasks are computed.
        model: the network.
        params: its parameters before training.
        loss: ``loss(params, batch)``.
        metric: the score on a query set.
        algorithm: the meta-learning algorithm.
        optimizer: the outer optimiser.
        higher_is_better: whether a higher score is better.
    """

    config: RunConfig
    split: ClassSplit | None
    images: ImageSet | None
    model: Conv4 | MLP
    params: Params
    loss: Loss
    metric: Metric
    algorithm: MetaAlgorithm
    optimizer: optax.GradientTransformation
    higher_is_better: bool

    def tasks(self, part: str) -> TaskDistribution:
        """The tasks of one part; rotated classes and distorted images only in meta-training.

        Args:
            part: ``"train"``, ``"validation"`` or ``"test"``.

        Returns:
            Where the tasks come from.

        Raises:
            InputError: if the part has too few classes or examples.
        """
        data = self.config.data
        if self.images is None or self.split is None:
            return Sinusoid(data.shots, data.queries)
        training = part == "train"
        return episodes_of(
            self.images.select(self.split.classes(part)),
            self.config,
            rotations=bool(data.rotations) and training,
            mirrors=bool(data.mirrors) and training,
            distortion=_given(data.distortion) if training else 0.0,
            kindred=_given(data.kindred) if training else 0.0,
            called=f"the {part} classes",
        )

    def fresh_state(self) -> TrainState:
        """The state before the first meta-step."""
        return training.start(self.algorithm, self.params, self.optimizer)

    @property
    def score_name(self) -> str:
        """What the score is called."""
        return "accuracy" if self.higher_is_better else "mean squared error"


def load_images(config: RunConfig, data_dir: str | None = None) -> ImageSet | None:
    """The image set of a configuration; None where tasks are computed.

    Args:
        config: the settings.
        data_dir: read from this folder in place of the configured one.

    Returns:
        All its classes.

    Raises:
        DataError: if the data are missing or damaged.
    """
    dataset = find_dataset(config.data.dataset)
    if dataset.load is None:
        return None
    if config.data.data_dir is None:
        return dataset.load()
    return dataset.load(data_dir or config.data.data_dir or None)


def build(
    config: RunConfig, split: ClassSplit | None = None, images: ImageSet | None = None
) -> Experiment:
    """Build and check everything that a configuration names, before anything is computed.

    Args:
        config: the settings.
        split: the classes of a run that exists; drawn if None, which is for new runs only.
        images: the image set, if it is loaded already.

    Returns:
        The experiment.

    Raises:
        InputError: if the parts do not fit each other.
        DataError: if the data are missing or damaged.
    """
    # Whatever can be wrong without the data is found before they are loaded.
    assemble(config, None, None)
    images = load_images(config) if images is None else images
    if images is not None and split is None:
        data = config.data
        split = draw_split(
            images,
            _given(data.split_by),
            _given(data.split_seed),
            _given(data.validation_classes),
            _given(data.test_classes),
        )
    built = assemble(config, split, images)
    for part in PARTS:
        built.tasks(part)
    return built


def assemble(config: RunConfig, split: ClassSplit | None, images: ImageSet | None) -> Experiment:
    """Put an experiment together from classes that are known already, and load nothing.

    Args:
        config: the settings.
        split: the classes; never drawn here.
        images: the image set.

    Returns:
        The experiment; whether its tasks can be drawn is not checked.

    Raises:
        InputError: if the model, the solver and the algorithm do not fit each other.
    """
    data, settings = config.data, config.model
    classification = find_dataset(data.dataset).kind == "classification"
    if classification:
        model = Conv4(
            ways=_given(data.ways),
            width=_given(settings.width),
            normalisation=_given(settings.normalisation),
            groups=_given(settings.groups),
            activation=settings.activation,
            logit_scale=_given(settings.logit_scale),
        )
        loss, metric = cross_entropy(model.apply), accuracy(model.apply)
    else:
        model = MLP(hidden=_given(settings.hidden), activation=settings.activation)
        loss = mean_squared_error(model.apply)
        metric = loss
    algorithm = make_algorithm(config, loss)
    key = jax.random.fold_in(jax.random.key(config.training.seed), PARAMS)
    return Experiment(
        config,
        split,
        images,
        model,
        model.init(key),
        loss,
        metric,
        algorithm,
        training.default_optimizer(
            config.training.steps,
            config.training.learning_rate,
            config.training.clip_norm,
            config.algorithm.strength_learning_rate,
        ),
        classification,
    )


def make_algorithm(config: RunConfig, loss: Loss) -> MetaAlgorithm:
    """The algorithm of a configuration, with its inner and its linear solver.

    Raises:
        InputError: if they do not fit each other, as MAML and a solver without derivative.
    """
    given = config.algorithm
    line = registry.find("algorithm", algorithms.ALGORITHMS, given.name)
    entry = registry.find("solver", SOLVERS, given.solver)
    solver = entry.make(given.inner_steps, given.inner_learning_rate, given.inner_momentum)
    options: dict[str, Any] = {"solver": solver, "strength": given.strength or None}
    if line.implicit:
        linear = registry.find("linear solver", LINEAR_SOLVERS, _given(given.linear_solver))
        options["linear_solver"] = linear.make(
            _given(given.linear_steps), _given(given.linear_rtol)
        )
        options["damping"] = given.damping
        if given.strength_margin:
            options["raise_strength"] = Raise(given.strength_margin)
        # A quarter of the tasks is enough to know how a run fares, and costs little; a policy that
        # acts on verdicts needs every one of them (docs/certificate.md).
        watched = config.training.on_bad_verdict == "warn"
        options["certify"] = Certify(share=0.25 if watched else 1.0)
    if given.fit is not None:
        options["fit"] = given.fit
    if given.learn_strength not in (None, "none"):
        assert line.learned is not None  # resolve() refuses the setting otherwise.
        return line.learned(loss, form=given.learn_strength, **options)
    return line.make(loss, **options)


def episodes_of(
    images: ImageSet,
    config: RunConfig,
    *,
    rotations: bool = False,
    mirrors: bool = False,
    distortion: float = 0.0,
    kindred: float = 0.0,
    called: str,
) -> TaskDistribution:
    """Episodes from some classes, by the ways, shots and queries of a configuration.

    Raises:
        InputError: if the classes or their examples are too few; says whose.
    """
    data = config.data
    try:
        return episodes(
            images,
            ways=_given(data.ways),
            shots=data.shots,
            queries=data.queries,
            rotations=rotations,
            mirrors=mirrors,
            distortion=distortion,
            kindred=kindred,
        )
    except InputError as error:
        raise InputError(f"For {called}: {error}") from None


def _given(value: Any) -> Any:
    assert value is not None  # resolve() leaves out only what the data set has no use for.
    return value


def summarise(scores: Evaluation) -> dict[str, Any]:
    """The mean of an evaluation, its interval, and what must be known about them."""
    # A score that is infinite has no spread, which is not worth a warning of its own.
    with np.errstate(all="ignore"):
        return {
            "mean": scores.mean,
            "interval": scores.interval,
            "inner_residual": float(np.mean(scores.inner_residuals)),
            "failed_tasks": scores.failed,
        }


def evaluate_theta(
    experiment: Experiment,
    theta: Any,
    tasks: TaskDistribution,
    *,
    count: int,
    seed: int,
    on_block: Callable[[int], None] | None = None,
    devices: int | None = None,
) -> Evaluation:
    """Adapt an initialisation to new tasks exactly as in training, and score it.

    Args:
        experiment: whose algorithm adapts.
        theta: the initialisation.
        tasks: where tasks come from.
        count: number of tasks.
        seed: the same seed gives the same tasks.
        on_block: called with the number of tasks done.
        devices: the most devices of each process to use; all if None.

    Returns:
        The scores.
    """
    return evaluation.evaluate(
        experiment.algorithm,
        theta,
        tasks,
        metric=experiment.metric,
        key=jax.random.fold_in(jax.random.key(seed), EVALUATE),
        count=count,
        on_block=on_block,
        strategy=experiment.config.training.strategy,
        devices=devices,
    )
