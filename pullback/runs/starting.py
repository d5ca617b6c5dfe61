"""What a run starts from: fresh parameters, its own pretraining, or a trained initialisation.

The last is kept in the run, packed, so that the run needs nothing outside its folder to be resumed,
and knows the classes of all that went into it.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pullback.algorithms import Learned
from pullback.core.errors import InputError
from pullback.core.trees import Params
from pullback.meta import multihost
from pullback.runs import build
from pullback.runs.build import Experiment
from pullback.runs.config import Given, merge, read_all
from pullback.runs.folder import START, Run, storage
from pullback.runs.pretrained import Packed, find_step, load_pretrained, open_trained, pack
from pullback.tasks import ClassSet

_OF_DATA = (
    *("image_size", "channels", "standardise"),
    *("split_by", "split_seed", "validation_classes", "test_classes"),
)


def with_inherited(given: Given) -> Given:
    """Settings, with those that a new run takes from what it starts from unless they are given.

    These are the model's, and for the same data set those of its examples and its split.

    Args:
        given: settings by section and name.

    Returns:
        The settings.

    Raises:
        InputError: if there is no such run or initialisation, or a setting is wrong.
    """
    values = read_all(given)
    if not values.get("start"):
        return given
    first = open_trained(values["start"]).config.to_dict()
    asked = values.get("dataset", first["data"]["dataset"])
    inherited: dict[str, dict[str, Any]] = {"data": {"dataset": asked}}
    if asked == first["data"]["dataset"]:
        inherited["data"] |= {n: first["data"][n] for n in _OF_DATA if n in first["data"]}
    if values.get("model", first["model"]["model"]) == first["model"]["model"]:
        inherited["model"] = first["model"]
    return merge(inherited, given)


def check_start(built: Experiment) -> None:
    """Whether an experiment can start from what its configuration names.

    Raises:
        InputError: if there is no such run or initialisation; it has no checkpoint yet; it is of
            another model; or it was trained on classes that this run is to be validated or tested
            on.
    """
    place = built.config.training.start
    if not place:
        return
    first = open_trained(place)
    first.check_trained()
    find_step(first)
    trained = build.assemble(first.config, build.summary_of(first), first.split)
    _check_same_body(place, trained, built)
    if built.split is None or not isinstance(built.data, ClassSet):
        return
    digests = built.data.digests
    parts = {"test": ("train", "validation"), "validation": ("train",)}
    for part, others in parts.items():
        seen = {
            digest: name for run in first.lineage() for name, digest in classes_of(run, *others)
        }
        both = [name for name in built.split.classes(part) if digests[name] in seen]
        if both:
            raise InputError(
                f"{len(both)} {part} classes of the split are among those that {place!r} was "
                f"trained with, for instance {both[0]!r}",
                remedy="Take the same split: leave --split-by, --split-seed, "
                "--validation-classes and --test-classes out",
            )


def _check_same_body(place: str, trained: Experiment, built: Experiment) -> None:
    def shapes(experiment: Experiment) -> Any:
        apply = experiment.head_for("A start from another initialisation (--start)")
        body = apply.split(experiment.params)[0]
        return jax.tree.structure(body), [np.shape(leaf) for leaf in jax.tree.leaves(body)]

    if shapes(trained) != shapes(built):
        raise InputError(
            f"{place!r} is of the model {trained.config.model.model!r} with other shapes than this "
            f"run's {built.config.model.model!r}",
            remedy="Leave the settings of the model out, and take examples of the shape "
            f"{list(trained.summary.inputs)}",
        )


def classes_of(run: Run, *parts: str) -> list[tuple[str, str]]:
    """The names and digests of the classes of some parts of a run's split."""
    known = build.summary_of(run).digests or {}
    if run.split is None:
        return []
    names = (name for part in parts for name in run.split.classes(part))
    return [(name, known[name]) for name in names if name in known]


def start(run: Run, built: Experiment) -> Experiment:
    """The experiment as it was before its first meta-step.

    Args:
        run: the run.
        built: its experiment.

    Returns:
        The experiment, its parameters those of what it starts from.

    Raises:
        InputError: if the pretraining is not finished, or what it starts from is missing or broken.
        StorageError: if the disk refuses to keep a copy of what it starts from.
    """
    stage = built.pretraining()
    if stage is not None:
        state = build.restore(run.pretraining(), stage, stage.config.training.steps)
        return dataclasses.replace(built, params=state.theta.params)
    if not built.config.training.start:
        return built

    def read() -> dict[str, Any]:
        return {"folder": str(_keep(run))}

    kept = multihost.from_first(read)
    params = _params(Path(kept["folder"]), built) if multihost.is_first() else None
    return dataclasses.replace(built, params=multihost.share(params, built.params))


def _keep(run: Run) -> Path:
    """The copy of what a run starts from, made if there is none yet."""
    folder = run.folder / START
    if folder.exists():
        return folder
    first = open_trained(run.config.training.start)
    part = folder.with_name(f"{START}-copied")
    with storage(folder, "the run can be begun anew"):
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(first, Packed):
            shutil.copytree(first.folder, part)
        else:
            pack(first, part, name=first.folder.name, dtype="float32")
        part.rename(folder)
    return folder


def _params(folder: Path, built: Experiment) -> Params:
    found = load_pretrained(folder, built.config.data.ways).theta
    return found.params if isinstance(found, Learned) else found
