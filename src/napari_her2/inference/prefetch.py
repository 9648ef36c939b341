"""An iterator that works ahead in a thread, so that reading and computing overlap."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")


class _Finished:
    """The end of the iterator; with an error where it failed."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Ahead(Generic[T]):
    def __init__(self, source: Iterator[T], depth: int) -> None:
        self._source = source
        self._items: queue.Queue[T | _Finished] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="napari-her2 prefetch", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._items.get()
            if isinstance(item, _Finished):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def close(self) -> None:
        """Stop within one item, and wait for it: the source is closed and its files are free."""
        self._stop.set()
        # The thread may wait for room in the queue: it looks at the stop whenever room appears.
        while self._thread.is_alive():
            try:
                self._items.get(timeout=0.01)
            except queue.Empty:
                continue

    def _work(self) -> None:
        error: BaseException | None = None
        try:
            for item in self._source:
                self._items.put(item)
                if self._stop.is_set():
                    break
        except BaseException as caught:  # noqa: BLE001 - handed over to the thread that consumes
            error = caught
        finally:
            # A generator may only be closed where it does not run, so its own thread does it.
            close = getattr(self._source, "close", None)
            if close is not None:
                close()
            self._items.put(_Finished(error))


@contextmanager
def prefetched(source: Iterator[T], depth: int = 2) -> Iterator[Iterator[T]]:
    """Run an iterator in a thread, at most ``depth`` items ahead.

    Parameters
    ----------
    source : iterator
        Closed when the context is left, at the latest after the item it is working on.
    depth : int

    Yields
    ------
    iterator
        The same items in the same order; an error of the source is raised here.
    """
    ahead = _Ahead(source, depth)
    try:
        yield iter(ahead)
    finally:
        ahead.close()
