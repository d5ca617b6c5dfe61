"""A small table of rows in groups, as a file."""

import numpy as np
import pandas as pd


def growth(children=12, seed=0):
    """Children who grow, each at a pace of its own; their ages stand in the order of time."""
    rng = np.random.default_rng(seed)
    rows = []
    for child in range(children):
        level, pace = rng.normal(size=2) * [3.0, 0.5]
        for age in range(4 + child % 4):
            height = 80 + level + (6 + pace) * age + 0.5 * rng.normal()
            rows.append((f"{child:03d}", age, "fm"[child % 2], round(height, 1)))
    return pd.DataFrame(rows, columns=["child", "age", "sex", "height"])


def write(table, path):
    table.to_csv(path, index=False)
    return path


FIT = ("--target", "height", "--group", "child", "--method", "linear")
