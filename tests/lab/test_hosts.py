"""By which names the lab may be called: against pages that point their own name to it."""

import asyncio
import http.client
import threading

import pytest

from pullback.lab import server

PATHS = ("/", "/ws", "/static/js/bokeh.min.js", "/autoload.js", "/metadata", "/nothing")


@pytest.fixture(scope="module")
def lab():
    """A lab without rooms, in a thread of its own: a browser's tests have a loop in this one."""
    ready, started = threading.Event(), []

    def answer():
        asyncio.set_event_loop(asyncio.new_event_loop())
        started.append(server.start(port=0, rooms=[], allow_hosts=["box.example"]))
        started[0].start()
        started[0].io_loop.add_callback(ready.set)
        started[0].io_loop.start()
        started[0].stop()
        started[0].io_loop.close(all_fds=True)

    thread = threading.Thread(target=answer)
    thread.start()
    assert ready.wait(30)
    yield started[0]
    started[0].io_loop.add_callback(started[0].io_loop.stop)
    thread.join(30)


def get(lab, path, host, **headers):
    """The status and the beginning of what is answered."""
    connection = http.client.HTTPConnection("127.0.0.1", lab.port, timeout=20)
    try:
        connection.request("GET", path, headers={"Host": host} | headers)
        answer = connection.getresponse()
        return answer.status, b"" if answer.status == 101 else answer.read(200)
    finally:
        connection.close()


def opens(lab, host, origin):
    """Whether a websocket is opened, as a page would that calls the lab by a name."""
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    headers |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    status, _ = get(lab, "/ws", host, **headers, **({"Origin": origin} if origin else {}))
    assert status in (101, 403)
    return status == 101


@pytest.mark.parametrize("path", PATHS)
def test_a_page_that_points_its_own_name_here_reads_nothing(path, lab):
    status, said = get(lab, path, f"evil.example:{lab.port}")
    assert status == 403
    assert b"--allow-host" in said


STRANGERS = [
    *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example"),
    *("", "192.0.2.7", "[2001:db8::7]", "0.0.0.0", "evil.example:localhost", "box.example.com"),
]
OWN = ["localhost", "LOCALHOST:5010", "127.0.0.1", "127.0.0.1:80", "[::1]:5010", "Box.Example:81"]


@pytest.mark.parametrize("host", STRANGERS)
def test_other_names_are_refused(host, lab):
    assert not server._Stranger("127.0.0.1", ["box.example"]).is_own([host])
    # Tornado itself refuses what is no name at all.
    assert get(lab, "/static/js/bokeh.min.js", host)[0] in (400, 403)


@pytest.mark.parametrize("host", OWN)
def test_its_own_names_and_those_allowed_are_answered(host, lab):
    assert get(lab, "/static/js/bokeh.min.js", host)[0] == 200


def test_two_names_at_once_are_refused():
    assert not server._Stranger("127.0.0.1", []).is_own(["localhost", "evil.example"])


def test_the_bound_address_is_a_name_and_one_open_to_all_answers_to_every_address():
    assert server._Stranger("192.0.2.7", []).is_own(["192.0.2.7:5010"])
    everyone = server._Stranger("0.0.0.0", [])
    assert everyone.is_own(["192.0.2.7:5010"]) and everyone.is_own(["[2001:db8::7]"])
    assert not everyone.is_own(["evil.example"])


SOCKETS = {
    "rebound": ("evil.example", "http://evil.example", False),
    "of another page": ("localhost:5010", "http://evil.example", False),
    "of another port": ("localhost:5010", "http://localhost:8000", False),
    "of no page": ("localhost:5010", "null", False),
    "its own, through a forwarded port": ("localhost:8888", "http://localhost:8888", True),
    "of an allowed name": ("box.example", "https://box.example", True),
    "of no browser": ("localhost", None, True),
}


@pytest.mark.parametrize(("host", "origin", "wanted"), SOCKETS.values(), ids=SOCKETS.keys())
def test_a_websocket_is_for_pages_of_this_server(host, origin, wanted, lab):
    assert opens(lab, host, origin) is wanted
