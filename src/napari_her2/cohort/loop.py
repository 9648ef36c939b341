"""The event loop over which a cluster is spoken to, started with patience.

dask.distributed starts one by itself, and fails where that takes more than ten seconds, as it may on a busy
machine.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tornado.ioloop import IOLoop


@contextmanager
def running_loop(patience_s: float) -> Iterator[IOLoop]:
    """Run an event loop in a thread of its own.

    Parameters
    ----------
    patience_s : float
        For its start, and for its end.

    Yields
    ------
    IOLoop

    Raises
    ------
    TimeoutError
        If it does not start in time.
    """
    from tornado.ioloop import IOLoop

    started: Future[tuple[IOLoop, asyncio.Event]] = Future()

    async def run() -> None:
        stop = asyncio.Event()
        started.set_result((IOLoop.current(), stop))
        await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="cluster loop", daemon=True)
    thread.start()
    loop, stop = started.result(timeout=patience_s)
    try:
        yield loop
    finally:
        loop.add_callback(stop.set)
        thread.join(patience_s)
