"""Long work, one piece at a time, in a thread."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pullback.lab.session import Session

# Of its own, so that a training neither waits for a drag nor holds one up; of one thread, so that
# the second visitor who asks for a training finds the first one's result in the cache.
_executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-long")

Progress = Callable[..., None]
"""Called again and again by long work; raises :class:`VisitorLeft` to end it."""


class VisitorLeft(Exception):
    """Ends long work whose visitor has closed the page."""


def run_in_background(
    session: Session,
    job: Callable[[Progress], Any],
    *,
    on_progress: Callable[..., None],
    on_done: Callable[[Any], None],
    on_error: Callable[[Exception], None],
) -> None:
    """Start long work for a visitor.

    Args:
        session: the visitor's; it must have a document.
        job: ``job(progress) -> result``, run in a thread. ``progress(...)`` raises
            :class:`VisitorLeft` once the visitor has left.
        on_progress: gets the arguments of ``progress``, and may change figures and widgets.
        on_done: gets the result, likewise.
        on_error: gets what the job raised, likewise.
    """

    def progress(*arguments: Any) -> None:
        if session.closed:
            raise VisitorLeft
        session.call_soon(partial(on_progress, *arguments))

    def run() -> None:
        try:
            if not session.closed:
                result = job(progress)
                session.call_soon(partial(on_done, result))
        except VisitorLeft:
            return
        except Exception as error:
            session.call_soon(partial(on_error, error))

    _executor.submit(run)
