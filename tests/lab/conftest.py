"""A running lab, and a browser that looks at it."""

import os
from pathlib import Path

import pytest
from lab_browser import PATIENCE, Lab, is_local
from run_folders import make_run

from benchmarks.chromium import CHROMIUM, FLAGS

pytest.importorskip("panel", reason="the lab's extra is not installed")

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The cache folder of all labs, so that the second one has nothing to compile."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def lab(tmp_path_factory, home):
    """The lab that the tests of a process share, pointed at a folder with one run."""
    runs = tmp_path_factory.mktemp("runs")
    make_run(runs / "first")
    started = Lab("--port", "0", "--run", str(runs), home=home)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def browser():
    """Debian's Chromium, by Playwright."""
    if CHROMIUM is None:
        leave = pytest.fail if os.environ.get("CI") else pytest.skip
        leave("no chromium found: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, lab, pictures, request):
    """``visit(width=…, scheme=…)`` opens the page anew; afterwards nothing may have gone wrong.

    Of a test that fails, a picture of each page is kept, and what the lab wrote is printed.
    """
    pages, wrong = [], []

    def open_page(*, width=1280, height=900, scheme="light", url=None, anchor="", **options):
        viewport = {"width": width, "height": height}
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        page = context.new_page()
        pages.append(page)
        page.set_default_timeout(PATIENCE)
        home = url or lab.url
        page.on(
            "console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: wrong.append(r.url) if not is_local(r.url, home) else None)
        page.goto(home + anchor)
        return page

    yield open_page
    if request.node.stash.get(FAILED, False):
        for number, page in enumerate(pages):
            if page.is_closed():
                continue
            picture = pictures / f"failed-{request.node.name}-{number}.png"
            page.screenshot(path=picture)
            print(f"{picture}: {page.url}")
        print("The lab wrote:", *lab.said, sep="\n")
    for page in pages:
        page.context.close()
    assert not wrong


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Where screenshots go: PULLBACK_LAB_PICTURES, or a temporary folder."""
    folder = os.environ.get("PULLBACK_LAB_PICTURES")
    path = Path(folder) if folder else tmp_path_factory.mktemp("pictures")
    path.mkdir(parents=True, exist_ok=True)
    return path
