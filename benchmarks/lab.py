"""How quick the lab is, measured in Chromium: first paint, first figure, a drag, eight visitors.

    python -m benchmarks.lab            # needs chromium and the test extra
    python -m benchmarks.lab --json lab.json

A drag is a pointer that moves all the time in small steps; a frame is an answer of the server that
the browser has painted: position asked for, tasks solved, curves sent back. Latency is the time
from asking for a position until its answer is painted. The other visitors are pages with sessions
of their own that ask for twenty positions a second and take the answers, but do not paint them:
pages that all paint on this one machine would measure one another.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.chromium import CHROMIUM, FLAGS

_WATCH = """() => {
  const find = (name) => Bokeh.documents[0].get_model_by_name(name)
  const requested = find("pull-theta-requested"), acknowledged = find("pull-theta-acknowledged")
  window.latencies = []
  window.frames = []
  const sent = new Map()
  let painting = false
  requested.properties.data.change.connect(() => sent.set(requested.data.n[0], performance.now()))
  acknowledged.properties.data.change.connect(() => {
    const number = acknowledged.data.n[0]
    const start = sent.get(number)
    for (const older of [...sent.keys()]) if (older <= number) sent.delete(older)
    // Two animation frames on, what the answer brought has been painted; of several answers in
    // one frame only one counts.
    const first = !painting
    painting = true
    requestAnimationFrame(() => { painting = false; requestAnimationFrame(() => {
      const now = performance.now()
      if (first) window.frames.push(now)
      if (start !== undefined) window.latencies.push(now - start)
    })})
  })
}"""

_ASK = """() => {
  const document = Bokeh.documents[0]
  const requested = document.get_model_by_name("pull-theta-requested")
  const acknowledged = document.get_model_by_name("pull-theta-acknowledged")
  const figure = document.get_model_by_name("pull-figure")
  document.views_manager.find_one(figure)._actual_paint = () => {}
  const start = performance.now()
  let count = 0
  acknowledged.properties.data.change.connect(() => { count += 1 })
  setInterval(() => {
    const t = performance.now() / 1000
    requested.data = {x: [1.6 * Math.cos(t)], y: [1.6 * Math.sin(1.7 * t)],
      n: [requested.data.n[0] + 1], released: [false]}
  }, 50)
  window.answered = () => count / (performance.now() - start) * 1000
}"""

_SWING = """(seconds) => new Promise((resolve) => {
  const document = Bokeh.documents[0]
  const model = document.get_model_by_name("pull-figure")
  const view = document.views_manager.find_one(model)
  const target = view.canvas_view.events_el
  const box = view.canvas_view.el.getBoundingClientRect()
  const at = (t) => {
    const x = 1.6 * Math.cos(t), y = 1.6 * Math.sin(1.7 * t)
    return {clientX: box.left + view.frame.x_scale.compute(x),
            clientY: box.top + view.frame.y_scale.compute(y)}
  }
  const send = (type, t) => target.dispatchEvent(new PointerEvent(type, {
    ...at(t), pointerId: 1, pointerType: "mouse", isPrimary: true, bubbles: true, cancelable: true,
    button: 0, buttons: type === "pointerup" ? 0 : 1}))
  const start = performance.now()
  send("pointerdown", 0)
  const move = () => {
    const now = (performance.now() - start) / 1000
    if (now > seconds) { send("pointerup", now); resolve(); return }
    send("pointermove", now)
    requestAnimationFrame(move)
  }
  requestAnimationFrame(move)
})"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of each drag")
    parser.add_argument("--visitors", type=int, default=8)
    parser.add_argument("--json", help="write the record here too")
    options = parser.parse_args()
    if CHROMIUM is None:
        sys.exit("no chromium found: apt-get install chromium")
    record: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count()}
    record["load_before"] = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for name in ("cold", "warm"):
            with Lab(home) as lab:
                record[name] = {"server_up_s": lab.seconds} | first_look(browser, lab)
                if name == "warm":
                    record["drag"] = drag(browser, lab.url, options.seconds)
                    record["visitors"] = crowded_drag(
                        browser, lab.url, options.visitors, options.seconds
                    )
        browser.close()
    record["load_after"] = os.getloadavg()[0]
    report(record)
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=2), encoding="utf-8")


class Lab:
    """A lab in a process of its own, with a cache folder that the next one finds again."""

    def __init__(self, home: str):
        self.home = home

    def __enter__(self) -> "Lab":
        start = time.perf_counter()
        command = [sys.executable, "-m", "pullback.cli", "lab", "--no-browser", "--port", "0"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"XDG_CACHE_HOME": self.home, "PYTHONUNBUFFERED": "1"},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.seconds = time.perf_counter() - start
        self.url = next(word for word in line.split() if word.startswith("http://"))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=60)


def first_look(browser: Browser, lab: Lab) -> dict[str, float]:
    """Seconds until the first paint, until the first figure is there, and until it has answered."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(lab.url, wait_until="commit")
    page.wait_for_function("performance.getEntriesByName('first-contentful-paint').length")
    paint = page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    page.locator("#pull canvas").first.wait_for()
    figure = time.perf_counter() - start
    wait_for_points(page)
    computed = time.perf_counter() - start
    page.evaluate(_WATCH)
    page.evaluate(_SWING, 0.3)
    page.wait_for_function("window.latencies.length > 0")
    answered = time.perf_counter() - start
    context.close()
    return {
        "first_paint_s": paint / 1000,
        "first_figure_s": figure,
        "first_numbers_s": computed,
        "first_drag_answered_s": answered - 0.3,
    }


def wait_for_points(page: Page) -> None:
    page.wait_for_function(
        """Bokeh.documents.length > 0
           && (Bokeh.documents[0].get_model_by_name("pull-points")?.data.get?.("x")
               ?? Bokeh.documents[0].get_model_by_name("pull-points")?.data.x ?? []).length > 0""",
        timeout=120_000,
    )


def drag(browser: Browser, url: str, seconds: float) -> dict[str, float]:
    """Frames a second and latencies while a visitor drags."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.goto(url)
    wait_for_points(page)
    page.evaluate("document.getElementById('pull').scrollIntoView()")
    page.evaluate(_WATCH)
    page.evaluate(_SWING, seconds)
    frames, latencies = page.evaluate("window.frames"), sorted(page.evaluate("window.latencies"))
    context.close()
    return {
        "frames_per_second": (len(frames) - 1) / (frames[-1] - frames[0]) * 1000,
        "latency_median_ms": statistics.median(latencies),
        "latency_95_ms": latencies[int(0.95 * (len(latencies) - 1))],
    }


def crowded_drag(browser: Browser, url: str, visitors: int, seconds: float) -> dict[str, float]:
    """A drag beside other visitors."""
    contexts = [browser.new_context() for _ in range(visitors - 1)]
    pages = [context.new_page() for context in contexts]
    for page in pages:
        page.goto(url)
        wait_for_points(page)
        page.evaluate(_ASK)
    found = drag(browser, url, seconds)
    answered = [page.evaluate("window.answered()") for page in pages]
    for context in contexts:
        context.close()
    return (
        {"visitors": visitors} | found | {"others_answered_per_second": statistics.mean(answered)}
    )


def report(record: dict[str, Any]) -> None:
    print(f"{record['cores']} cores, load {record['load_before']:.1f} before")
    for name in ("cold", "warm", "drag", "visitors"):
        numbers = ", ".join(f"{key} {value:.3g}" for key, value in record[name].items())
        print(f"{name}: {numbers}")


if __name__ == "__main__":
    main()
