"""One visitor's session: what belongs to it is shared with no other."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from bokeh.document import Document

log = logging.getLogger("pullback.lab")

_workers = ThreadPoolExecutor(max_workers=4, thread_name_prefix="lab")


class Session:
    """One visit to the page: its document, and ways to compute without blocking the server.

    Args:
        run: the folder of runs that the lab was given, or None.
        document: the visitor's Bokeh document. Without one, as in tests and exports, everything
            is computed at once, in the thread that asks for it.
        executor: where computations run; threads that all sessions share if None.
    """

    def __init__(
        self,
        run: Path | None = None,
        document: Document | None = None,
        executor: Executor | None = None,
    ):
        self.run, self.document = run, document
        self.executor = _workers if executor is None else executor
        self.closed = False
        self._on_close: list[Callable[[], None]] = []

    def updater(
        self,
        compute: Callable[..., Any],
        show: Callable[[Any], None],
        on_error: Callable[[Exception], None] | None = None,
    ) -> "Updater":
        """A function that computes in a thread and then shows the result.

        Args:
            compute: a pure function, run in a thread; it must not touch a widget or a figure.
            show: gets the result, and may change the session's widgets and figures.
            on_error: gets what ``compute`` raised, likewise; by default it goes to the log.

        Returns:
            A function that takes the arguments of ``compute`` and returns at once. Of several
            calls while it is busy only the latest counts.
        """
        return Updater(self, compute, show, on_error)

    def call_soon(self, action: Callable[[], None]) -> None:
        """Run ``action`` when the document may be changed; nothing once the session is closed.

        May be called from any thread.
        """
        if self.document is None:
            action()
        elif not self.closed:
            self.document.add_next_tick_callback(action)

    def every(self, milliseconds: int, action: Callable[[], None]) -> Callable[[], None]:
        """Run ``action`` periodically.

        Args:
            milliseconds: between one run and the next.
            action: may change the session's widgets and figures.

        Returns:
            A function that stops it.
        """
        if self.document is None:
            return lambda: None
        document = self.document
        callback = document.add_periodic_callback(action, milliseconds)

        def stop() -> None:
            if callback in document.session_callbacks:
                document.remove_periodic_callback(callback)

        return stop

    def on_close(self, action: Callable[[], None]) -> None:
        """Run ``action`` when the visitor has left."""
        self._on_close.append(action)

    def close(self) -> None:
        """The visitor has left: computations under way are not shown any more."""
        self.closed = True
        for action in self._on_close:
            action()

    def for_room(self) -> "RoomSession":
        """A session of the same visitor, for a room that the browser does not have yet."""
        return RoomSession(self)


class RoomSession(Session):
    """The session of a room that is on its way to the browser.

    Actions wait until :meth:`mounted`: a change of a figure may overtake the figure itself, and
    would then be lost.
    """

    def __init__(self, visit: Session):
        super().__init__(visit.run, visit.document, visit.executor)
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] | None = []
        visit.on_close(self.close)

    def call_soon(self, action: Callable[[], None]) -> None:
        """As for any session, but not before the browser has the room."""
        with self._lock:
            if self._waiting is not None and self.document is not None:
                self._waiting.append(action)
                return
        super().call_soon(action)

    def mounted(self) -> None:
        """The browser has the room."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        for action in waiting or ():
            super().call_soon(action)


class Updater:
    """Computes in a thread and shows the result; made by :meth:`Session.updater`.

    While one computation runs, newer arguments replace each other, and the last of them is
    computed next. So the positions of a drag never form a queue.
    """

    def __init__(
        self,
        session: Session,
        compute: Callable[..., Any],
        show: Callable[[Any], None],
        on_error: Callable[[Exception], None] | None,
    ):
        self._session, self._compute, self._show = session, compute, show
        self._on_error = on_error or _log_error
        self._lock = threading.Lock()
        self._next: tuple[Any, ...] | None = None
        self._busy = False

    def __call__(self, *arguments: Any) -> None:
        """Compute with these arguments, unless newer ones come before their turn."""
        if self._session.document is None:
            self._finish(*self._run(arguments))
            return
        with self._lock:
            self._next = arguments
            if self._busy or self._session.closed:
                return
            self._busy = True
        self._session.executor.submit(self._work)

    def _work(self) -> None:
        with self._lock:
            arguments, self._next = self._next, None
        assert arguments is not None
        outcome = self._run(arguments)
        self._session.call_soon(partial(self._deliver, *outcome))

    def _run(self, arguments: tuple[Any, ...]) -> tuple[Any, Exception | None]:
        try:
            return self._compute(*arguments), None
        except Exception as error:
            return None, error

    def _deliver(self, result: Any, error: Exception | None) -> None:
        try:
            self._finish(result, error)
        finally:
            with self._lock:
                self._busy = self._next is not None and not self._session.closed
                again = self._busy
            if again:
                self._session.executor.submit(self._work)

    def _finish(self, result: Any, error: Exception | None) -> None:
        if error is None:
            self._show(result)
        else:
            self._on_error(error)


def _log_error(error: Exception) -> None:
    log.error("a figure of the lab could not be computed", exc_info=error)
