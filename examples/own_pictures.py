"""Pictures of one's own, from a folder of files to the classes of new ones.

    python examples/own_pictures.py

The pictures are drawn here into a temporary folder; put your own in their place: one folder for
each class, pictures of any size. On the command line the same is

    pullback train --dataset folder --data-dir my/pictures --queries 5 --out runs/mine
    pullback evaluate runs/mine
    pullback adapt runs/mine --support my/known --query my/unknown
"""

import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

import pullback as pb
from pullback.tasks.images import read_fitted

SIDE, WAYS, SHOTS, QUERIES = 12, 3, 1, 4


# %% 1. A folder of pictures: each class is a polygon, on pages of all sizes, bright and dim.


def draw(random, corners):
    """One picture of a class: its corners, moved, on a page of any size."""
    side = int(random.integers(20, 60))
    paper = int(random.integers(60, 256))
    picture = Image.new("L", (side, int(side * random.uniform(0.7, 1.3))), paper)
    moved = corners + random.normal(0, 0.05, corners.shape)
    places = (0.5 + 0.45 * moved) * picture.size
    ink = int(paper * random.uniform(0, 0.7))
    ImageDraw.Draw(picture).polygon(list(map(tuple, places)), fill=ink)
    return picture


def make_pictures(folder, classes, count, seed):
    """Folders of pictures, and not equally many in each."""
    random = np.random.default_rng(seed)
    for number in range(classes):
        place = folder / f"polygon{number:02}"
        place.mkdir(parents=True)
        corners = random.uniform(-1, 1, (5, 2))
        for example in range(count + number % 3):
            draw(random, corners).save(place / f"{example}.png")
    return folder


def main():
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)

        # %% 2. Read them, and deal whole classes to training, validation and test.
        folder = make_pictures(root / "pictures", classes=40, count=8, seed=0)
        everything = pb.tasks.load_folder(folder, root / "cache", image_size=SIDE)
        print("channels of the pictures:", everything.shape[-1])
        split = pb.tasks.draw_split(everything, validation=8, test=8)
        tasks, new_tasks = (
            pb.tasks.episodes(everything.select(part), ways=WAYS, shots=SHOTS, queries=QUERIES)
            for part in (split.train, split.test)
        )

        # %% 3. Meta-train, and score on classes that were not there in training.
        model = pb.models.MLP.for_shape(everything.shape, WAYS, hidden=(40,))
        loss, accuracy = pb.models.cross_entropy(model.apply), pb.models.accuracy(model.apply)
        algorithm = pb.fomaml(loss, strength=1.0, solver=pb.solvers.LBFGS(steps=5))
        params = model.init(jax.random.key(0))
        trained = pb.train(algorithm, params, tasks, steps=200, key=jax.random.key(1))
        for moment, theta in (("before", params), ("after", trained.theta)):
            scored = pb.evaluate(
                algorithm, theta, new_tasks, metric=accuracy, key=jax.random.key(2), count=200
            )
            share, interval = 100 * scored.mean, 100 * scored.interval
            print(f"accuracy {moment} meta-training: {share:.1f}% ± {interval:.1f}")

        # %% 4. Adapt to one picture of each of three new classes, and classify the others.
        new = make_pictures(root / "new", classes=WAYS, count=8, seed=1)
        images, names = pb.tasks.read_class_folders(new, everything.shape, read_fitted)
        labels = jnp.arange(len(names))
        support = jnp.asarray(np.stack([each[0] for each in images]) / 255, jnp.float32)
        phi, _ = jax.jit(algorithm.adapt)(trained.theta, (support, labels), jax.random.key(3))
        hits = [
            np.argmax(model.apply(phi, jnp.asarray(each[1:] / 255, jnp.float32)), -1) == label
            for label, each in enumerate(images)
        ]
        print(f"new pictures classified rightly: {100 * np.mean(np.concatenate(hits)):.1f}%")


if __name__ == "__main__":
    main()
