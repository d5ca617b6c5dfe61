"""Machines: the wear of a new one, from a few of its measurements and what all others have shown.

    python examples/machines.py [--plot machines.png]

It needs ``pip install 'pullback[tables]'``. In an editor that knows ``# %%``, each part below is a
cell of a notebook. The table is drawn here; put your own in its place.
"""

# %% 1. A table: 120 machines, each measured ten times under loads of all sizes. Wear grows with the
# load and with age, but each machine has a level and a slope of its own.

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LinearRegression

from pullback.runs.fitting import Curve
from pullback.runs.plots import draw_groups
from pullback.sklearn import MetaRegressor

options = argparse.ArgumentParser(description="The wear of new machines.")
options.add_argument("--plot", type=Path, help="a PNG file to draw six machines into")
given = options.parse_args([] if "ipykernel" in sys.modules else None)

MACHINES, ROWS, HELD_BACK, SHOWN = 120, 10, 40, (0, 1, 3, 5)

rng = np.random.default_rng(0)
place = np.tile(np.arange(ROWS), MACHINES)
number = np.repeat(np.arange(MACHINES), ROWS)
machine = np.array([f"machine {n}" for n in number])
level, slope = rng.normal(size=(2, MACHINES)) * [[4.0], [0.5]]
table = pd.DataFrame(
    {
        "load": rng.uniform(0, 10, MACHINES * ROWS),  # kN
        "age": rng.integers(0, 12, MACHINES)[number],  # years
    }
)
wear = 10 + table["age"] + level[number] + (2 + slope[number]) * table["load"]  # µm
wear = wear.to_numpy() + rng.normal(0, 1.5, len(wear))

# %% 2. Learn from eighty machines what they have in common and how they differ. The summary shows
# both: the coefficients, the spread of the levels and the slopes, and the noise of a measurement.

known = number < MACHINES - HELD_BACK
model = MetaRegressor().fit(table[known], wear[known], groups=machine[known])
print(model.summary())

# %% 3. A new machine: three measurements, and an interval for the others. Nothing is fitted again:
# the model of one machine is the minimum of a quadratic, in closed form.

own = number == MACHINES - HELD_BACK
first, others = own & (place < 3), own & (place >= 3)
new = model.adapt(table[first], wear[first])
lower, upper = new.predict_interval(table[others], coverage=0.9)
shown = table[others].assign(measured=wear[others], predicted=new.predict(table[others]))
print(shown.assign(lower=lower, upper=upper).round(1).to_string(index=False))

# %% 4. All forty machines that were held back, after 0, 1, 3 and 5 of their rows, and always scored
# on their last five. Beside it stand one regression for all machines, which no row of a new one
# changes, and a line for each machine alone; of one row that is level.


def error(predicted):
    """The root mean square error, in µm."""
    return np.sqrt(np.mean((wear[asked] - predicted) ** 2))


def alone(one, rows):
    """The predictions for a machine by its own first rows."""
    seen = (machine == one) & (place < rows)
    line = LinearRegression().fit(table.loc[seen, ["load"]], wear[seen])
    return line.predict(table.loc[asked & (machine == one), ["load"]])


asked = ~known & (place >= max(SHOWN))
pooled = LinearRegression().fit(table[known], wear[known])
print(f"pooled, error in µm: {error(pooled.predict(table[asked])):.2f}")
adapted = {}
for rows in SHOWN:
    seen = ~known & (place < rows)
    adapted[rows] = model.with_groups(table[seen], wear[seen], machine[seen])
    predicted = adapted[rows].predict(table[asked], groups=machine[asked])
    lower, upper = adapted[rows].predict_interval(table[asked], groups=machine[asked])
    inside = np.mean((lower <= wear[asked]) & (wear[asked] <= upper))
    print(f"rows seen {rows}, error in µm: {error(predicted):.2f}")
    print(f"rows seen {rows}, width of the interval of 90 % in µm: {np.mean(upper - lower):.1f}")
    print(f"rows seen {rows}, targets within it: {100 * inside:.0f}%")
    if rows:
        of_each = [alone(one, rows) for one in pd.unique(machine[asked])]
        print(f"rows seen {rows}, error in µm of a machine alone: {error(np.hstack(of_each)):.2f}")

# %% 5. Six of them, before and after their first three rows.

if given.plot:
    curves = []
    for one in pd.unique(machine[~known])[:6]:
        own = machine == one
        load = table.loc[own, "load"].to_numpy()
        before, after = (
            np.stack(adapted[rows].predict(table[own], groups=machine[own], return_std=True), 1)
            for rows in (0, 3)
        )
        curves.append(Curve(one, load, wear[own], 3, before, after))
    title = "Machines that were not there in the fit, with intervals of 90 %"
    draw_groups(curves, given.plot, title, ("load in kN", "wear in µm"))
