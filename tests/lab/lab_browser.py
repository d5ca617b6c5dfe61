"""A lab in a process of its own, and what tests ask of a browser."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from compiling import ENVIRONMENT

PATIENCE = 120_000
"""Milliseconds: a busy machine compiles slowly."""


SHORT_TRAINING = """
import dataclasses, sys
from pullback.cli import main
from pullback.lab.rooms.game.mathematics import SMALL_MODEL
from pullback.lab.rooms.sine.mathematics import RECIPES

SMALL_MODEL["training"]["steps"] = 30
for name, recipe in RECIPES.items():
    RECIPES[name] = dataclasses.replace(recipe, steps=100)
sys.argv[0] = "pullback"
main()
"""
"""``pullback lab`` with less training: the tests ask what rooms do, not how much was learned."""


class Lab:
    """A running ``pullback lab``.

    Args:
        *options: of the command.
        home: a cache folder; compiled programs and trained models stay out of the user's.
    """

    def __init__(self, *options: str, home: Path):
        settings = {"XDG_CACHE_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        program = ["-m", "pullback.cli"]
        # Pictures are to show what a user sees.
        if "PULLBACK_LAB_PICTURES" not in os.environ:
            program = ["-c", SHORT_TRAINING]
            settings |= ENVIRONMENT
        self.process = subprocess.Popen(
            [sys.executable, *program, "lab", "--no-browser", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=os.environ | settings,
        )
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        while said and "The lab is at" not in said:
            said = self.process.stdout.readline()
        assert said, f"the lab ended at once, with {self.process.wait()}"
        self.url = next(word for word in said.split() if word.startswith("http://"))
        self.said: list[str] = []
        """What it wrote after its address."""
        # Read as it comes: a full pipe would stop the lab.
        self._reader = threading.Thread(
            target=self.said.extend, args=(self.process.stdout,), daemon=True
        )
        self._reader.start()

    def interrupt(self) -> tuple[int, str]:
        """Ctrl-C, once; gives the exit code and what was written after the address."""
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(timeout=60)
        self._reader.join(timeout=60)
        return code, "".join(self.said)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)
        self._reader.join(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()


def is_local(url: str, home: str) -> bool:
    """Whether a request stays on this machine."""
    return url.startswith((home, home.replace("http", "ws", 1), "data:", "blob:"))


def model(page, name: str, attribute: str):
    """An attribute of a Bokeh model of the page, as the browser has it.

    Args:
        page: the page.
        name: the model's name.
        attribute: of the model; ``data`` of a source gives lists.
    """
    return page.evaluate(
        """([name, attribute]) => {
          const pairs = (entries) => Object.fromEntries(entries.map(([k, v]) => [k, plain(v)]))
          const plain = (x) => x instanceof Map ? pairs([...x])
            : ArrayBuffer.isView(x) ? Array.from(x)
            : Array.isArray(x) ? x.map(plain)
            : x !== null && typeof x === "object" && x.constructor === Object
              ? pairs(Object.entries(x)) : x
          for (const document of Bokeh.documents) {
            const found = document.get_model_by_name(name)
            if (found != null) return plain(found[attribute])
          }
          return null
        }""",
        [name, attribute],
    )


def eventually(check, seconds: float = PATIENCE / 1000):
    """The first result of ``check()`` that is true; the last one once the time is over."""
    end = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def show(page, room: str) -> None:
    """Go to a room, wait until its figure is there, and be free to go elsewhere."""
    page.evaluate("name => { location.hash = name }", room)
    page.locator(f"#{room} canvas").first.wait_for()
    page.keyboard.press("Shift")


def pixel(page, figure: str, x: float, y: float) -> tuple[float, float]:
    """Where in the window a point of a named figure is."""
    place = page.evaluate(
        """([name, x, y]) => {
          for (const document of Bokeh.documents) {
            const found = document.get_model_by_name(name)
            if (found == null) continue
            const view = document.views_manager.find_one(found)
            const box = view.canvas_view.el.getBoundingClientRect()
            const frame = view.frame
            return [box.left + frame.x_scale.compute(x), box.top + frame.y_scale.compute(y)]
          }
        }""",
        [figure, x, y],
    )
    return place[0], place[1]


def drag(page, figure: str, start, end, moves: int = 12) -> None:
    """Press at one point of a figure, and let go at another."""
    page.evaluate(
        """name => {
          const model = Bokeh.documents[0].get_model_by_name(name)
          Bokeh.documents[0].views_manager.find_one(model).el.scrollIntoView({block: "center",
            behavior: "instant"})
        }""",
        figure,
    )
    page.mouse.move(*pixel(page, figure, *start))
    page.mouse.down()
    for share in (n / moves for n in range(1, moves + 1)):
        between = [a + share * (b - a) for a, b in zip(start, end, strict=True)]
        page.mouse.move(*pixel(page, figure, *between))
    page.mouse.up()


def slide(page, room: str, number: int, presses: int) -> None:
    """Move a slider of a room by the keyboard: to the right, or to the left if negative."""
    handle = page.locator(f"#{room} .noUi-handle").nth(number)
    handle.focus()
    for _ in range(abs(presses)):
        handle.press("ArrowRight" if presses > 0 else "ArrowLeft")
