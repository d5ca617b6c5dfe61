"""The room of runs in a browser."""

import pytest
from lab_browser import Lab, eventually, model, show
from run_folders import make_run, step_line

from pullback.runs.folder import Run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    runs = tmp_path_factory.mktemp("runs")
    make_run(runs / "implicit", written=20)
    make_run(runs / "unrolled", "maml")
    (runs / "torn").mkdir()
    (runs / "torn" / "config.toml").write_text("[training]\nsteps = many\n")
    return runs


@pytest.fixture(scope="module")
def running(folder, home):
    lab = Lab("--port", "0", "--run", str(folder), home=home)
    yield lab
    lab.stop()


def test_a_run_grows_while_it_is_looked_at(visit, running, folder, pictures):
    page = visit(url=running.url)
    show(page, "runs")
    page.locator("#runs li", has_text="torn").wait_for()
    page.locator("#runs td", has_text="finished").wait_for()
    longest = lambda: max(len(xs) for xs in model(page, "runs-loss", "data")["xs"])  # noqa: E731
    assert eventually(lambda: len(model(page, "runs-loss", "data")["xs"]) == 2)
    run = next(p for p in folder.iterdir() if p.name == "implicit")
    Run.open(run).append(*(step_line(step) for step in range(21, 81)))
    assert eventually(lambda: longest() == 80)
    page.locator("#runs td", has_text="80 of 40").wait_for()
    page.locator("#runs").screenshot(path=pictures / "runs-three-1280-light.png")
    page.locator("#runs label", has_text="unrolled").click()
    assert eventually(lambda: len(model(page, "runs-loss", "data")["xs"]) == 1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_narrow_screen_nothing_sticks_out(visit, running, pictures, scheme):
    page = visit(url=running.url, width=390, scheme=scheme)
    show(page, "runs")
    page.locator("#runs td", has_text="finished").first.wait_for()
    page.wait_for_timeout(1000)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.locator("#runs").screenshot(path=pictures / f"runs-three-390-{scheme}.png")
