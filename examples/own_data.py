"""Data of one's own, in two forms: tasks that are drawn, and examples sorted into classes.

    python examples/own_data.py

The data are made up here; put your own arrays in their place.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import pullback as pb


class Stations(eqx.Module):
    """A task is one measuring station: some of its readings to adapt on, the others to predict.

    Anything with ``sample(key) -> pb.Task`` is a source of tasks. As an Equinox module it may hold
    arrays, which then stay on the device.
    """

    readings: jax.Array  # [stations, readings, 2]: an input and an output each
    shots: int = eqx.field(static=True, default=5)

    def sample(self, key):
        station_key, reading_key = jax.random.split(key)
        station = jax.random.choice(station_key, self.readings)
        mixed = jax.random.permutation(reading_key, station)
        x, y = mixed[:, :1], mixed[:, 1:]
        return pb.Task((x[: self.shots], y[: self.shots]), (x[self.shots :], y[self.shots :]))


def make_readings(stations, seed):
    """Each station has a gain and an offset of its own on one common curve, and noise."""
    random = np.random.default_rng(seed)
    x = random.uniform(-2, 2, (stations, 20))
    gain, offset = random.uniform(0.5, 2, (stations, 1)), random.normal(0, 1, (stations, 1))
    y = gain * np.sin(2 * x) + offset + random.normal(0, 0.1, x.shape)
    return jnp.asarray(np.stack([x, y], axis=-1), jnp.float32)


def make_classes(classes, seed):
    """Feature vectors around a centre of each class; not all classes have equally many."""
    random = np.random.default_rng(seed)
    centres = random.normal(0, 1, (classes, 8))
    counts = random.integers(10, 30, classes)
    examples = [
        (centre + random.normal(0, 0.8, (count, 8))).astype(np.float32)
        for centre, count in zip(centres, counts, strict=True)
    ]
    return pb.ClassSet.of("blobs", examples, [f"class{i}" for i in range(classes)])


def compare(name, model, loss, metric, tasks, new_tasks, steps):
    algorithm = pb.fomaml(loss, strength=1.0, solver=pb.solvers.LBFGS(steps=8))
    params = model.init(jax.random.key(0))
    trained = pb.train(algorithm, params, tasks, steps=steps, key=jax.random.key(1))
    for moment, theta in (("before", params), ("after", trained.theta)):
        scored = pb.evaluate(
            algorithm, theta, new_tasks, metric=metric, key=jax.random.key(2), count=200
        )
        print(f"{name} {moment} meta-training: {scored.mean:.3f} ± {scored.interval:.3f}")


def main():
    model = pb.models.MLP(inputs=1, outputs=1, hidden=(40, 40))
    loss = pb.models.mean_squared_error(model.apply)
    tasks, new_tasks = Stations(make_readings(100, 0)), Stations(make_readings(50, 1))
    compare("mean squared error on new stations", model, loss, loss, tasks, new_tasks, 300)

    model = pb.models.MLP(inputs=8, outputs=5, hidden=(40,))
    loss = pb.models.cross_entropy(model.apply)
    accuracy = pb.models.accuracy(model.apply)
    everything = make_classes(100, 2)
    names = everything.classes
    tasks, new_tasks = (
        pb.tasks.episodes(everything.select(part), ways=5, shots=1, queries=5)
        for part in (names[:70], names[70:])
    )
    compare("accuracy on new classes", model, loss, accuracy, tasks, new_tasks, 300)


if __name__ == "__main__":
    main()
