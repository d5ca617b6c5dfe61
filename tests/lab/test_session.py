"""Sessions: computations that follow a visitor, and rooms that fail."""

import threading
from concurrent.futures import ThreadPoolExecutor

import panel as pn
import pytest

from pullback.lab.app import page
from pullback.lab.export import export_page
from pullback.lab.formula import prose
from pullback.lab.room import Room
from pullback.lab.session import Session

pytestmark = pytest.mark.usefixtures("tiny")


class Document:
    """What a session asks of a Bokeh document; callbacks run when the test says so."""

    def __init__(self):
        self.waiting = []
        self.filled = threading.Semaphore(0)

    def add_next_tick_callback(self, action):
        self.waiting.append(action)
        self.filled.release()

    def tick(self):
        assert self.filled.acquire(timeout=10)
        self.waiting.pop(0)()


@pytest.fixture
def session():
    with ThreadPoolExecutor(1) as executor:
        yield Session(document=Document(), executor=executor)


def test_only_the_latest_arguments_are_computed(session):
    begin, shown, computed = threading.Event(), [], []

    def compute(x):
        assert begin.wait(10)
        computed.append(x)
        return x

    update = session.updater(compute, shown.append)
    for x in range(5):
        update(x)
    begin.set()
    session.document.tick()
    session.document.tick()
    assert computed == shown == [0, 4]


def test_failure_is_shown_and_the_next_call_computes(session):
    shown, failed = [], []
    update = session.updater(lambda x: 1 / x, shown.append, failed.append)
    update(0)
    session.document.tick()
    update(2)
    session.document.tick()
    assert isinstance(failed[0], ZeroDivisionError)
    assert shown == [0.5]


def test_nothing_is_shown_once_closed(session):
    closed = []
    session.on_close(lambda: closed.append(True))
    update = session.updater(lambda: 1, closed.append)
    session.close()
    update()
    assert closed == [True]
    assert not session.document.waiting


def test_room_that_fails_leaves_the_others():
    def broken(session):
        raise ValueError("no <such> thing")

    def whole(session):
        return pn.pane.HTML("here I am")

    rooms = [Room("broken", "Broken", "", broken), Room("whole", "Whole", "", whole)]
    template = page(rooms, Session(), live=False)
    found = {name: item[0] for name, item in template._render_items.items()}
    (message,) = found["broken"].select(pn.pane.HTML)
    assert "could not be built" in message.object
    assert "no &lt;such&gt; thing" in message.object
    (text,) = found["whole"].select(pn.pane.HTML)
    assert text.object == "here I am"


def test_formulas_are_mathml_and_html_is_text():
    shown = prose("So $x^2$ and <b>bold</b>.")
    assert "<math" in shown
    assert "&lt;b&gt;" in shown


def test_export_needs_no_other_host(tmp_path, browser):
    target = export_page(tmp_path / "site")
    opened, asked, wrong = browser.new_page(), [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda m: wrong.append(m.text) if m.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.goto(target.as_uri())
    opened.locator("#inexact canvas").first.wait_for()
    opened.wait_for_timeout(500)
    home = target.parent.as_uri()
    assert [url for url in asked if not url.startswith((home, "data:", "blob:"))] == []
    assert wrong == []
    assert opened.locator("#pull select").first.is_disabled()
    opened.close()


def test_nothing_is_shown_before_the_browser_has_the_room():
    class Document:
        def add_next_tick_callback(self, action):
            action()

    visit = Session(document=Document())
    room, shown = visit.for_room(), []
    room.call_soon(lambda: shown.append(1))
    room.call_soon(lambda: shown.append(2))
    assert shown == []
    room.mounted()
    room.mounted()
    assert shown == [1, 2]
    room.call_soon(lambda: shown.append(3))
    assert shown == [1, 2, 3]
    visit.close()
    room.call_soon(lambda: shown.append(4))
    assert room.closed and shown == [1, 2, 3]
