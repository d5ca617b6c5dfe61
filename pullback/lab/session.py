"""What one visitor has: nothing in it is shared with another."""

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
    """One visit: the options, the document, and a way to compute without making others wait.

    Args:
        run: the folder of runs that the lab was pointed at, or None.
        document: the visitor's Bokeh document; None computes at once, for tests and exports.
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
        self._endings: list[Callable[[], None]] = []

    def live(
        self,
        compute: Callable[..., Any],
        show: Callable[[Any], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> "Live":
        """Join a computation to what shows its result; see :class:`Live`.

        Args:
            compute: a pure function of what the live function is called with; runs in a thread
                and must not touch a widget or a figure.
            show: gets the result, and may touch the session's widgets and figures.
            failed: gets what ``compute`` raised; by default it goes to the log.

        Returns:
            A function that takes the arguments of ``compute`` and returns at once.
        """
        return Live(self, compute, show, failed)

    def later(self, action: Callable[[], None]) -> None:
        """Run ``action`` when the document may be changed, from any thread; not once closed."""
        if self.document is None:
            action()
        elif not self.closed:
            self.document.add_next_tick_callback(action)

    def every(self, milliseconds: int, action: Callable[[], None]) -> Callable[[], None]:
        """Run ``action`` again and again until the function returned here is called."""
        if self.document is None:
            return lambda: None
        document = self.document
        callback = document.add_periodic_callback(action, milliseconds)

        def stop() -> None:
            if callback in document.session_callbacks:
                document.remove_periodic_callback(callback)

        return stop

    def on_close(self, action: Callable[[], None]) -> None:
        """Run ``action`` when the visitor has gone."""
        self._endings.append(action)

    def close(self) -> None:
        """The visitor has gone: computations under way are not shown any more."""
        self.closed = True
        for action in self._endings:
            action()

    def for_room(self) -> "RoomSession":
        """The same visit, for a room that the browser does not have yet."""
        return RoomSession(self)


class RoomSession(Session):
    """A visit whose room is on its way to the browser.

    What would be shown before the browser has the room waits until :meth:`arrived`: a change of a
    figure may overtake the figure itself, and would then be lost.
    """

    def __init__(self, visit: Session):
        super().__init__(visit.run, visit.document, visit.executor)
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], None]] | None = []
        visit.on_close(self.close)

    def later(self, action: Callable[[], None]) -> None:
        """As for any session, but not before the room has arrived."""
        with self._lock:
            if self._waiting is not None and self.document is not None:
                self._waiting.append(action)
                return
        super().later(action)

    def arrived(self) -> None:
        """The browser has the room."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        for action in waiting or ():
            super().later(action)


class Live:
    """A computation that keeps up: only the latest arguments count.

    While one computation runs, newer arguments replace each other, and the last of them is
    computed next. So a drag never queues up behind itself.
    """

    def __init__(
        self,
        session: Session,
        compute: Callable[..., Any],
        show: Callable[[Any], None],
        failed: Callable[[Exception], None] | None,
    ):
        self._session, self._compute, self._show = session, compute, show
        self._failed = failed or _log_failure
        self._lock = threading.Lock()
        self._next: tuple[Any, ...] | None = None
        self._busy = False

    def __call__(self, *arguments: Any) -> None:
        """Compute with these arguments, or with newer ones if they come before."""
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
        self._session.later(partial(self._deliver, *outcome))

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
            self._failed(error)


def _log_failure(error: Exception) -> None:
    log.error("a figure of the lab could not be computed", exc_info=error)
