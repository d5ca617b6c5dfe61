"""The lab's server: it binds an address, answers any number of visitors, and ends quietly."""

import errno
import logging
import signal
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.server.urls import per_app_patterns
from panel.io.server import WSHandler, get_server
from tornado.iostream import StreamClosedError
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
    run: Path | None = None,
    rooms: Sequence[Room] | None = None,
) -> Any:
    """Bind the server; it answers once its ``io_loop`` runs.

    Args:
        port: where to listen; 0 for any free port.
        host: the address to bind to; loopback unless others are to reach it.
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
    _send_at_once()
    return get_server(
        {"/": visit},
        port=port,
        address=host,
        websocket_origin=_origins(host, port),
        title="pullback lab",
        location=False,
        # A closed tab is forgotten after this many milliseconds.
        check_unused_sessions_milliseconds=5_000,
        unused_session_lifetime_milliseconds=10_000,
    )


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


def _origins(host: str, port: int) -> list[str]:
    """Which pages may talk to the server: its own, unless it was opened to others."""
    if host in ("0.0.0.0", "::"):
        return ["*"]
    names = {host, "127.0.0.1", "localhost"}
    return [f"{name}:{port}" for name in sorted(names)]


class _PromptSocket(WSHandler):
    """Sends small messages at once, instead of when the last one is acknowledged.

    Bokeh sends a change in several pieces, and each answer would wait 40 ms for the visitor's
    system to acknowledge the first.
    """

    def open(self, *arguments: Any, **options: Any) -> Any:
        self.set_nodelay(True)
        return super().open(*arguments, **options)


def _send_at_once() -> None:
    # As Panel puts its own handler there. Other programs do not share this process.
    for number, entry in enumerate(per_app_patterns):
        if entry[1] is WSHandler:
            per_app_patterns[number] = (entry[0], _PromptSocket)


def _quiet_logs() -> None:
    for name in ("bokeh", "tornado", "panel"):
        logging.getLogger(name).setLevel(logging.ERROR)
