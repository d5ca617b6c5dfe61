"""The lab's server: it binds an address, answers any number of visitors, and ends quietly."""

import errno
import ipaddress
import logging
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import panel as pn
from bokeh.server.urls import per_app_patterns
from panel.io.server import WSHandler, get_server
from tornado.httputil import HTTPServerRequest
from tornado.iostream import StreamClosedError
from tornado.routing import Matcher, Rule
from tornado.web import RequestHandler
from tornado.websocket import WebSocketClosedError

from pullback.core.errors import InputError
from pullback.lab.app import page
from pullback.lab.room import Room
from pullback.lab.rooms import all_rooms
from pullback.lab.session import Session


def start(
    *,
    port: int = 5010,
    host: str = "127.0.0.1",
    allow_hosts: Sequence[str] = (),
    run: Path | None = None,
    rooms: Sequence[Room] | None = None,
) -> Any:
    """Bind the server; it answers once its ``io_loop`` runs.

    Args:
        port: where to listen; 0 for any free port.
        host: the address to bind to; loopback unless others are to reach it.
        allow_hosts: names, without port, by which visitors may call this machine, beside those of
            loopback and ``host``.
        run: a folder of runs to show, or of one run.
        rooms: the rooms of the page; all that are registered if None.

    Returns:
        Bokeh's server.

    Raises:
        InputError: if the port is out of range or taken, or the host is no address of this
            machine.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port is {port}", allowed="0 for any free port, or 1 to 65535")
    port = _free_port(host, port)
    shown = all_rooms() if rooms is None else rooms

    def visit() -> pn.Template:
        document = pn.state.curdoc
        session = Session(run, document)
        if document is not None:
            document.on_session_destroyed(lambda _: session.close())
        return page(shown, session)

    if shown and shown[0].warm_up is not None:
        threading.Thread(target=shown[0].warm_up, daemon=True).start()
    _quiet_logs()
    _use_own_socket()
    server = get_server(
        {"/": visit},
        port=port,
        address=host,
        # Not by a list of origins, which would have to name every port that is forwarded to this
        # one, but by _Socket: who calls must be a page that this server gave.
        websocket_origin=["*"],
        title="pullback lab",
        location=False,
        # A closed tab is forgotten after this many milliseconds.
        check_unused_sessions_milliseconds=5_000,
        unused_session_lifetime_milliseconds=10_000,
    )
    rule = Rule(_Stranger(host, allow_hosts), _Refused)
    server._tornado.default_router.rules.insert(0, rule)
    return server


def serve(server: Any, *, browser: bool, announce: Callable[[str], None]) -> None:
    """Answer visitors until Ctrl-C or a signal to end.

    Args:
        server: from :func:`start`.
        browser: whether to open the page in the user's browser.
        announce: gets the address once it answers.
    """
    loop, address = server.io_loop, url(server)

    def stop(*_: Any) -> None:
        loop.add_callback_from_signal(loop.stop)

    # Signals can be caught in the main thread only; elsewhere the caller stops the loop.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
    loop.asyncio_loop.set_exception_handler(_pass_over_closed_tabs)
    server.start()
    loop.add_callback(announce, address)
    if browser:
        loop.run_in_executor(None, webbrowser.open, address)
    try:
        loop.start()
    finally:
        server.stop()


def _pass_over_closed_tabs(loop: Any, context: dict[str, Any]) -> None:
    # That a page is closed while an answer is on its way to it is no error.
    if not isinstance(context.get("exception"), WebSocketClosedError | StreamClosedError):
        loop.default_exception_handler(context)


def url(server: Any) -> str:
    """The address of a started server."""
    host = server.address or "127.0.0.1"
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{server.port}/"


def _free_port(host: str, port: int) -> int:
    """The port, once it is known to be free; for 0 any free one, which origins must name."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise _cannot_bind(host, port, error) from None
        return probe.getsockname()[1]


def _cannot_bind(host: str, port: int, error: OSError) -> InputError:
    if error.errno == errno.EADDRINUSE:
        return InputError(
            f"port {port} is in use",
            allowed="a free port, or 0 for any",
            remedy="Perhaps another lab still runs; give --port 0",
        )
    if error.errno == errno.EACCES:
        return InputError(f"port {port} is not allowed to this user", allowed="1024 to 65535")
    return InputError(
        f"The lab cannot listen on {host!r}: {error.strerror or error}",
        allowed="an address of this machine, such as 127.0.0.1",
    )


class _Stranger(Matcher):
    """Requests that call this server by a name that is not its own.

    A page of anyone's can have its own name point to this address (DNS rebinding), and would then
    read what it gets from here as its own. What such a page cannot choose is the name by which
    the browser calls: its own.

    Args:
        host: the address that the server is bound to.
        allowed: more names.
    """

    def __init__(self, host: str, allowed: Sequence[str]):
        self.names = {"localhost", _bare(host), *map(_bare, allowed)}
        self.open = host in ("0.0.0.0", "::", "")

    def match(self, request: HTTPServerRequest) -> dict[str, Any] | None:
        """Not None, which is to refuse it, for a stranger's."""
        return None if self.is_own(request.headers.get_list("Host")) else {}

    def is_own(self, hosts: Sequence[str]) -> bool:
        """Whether what a request says in its Host headers is this server."""
        if len(hosts) != 1:
            return False
        name = _bare(hosts[0])
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # Which addresses this machine has is not known; no name points to an address in figures.
        return address.is_loopback or self.open


def _bare(host: str) -> str:
    """A host's name or address without port and brackets."""
    try:
        return (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return ""


class _Refused(RequestHandler):
    """What a stranger gets, whatever it asks for."""

    def prepare(self) -> None:
        self.set_status(403)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(
            "This lab does not answer to the name by which it was called. If it is a name of this "
            "machine, start the lab with --allow-host NAME.\n"
        )


class _Socket(WSHandler):
    """Answers pages of this server alone, and sends small messages at once.

    Bokeh sends a change in several pieces, and each answer would wait 40 ms for the visitor's
    system to acknowledge the first.
    """

    def check_origin(self, origin: str) -> bool:
        """Whether the page came from the host and port that its request names; see _Stranger."""
        try:
            return urlsplit(origin).netloc.lower() == self.request.headers["Host"].lower()
        except (ValueError, KeyError):
            return False

    def open(self, *arguments: Any, **options: Any) -> Any:
        self.set_nodelay(True)
        return super().open(*arguments, **options)


def _use_own_socket() -> None:
    # As Panel puts its own handler there. Other programs do not share this process.
    for number, entry in enumerate(per_app_patterns):
        if entry[1] is WSHandler:
            per_app_patterns[number] = (entry[0], _Socket)


def _quiet_logs() -> None:
    for name in ("bokeh", "tornado", "panel"):
        logging.getLogger(name).setLevel(logging.ERROR)
