"""Intents: what a question asks for, of a domain that is new, from one or five questions of each.

    python examples/intents.py --vectors intents.npz [--episodes 60] [--plot intents.png]

It needs ``pip install 'pullback[sklearn]'``. The file holds ``embedding``, a vector for each
question by any encoder, its ``intent`` and its ``domain``. In an editor that knows ``# %%``, each
part below is a cell of a notebook, and the first one has the file's name to be set.
"""

# %% 1. Vectors of questions. Whole domains are held back, a third of them: the new intents are then
# like no base class, as they are where an assistant learns a new field.

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression

from pullback.grouped import held_back
from pullback.runs.plots import BLUE, GREEN, GREY, ORANGE, new_figure, save, style
from pullback.sklearn import FewShotClassifier

options = argparse.ArgumentParser(description="The intents of questions of new domains.")
options.add_argument("--vectors", type=Path, default="intents.npz", help="an NPZ file")
options.add_argument("--episodes", type=int, default=60, help="of each size")
options.add_argument("--plot", type=Path, help="a PNG file to draw the calibration into")
given = options.parse_args([] if "ipykernel" in sys.modules else None)

if not given.vectors.exists():
    options.error(f"there is no file {given.vectors}: name one by --vectors FILE.npz")
with np.load(given.vectors) as file:
    missing = {"embedding", "intent", "domain"} - set(file)
    if missing:
        options.error(f"the file has no array {', '.join(sorted(missing))}")
    vectors, intent, domain = file["embedding"].astype(float), file["intent"], file["domain"]
rng = np.random.default_rng(0)
domains = rng.permutation(np.unique(domain))
new = np.isin(domain, domains[: round(len(domains) / 3)])
print("held back:", ", ".join(np.unique(domain[new])))
print(f"base intents: {len(set(intent[~new]))}")
print(f"new intents: {len(set(intent[new]))}")

# %% 2. Learn from the base intents in which directions intents differ, and how far probabilities
# can be trusted. Beside it stand a logistic regression of which only the latter is learned, and one
# that learns nothing from the base intents.

model = FewShotClassifier().fit(vectors[~new], intent[~new])
print(model.summary())
calibrated = FewShotClassifier("logistic").fit(vectors[~new], intent[~new])
plain = LogisticRegression(C=10, max_iter=500)
# It takes as many intents as questions for numbers.
warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
OURS, PLAIN = "FewShotClassifier", "logistic regression"
METHODS = {OURS: model.adapt, f"calibrated {PLAIN}": calibrated.adapt, PLAIN: plain.fit}

# %% 3. One question of each new intent is enough to answer others, each with a probability.

rows = np.flatnonzero(new)
names, first = np.unique(intent[rows], return_index=True)
learned = model.adapt(vectors[rows[first]], intent[rows[first]])
for row in rng.permutation(np.delete(rows, first))[:6]:
    (chances,) = learned.predict_proba(vectors[[row]])
    best = chances.argmax()
    print(f"{intent[row]} is answered by {names[best]}, at {100 * chances[best]:.0f} %")

# %% 4. Episodes: some of the new intents, one or five questions of each to learn from, and eight
# others of each to answer. All methods see the same ones. The log loss is small where probabilities
# are high for what is right; they are calibrated if those of 70 % are right in 70 % of all cases.

answers = {}
for ways in sorted({5, len(names)}):
    for shots in (1, 5):
        truth, found = [], {name: [] for name in METHODS}
        for _ in range(given.episodes):
            drawn = [
                rng.permutation(np.flatnonzero(intent == name))[: shots + 8]
                for name in rng.permutation(names)[:ways]
            ]
            support = np.concatenate([rows[:shots] for rows in drawn])
            query = np.concatenate([rows[shots:] for rows in drawn])
            for name, learn in METHODS.items():
                learned = learn(vectors[support], intent[support])
                found[name].append(learned.predict_proba(vectors[query]))
            truth.append(np.searchsorted(np.unique(intent[support]), intent[query]))
        answers[ways, shots] = np.array(truth), {n: np.array(each) for n, each in found.items()}

for (ways, shots), (truth, found) in answers.items():
    right = {name: (each.argmax(-1) == truth).mean(-1) for name, each in found.items()}
    for name, each in found.items():
        said = f"ways {ways}, shots {shots}, {name}"
        scores = held_back.classification(truth.ravel(), each.reshape(-1, ways))
        print(f"{said}, accuracy: {100 * scores['accuracy']:.1f}%")
        print(f"{said}, log loss: {scores['log_loss']:.3f}")
        print(f"{said}, calibration error: {100 * scores['calibration_error']:.1f}%")
    gain = 100 * (right[OURS] - right[PLAIN])
    half = 1.96 * gain.std(ddof=1) / len(gain) ** 0.5
    print(f"ways {ways}, shots {shots}, gain in points: {gain.mean():.2f} ± {half:.2f}")

# %% 5. How often answers are right, by their probabilities, where all new intents are asked for.

if given.plot:
    figure = new_figure(8.0, 4.4)
    panels = figure.subplots(1, 2, sharey=True)
    for panel, shots in zip(panels, (1, 5), strict=True):
        truth, found = answers[len(names), shots]
        panel.plot([0, 1], [0, 1], "--", color=GREY, linewidth=1, label="as it should be")
        for colour, (name, each) in zip((BLUE, GREEN, ORANGE), found.items(), strict=True):
            sure, right = each.max(-1).ravel(), (each.argmax(-1) == truth).ravel()
            bins = np.minimum((10 * sure).astype(int), 9)
            many = [one for one in range(10) if (bins == one).sum() >= 20]
            x, y = ([part[bins == one].mean() for one in many] for part in (sure, right))
            panel.plot(x, y, "o-", color=colour, markersize=4, linewidth=1.6, label=name)
        style(panel, "share that is right" if shots == 1 else "", legend=False)
        panel.set_xlabel("probability of the answer")
        panel.set_title(f"{shots} {'question' if shots == 1 else 'questions'} of each", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{len(names)} new intents at once", x=0.01, ha="left", fontsize=11)
    save(figure, given.plot)
