"""From a configuration to all that it stands for: data, model, algorithm and optimiser."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import PRNGKeyArray

from pullback.algorithms import AdaptiveStrength, MetaAlgorithm, supervised
from pullback.core import memory
from pullback.core.errors import InputError
from pullback.core.problem import Loss
from pullback.core.scores import Score
from pullback.core.trees import Params
from pullback.implicit.certificate import Certify
from pullback.meta import evaluation, multihost, parallel, pretraining, training
from pullback.meta.evaluation import Evaluation, Metric
from pullback.meta.training import TrainResult, TrainState
from pullback.models.head import LinearHead
from pullback.models.objectives import CLASSIFICATION, Objective
from pullback.registries import ALGORITHMS, DATASETS, LINEAR_SOLVERS, MODELS, SOLVERS
from pullback.runs import checkpoint
from pullback.runs.config import SETTINGS, RunConfig
from pullback.runs.folder import Run
from pullback.tasks import ClassSet, ClassSplit, TaskDistribution, TaskFamily, draw_split, episodes
from pullback.tasks.batches import Batches, batches
from pullback.tasks.datasets import Data, DataSummary, gives_classes, load, summarise_data
from pullback.tasks.images import DRAWING

PARTS = ("train", "validation", "test")
KEPT_BACK = 5
"""Of as many classes one is kept for validation and one for test, where no number is given."""
VALIDATIONS = 10
"""Of a pretraining, about."""
RESTORED_COPIES = 4
"""Of the parameters, to read a checkpoint: as drawn, and with the two moments of Adam."""
TRAINED_COPIES = 8
"""On each device in training: θ, the meta-gradient and two moments, before and after a step."""
# What each stream of random numbers is folded in with; any two must differ.
PARAMS, TRAIN, VALIDATE, EVALUATE, WARM_UP, PRETRAIN = range(6)


@dataclass(frozen=True)
class Experiment:
    """All that a configuration stands for.

    Args:
        config: the settings.
        summary: what a model must know of the data.
        data: what the data set gave; None where only the model is needed.
        split: the classes; None where there are none.
        model: the network, with ``init(key)`` and ``apply(params, x)``.
        params: its parameters before training.
        loss: ``loss(params, batch)``.
        metric: of a query set; its mean over tasks is the score.
        algorithm: the meta-learning algorithm.
        optimizer: the outer optimiser.
    """

    config: RunConfig
    summary: DataSummary
    data: Data | None
    split: ClassSplit | None
    model: Any
    params: Params
    loss: Loss
    metric: Metric
    algorithm: MetaAlgorithm
    optimizer: optax.GradientTransformation

    @property
    def score(self) -> Score:
        """What a task is judged by."""
        return self.summary.score

    def tasks(self, part: str) -> TaskDistribution:
        """The tasks of one part; rotated classes and distorted images only in meta-training.

        Args:
            part: ``"train"``, ``"validation"`` or ``"test"``.

        Returns:
            Where the tasks come from.

        Raises:
            InputError: if the part has too few classes or examples.
        """
        if isinstance(self.data, TaskFamily):
            return self.data.part(part)
        assert self.data is not None and self.split is not None
        data, training = self.config.data, part == "train"
        augmented = {
            name: getattr(data, name)
            for name in ("rotations", "reflections", "distortion", "same_alphabet")
            if training
        }
        classes = self.classes(part)
        return episodes_of(classes, self.config, called=f"the {part} classes", **augmented)

    def classes(self, part: str) -> ClassSet:
        """The examples of one part of the split, as the model takes them."""
        assert isinstance(self.data, ClassSet) and self.split is not None
        return self.summary.prepared(self.data.select(self.split.classes(part)))

    def fresh_state(self) -> TrainState:
        """The state before the first meta-step."""
        return training.start(self.algorithm, self.params, self.optimizer)

    def head_for(self, what: str) -> LinearHead:
        """Where the model's linear head is.

        Args:
            what: needs to know it, for the message.

        Raises:
            InputError: if the model does not say.
        """
        apply = self.model.apply
        if not isinstance(apply, LinearHead):
            raise InputError(
                f"{what} needs to know where the linear head is, and the model "
                f"{self.config.model.model!r} does not say",
                allowed="a model whose apply is a pullback.models.LinearHead, such as conv4, mlp "
                "and linear",
            )
        return apply

    def pretraining(self) -> "Pretraining | None":
        """The stage before meta-training, as an experiment of its own; None if there is none.

        Raises:
            InputError: if the model does not say where its head is, or the examples have no such
                views.
        """
        asked = self.config.pretraining
        if not asked.pretrain:
            return None
        assert isinstance(self.data, ClassSet) and self.split is not None
        apply = self.head_for("Pretraining (--pretrain)")
        size, processes = _given(asked.pretrain_batch), multihost.count()
        if size % processes:
            raise InputError(
                f"pretrain_batch is {size}, which {processes} processes cannot share evenly",
                allowed=f"multiples of {processes}",
            )
        height, width = (*self.data.shape, 0, 0)[:2]
        drawn = bool(asked.pretrain_views) and self.data.is_images
        labelled = batches(
            self.classes("train"),
            size=size // processes,
            rotations=drawn and height == width,
            reflections=drawn,
            distortion=_given(asked.pretrain_distortion),
        )
        settings = dataclasses.replace(
            self.config.training,
            steps=asked.pretrain,
            tasks_per_step=processes,
            learning_rate=asked.pretrain_learning_rate,
            validate_every=-(-asked.pretrain // VALIDATIONS),
        )
        inherited = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return Pretraining(
            **inherited
            | {
                "config": dataclasses.replace(self.config, training=settings),
                "algorithm": supervised(
                    apply,
                    labelled.classes,
                    key=jax.random.fold_in(jax.random.key(settings.seed), PRETRAIN),
                    then=self.algorithm,
                ),
                "optimizer": pretraining.pretraining_optimizer(
                    asked.pretrain, settings.learning_rate
                ),
                "labelled": labelled,
            }
        )

    def train(self, stream: int, **options: Any) -> TrainResult:
        """Meta-train as configured.

        Args:
            stream: what the run's key is folded in with: ``TRAIN`` or ``WARM_UP``.
            options: those of :func:`pullback.meta.training.train` that differ from the
                configuration's.

        Returns:
            The result.
        """
        settings = self.config.training
        configured = {
            "steps": settings.steps,
            "tasks_per_step": settings.tasks_per_step,
            "on_bad_verdict": settings.on_bad_verdict,
            "strategy": settings.strategy,
        }
        return training.train(
            self.algorithm,
            self.params,
            self.tasks("train"),
            key=jax.random.fold_in(jax.random.key(settings.seed), stream),
            optimizer=self.optimizer,
            **configured | options,
        )

    def evaluate(
        self,
        theta: Any,
        tasks: TaskDistribution,
        *,
        count: int,
        seed: int,
        stream: int = EVALUATE,
        on_block: Callable[[int], None] | None = None,
        devices: int | None = None,
    ) -> Evaluation:
        """Adapt an initialisation to new tasks exactly as in training, and score it.

        Args:
            theta: the initialisation.
            tasks: where tasks come from.
            count: number of tasks.
            seed: the same seed gives the same tasks.
            stream: what the key is folded in with: ``EVALUATE`` or ``VALIDATE``.
            on_block: called with the number of tasks done.
            devices: the most devices of each process to use; all if None.

        Returns:
            The scores.
        """
        return evaluation.evaluate(
            self.algorithm,
            theta,
            tasks,
            metric=self.metric,
            key=jax.random.fold_in(jax.random.key(seed), stream),
            count=count,
            on_block=on_block,
            strategy=self.config.training.strategy,
            devices=devices,
        )


@dataclass(frozen=True)
class Pretraining(Experiment):
    """The supervised pretraining of an experiment, trained and validated as one itself.

    Args:
        labelled: the batches of the training classes.
    """

    labelled: Batches

    def tasks(self, part: str) -> TaskDistribution:
        """Labelled batches for ``"train"``, and the experiment's own tasks for the others."""
        return self.labelled if part == "train" else super().tasks(part)

    def train(self, stream: int, **options: Any) -> TrainResult:
        """Pretrain, by random numbers that meta-training does not draw."""
        options["devices"] = pretraining.DEVICES
        return super().train(PRETRAIN if stream == TRAIN else stream, **options)


def load_data(config: RunConfig, say: Callable[[str], None] | None = None) -> Data:
    """What the data set of a configuration gives.

    Args:
        config: the settings.
        say: told in sentences what is passed over and how reading goes; warnings tell it if None.

    Returns:
        Examples sorted into classes, or tasks.

    Raises:
        DataError: if the data are missing or damaged.
    """
    data = config.data
    return load(
        DATASETS.find(data.dataset),
        data_dir=data.data_dir or None,
        ways=data.ways,
        shots=data.shots,
        queries=data.queries,
        image_size=data.image_size,
        channels=data.channels,
        say=say,
    )


def settle(config: RunConfig, data: Data) -> RunConfig:
    """The same configuration with what its data decide: channels, and classes kept back.

    Args:
        config: the settings.
        data: what the data set gave.

    Returns:
        The configuration, in which nothing is left to the data.

    Raises:
        InputError: if there are too few classes to keep some back for validation and for test.
    """
    given = config.data
    if not isinstance(data, ClassSet):
        return config
    changes: dict[str, Any] = {}
    if given.channels == "auto":
        changes["channels"] = "grey" if data.shape[-1] == 1 else "colour"
    count, ways = len(data.classes), _given(given.ways)
    open_ones = [n for n in ("validation_classes", "test_classes") if not getattr(given, n)]
    changes |= dict.fromkeys(open_ones, max(ways, count // KEPT_BACK))
    if open_ones and 3 * ways > count:
        fit = count // 3
        raise InputError(
            f"{ways} ways need {ways} classes each for training, validation and test, "
            f"{3 * ways} in all, and the data set {given.dataset!r} has {count}",
            allowed=f"at most {fit} ways" if fit > 1 else "6 classes or more, for 2 ways",
            remedy=f"Give --ways {fit}, or add classes" if fit > 1 else "Add classes",
        )
    return dataclasses.replace(config, data=dataclasses.replace(given, **changes))


def summarise_unseen(config: RunConfig) -> DataSummary:
    """What a model must know of the data, without loading examples.

    Runs of earlier versions store no summary: their classes are of drawn characters.

    Args:
        config: the settings.

    Returns:
        The summary.
    """
    if gives_classes(DATASETS.find(config.data.dataset)):
        return DataSummary(DRAWING, _given(config.data.ways), CLASSIFICATION.score, images=True)
    return summarise_data(load_data(config), config.data.ways)


def summary_of(run: Run) -> DataSummary:
    """What a model must know of the data of a run."""
    return summarise_unseen(run.config) if run.summary is None else run.summary


def reopen(run: Run) -> Experiment:
    """The experiment of a run, without its examples: enough to restore and adapt it."""
    return assemble(run.config, run.summary, run.split)


def restore(run: Run, built: Experiment, which: str | int = "last") -> TrainState:
    """A checkpoint of a run, once it is known to be one of this configuration and split.

    Args:
        run: the run.
        built: its experiment.
        which: ``"last"``, ``"best"``, or a step.

    Returns:
        The training state.

    Raises:
        InputError: if there is no such checkpoint, it is broken, or it was trained with another
            configuration or split than those that stand in the folder now.
    """
    like = built.fresh_state()
    return checkpoint.restore(run.checkpoints, like, which, built.score, check=run.check_origin)


def build(
    config: RunConfig,
    split: ClassSplit | None = None,
    data: Data | None = None,
    summary: DataSummary | None = None,
    say: Callable[[str], None] | None = None,
) -> Experiment:
    """Build and check everything that a configuration names, before anything is computed.

    Args:
        config: the settings.
        split: the classes of a run that exists; drawn if None, which is for new runs only.
        data: what the data set gives, if it is loaded already.
        summary: what a run that exists knows of its data; that of the data if None.
        say: as :func:`load_data` has it, and told what has changed since that run began.

    Returns:
        The experiment; its configuration is settled.

    Raises:
        InputError: if the parts do not fit each other, or the data are not those of the run.
        DataError: if the data are missing or damaged.
    """
    # Whatever can be wrong without the data is found before they are loaded.
    make_algorithm(config, CLASSIFICATION.loss(lambda params, x: x))
    _check_model(config)
    data = load_data(config, say) if data is None else data
    config = settle(config, data)
    given = config.data
    if isinstance(data, ClassSet) and split is None:
        split = draw_split(
            data,
            _given(given.split_by),
            _given(given.split_seed),
            _given(given.validation_classes),
            _given(given.test_classes),
        )
    solver = _make_solver(config)
    # Of a solver that remembers what it did, such as L-BFGS, its steps and what they changed.
    copies = TRAINED_COPIES + 2 * getattr(solver, "history", 0)
    if jax.default_backend() == "cpu":
        # Host devices share one memory, and each holds all of them.
        copies *= parallel.task_mesh(config.training.tasks_per_step).size
    if summary is None:
        by = split.train if split is not None and given.standardise else None
        summary = summarise_data(data, given.ways, by)
    elif say is not None:
        say_changes(summary, data, say)
    built = assemble(config, summary, split, data, copies=copies)
    for part in PARTS:
        built.tasks(part)
    built.pretraining()
    return built


def say_changes(summary: DataSummary, data: Data, say: Callable[[str], None]) -> None:
    """Say which classes have come or gone since a run began; one with other examples is an error.

    Args:
        summary: what the run knows of its data.
        data: the data as they are now.
        say: told in a sentence, if there is anything to say.
    """
    text = summary.come_and_gone(data) if isinstance(data, ClassSet) else ""
    if text:
        say(text)


def assemble(
    config: RunConfig,
    summary: DataSummary | None = None,
    split: ClassSplit | None = None,
    data: Data | None = None,
    *,
    copies: int = RESTORED_COPIES,
) -> Experiment:
    """Put an experiment together from what is known already, and load no examples.

    Args:
        config: the settings.
        summary: what a model must know of the data; that of drawn characters if None and the data
            set gives classes.
        split: the classes; never drawn here.
        data: what the data set gives; tasks are made if None, examples are not loaded.
        copies: of the parameters that must fit into memory.

    Returns:
        The experiment; whether its tasks can be drawn is not checked.

    Raises:
        InputError: if the model, the solver and the algorithm do not fit each other, the examples
            are not those that are summarised, or the parameters do not fit into memory.
    """
    objective: Objective = CLASSIFICATION
    if data is None and not gives_classes(DATASETS.find(config.data.dataset)):
        data = load_data(config)
    if isinstance(data, TaskFamily):
        objective = _given(data.objective)
        summary = summarise_data(data, config.data.ways) if summary is None else summary
    summary = summarise_unseen(config) if summary is None else summary
    if isinstance(data, ClassSet) and data.shape != summary.inputs:
        raise InputError(
            f"The examples of {data.name!r} have shape {list(data.shape)}, but the run was trained "
            f"on shape {list(summary.inputs)}"
        )
    changed = summary.changed(data) if isinstance(data, ClassSet) else []
    if changed:
        raise InputError(
            f"{len(changed)} classes of {config.data.dataset!r} have other examples than those "
            f"that the run was trained with, for instance {changed[0]!r}",
            allowed="the run's own data (those of glyphs depend on the versions of Matplotlib and "
            "Pillow)",
            remedy="Give their folder by --data-dir, or train a new run; pullback evaluate takes "
            "others with --allow-changed-data",
        )
    model = _make_model(config, summary.inputs, summary.outputs)
    loss = objective.loss(model.apply)
    key = jax.random.fold_in(jax.random.key(config.training.seed), PARAMS)
    return Experiment(
        config,
        summary,
        data,
        split,
        model,
        _init(model, key, copies),
        loss,
        loss if objective.metric is objective.loss else objective.metric(model.apply),
        make_algorithm(config, loss),
        training.default_optimizer(
            # A run that ends with its pretraining has no meta-step.
            max(1, config.training.steps),
            config.training.learning_rate,
            config.training.clip_norm,
            config.algorithm.strength_learning_rate,
        ),
    )


def _make_model(config: RunConfig, inputs: tuple[int, ...], outputs: int) -> Any:
    options = {name: getattr(config.model, name) for name in SETTINGS["model"]}
    given = {name: value for name, value in options.items() if value is not None}
    return MODELS.find(config.model.model).make(inputs, outputs, **given)


def _init(model: Any, key: PRNGKeyArray, copies: int) -> Params:
    """A model's parameters, if so many copies of them fit into memory."""
    try:
        leaves = jax.tree.leaves(jax.eval_shape(model.init, key))
    except jax.errors.JAXTypeError:
        # Its init computes outside JAX, and how much it makes is not known before.
        return model.init(key)
    count = sum(leaf.size for leaf in leaves)
    needed = copies * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
    available = memory.available_bytes()
    if available is not None and needed > available:
        raise InputError(
            f"The model has {count:,} parameters, of which {copies} copies are held: "
            f"{memory.bytes_text(needed)} of memory, and {memory.bytes_text(available)} are free",
            remedy="Take a narrower model (--width, --hidden), or fewer --devices",
        )
    return model.init(key)


def _check_model(config: RunConfig) -> None:
    """Whether the settings of the model are right for some shape of examples at least."""
    errors = []
    for shape in (DRAWING, (1,)):
        try:
            _make_model(config, shape, config.data.ways or 1)
        except InputError as error:
            errors.append(error)
        else:
            return
    raise errors[0]


def _make_solver(config: RunConfig) -> Any:
    given = config.algorithm
    if given.solver is None:
        return None
    return SOLVERS.find(given.solver).make(
        steps=given.inner_steps,
        learning_rate=given.inner_learning_rate,
        momentum=given.inner_momentum,
    )


def make_algorithm(config: RunConfig, loss: Loss) -> MetaAlgorithm:
    """The algorithm of a configuration, with its inner and its linear solver.

    Raises:
        InputError: if they do not fit each other, as MAML and a solver without derivative.
    """
    given = config.algorithm
    entry = ALGORITHMS.find(given.name)
    # Whatever a setting and a parameter of the algorithm both are called.
    options: dict[str, Any] = {
        name: getattr(given, name)
        for name in SETTINGS["algorithm"]
        if name != "name" and getattr(given, name) is not None
    }
    options["strength"] = given.strength or None
    if given.solver is not None:
        options["solver"] = _make_solver(config)
    if given.linear_solver is not None:
        options["linear_solver"] = LINEAR_SOLVERS.find(given.linear_solver).make(
            steps=given.linear_steps, rtol=given.linear_rtol
        )
    if given.strength_margin:
        options["raise_strength"] = AdaptiveStrength(given.strength_margin)
    # A quarter of the tasks is enough to know how a run fares, and costs little; a policy that
    # acts on verdicts needs every one of them (docs/certificate.md).
    watched = config.training.on_bad_verdict == "warn"
    options["certify"] = Certify(share=0.25 if watched else 1.0)
    if given.learn_strength not in (None, "none"):
        entry = entry.with_learned_strength()
        options["form"] = given.learn_strength
    return entry.make(loss, **options)


def episodes_of(
    classes: ClassSet, config: RunConfig, *, called: str, **augmented: Any
) -> TaskDistribution:
    """Episodes from some classes, by the ways, shots and queries of a configuration.

    Args:
        classes: to draw from.
        config: the settings.
        called: what the classes are, for messages.
        augmented: ``rotations`` and other views of the classes, none unless given.

    Returns:
        The tasks.

    Raises:
        InputError: if the classes or their examples are too few; says whose.
    """
    data = config.data
    try:
        return episodes(
            classes,
            ways=_given(data.ways),
            shots=_given(data.shots),
            queries=_given(data.queries),
            **augmented,
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
