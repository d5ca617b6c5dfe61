"""The server: how it starts, how it ends, and what it says when it cannot."""

import socket
import time

import pytest
from lab_browser import Lab, eventually, show
from typer.testing import CliRunner

from pullback.cli import app
from pullback.core.errors import InputError
from pullback.lab import server


@pytest.fixture
def taken():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_port_in_use_is_a_clear_message(taken):
    result = CliRunner().invoke(app, ["lab", "--no-browser", "--port", str(taken)])
    said = " ".join(result.output.split())
    assert result.exit_code == 2
    assert f"port {taken} is in use" in said
    assert "--port 0" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    "options, message",
    [
        ({"port": 70000}, "port is 70000"),
        ({"host": "203.0.113.7", "port": 0}, "cannot listen on '203.0.113.7'"),
    ],
)
def test_bad_address_fails_at_once(options, message):
    with pytest.raises(InputError, match=message):
        server.start(**options)


def test_run_that_is_no_folder_fails_at_once(tmp_path):
    result = CliRunner().invoke(app, ["lab", "--run", str(tmp_path / "nowhere")])
    assert result.exit_code == 2
    assert "is no folder" in " ".join(result.output.split())


def test_interrupt_ends_it_quietly_while_a_page_is_open(browser, home):
    lab = Lab("--port", "0", home=home)
    try:
        page = browser.new_page()
        page.goto(lab.url)
        show(page, "pull")
        code, rest = lab.interrupt()
        assert code == 0
        assert "Traceback" not in rest
        assert eventually(lambda: page.locator("#lost").is_visible(), 30)
        page.close()
    finally:
        lab.stop()


def test_closed_tab_leaves_the_others_alone(visit, lab):
    first, second = visit(), visit()
    show(first, "pull")
    show(second, "pull")
    first.close()
    time.sleep(1.0)
    assert lab.process.poll() is None
    show(second, "arrows")
    assert second.locator("#arrows table").last.is_visible()


def test_theme_follows_the_button_and_repaints(visit):
    page = visit()
    show(page, "pull")
    page.wait_for_timeout(1500)
    canvas = page.locator("#pull canvas").first
    before = canvas.screenshot()
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert eventually(lambda: canvas.screenshot() != before, 10)


def test_rooms_are_built_when_they_come_into_view(visit):
    page = visit(height=600)
    show(page, "pull")
    assert page.locator("#inexact canvas").count() == 0
    show(page, "inexact")
    assert page.locator("#inexact canvas").count() > 0
