"""A table of rows in groups, fitted, and the same scored on groups that are held back."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Shaped

from pullback.core.errors import InputError, check_seed, unknown_name
from pullback.grouped import held_back
from pullback.runs.tables import Table, as_names, interpret, kind_of, needs

try:
    import pandas as pd
    from sklearn.base import clone

    from pullback.sklearn import CurveRegressor, MetaClassifier, MetaRegressor
    from pullback.sklearn.base import METHODS
    from pullback.sklearn.groups import number
    from pullback.sklearn.inputs import FEWEST_GROUPS
except ModuleNotFoundError as error:
    raise needs(error) from None

MOST_ROWS = 5_000
"""Held-back groups are scored on a sample of so many rows."""

MOST_CLASSES = 20

CURVE = "curve"
"""The method of a curve of the user's own."""

POLICIES = ("error", "drop")
DRAWN, SHOWN = 6, 3
"""Groups in the picture, and the rows of each that it is adapted to."""


@dataclass(frozen=True)
class Settings:
    """What a fit was asked for, and what a prediction has to know of it.

    Args:
        target: the column that is predicted.
        group: the column of groups' names.
        columns: those that it is predicted from, in this order.
        kinds: what each of them was taken for.
        classify: whether the target is a class.
        method: of the estimator.
        curve: where the user's own curve is; None without one.
        order: the column by which a group's rows are sorted; None for the order of the file.
        missing: what becomes of rows with missing values.
        separator: between columns.
        point: before decimals.
        seed: of everything random.
    """

    target: str
    group: str
    columns: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    classify: bool = False
    method: str = "auto"
    curve: str | None = None
    order: str | None = None
    missing: str = "error"
    separator: str = ","
    point: str = "."
    seed: int = 0


class Rows(NamedTuple):
    """Rows that are ready to be fitted to.

    Args:
        frame: the columns.
        y: the targets: numbers, or names of classes.
        names: of the groups.
        along: the column that they are ordered by, as numbers or times; None without one.
    """

    frame: Any
    y: Shaped[np.ndarray, " rows"]
    names: np.ndarray
    along: np.ndarray | None = None


class Fitted(NamedTuple):
    """A fit.

    Args:
        model: the estimator; None where only the report is read.
        settings: with what was found out about the columns.
        report: what ``report.json`` holds beside the settings.
        curves: of the groups in the picture.
    """

    model: Any
    settings: Settings
    report: dict[str, Any]
    curves: "list[Curve]"


class Curve(NamedTuple):
    """One group before and after it is adapted to, along a column.

    Args:
        name: of the group.
        x: where its rows lie.
        y: their targets; 1 for the class in the picture, 0 for others.
        seen: how many of them it is adapted to, the first ones.
        before: the population's mean and standard deviation at each row; the probability of the
            class, and 0.
        after: the group's own.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    seen: int
    before: Float[np.ndarray, "rows 2"]
    after: Float[np.ndarray, "rows 2"]


def choose(
    table: Table, settings: Settings, columns: Sequence[str], drop: Sequence[str]
) -> Settings:
    """The settings with the columns to predict from: those named, or all but those left out.

    Raises:
        InputError: for unknown columns, and for some that do not go together.
    """
    check_seed(settings.seed)
    if settings.curve is None and settings.method not in METHODS:
        raise unknown_name("method", settings.method, METHODS)
    if settings.curve is not None and settings.classify:
        raise InputError("--classify and --curve were given", allowed="one of them")
    if settings.missing not in POLICIES:
        raise unknown_name("policy of missing values", settings.missing, POLICIES)
    taken = {"--target": settings.target, "--group": settings.group}
    for option, name in (taken | {"--order": settings.order}).items():
        if name is not None:
            table.check(f"{option} column", name)
    if settings.target == settings.group:
        raise InputError(
            f"--target and --group are both {settings.target!r}", allowed="two columns"
        )
    if columns and drop:
        raise InputError("Both --columns and --drop were given", allowed="one of them")
    table.check("--columns column", *columns)
    table.check("--drop column", *drop)
    for option, name in taken.items():
        for other, names in (("--columns", columns), ("--drop", drop)):
            if name in names:
                raise InputError(f"The column {name!r} is in {other} and is the {option[2:]}")
    left_out = {settings.target, settings.group, *drop}
    chosen = tuple(columns) or tuple(name for name in table.columns if name not in left_out)
    if not chosen:
        raise InputError("No column is left to predict from", allowed="one column at least")
    return replace(settings, columns=chosen)


def without_missing(
    table: Table, names: Sequence[str], policy: str
) -> tuple[Table, dict[str, int]]:
    """A table without the rows that miss a value.

    Args:
        table: as it was read.
        names: of the columns that matter.
        policy: ``"drop"``, or ``"error"`` to refuse such rows.

    Returns:
        The table, and how many values each column misses.

    Raises:
        InputError: if values are missing and that is not allowed, or no row is left.
    """
    found = table.missing(names)
    counts = {name: int(mask.sum()) for name, mask in found.items()}
    if not found:
        return table, counts
    said = ", ".join(f"{name!r} {count}" for name, count in counts.items())
    if policy == "error":
        raise InputError(
            f"Of {table.rows} rows in {str(table.path)!r}, values are missing: {said}",
            remedy="Fill them in, leave the column out, or leave those rows out by --missing drop",
        )
    kept = ~np.any(list(found.values()), axis=0)
    if not kept.any():
        raise InputError(
            f"Each of the {table.rows} rows in {str(table.path)!r} misses a value: {said}",
            remedy="Fill them in, or leave the column out",
        )
    return table.take(kept), counts


def targets(table: Table, settings: Settings) -> Shaped[np.ndarray, " rows"]:
    """The column of targets: numbers, or classes as texts that stand as they are.

    Raises:
        InputError: if it holds anything else.
    """
    name = settings.target
    if settings.classify:
        return as_names(table.columns[name]).astype(str)
    y = interpret(table, name)
    if kind_of(y) != "number":
        words = "times" if kind_of(y) == "time" else "texts"
        raise InputError(
            f"The target {name!r} holds {words}, such as {str(y[0])!r:.60}",
            allowed="one number in each row",
            remedy="" if words == "times" else "If these are classes, add --classify",
        )
    infinite = int(np.isinf(y).sum())
    if infinite:
        raise InputError(
            f"The target {name!r} has {infinite} infinite values", allowed="finite numbers"
        )
    return y


def frame_of(table: Table, columns: Sequence[str], kinds: Sequence[str | None]) -> Any:
    """Columns to predict from, as a data frame.

    Args:
        table: without missing values in them.
        columns: their names.
        kinds: what each is; None to find out.

    Returns:
        The frame.

    Raises:
        InputError: if one is of no kind, or of another than asked for.
    """
    pairs = zip(columns, kinds, strict=True)
    return pd.DataFrame({name: interpret(table, name, kind) for name, kind in pairs})


def prepare(
    table: Table, settings: Settings, categories: Sequence[str] = ()
) -> tuple[Rows, Settings, dict[str, Any]]:
    """The rows of a fit, group by group in the order of time if there is one.

    Args:
        table: as it was read.
        settings: with the columns.
        categories: columns of numbers that name categories.

    Returns:
        The rows, the settings with the kinds of the columns, and what was left out or looks odd.

    Raises:
        InputError: for what cannot be fitted to.
    """
    unknown = [name for name in categories if name not in settings.columns]
    if unknown:
        raise unknown_name("--categories column", unknown[0], settings.columns)
    named = dict.fromkeys([settings.target, settings.group, *settings.columns])
    if settings.order:
        named[settings.order] = None
    rows = table.rows
    table, missing = without_missing(table, list(named), settings.missing)
    names = as_names(table.columns[settings.group])
    along = None
    if settings.order:
        along = interpret(table, settings.order)
        if kind_of(along) == "category":
            raise InputError(f"--order {settings.order!r} holds texts", allowed="numbers or times")
        order = np.argsort(along, kind="stable")
        order = order[np.argsort(number(names)[1][order], kind="stable")]
        table, names, along = table.take(order), names[order], along[order]
    y = targets(table, settings)
    if (y == y[0]).all():
        value = y[0] if settings.classify else f"{y[0]:g}"
        raise InputError(
            f"The target {settings.target!r} is {value} in each of {len(y)} rows",
            allowed="a column that differs between rows",
        )
    classes = len(np.unique(y)) if settings.classify else 0
    if classes > MOST_CLASSES:
        raise InputError(
            f"The target {settings.target!r} has {classes} classes",
            allowed=f"at most {MOST_CLASSES}, each of which is modelled by itself",
            remedy="Leave out --classify to predict a number",
        )
    asked = ["category" if name in categories else None for name in settings.columns]
    frame = frame_of(table, settings.columns, asked)
    kinds = tuple(kind_of(np.asarray(frame[name])) for name in settings.columns)
    level = [name for name in settings.columns if (frame[name] == frame[name].iloc[0]).all()]
    found = {
        "rows": len(y),
        "groups": len(set(names)),
        "left_out": rows - len(y),
        "missing": missing,
        "unnamed_columns": table.unnamed,
        "constant_columns": level,
        "unused_columns": [name for name in table.columns if name not in named],
    }
    return Rows(frame, y, names, along), replace(settings, kinds=kinds), found


def fit_table(
    table: Table,
    settings: Settings,
    *,
    curve: CurveRegressor | None = None,
    categories: Sequence[str] = (),
    score: bool = True,
    progress: Callable[[int, int], Any] = lambda done, total: None,
) -> Fitted:
    """Fit a table, and score the same on groups that are held back.

    Args:
        table: as it was read.
        settings: with the columns, from :func:`choose`.
        curve: the estimator of a curve, where the settings have one.
        categories: columns of numbers that name categories.
        score: whether to hold groups back at all.
        progress: is told how many fits are done, and of how many.

    Returns:
        The fit.

    Raises:
        InputError: for what cannot be fitted to.
    """
    rows, settings, report = prepare(table, settings, categories)
    methods = dict.fromkeys(["pooled", "linear", settings.method])
    group = number(rows.names)[1]
    report["axis"], along = _axis(rows, settings, group)
    rows = rows._replace(along=along)
    classes = np.unique(rows.y) if settings.classify else None
    why_not = _why_not(report["groups"], score)
    part = own = fold = None
    if not why_not:
        scored = held_back.sample(
            group, report["groups"], MOST_ROWS, np.random.default_rng(settings.seed)
        )
        part = _take(rows, scored)
        own = number(part.names)[1]
        fold = held_back.deal(int(own.max()) + 1, settings.seed)
        if classes is not None:
            why_not = _one_class(part.y, fold[own])

    def estimator(method: str) -> Any:
        return clone(curve) if curve is not None and method == CURVE else _other(settings, method)

    total = 1 + (0 if why_not else held_back.FOLDS * len(methods))
    done = iter(range(1, total + 1))
    with collected() as said:
        progress(0, total)
        model = estimator(settings.method).fit(rows.frame, rows.y, rows.names)
        progress(next(done), total)
    weights = getattr(model, "weights_", None)
    if isinstance(weights, dict):
        weights = {str(one): each.tolist() for one, each in weights.items()}
    elif weights is not None:
        weights = weights.tolist()
    report |= {
        "warnings": said,
        "weights": weights,
        "summary": model.summary(),
        "not_held_back": why_not,
    }
    if classes is None:
        report["deviation"] = float(rows.y.std())
    else:
        report["classes"] = classes.tolist()
    if why_not or part is None or own is None or fold is None:
        chosen = _groups_to_draw(group)
        curves = _curves(_predicting(model, rows, classes), rows, group, chosen, classes)
        return Fitted(model, settings, report | {"held_back": {}}, curves)
    report["scored"] = {"rows": len(part.y), "groups": len(fold)}
    chosen = _groups_to_draw(own)
    place = held_back.place_in_group(own)
    curves: list[Curve] = []
    scores = {}
    for method in methods:

        def fit(train: np.ndarray, method: str = method) -> held_back.Predict:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known = _take(part, train)
                names = None if method == "pooled" else known.names
                found = estimator(method).fit(known.frame, known.y, names)
            predict = _predicting(found, part, classes)
            if method == settings.method:
                here = [one for one in chosen if not train[own == one].any()]
                curves.extend(_curves(predict, part, own, here, classes))
            progress(next(done), total)
            return predict

        measure, y = held_back.regression, part.y
        if classes is not None:
            measure, y = held_back.classification, np.searchsorted(classes, y)
        found = held_back.score(fit, measure, y, own, place, fold)
        scores[method] = {str(k): each for k, each in found.items()}
    curves.sort(key=lambda curve: len(curve.y))
    return Fitted(model, settings, report | {"held_back": scores}, curves)


def answers(model: Any, frame: Any, names: Any = None) -> Float[np.ndarray, "rows columns"]:
    """What an estimator says of each row: a mean and a deviation, or each class's probability."""
    if isinstance(model, MetaClassifier):
        return model.predict_proba(frame, names)
    return np.stack(model.predict(frame, names, return_std=True), 1)


def class_in_picture(classes: Any) -> str:
    """The class whose probability is drawn: the last, which of no and yes is yes."""
    return str(classes[-1])


def _other(settings: Settings, method: str) -> Any:
    kind = MetaClassifier if settings.classify else MetaRegressor
    return kind("linear" if method == "pooled" else method, random_state=settings.seed)


def _why_not(groups: int, score: bool) -> str | None:
    if not score:
        return "not asked for"
    if groups < FEWEST_GROUPS:
        return f"there are {groups} groups, and none is held back with under {FEWEST_GROUPS}"
    return None


def _one_class(y: np.ndarray, fold: np.ndarray) -> str | None:
    """Why classes cannot be held back, if a fold leaves one of them alone."""
    for one in np.unique(fold):
        left = np.unique(y[fold != one])
        if len(left) == 1:
            return f"without the groups of one fold all rows are of the class {str(left[0])!r}"
    return None


def _take(rows: Rows, chosen: np.ndarray) -> Rows:
    along = None if rows.along is None else rows.along[chosen]
    return Rows(rows.frame[chosen], rows.y[chosen], rows.names[chosen], along)


def _predicting(model: Any, rows: Rows, classes: np.ndarray | None) -> held_back.Predict:
    """A fitted estimator as the protocol of held-back groups has it; columns are all classes."""

    def predict(seen: np.ndarray, asked: np.ndarray) -> np.ndarray:
        names, frame = rows.names[asked], rows.frame.iloc[asked]
        if classes is not None:
            # A class of the held-back groups alone says nothing to the estimator.
            seen = seen[np.isin(rows.y[seen], model.classes_)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            other = model
            if model.groups_:
                other = model.with_groups(rows.frame.iloc[seen], rows.y[seen], rows.names[seen])
            # A pooled one knows no groups.
            found = answers(other, frame, names if model.groups_ else None)
        if classes is None:
            return found
        whole = np.zeros((len(asked), len(classes)))
        whole[:, np.searchsorted(classes, model.classes_)] = found
        return whole

    return predict


@contextlib.contextmanager
def collected() -> Iterator[list[str]]:
    """Warnings, as texts."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said.extend(dict.fromkeys(str(each.message) for each in caught))


def _groups_to_draw(group: np.ndarray) -> list[int]:
    """Six of those with a row more than are shown, evenly spaced by their number of rows."""
    sizes = np.bincount(group)
    by_size = [one for one in np.argsort(sizes, kind="stable") if sizes[one] > SHOWN]
    spaced = np.linspace(0, len(by_size) - 1, min(DRAWN, len(by_size))).round().astype(int)
    return [int(by_size[i]) for i in spaced]


def _curves(
    predict: held_back.Predict,
    rows: Rows,
    group: np.ndarray,
    chosen: Sequence[int],
    classes: np.ndarray | None,
) -> list[Curve]:
    curves = []
    y = rows.y if classes is None else (rows.y == class_in_picture(classes)).astype(float)
    for one in chosen:
        own = np.flatnonzero(group == one)
        x = np.arange(1, len(own) + 1) if rows.along is None else rows.along[own]
        before, after = predict(own[:0], own), predict(own[:SHOWN], own)
        if classes is not None:
            before, after = (
                np.stack([each[:, -1], np.zeros(len(own))], 1) for each in (before, after)
            )
        curves.append(Curve(str(rows.names[own[0]]), x, y[own], SHOWN, before, after))
    return curves


def _axis(rows: Rows, settings: Settings, group: np.ndarray) -> tuple[str, np.ndarray | None]:
    """What groups are drawn along: the order, else the first column that varies within them."""
    if settings.order:
        return settings.order, rows.along
    for name, kind in zip(settings.columns, settings.kinds, strict=True):
        column = np.asarray(rows.frame[name])
        pairs = set(zip(group.tolist(), column.tolist(), strict=True))
        if kind != "category" and len(pairs) > group.max() + 1:
            return name, column
    return "row of the group", None
