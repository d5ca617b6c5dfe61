"""The code in the documents runs as it stands there, and what they name exists."""

import importlib
import importlib.util
import re
import tomllib
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from alone import ROOT, blocks, run_alone

import pullback as pb

pytestmark = pytest.mark.usefixtures("tiny")
DOCUMENTS = sorted(
    str(path.relative_to(ROOT)) for pattern in ("*.md", "docs/*.md") for path in ROOT.glob(pattern)
)
FENCED = re.compile(r"^```.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_readme_example_runs_and_learns(capsys):
    (example,) = blocks("README.md")
    exec(compile(example, "README.md", "exec"), {})
    loss, residual = map(float, capsys.readouterr().out.split())
    # Predicting zero costs 4.4 on average over the sinusoid's tasks.
    assert 0 < loss < 4.4
    assert 0 < residual < 1


def test_the_skeleton_of_an_algorithm_has_the_gradient_it_promises():
    names = {}
    exec(compile(blocks("CONTRIBUTING.md")[0], "CONTRIBUTING.md", "exec"), names)
    from pullback.tasks import Task

    def loss(params, batch):
        return 0.5 * jnp.sum((params["x"] - batch) ** 2)

    algorithm = names["halfway"](loss)
    theta = algorithm.init({"x": jnp.zeros(2)})
    task = Task(jnp.ones(2), -jnp.ones(2))
    value, gradient, info = algorithm.meta_gradient(theta, task, jax.random.key(0))
    phi = 1 - 0.9**5
    np.testing.assert_allclose(gradient["x"], 0.5 * ((phi + 1) - phi), rtol=1e-6)
    np.testing.assert_allclose(value, (phi + 1) ** 2, rtol=1e-6)
    assert info.code == 0


def test_the_example_of_pretraining_runs():
    (example,) = blocks("docs/pretraining.md")
    names: dict = {}
    exec(compile(example, "docs/pretraining.md", "exec"), names)
    loss = names["body"].history["loss"]
    assert loss[-20:].mean() < loss[:20].mean() - 0.3
    assert int(names["result"].state.step) == 5


def test_the_example_of_rows_in_groups_runs_and_adapts(capsys):
    (example,) = blocks("docs/own-data.md")
    names: dict = {}
    exec(compile(example, "docs/own-data.md", "exec"), names)
    assert "240 rows in 40 groups" in capsys.readouterr().out
    model, table, wear = names["model"], names["table"], names["wear"]
    apart = abs(wear - model.predict(table)).mean()
    assert abs(wear - model.predict(table, groups=names["machine"])).mean() < apart / 2


def test_the_example_of_a_curve_runs_and_finds_the_patients(capsys):
    (example,) = blocks("docs/curves.md")
    names: dict = {}
    exec(compile(example, "docs/curves.md", "exec"), names)
    assert "240 rows in 30 groups" in capsys.readouterr().out
    found = names["model"].group_parameters_
    for name, most in {"ka": 0.2, "cl": 0.1, "v": 0.1}.items():
        drawn = names[name][::8]
        assert np.median(np.abs(np.log(found[name] / drawn))) < most
    slope, error = names["model"].coefficients_["cl × weight"]
    assert abs(slope - 0.01) < 3 * error
    seen = names["measured"][3:8]
    assert np.mean((names["lower"] < seen) & (seen < names["upper"])) > 0.5


def test_the_example_of_new_classes_runs_and_tells_strangers(capsys):
    (example,) = blocks("docs/new-classes.md")
    names: dict = {}
    exec(compile(example, "docs/new-classes.md", "exec"), names)
    assert "30 base classes; new ones by between" in capsys.readouterr().out
    new, vectors, base = names["new"], names["vectors"], names["base"]
    assert new.score(vectors[~base], names["label"][~base]) > 0.7
    assert new.known(vectors[~base]).mean() > new.known(vectors[base]).mean() + 0.3


def test_the_examples_of_serving_run_without_this_package_and_with_it(tmp_path, monkeypatch):
    # Of the third one, on a run, see tests/cli/test_cli_export.py.
    make, alone, _, loaded = blocks("docs/serving.md")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(make, "docs/serving.md", "exec"), names)
    found = run_alone(alone, tmp_path, "mean", "std")
    pd, table = names["pd"], names["table"]
    known = pd.DataFrame({"load": [1.0, 4, 9], "oil": ["thin", "thick", "thin"]})
    asked = pd.DataFrame({"load": [2.0, 6], "oil": ["thin", "thick"]})
    for one, wear in enumerate(([21.0, 30.5, 44.0], [17.0, 20.0])):
        own = names["model"].adapt(known[: len(wear)], wear)
        mean, deviation = own.predict(asked, return_std=True)
        np.testing.assert_allclose(found["mean"][one], mean, rtol=1e-10)
        np.testing.assert_allclose(found["std"][one], deviation, rtol=1e-10)
    one = pb.load_exported("one.pullback")
    own = names["model"].adapt(table[:3], names["wear"][:3])
    mean = one(query=one.rows(table[:6]))["mean"]
    np.testing.assert_allclose(mean, own.predict(table[:6]), rtol=1e-10)
    assert len(pb.load_exported("some.pullback").about["groups"]) == 10
    exec(compile(loaded, "docs/serving.md", "exec"), names)
    np.testing.assert_allclose(names["found"]["mean"][0], found["mean"][0], rtol=1e-12)


def test_the_examples_of_outer_losses_run():
    names = {}
    for example in blocks("docs/outer-losses.md"):
        exec(compile(example, "docs/outer-losses.md", "exec"), names)
        if example.endswith("head_alone.meta_gradient)(theta, tasks.sample(key), key)"):
            assert int(names["info"].linear_steps) == 0
            frozen = names["gradient"]["layer0"]["weight"]
            assert np.abs(frozen).max() > 0
    assert int(names["info"].code) == pb.Verdict.OK
    assert float(names["gradient"].log_strength) != 0
    assert names["draws"]["layer2"]["weight"].shape == (5, 16, 1)
    assert names["draws"]["layer0"]["weight"] is None


def test_the_examples_of_learned_hyperparameters_run(capsys):
    first, second = blocks("docs/learned.md")
    exec(compile(first, "learned.md", "exec"), {})
    assert "layer0" in capsys.readouterr().out
    names = {}
    exec(compile(second, "learned.md", "exec"), names)
    algorithm = names["algorithm"]
    theta = algorithm.init({"w": jnp.ones((2, 3))})
    batch = (jnp.asarray([[1.0, 0.0], [0.0, 1.0]]), jnp.asarray([0, 2]))
    from pullback.tasks import Task

    key = jax.random.key(0)
    _, gradient, info = jax.jit(algorithm.meta_gradient)(theta, Task(batch, batch), key)
    assert info.code == 0
    assert all(float(leaf) != 0 for leaf in gradient.log_hyper.values())


def code_of(document: str) -> list[str]:
    """The code of a document: its blocks, and what stands between backticks in a line."""
    text = (ROOT / document).read_text()
    if document == "CHANGELOG.md":
        # The first column of its table is of names that are no more.
        text = re.sub(r"^ *\|[^|]+\|", "|", text, flags=re.MULTILINE)
    return FENCED.findall(text) + re.findall(r"`([^`\n]+)`", FENCED.sub("", text))


def added_by(document: str) -> set[str]:
    """What a document tells its reader to add: files, modules and names that do not exist yet."""
    text = (ROOT / document).read_text()
    added = set(re.findall(r"[Cc]opy this to `([^`]+)`", text))
    for module, attribute in re.findall(r'"(pullback[\w.]+):(\w+)', text):
        if f"{module.replace('.', '/')}.py" in added:
            added |= {module, f"pb.{attribute}"}
    return added


def resolves(name: str) -> bool:
    """Whether a dotted name leads to a module or an attribute."""
    parts = name.split(".")
    found = importlib.import_module("pullback")
    for i, part in enumerate(parts[1:], start=2):
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = importlib.import_module(".".join(["pullback", *parts[1:i]]))
        except ImportError:
            return False
    return True


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_names_in_the_documents_resolve(document):
    names = {
        name
        for code in code_of(document)
        for name in re.findall(r"(?<![\w./\"-])(?:pb|pullback)(?:\.[A-Za-z_]\w*)+(?![\w/:])", code)
        if not name.endswith(".NAME")
    }
    from pullback import registries
    from pullback.core.registry import Registry

    groups = {each.group for each in vars(registries).values() if isinstance(each, Registry)}
    names -= groups | added_by(document)
    missing = sorted(name for name in names if not resolves(name))
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_files_that_the_documents_name_exist(document):
    text = (ROOT / document).read_text()
    named = re.compile(r"(?<![\w./-])(?:pullback|docs|examples|tests|benchmarks|\.ci)/[\w./-]*")
    paths = {ROOT / path for code in code_of(document) for path in named.findall(code)}
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", FENCED.sub("", text))
    paths |= {(ROOT / document).parent / link for link in links}
    # NAME stands for a name that the reader chooses.
    wanted = {Path(str(path).split("NAME")[0]) if "NAME" in str(path) else path for path in paths}
    wanted -= {ROOT / path for path in added_by(document)}
    assert not sorted(str(path) for path in wanted if not path.exists())


def options_of_commands() -> dict[str, set[str]]:
    from typer.main import get_command

    from pullback.cli import app

    return {
        name: {"--help"}
        | {flag for each in command.params for flag in (*each.opts, *each.secondary_opts)}
        for name, command in get_command(app).commands.items()
    }


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_commands_in_the_documents_have_the_options_they_are_given(document):
    options = options_of_commands()
    flags_of_scripts = {
        flag
        for folder in ("benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        for flag in re.findall(r"[\"'](--[a-z][\w-]*)", path.read_text())
    }
    wrong = []
    for line in (line for code in code_of(document) for line in code.splitlines()):
        line = line.split(" #")[0]
        command = re.match(r"(?:srun )?pullback ([a-z]+)\b", line)
        benchmark = re.search(r"python -m (benchmarks\.\w+)", line)
        example = re.search(r"python (examples/\w+\.py)", line)
        flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", line))
        if benchmark:
            wrong += [(line, flag) for flag in flags - flags_of_scripts]
            wrong += [] if importlib.util.find_spec(benchmark[1]) else [(line, benchmark[1])]
        elif example:
            known = re.findall(r"\"(--[a-z][\w-]*)", (ROOT / example[1]).read_text())
            wrong += [(line, flag) for flag in flags if flag not in known]
        elif command:
            known = options.get(command[1])
            wrong += [(line, flag) for flag in flags if known is None or flag not in known]
            wrong += [] if known is not None else [(line, command[1])]
        elif re.match(r"(--[a-z]|pullback --)", line):
            anywhere = set().union(*options.values(), flags_of_scripts, {"--version"})
            wrong += [(line, flag) for flag in flags if flag not in anywhere]
    assert not wrong


def test_each_dependency_has_a_line_and_each_line_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # The first table is of what is always installed; before each of the others stands its extra.
    parts = re.split(r"pullback\[(\w+)\]", (ROOT / "docs/dependencies.md").read_text())
    tables = dict(zip(parts[1::2], parts[2::2], strict=True))
    for requirements, part in (
        (project["dependencies"], parts[0]),
        *((r, tables[extra]) for extra, r in project["optional-dependencies"].items()),
    ):
        rows = re.findall(r"^\| ([\w, -]+) \|", part, re.MULTILINE)
        described = {name for row in rows for name in row.split(", ")} - {"package", "---"}
        wanted = {re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements}
        assert described == wanted


def test_the_reference_has_a_page_for_each_public_package():
    listed = set(re.findall(r"^   (pullback\S*)$", (ROOT / "docs/reference.md").read_text(), re.M))
    public = {
        "pullback." + ".".join(path.parent.relative_to(ROOT / "pullback").parts)
        for path in (ROOT / "pullback").rglob("*/__init__.py")
        if "__all__" in path.read_text() and path.parent.parts[-1] not in ("cli", "lab")
    }
    assert len(public) > 7
    assert public <= listed
    assert all(importlib.util.find_spec(name) for name in listed)
