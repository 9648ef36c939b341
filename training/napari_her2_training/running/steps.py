"""Runs what cannot yield (a Lightning fit) in a thread, and yields its progress."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from napari_her2.steps import Progress

T = TypeVar("T")
_DONE = object()


class Cancelled(Exception):
    """Raised inside the work, from its own report, once nobody listens any more."""


def in_thread(work: Callable[[Callable[[Progress], None]], T]) -> Generator[Progress, None, T]:
    """Run work in a thread and yield what it reports.

    Parameters
    ----------
    work : callable
        Takes ``report``, which it calls with a Progress often: that is where it is cancelled.

    Returns
    -------
    object
        What the work returned. What it raised is raised here.
    """
    reports: queue.SimpleQueue[object] = queue.SimpleQueue()
    gone = threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def report(progress: Progress) -> None:
        if gone.is_set():
            raise Cancelled
        reports.put(progress)

    def run() -> None:
        try:
            results.append(work(report))
        except BaseException as error:  # noqa: BLE001 - handed over whole to the consumer
            failures.append(error)
        finally:
            reports.put(_DONE)

    thread = threading.Thread(target=run, name="napari-her2 training", daemon=True)
    thread.start()
    try:
        while (item := reports.get()) is not _DONE:
            yield item  # type: ignore[misc]
    finally:
        gone.set()
        thread.join()
    if failures:
        raise failures[0]
    return results[0]
