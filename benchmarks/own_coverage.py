"""Why intervals of 90 % hold too few targets of new groups, or too many.

    python -m benchmarks.own_coverage [--sets NAME ...] [--seeds 3] [--draws 20] [--json FILE]

For ``MetaRegressor(method="auto")`` on the tables and folds of ``benchmarks.own_data``, whose
packages it needs. Three coverages stand beside each other: that of the table itself, with the
interval of 95 % that drawing its groups anew gives; and two of targets that are drawn from the
model fitted to the whole table, for the same rows and groups. Of these one is of the model that
they were drawn from, which tells whether its intervals add up, and one of models fitted to such
targets fold by fold, which tells what so many groups cost. What is left of the table's deviation is
chance, where the interval holds 90 %, or the model's.

The model is a mixture. One draw takes the population's weights of each part from their posterior,
and for each group one of the parts by its share, the group's own weights, and the noise.
"""

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from benchmarks.own_data import NINETY, TABLES, known, one_a_line, read, shuffled
from pullback.grouped import held_back
from pullback.grouped.held_back import SHOTS, place_in_group
from pullback.runs.folder import write_text
from pullback.sklearn import MetaRegressor

ALLOWED = (0.85, 0.95)
"""Coverage outside of it asks for a reason."""


def drawn(
    model: MetaRegressor, x: pd.DataFrame, group: Int[np.ndarray, " rows"], rng: Any
) -> Float[np.ndarray, " rows"]:
    """Targets of new groups from a model.

    Args:
        model: a fitted one.
        x: columns.
        group: the number of each row's group.
        rng: draws them.

    Returns:
        A target for each row.
    """
    pool, groups = model._pool, group.max() + 1
    inputs = model._inputs(model._rows_to_predict(x, None, None)[0], stacklevel=2)
    of_group = rng.choice(len(pool.models), size=groups, p=pool.shares)
    y = np.zeros(len(x))
    for number, part in enumerate(pool.models):
        common, own = part.basis.columns(part.params, inputs)
        weights = rng.multivariate_normal(part.mean, part.covariance)
        effects = rng.normal(size=(groups, own.shape[1]))
        noise = float(part.noise) * rng.normal(size=len(x))
        targets = common @ weights + np.sum(own * effects[group], 1) + noise
        y = np.where(of_group[group] == number, targets, y)
    return model._centre + model._unit * y


def predicted(
    model: MetaRegressor,
    x: pd.DataFrame,
    y: np.ndarray,
    group: Int[np.ndarray, " rows"],
    seen: np.ndarray,
    asked: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations of rows of groups that are new, of which some rows are seen."""
    if not np.any(seen):
        return model.predict(x[asked], return_std=True)
    new = model.with_groups(x[seen], y[seen], groups=group[seen])
    return new.predict(x[asked], groups=group[asked], return_std=True)


def covered(
    fit: Any,
    data: tuple[pd.DataFrame, np.ndarray, Int[np.ndarray, " rows"]],
    place: Int[np.ndarray, " rows"],
    fold: Int[np.ndarray, " groups"],
    shots: Sequence[int] = SHOTS,
) -> dict[int, Float[np.ndarray, "groups 2"]]:
    """What intervals of 90 % hold, of each group, by the number of rows seen.

    Args:
        fit: from columns, targets and numbers of groups to a fitted estimator.
        data: columns, targets and numbers of groups.
        place: how many rows of its group are seen before it.
        fold: of each group.
        shots: numbers of rows seen.

    Returns:
        Of each group, how many rows were held and how many were predicted.
    """
    x, y, group = data

    def fit_rows(train):
        model = fit(x[train], y[train], group[train])

        def predict(seen, asked):
            mask = np.isin(np.arange(len(y)), seen), np.isin(np.arange(len(y)), asked)
            return np.column_stack([*predicted(model, x, y, group, *mask), group[asked]])

        return predict

    def count(y, found) -> Any:
        mean, deviation, number = found.T
        held = np.abs(y - mean) <= NINETY * deviation
        rows = [np.bincount(number.astype(int), w, len(fold)) for w in (held, np.ones(len(held)))]
        return {"counts": np.stack(rows, 1)}

    scores = held_back.score(fit_rows, count, y, group, place, fold, shots)
    return {k: np.asarray(found["counts"]) for k, found in scores.items()}


def share(counts: Float[np.ndarray, "*n groups 2"]) -> Float[np.ndarray, "*n"]:
    """Coverage of all rows, from those of each group."""
    held, rows = np.moveaxis(counts.sum(-2), -1, 0)
    return held / rows


def spread(counts: Float[np.ndarray, "groups 2"], draws: int = 4000) -> tuple[float, float]:
    """The interval of 95 % of a coverage, by drawing groups with replacement."""
    rng = np.random.default_rng(0)
    chosen = rng.integers(len(counts), size=(draws, len(counts)))
    low, high = np.quantile(share(counts[chosen]), [0.025, 0.975])
    return float(low), float(high)


def reasons(name: str, seeds: int, draws: int) -> list[dict[str, Any]]:
    """The three coverages of a table, for each number of rows seen where it asks for a reason.

    Args:
        name: of the table.
        seeds: deals of the groups into folds.
        draws: of targets from the model.

    Returns:
        A record for each number of rows seen; none of a table without such.
    """
    x, y, groups = read(name)
    group, names = pd.factorize(groups)
    by_time = TABLES[name].by_time

    def counts(fit, y, seed):
        place = place_in_group(group) if by_time else shuffled(group, seed)
        return covered(fit, (x, y, group), place, held_back.deal(len(names), seed))

    def refit(x, y, group):
        return MetaRegressor().fit(x, y, groups=group)

    found = [counts(refit, y, seed) for seed in range(seeds)]
    real = {k: np.sum([one[k] for one in found], 0) for k in found[0]}
    asking = [k for k in real if not ALLOWED[0] <= share(real[k]) <= ALLOWED[1]]
    if not asking:
        return []
    model = refit(x, y, group)
    simulated = [drawn(model, x, group, np.random.default_rng(draw)) for draw in range(draws)]
    same = [counts(lambda *_: model, y, draw) for draw, y in enumerate(simulated)]
    again = [counts(refit, y, draw) for draw, y in enumerate(simulated)]
    records = []
    for k in asking:
        low, high = spread(real[k])
        records.append(
            {
                "table": name,
                "k": k,
                "groups": len(names),
                "coverage": float(share(real[k])),
                "over groups": [low, high],
                "model known": [float(share(one[k])) for one in same],
                "fitted anew": [float(share(one[k])) for one in again],
            }
        )
    return records


def reason(record: dict[str, Any]) -> str:
    """What a record says the deviation comes from."""
    low, high = record["over groups"]
    share = np.mean(np.array(record["fitted anew"]) <= record["coverage"])
    if low <= held_back.COVERAGE <= high:
        return "chance: the interval over groups holds 90"
    if 0.05 <= share <= 0.95:
        return "few groups: the model's own data give it too"
    return "the model: its own data do not give it"


def as_table(records: Sequence[dict[str, Any]]) -> str:
    """The records in Markdown, in percent."""
    lines = [
        "| table | k | groups | coverage | interval over groups | own data, model known "
        "| own data, fitted anew | nine tenths of the draws | reason |",
        "| --- " * 9 + "|",
    ]
    for record in records:
        low, high = (f"{100 * v:.0f}" for v in record["over groups"])
        least, most = (f"{100 * v:.0f}" for v in np.quantile(record["fitted anew"], [0.05, 0.95]))
        coverage, same, again = (
            f"{100 * np.mean(record[name]):.0f}"
            for name in ("coverage", "model known", "fitted anew")
        )
        lines.append(
            f"| {record['table']} | {record['k']} | {record['groups']} | {coverage} | "
            f"{low} to {high} | {same} | {again} | {least} to {most} | {reason(record)} |"
        )
    return "\n".join(lines)


def main() -> None:
    """The coverages of each table, and the table of those that ask for a reason."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sets", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    records = known(given.json) if given.json else []
    for name in given.sets:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = reasons(name, given.seeds, given.draws)
        records = [r for r in records if r["table"] != name] + found
        if given.json:
            write_text(given.json, one_a_line(records))
        print(f"{name}: " + ("\n" + as_table(found) if found else "none asks"), flush=True)


if __name__ == "__main__":
    main()
