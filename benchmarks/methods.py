"""The methods side by side: same model, episodes and seconds, from scratch and from one body.

    python -m benchmarks.methods OUT --data-dir DIR [--start PLACE] [--minutes 4] [--seeds 3]
                                 [--config FILE]

Each method trains for the same time, compilation and validations left out, once for each seed. Its
inner step size (for iMAML its λ) is the best on validation of those in METHODS, in trainings of a
quarter of the time with seed 0. Test classes are met once, at the end. Two rows need no
meta-training: the class whose mean feature is nearest, on the body of PLACE, and the network
trained from scratch on each support set. A run that stands in OUT already is taken as it is, or
resumed; so the same command goes on after an interruption.

OUT/methods.json is what `python -m benchmarks.results compared OUT` takes into the report.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pullback.meta import parallel
from pullback.runs import budget, build, checkpoint
from pullback.runs import config as configs
from pullback.runs.folder import Run, write_json
from pullback.runs.pretrained import load_pretrained, open_trained, portable
from pullback.runs.score import evaluate_run
from pullback.runs.starting import check_start, with_inherited
from pullback.runs.trainer import train_run
from pullback.study.parts import mean_interval

RATES, STRENGTHS = (0.03, 0.1, 0.3), (5.0, 20.0)
METHODS = {
    "MAML": ({"name": "maml"}, "inner_learning_rate", RATES),
    "FOMAML": ({"name": "fomaml"}, "inner_learning_rate", RATES),
    "Reptile": ({"name": "reptile"}, "inner_learning_rate", RATES),
    "iMAML": ({"name": "imaml"}, "strength", STRENGTHS),
    "iMAML-HF": ({"name": "imaml", "solver": "newton-cg"}, "strength", STRENGTHS),
}
"""Of each method its settings, the one that is tuned, and the values tried."""

FRESH_MODEL = {"groups": 1}
"""The model's settings where it starts from scratch; else it is the body's."""

SCRATCH_STEPS, SCRATCH_RATE = 100, 0.1


def configuration(arguments, method, tuned, seed, start):
    """The settings of one training."""
    algorithm, name, _ = METHODS[method]
    given = {
        "data": {
            "dataset": "omniglot",
            "data_dir": arguments.data_dir,
            "split_by": "character",
            "queries": 10,
            "reflections": True,
            "distortion": 1.0,
        },
        "algorithm": algorithm | {name: tuned},
        "training": {
            "seed": seed,
            "learning_rate": 1e-3 if start else 2.5e-3,
            "validation_tasks": arguments.tasks // 2,
            "start": start,
        },
    }
    if not start:
        given["model"] = FRESH_MODEL
    if arguments.config is not None:
        given = configs.merge(given, configs.read_toml(arguments.config))
    return configs.resolve(with_inherited(given))


def any_configuration(arguments):
    """The settings of some training: its data and its model are those of all."""
    method = next(iter(METHODS))
    return configuration(arguments, method, METHODS[method][2][0], 0, arguments.start)


def trained(folder, config, minutes, data):
    """A run of so many minutes, and its experiment."""
    if (folder / "config.toml").exists():
        run = Run.open(folder)
        built = build.build(run.config, run.split, data, run.summary)
    else:
        built = build.build(config, data=data)
        check_start(built)
        print(f"{folder.name}: measuring its pace", flush=True)
        built = budget.prepare(built, 60 * minutes, with_overhead=False, say=print)
        every = max(1, built.config.training.steps // 10)
        built = dataclasses.replace(built, config=budget.with_training(built, validate_every=every))
        run = Run.create(folder, built.config, built.split, built.summary)
    done = checkpoint.steps(run.checkpoints)
    if not done or done[-1] < run.config.training.steps:
        train_run(run, built, resume=bool(done))
    return run, built


def record(run, built, tasks):
    """What the report needs of one run."""
    lines = run.metrics("validation")
    score = evaluate_run(run, tasks=tasks, built=built).record
    flagged = sum(line["flagged"] for line in run.metrics("step"))
    return {
        "test": {name: score[name] for name in ("mean", "interval", "tasks")},
        "curve": [{n: line[n] for n in ("step", "seconds", "mean")} for line in lines],
        "compilation": lines[-1]["compilation"],
        "flagged": flagged / (run.config.training.steps * run.config.training.tasks_per_step),
    }


def compare(arguments, data):
    """The trainings of all methods, from scratch and from the body."""
    found = []
    for start in ("", arguments.start) if arguments.start else ("",):
        for method, (_, name, values) in METHODS.items():
            place = arguments.out / ("body" if start else "scratch")
            scores = {}
            for value in values:
                config = configuration(arguments, method, value, 0, start)
                run, built = trained(
                    place / f"{method}-{name}-{value:g}", config, arguments.minutes / 4, data
                )
                scores[value] = run.best_validation(built.score)["mean"]
            best = max(scores, key=scores.__getitem__)
            runs = []
            for seed in range(arguments.seeds):
                config = configuration(arguments, method, best, seed, start)
                run, built = trained(
                    place / f"{method}-seed{seed}", config, arguments.minutes, data
                )
                runs.append(record(run, built, arguments.tasks))
            tuning = {f"{value:g}": score for value, score in scores.items()}
            row = {"method": method, "from": "body" if start else "scratch", "tuned": name}
            found.append(row | {"tuning": tuning, "best": best, "runs": runs})
            tests = [f"{run['test']['mean']:.2%}" for run in runs]
            print(f"{row['from']}: {method}, {name} {best:g}: {', '.join(tests)}", flush=True)
    return found


def without_meta_training(arguments, data):
    """Nearest mean feature on the body, and training from scratch on the support set."""
    built = build.build(any_configuration(arguments), data=data)
    rows = {"trained from scratch on the support set": from_scratch(built)}
    if arguments.start:
        body = load_pretrained(open_trained(arguments.start).folder).theta
        rows["nearest mean feature, on the body"] = nearest_mean(built, body)
    return {name: score(built.tasks("test"), *row, arguments.tasks) for name, row in rows.items()}


def score(source, params, hits, count):
    """Mean and interval of the accuracy over tasks."""

    @jax.jit
    def one(params, key):
        return hits(params, source.sample(key), key)

    keys = jax.random.split(jax.random.fold_in(jax.random.key(0), build.EVALUATE), count)
    scores = np.array([one(params, key) for key in keys])
    return mean_interval(scores) | {"tasks": count}


def nearest_mean(built, params):
    """Each query example belongs to the class whose mean feature has the largest cosine."""
    apply = built.model.apply

    def hits(params, task, key):
        body, _ = apply.split(params)
        (x, y), (queries, labels) = task.support, task.query
        features = apply.features(body, x)
        means = jax.nn.one_hot(y, built.config.data.ways).T @ features
        unit = means / jnp.linalg.norm(means, axis=1, keepdims=True)
        return jnp.mean(jnp.argmax(apply.features(body, queries) @ unit.T, 1) == labels)

    return params, hits


def from_scratch(built):
    """A fresh network for each task, gradient descent on its support set."""

    def hits(_, task, key):
        def step(params, _):
            gradient = jax.grad(built.loss)(params, task.support)
            return jax.tree.map(lambda p, g: p - SCRATCH_RATE * g, params, gradient), None

        phi, _ = jax.lax.scan(step, built.model.init(key), None, length=SCRATCH_STEPS)
        return built.metric(phi, task.query)

    return None, hits


def main():
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir", default="")
    parser.add_argument("--config", type=Path, help="settings that go before those above, as TOML")
    parser.add_argument("--start", default="", help="a run or a trained initialisation")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each training")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=600, help="test tasks")
    arguments = parser.parse_args()
    parallel.use_host_devices()
    arguments.out.mkdir(parents=True, exist_ok=True)
    first = any_configuration(arguments)
    data = build.load_data(first)
    alone = without_meta_training(arguments, data)
    for name, found in alone.items():
        print(f"{name}: {found['mean']:.2%}", flush=True)
    document = {
        "minutes": arguments.minutes,
        "seeds": arguments.seeds,
        "config": portable(first).to_dict(),
        "without meta-training": alone,
        "methods": compare(arguments, data),
    }
    write_json(arguments.out / "methods.json", document)
    print(f"Written: {arguments.out / 'methods.json'}")


if __name__ == "__main__":
    main()
